# SPDX-License-Identifier: Apache-2.0
"""Make cases.inc and print.inc: NumPy's answers to the operations that turn views into views, and its text for arrays.

    pip install numpy==2.4.6
    python make.py [outdir]        (default: the folder of this file)

The C++ tests include the files as strings and replay them. In cases.inc each line is a case; fields are parted by blanks, numbers
by commas, and `-` stands for an empty list. Strides and offsets count elements. Behind the arrow stand shape, strides and offset of the
result, or of each result; `X` alone is a refusal.

    W shape strides i,j                  swapaxes
    M shape strides from,to              moveaxis
    F shape strides axes                 flip (`*`: all axes)
    D shape strides offset,axis1,axis2   diagonal
    Q shape strides axis                 squeeze
    E shape strides axis                 expand_dims
    T shape strides parts,axis           split
    H shape strides parts,axis           array_split
    A shape strides places/axis          split at places; places outside the axis are refused here, cut by NumPy
    G shape strides windows/axes         sliding_window_view; a window of 0 is refused here, not by NumPy
    K shape strides                      empty_like(order="K"): strides only
    C shape/shape/...                    broadcast_shapes: shape only
    J shape/shape/... axis               concatenate: shape only
    S shape/shape/... axis               stack: shape only

print.inc has two kinds of lines.

    P dtype style precision threshold edgeitems linewidth suppress sign floatmode layout shape table|text

`style` is str or repr, `sign` one of - + s (blank), `layout` one of C F r (reversed) s (every second), `table` a list of bit patterns in
hexadecimal: element i, in logical order, is table[i mod length]. In the text, ~ is a line break.

    N dtype floatmode how seed count hashes

The texts of `count` arrays of one element, in blocks of 4096; of each block the FNV-1a hash of the texts, each followed by a line break.
The bit patterns are 0, 1, 2, ... for float16, and those of splitmix64 from `seed` for the others. `how` is array, or scalar for str() of
an array without axes.
"""

import sys
from pathlib import Path

import numpy as np

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from draw import Draw, address, element_strides, joined

if not hasattr(np.lib, "NumpyVersion") or np.lib.NumpyVersion(np.__version__) < "2.4.0":
    sys.exit("NumPy >= 2.4 is needed: its rules for scientific notation are those that nd/print.hpp follows")


def base_array(draw, rank, longest, shape=None):
    """An array of int32 in C, F, permuted, stepped or reversed order."""
    shape = shape or [draw.between(0 if draw.chance(8) else 1, longest) for _ in range(rank)]
    kind = draw.below(5)
    if kind == 1 or rank == 0:
        return np.zeros(shape, dtype=np.int32, order="F")
    order = list(range(rank))
    if kind >= 2:
        for i in range(rank - 1, 0, -1):
            j = draw.below(i + 1)
            order[i], order[j] = order[j], order[i]
    steps = [draw.one_of([1, 1, 2, -1, -2]) if kind >= 3 else 1 for _ in range(rank)]
    full = [max(1, n) * abs(s) for n, s in zip(shape, steps)]
    a = np.zeros([full[i] for i in order], dtype=np.int32)
    a = a.transpose([order.index(i) for i in range(rank)])
    a = a[tuple(slice(None, None, s) for s in steps)]
    return a[tuple(slice(0, n) for n in shape)]


def head(kind, a, argument):
    return f"{kind} {joined(a.shape)} {joined(element_strides(a))} {argument} ->"


def answers(a, results):
    text = ""
    for b in results:
        offset = address(b) - address(a) if b.size else 0
        text += f" {joined(b.shape)} {joined(element_strides(b))} {offset}"
    return text


def ask(line, a, question):
    try:
        results = question()
    except (ValueError, IndexError):
        return f"{line} X"
    return line + answers(a, results if isinstance(results, list) else [results])


def axis_of(draw, rank):
    margin = 1 if draw.chance(8) else 0
    return draw.between(-rank - margin, rank - 1 + margin)


def swap_case(draw):
    rank = draw.between(1, 4)
    a = base_array(draw, rank, 5)
    i, j = axis_of(draw, rank), axis_of(draw, rank)
    return ask(head("W", a, f"{i},{j}"), a, lambda: np.swapaxes(a, i, j))


def move_case(draw):
    rank = draw.between(1, 4)
    a = base_array(draw, rank, 5)
    i, j = axis_of(draw, rank), axis_of(draw, rank)
    return ask(head("M", a, f"{i},{j}"), a, lambda: np.moveaxis(a, i, j))


def flip_case(draw):
    rank = draw.between(1, 4)
    a = base_array(draw, rank, 5)
    if draw.chance(15):
        return ask(head("F", a, "*"), a, lambda: np.flip(a))
    axes = tuple(axis_of(draw, rank) for _ in range(draw.between(1, min(rank, 3))))
    return ask(head("F", a, joined(axes)), a, lambda: np.flip(a, axes))


