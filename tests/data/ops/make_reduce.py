#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes reduce.inc beside this file: NumPy's answers for reductions of views. Run it with NumPy installed; the result is committed.

A line:  operation dtype seed shape strides offset axes answer...
The view lies in 400 elements whose values both sides compute from their index and the seed (value() here, test::reduce_value in C++).
Every shape has rank 4; axes are comma separated or "-" for all. Answers: integers, or floats as C hexadecimal; a sum or mean of floats is
the correctly rounded one of math.fsum, for a bound. Refusals are "X".
"""
import math
import pathlib
import random

import numpy as np

SIZE = 400
DTYPES = {"f64": np.float64, "f32": np.float32, "f16": np.float16, "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64, "u8": np.uint8, "bool": np.bool_}
OPS = ["sum", "mean", "max", "min", "argmax", "argmin", "any_true", "all_true", "count_nonzero"]


def value(i, seed, dtype):
    v = ((i * 2654435761 + seed * 40503) % 2**32) >> 16
    if dtype == "bool":
        return v % 3 != 0
    if dtype == "u8":
        return v % 256
    if dtype == "i8":
        return v % 256 - 128
    if dtype == "i16":
        return v - 32768
    if dtype == "i32":
        return (v - 32768) * 60000
    if dtype == "i64":
        return (v - 32768) * 2**40
    if seed % 5 == 0 and i % 53 == 11:
        return math.nan
    if seed % 3 == 0:
        return float(v % 7 - 3)  # many ties and zeros
    return (v % 2048 - 1024) / 64 if dtype == "f16" else (v - 32768) / 1024


def text(x):
    if isinstance(x, (bool, np.bool_)):
        return str(int(x))
    if isinstance(x, (int, np.integer)):
        return str(int(x))
    x = float(x)
    return "nan" if math.isnan(x) else x.hex()


def exact(op, view, axes):
    """sum or mean of floats, each result from the exact sum."""
    moved = np.moveaxis(view, axes, range(-len(axes), 0)) if axes else view
    kept = moved.shape[: view.ndim - len(axes)]
    n = int(np.prod(moved.shape[view.ndim - len(axes):], dtype=np.int64))
    flat = moved.reshape(-1, n) if n else np.zeros((int(np.prod(kept)), 0))
    results = []
    for row in flat:
        s = math.fsum(float(x) for x in row) if not np.isnan(row).any() else math.nan
        results.append(s if op == "sum" else (s / n if n else math.nan))
    return results


def main():
    rng = random.Random(20)
    lines = []
    while len(lines) < 2600:
        rank = rng.randint(0, 4)
        extents = [rng.choice([0, 1, 1, 2, 3, 5, 9, 20]) if rng.random() < 0.3 else rng.choice([1, 2, 3, 4, 7]) for _ in range(rank)]
        if math.prod(extents) > SIZE // 2:
            continue
        order = list(range(rank))
        rng.shuffle(order)
        strides, step, low = [0] * rank, rng.choice([1, 1, 1, 2]), 0
        for axis in order if rng.random() < 0.5 else range(rank - 1, -1, -1):
            strides[axis] = step
            step *= max(1, extents[axis]) + rng.choice([0, 0, 0, 1])
        if step > SIZE:
            continue
        for axis in range(rank):
            if rng.random() < 0.15:
                strides[axis] = 0
            elif rng.random() < 0.2:
                strides[axis] = -strides[axis]
            if strides[axis] < 0:
                low += -strides[axis] * max(0, extents[axis] - 1)
        offset = low + rng.randint(0, SIZE - step)
        name = rng.choice(list(DTYPES))
        op = rng.choice(OPS)
        seed = rng.randint(0, 1000)
        dtype = DTYPES[name]
        memory = np.array([value(i, seed, name) for i in range(SIZE)]).astype(dtype)
        view = np.lib.stride_tricks.as_strided(memory[offset:], extents, [s * memory.itemsize for s in strides])
        view = view[(None,) * (4 - rank)]
        if rng.random() < 0.3:
            axes = None
        elif op in ("argmax", "argmin"):
            axes = [rng.randint(-4, 3)]
        else:
            axes = rng.sample(range(4), rng.randint(1, 3))
            axes = [a if rng.random() < 0.5 else a - 4 for a in axes]
        where = None if axes is None else (axes[0] if op.startswith("arg") else tuple(axes))
        try:
            with np.errstate(all="ignore"):
                if op in ("sum", "mean") and name.startswith("f"):
                    answer = exact(op, view, list(range(4)) if axes is None else axes)
                else:
                    f = {"any_true": np.any, "all_true": np.all}.get(op) or getattr(np, op)
                    if op == "mean" and view.size == 0:
                        r = np.full([e for i, e in enumerate(view.shape) if axes is not None and i not in [a % 4 for a in axes]], np.nan)
                    else:
                        r = f(view, axis=where)
                    answer = list(np.asarray(r).ravel())
        except ValueError:
            answer = None
        join = lambda v: ",".join(map(str, v)) or "-"
        shown = "X" if answer is None else " ".join(map(text, answer)) or "-"
        lines.append(f"{op} {name} {seed} {join(view.shape)} {join(s // memory.itemsize for s in view.strides)} {offset} {'-' if axes is None else join(axes)} {shown}")
    out = pathlib.Path(__file__).with_name("reduce.inc")
    with out.open("w") as f:  # a string literal a line: compilers limit the length of one
        for line in lines:
            f.write(f'"{line}\\n",\n')
    print(len(lines), "cases,", out.stat().st_size, "bytes")


main()
