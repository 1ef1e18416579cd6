# SPDX-License-Identifier: Apache-2.0
"""Make cases.inc: what NumPy answers to random slices, reshapes and broadcasts.

    pip install numpy==2.4.6
    python make.py [outdir]        (default: the folder of this file)

The C++ tests include the file as strings and replay it. Each line is a case;
fields are parted by blanks, numbers by commas, and `-` stands for an empty list.
Strides count elements.

    S shape strides items -> shape strides offset      a slice
    R shape strides shape -> strides                   a reshape without a copy
    B shape strides shape -> strides                   a broadcast

`X` alone behind the arrow is a refusal. Items of a slice: `i3` an index,
`r1:_:2` a strict range, `c1:_:2` a clamped one (`_` an omitted bound), `a` a
whole axis, `n` a new axis, `e` an ellipsis; NumPy's answer to a strict range
with a bound outside [-n, n] is replaced by a refusal, which is this library's
rule. The offset of a result without elements is written as 0.
"""

import sys
from pathlib import Path

import numpy as np

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from draw import Draw, address, element_strides, joined

if not hasattr(np.lib, "NumpyVersion") or np.lib.NumpyVersion(np.__version__) < "2.1.0":
    sys.exit("NumPy >= 2.1 is needed: reshape(copy=False)")


def counted(shape):
    return np.arange(int(np.prod(shape)), dtype=np.int32).reshape(shape)


def base_array(draw, rank, longest):
    """An array of int32 in C, F, permuted, stepped or reversed order."""
    shape = [draw.between(0 if draw.chance(10) else 1, longest) for _ in range(rank)]
    kind = draw.below(5)
    if kind == 1:
        a = np.empty(shape, dtype=np.int32, order="F")
        a.transpose()[...] = counted(shape[::-1])
        return a
    order = list(range(rank))
    if kind >= 2:
        for i in range(rank - 1, 0, -1):
            j = draw.below(i + 1)
            order[i], order[j] = order[j], order[i]
    steps = [draw.one_of([1, 1, 2, -1, -2]) if kind >= 3 else 1 for _ in range(rank)]
    full = [max(1, n) * abs(s) for n, s in zip(shape, steps)]
    a = counted([full[i] for i in order])
    a = a.transpose([order.index(i) for i in range(rank)])
    a = a[tuple(slice(None, None, s) for s in steps)]
    return a[tuple(slice(0, n) for n in shape)]


def slice_case(draw):
    rank = draw.between(1, 4)
    a = base_array(draw, rank, 6)
    consuming = rank - draw.one_of([0, 0, 0, 1, 1, rank])
    items = []
    index = []
    refused = False
    axis = 0
    kinds = ["axis"] * consuming
    for word in ("n", "e"):
        if draw.chance(25):
            kinds.insert(draw.below(len(kinds) + 1), word)
    for kind in kinds:
        if kind == "n":
            items.append("n")
            index.append(None)
            continue
        if kind == "e":
            items.append("e")
            index.append(Ellipsis)
            axis += rank - consuming
            continue
        n = a.shape[axis]
        word = draw.one_of("irrrrcca")
        if word == "a":
            items.append("a")
            index.append(slice(None))
        elif word == "i":
            value = draw.between(-n - (1 if draw.chance(15) else 0), n - (0 if draw.chance(15) or n == 0 else 1))
            items.append(f"i{value}")
            index.append(value)
        else:
            margin = 3 if word == "c" else (1 if draw.chance(12) else 0)
            bounds = [None if draw.chance(25) else draw.between(-n - margin, n + margin) for _ in range(2)]
            step = None if draw.chance(30) else draw.one_of([1, 2, 3, 7, -1, -1, -2, -3, -7, 0 if draw.chance(5) else 1])
            if word == "r" and any(b is not None and not -n <= b <= n for b in bounds):
                refused = True
            items.append(word + ":".join("_" if b is None else str(b) for b in (*bounds, step)))
            index.append(slice(*bounds, step))
        axis += 1
    head = f"S {joined(a.shape)} {joined(element_strides(a))} {joined(items)} ->"
    try:
        b = a[tuple(index)] if index else a
    except (IndexError, ValueError):
        return f"{head} X"
    if refused:
        return f"{head} X"
    b = np.asarray(b) if np.isscalar(b) else b
    if isinstance(b, np.ndarray) and b.ndim == 0 and b.base is None:
        # All axes indexed: NumPy gives a copy. The same element as a view:
        b = a[(*index, Ellipsis)] if Ellipsis not in index else a[tuple(index)]
    offset = address(b) - address(a) if b.size else 0
    return f"{head} {joined(b.shape)} {joined(element_strides(b))} {offset}"


def factors_shape(draw, size):
    """A random shape of this size, with some ones."""
    shape = []
    rest = size
    while rest > 1 and len(shape) < 3 and draw.chance(75):
        divisors = [d for d in range(2, rest + 1) if rest % d == 0]
        d = draw.one_of(divisors)
        shape.append(d)
        rest //= d
    if rest != 1 or not shape:
        shape.append(rest)
    while len(shape) < 4 and draw.chance(30):
        shape.insert(draw.below(len(shape) + 1), 1)
    return shape


def reshape_case(draw):
    a = base_array(draw, draw.between(1, 4), 4)
    shape = factors_shape(draw, a.size) if a.size else [0, 3][: draw.between(1, 2)]
    if draw.chance(5):
        shape[0] += 1
    if draw.chance(20):
        shape[draw.below(len(shape))] = -1
    head = f"R {joined(a.shape)} {joined(element_strides(a))} {joined(shape)} ->"
    try:
        b = a.reshape(shape, copy=False)
    except ValueError:
        return f"{head} X"
    return f"{head} {joined(element_strides(b))}"


def broadcast_case(draw):
    a = base_array(draw, draw.between(0, 3), 3)
    shape = [draw.between(1, 4) if n == 1 else n + (1 if draw.chance(7) else 0) for n in a.shape]
    shape = [draw.between(0, 3) for _ in range(draw.below(3))] + shape
    head = f"B {joined(a.shape)} {joined(element_strides(a))} {joined(shape)} ->"
    try:
        b = np.broadcast_to(a, shape)
    except ValueError:
        return f"{head} X"
    return f"{head} {joined(element_strides(b))}"


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    out.mkdir(parents=True, exist_ok=True)
    lines = [slice_case(Draw(f"slice {i}")) for i in range(2000)]
    lines += [reshape_case(Draw(f"reshape {i}")) for i in range(600)]
    lines += [broadcast_case(Draw(f"broadcast {i}")) for i in range(250)]
    text = "// SPDX-License-Identifier: Apache-2.0\n// Written by make.py beside it; strings for an array.\n"
    # Compilers need not take a string literal of more than 65,536 characters.
    for i in range(0, len(lines), 500):
        text += 'R"cases(\n' + "\n".join(lines[i : i + 500]) + '\n)cases",\n'
    (out / "cases.inc").write_text(text)


if __name__ == "__main__":
    main()