def diagonal_case(draw):
    rank = draw.between(2, 4)
    a = base_array(draw, rank, 5)
    offset = draw.between(-7, 7) if draw.chance(60) else 0
    i, j = axis_of(draw, rank), axis_of(draw, rank)
    return ask(head("D", a, f"{offset},{i},{j}"), a, lambda: np.diagonal(a, offset, i, j))


def squeeze_case(draw):
    rank = draw.between(1, 4)
    shape = [draw.one_of([1, 1, 1, 2, 3, 0]) for _ in range(rank)]
    a = base_array(draw, rank, 5, shape)
    i = axis_of(draw, rank)
    return ask(head("Q", a, i), a, lambda: np.squeeze(a, i))


def expand_case(draw):
    rank = draw.between(0, 4)
    a = base_array(draw, rank, 5)
    i = axis_of(draw, rank + 1)
    return ask(head("E", a, i), a, lambda: np.expand_dims(a, i))


def split_case(draw, kind):
    rank = draw.between(1, 4)
    a = base_array(draw, rank, 6)
    parts, i = draw.between(0 if draw.chance(8) else 1, 7 if kind == "H" else 4), axis_of(draw, rank)
    question = np.split if kind == "T" else np.array_split

    def asked():
        if not -rank <= i < rank:
            raise IndexError  # NumPy lets some of these through Python's own tuple indexing
        if parts < 1:
            raise ValueError
        return question(a, parts, i)

    return ask(head(kind, a, f"{parts},{i}"), a, asked)


def split_at_case(draw):
    rank = draw.between(1, 4)
    a = base_array(draw, rank, 6)
    i = draw.between(-rank, rank - 1)
    n = a.shape[i]
    margin = 1 if draw.chance(10) else 0
    places = [draw.between(-n - margin, n + margin) for _ in range(draw.between(1, 3))]
    if draw.chance(70):
        places.sort()
    line = head("A", a, f"{joined(places)}/{i}")
    if any(not -n <= p <= n for p in places):
        return f"{line} X"
    return ask(line, a, lambda: [a[(slice(None),) * (i % rank) + (slice(s, e),)] for s, e in zip([None, *places], [*places, None])])


