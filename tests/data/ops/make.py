# SPDX-License-Identifier: Apache-2.0
"""Make math.inc: what NumPy in float64, and math.erf, answer for the vector math of ops/.

    pip install numpy==2.4.6
    python make.py [outdir]        (default: the folder of this file)

The C++ tests include the file as strings and replay it. Each line is a case; fields are parted by blanks, numbers by commas.

    gelu|gelu_tanh|silu|softmax|log_softmax|layer_norm|rms_norm shape axis input weight bias -> values

Inputs are integers in eighths (`-` where there is none, `i` and `n` for -infinity and NaN), so that float16, bfloat16, float32 and float64
hold them exactly; values are decimal with 17 digits, in C order, except that `n` is NaN. eps is 2**-10 in every norm. The generator is
a counter hashed with SHA-256: every version of Python and NumPy draws the same inputs.
"""

import hashlib
import math
import sys
from pathlib import Path

import numpy as np

EPS = 2.0**-10


class Draw:
    """Random integers that depend on nothing but the seed."""

    def __init__(self, seed):
        self.seed = seed
        self.count = 0

    def below(self, n):
        self.count += 1
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{self.count}".encode()).digest()[:8], "big") % n


def erf(x):
    return np.vectorize(math.erf, otypes=[float])(x)


def erfc(x):
    return np.vectorize(math.erfc, otypes=[float])(x)


def answer(op, x, axis, w, b):
    if x.size == 0:
        return x
    with np.errstate(invalid="ignore", divide="ignore"):
        if op == "gelu":
            return x * 0.5 * erfc(-x / math.sqrt(2))
        if op == "gelu_tanh":
            return x / (1 + np.exp(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        if op == "silu":
            return x / (1 + np.exp(-x))
        if op in ("softmax", "log_softmax"):
            m = x.max(axis=axis, keepdims=True)
            e = np.exp(x - m)
            s = e.sum(axis=axis, keepdims=True)
            return e / s if op == "softmax" else x - m - np.log(s)
        if op == "layer_norm":
            return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPS) * w + b
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * w


def number(v):
    return "n" if math.isnan(v) else "i" if v == -math.inf else repr(float(v))


def main():
    draw = Draw("lora ops")
    lines = []

    def case(op, shape, axis, span=64, masked=0, nan=False):
        size = math.prod(shape)
        step = 8 if span > 128 else 1  # bfloat16 has 8 bits
        text = [str((draw.below(2 * span // step + 1) - span // step) * step) for _ in range(size)]
        for k in range(size):
            if masked and draw.below(masked) == 0:
                text[k] = "i"
        if nan:
            text[draw.below(size)] = "n"
        x = np.array([-math.inf if t == "i" else math.nan if t == "n" else int(t) / 8 for t in text]).reshape(shape)
        w = b = np.zeros(0)
        if op.endswith("norm"):
            w = np.array([(draw.below(33) - 16) / 8 for _ in range(shape[-1])])
            b = np.array([(draw.below(33) - 16) / 8 for _ in range(shape[-1])])
        values = answer(op, x, axis, w, b).reshape(-1)
        eighths = lambda a: ",".join(str(int(v * 8)) for v in a) or "-"
        fields = [op, ",".join(map(str, shape)), str(axis), ",".join(text) or "-", eighths(w), eighths(b), "->", ",".join(map(number, values)) or "-"]
        lines.append(" ".join(fields))

    for op in ("gelu", "gelu_tanh", "silu"):
        case(op, (97,), 0, 100)
        case(op, (3, 5, 2), 0, 40)
    for op in ("softmax", "log_softmax"):
        for shape in ((1,), (7,), (33,), (3, 5), (5, 1), (1, 5), (17, 6), (4, 19), (2, 3, 4), (3, 2, 9), (2, 3, 2, 5), (0, 3), (3, 0)):
            for axis in range(-1, len(shape) - 1):
                case(op, shape, axis)
        for shape, axis in (((6, 9), 1), ((6, 9), 0), ((2, 3, 4), 1)):
            case(op, shape, axis, masked=2)  # some lines are masked as a whole
            case(op, shape, axis, masked=6, nan=True)
        case(op, (5, 11), 1, span=800)
    for op in ("layer_norm", "rms_norm"):
        for shape in ((1,), (2,), (33,), (4, 17), (3, 1), (0, 4), (3, 0), (2, 3, 16), (2, 2, 3, 5)):
            case(op, shape, -1)
        case(op, (3, 20), -1, span=0)
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent, "math.inc")
    with out.open("w", encoding="ascii", newline="\n") as f:
        for line in lines:
            f.write('R"(' + line + '\n)",\n')
    print(f"{len(lines)} cases")


main()