def window_case(draw):
    rank = draw.between(1, 3)
    a = base_array(draw, rank, 6)
    axes = [draw.between(-rank, rank - 1) for _ in range(draw.between(1, 2))]
    windows = [draw.between(0 if draw.chance(8) else 1, max(1, a.shape[i] // 2 + 1)) for i in axes]
    line = head("G", a, f"{joined(windows)}/{joined(axes)}")
    if 0 in windows:
        return f"{line} X"
    return ask(line, a, lambda: np.lib.stride_tricks.sliding_window_view(a, windows, axes))


def like_case(draw):
    rank = draw.between(0, 4)
    a = base_array(draw, rank, 4)
    if draw.chance(20) and rank:
        shape = [n if n != 1 else draw.between(1, 3) for n in a.shape]
        a = np.broadcast_to(a, [draw.between(1, 3), *shape][-4:] if rank < 4 else shape)
    if draw.chance(25):
        a = a[(Ellipsis, *([None] if a.ndim < 4 else []))]
    return f"{head('K', a, '-')} {joined(element_strides(np.empty_like(a, order='K')))}"


def shapes_case(draw):
    result = [draw.between(1, 4) for _ in range(draw.between(0, 4))]
    shapes = []
    for _ in range(draw.between(1, 3)):
        tail = result[draw.below(len(result) + 1) :]
        shapes.append([1 if draw.chance(30) else n + (1 if draw.chance(5) else 0) for n in tail])
    line = "C " + "/".join(joined(s) for s in shapes) + " - - ->"
    try:
        return f"{line} {joined(np.broadcast_shapes(*[tuple(s) for s in shapes]))}"
    except ValueError:
        return f"{line} X"


def join_case(draw, kind):
    rank = draw.between(1, 3)
    shape = [draw.between(0 if draw.chance(8) else 1, 4) for _ in range(rank)]
    i = axis_of(draw, rank + (kind == "S"))
    shapes = []
    for _ in range(draw.between(1, 3)):
        mine = list(shape)
        if kind == "J" and -rank <= i < rank:
            mine[i] = draw.between(0, 4)
        if draw.chance(8):
            mine[draw.below(rank)] += 1
        shapes.append(mine)
    line = f"{kind} {'/'.join(joined(s) for s in shapes)} - {i} ->"
    try:
        result = (np.concatenate if kind == "J" else np.stack)([np.zeros(s) for s in shapes], axis=i)
        return f"{line} {joined(result.shape)}"
    except ValueError:
        return f"{line} X"


def random_floats(draw, dtype, count):
    """Values of one of several kinds, so that tables of every look come up."""
    kind = draw.below(9)
    values = []
    for _ in range(count):
        sign = -1.0 if draw.chance(30) else 1.0
        mantissa = draw.between(1, 99999999)
        if kind == 0:
            v = draw.between(-20, 20)
        elif kind == 1:
            v = sign * mantissa * 10.0 ** -draw.between(6, 9)
        elif kind == 2:
            v = sign * mantissa * 10.0 ** draw.between(-16, 4)
        elif kind == 3:
            v = sign * draw.between(0, 999) / 8
        elif kind == 4:
            v = sign * draw.between(1, 99) * 10.0 ** draw.between(-6, 0)
        elif kind == 5:
            v = draw.one_of([0.0, -0.0, 1.0, 0.5, 1e-8, 1e8, 99999999.0, 1e12, 1e-4, 9.9999e-5, 1000.0, 0.1, 1 / 3, 1e16, 5e-324, 65504.0])
        elif kind == 6:
            v = sign * draw.between(1, 9) * 10.0 ** draw.between(-8, 12)
        elif kind == 7:
            v = draw.between(0, 10**7) / 10**4
        else:
            v = sign * mantissa / 10**8
        values.append(v)
    if draw.chance(20):
        for _ in range(draw.between(1, 3)):
            values[draw.below(count)] = draw.one_of([np.nan, np.inf, -np.inf, np.nan])
    if draw.chance(2):
        values = [draw.one_of([np.nan, np.inf]) for _ in range(count)]
    with np.errstate(over="ignore", under="ignore"):
        return np.array(values, dtype=np.float64).astype(dtype)


def random_integers(draw, dtype, count):
    info = np.iinfo(dtype)
    limit = draw.one_of([9, 99, 1000, 10**5, 10**12, 2**63])
    values = []
    for _ in range(count):
        v = draw.below(limit + 1) * (-1 if draw.chance(25) else 1)
        values.append(min(max(v, info.min), info.max))
    return np.array(values, dtype=dtype)


def hexadecimal(a):
    return ",".join(f"{int(b):x}" for b in a.view({1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[a.itemsize]))


def print_case(draw):
    dtype = draw.one_of("f8 f8 f8 f4 f4 f4 f2 f2 b2 i8 i4 i2 i1 u1 u2 u4 u8 bo".split())
    numpy_dtype = {"bo": "?", "b2": "f4"}.get(dtype, dtype)
    rank = draw.one_of([0, 1, 1, 1, 2, 2, 2, 3, 3, 4])
    shape = [draw.between(1, 5 if rank > 1 else 14) for _ in range(rank)]
    if draw.chance(5) and rank:
        shape[draw.below(rank)] = 0
    threshold, edgeitems, linewidth = 1000, 3, 75
    if draw.chance(20) and rank:  # a summary
        shape = {1: [1234], 2: draw.one_of([[40, 30], [3, 400], [400, 3], [1100, 1]]), 3: draw.one_of([[11, 10, 10], [2, 2, 300], [300, 2, 2]]), 4: [6, 7, 8, 9]}[rank]
    elif draw.chance(30):
        threshold = draw.one_of([0, 3, 6, 10])
        edgeitems = draw.one_of([1, 1, 2, 3])
    if draw.chance(25):
        linewidth = draw.one_of([1, 10, 20, 40, 60, 120])
    precision = draw.one_of([8, 8, 8, 8, 3, 0, 1, 5, 17, 20])
    suppress = draw.chance(20)
    sign = draw.one_of("------+ ")
    floatmode = draw.one_of(["maxprec"] * 5 + ["maxprec_equal", "unique", "fixed"])
    style = draw.one_of(["str", "str", "repr"])
    layout = draw.one_of("CCFrs")
    count = draw.between(1, 24)
    if dtype == "bo":
        table = np.array([draw.below(2) for _ in range(count)], dtype="?")
    elif numpy_dtype[0] == "f":
        table = random_floats(draw, numpy_dtype, count)
    else:
        table = random_integers(draw, numpy_dtype, count)
    if dtype == "b2":  # the values of bfloat16, as float32: low halves cleared
        table = (table.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    size = int(np.prod(shape)) if shape else 1
    a = np.resize(table, size).reshape(shape) if size else np.zeros(shape, dtype=numpy_dtype)
    with np.printoptions(precision=precision, threshold=threshold, edgeitems=edgeitems, linewidth=linewidth, suppress=suppress, sign=sign, floatmode=floatmode):
        with np.errstate(all="ignore"):
            text = str(a) if style == "str" else repr(a)
    if dtype == "b2" and style == "repr":  # NumPy has no name for the type
        style = "str"
        with np.printoptions(precision=precision, threshold=threshold, edgeitems=edgeitems, linewidth=linewidth, suppress=suppress, sign=sign, floatmode=floatmode):
            text = str(a)
    assert "~" not in text and "|" not in text
    if len(text) > 800:
        return None
    options = f"{style} {precision} {threshold} {edgeitems} {linewidth} {int(suppress)} {'s' if sign == ' ' else sign} {floatmode}"
    return f"P {dtype} {options} {layout} {joined(shape)} {hexadecimal(table)}|" + text.replace("\n", "~")


def boundary_lines():
    """The numbers at which NumPy changes to scientific notation, and their neighbours."""
    lines = []
    for dtype, limits in (("f2", (1e3, 1e-4)), ("f4", (1e6, 1e-4)), ("f8", (1e8, 1e16, 1e-4))):
        for limit in limits:
            v = np.array([limit], dtype=dtype)
            for a in (v, np.nextafter(v, v.dtype.type(0)), np.nextafter(v, v.dtype.type(np.inf)), np.concatenate([v, v * v.dtype.type(1000)])):
                for style, b in (("str", a[0:1].reshape(())), ("str", a), ("repr", a)):
                    text = repr(b) if style == "repr" else str(b)
                    lines.append(f"P {dtype} {style} 8 1000 3 75 0 - maxprec C {joined(b.shape)} {hexadecimal(b.reshape(-1))}|{text}")
    return lines


def splitmix(seed, count):
    mask = 2**64 - 1
    state = seed
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield z ^ (z >> 31)


def fnv(text):
    h = 0xCBF29CE484222325
    for b in text.encode():
        h = ((h ^ b) * 0x100000001B3) & (2**64 - 1)
    return h


def numbers_line(dtype, floatmode, how, seed, count):
    if dtype == "f2":
        bits = np.arange(count, dtype=np.uint16)
    else:
        word = np.uint32 if dtype == "f4" else np.uint64
        bits = np.array([z & (2**32 - 1) if dtype == "f4" else z for z in splitmix(seed, count)], dtype=word)
    values = bits.view(dtype)
    hashes = []
    with np.printoptions(floatmode=floatmode):
        for first in range(0, count, 4096):
            block = values[first : first + 4096]
            texts = [str(v) for v in block] if how == "scalar" else [str(block[i : i + 1]) for i in range(len(block))]
            hashes.append(fnv("".join(t + "\n" for t in texts)))
    return f"N {dtype} {floatmode} {how} {seed} {count} " + ",".join(f"{h:x}" for h in hashes)


def write(path, lines):
    text = "// SPDX-License-Identifier: Apache-2.0\n// Written by make.py beside it; strings for an array.\n"
    part = []
    size = 0
    # Compilers need not take a string literal of more than 65,536 characters.
    for line in [*lines, None]:
        if line is None or size + len(line) > 30000:
            text += 'R"cases(\n' + "\n".join(part) + '\n)cases",\n'
            part, size = [], 0
        if line is not None:
            part.append(line)
            size += len(line) + 1
    path.write_text(text)


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    out.mkdir(parents=True, exist_ok=True)
    kinds = [
        ("swap", 150, swap_case),
        ("move", 200, move_case),
        ("flip", 250, flip_case),
        ("diagonal", 400, diagonal_case),
        ("squeeze", 200, squeeze_case),
        ("expand", 200, expand_case),
        ("split", 200, lambda d: split_case(d, "T")),
        ("chunk", 200, lambda d: split_case(d, "H")),
        ("places", 200, split_at_case),
        ("window", 300, window_case),
        ("like", 300, like_case),
        ("shapes", 250, shapes_case),
        ("concatenate", 150, lambda d: join_case(d, "J")),
        ("stack", 150, lambda d: join_case(d, "S")),
    ]
    write(out / "cases.inc", [case(Draw(f"{name} {i}")) for name, count, case in kinds for i in range(count)])
    lines = [line for i in range(900) if (line := print_case(Draw(f"print {i}")))]
    with np.errstate(over="ignore"):
        lines += boundary_lines()
    lines.append(numbers_line("f2", "maxprec", "array", 0, 65536))
    lines.append(numbers_line("f2", "unique", "scalar", 0, 65536))
    lines.append(numbers_line("f4", "unique", "array", 1, 16384))
    lines.append(numbers_line("f8", "unique", "array", 2, 16384))
    lines.append(numbers_line("f4", "maxprec", "array", 3, 8192))
    lines.append(numbers_line("f8", "fixed", "array", 4, 8192))
    lines.append(numbers_line("f8", "maxprec", "scalar", 5, 8192))
    lines.append(numbers_line("f4", "maxprec", "scalar", 6, 8192))
    write(out / "print.inc", lines)


main()
