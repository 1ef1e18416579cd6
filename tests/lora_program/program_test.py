# SPDX-License-Identifier: Apache-2.0
"""program_test.py LORA [TEST...]: runs the program over the fixtures of tests/data and a generated base, and compares what it writes with
doubles computed here. No library but Python's own. Ends with a trace where something differs."""
import json
import math
import os
import pathlib
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile

LORA = str(pathlib.Path(sys.argv[1]).resolve())
DATA = pathlib.Path("tests/data").resolve()
PEFT = DATA / "peft"
CASES = ["plain", "rslora", "pattern_regex_first", "pattern_specific_first", "f16", "bf16", "big_rank"]
U = 2.0**-24
checks = 0


def check(condition, *what):
    global checks
    checks += 1
    if not condition:
        raise AssertionError(" ".join(map(str, what)))


def run(*arguments, **options):
    return subprocess.run([LORA, *map(str, arguments)], capture_output=True, timeout=60, **options)


def good(*arguments):
    done = run(*arguments)
    check(done.returncode == 0 and done.stderr == b"", arguments, done.returncode, done.stderr)
    return done.stdout.decode()


def refused(*arguments, names=None, says=None, output=None):
    """Exit code 1, one line that begins with "error: " and names the file; nothing new at the output."""
    before = None if output is None or not os.path.isfile(output) else pathlib.Path(output).read_bytes()
    done = run(*arguments)
    text = done.stderr.decode()
    check(done.returncode == 1, arguments, done.returncode, text)
    check(text.startswith("error: ") and text.endswith("\n") and text.count("\n") == 1 and "'" in text, arguments, repr(text))
    check(all(c >= " " and c != "\x7f" for c in text[:-1]), "control characters", repr(text))
    if names is not None:
        check(str(names) in text, names, "is not named in", text)
    if says is not None:
        check(says in text, says, "is not in", text)
    if output is not None:
        check(os.path.exists(output) == (before is not None) and (before is None or pathlib.Path(output).read_bytes() == before), output, "changed")
        left = [f for f in os.listdir(os.path.dirname(output)) if ".tmp-" in f]
        check(not left, left)
    return text


def half(bits):
    return struct.unpack("<e", struct.pack("<H", bits))[0]


def brain(bits):
    return struct.unpack("<f", struct.pack("<I", bits << 16))[0]


WIDTH = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U8": 1, "F64": 8}


def numbers(dtype, raw):
    count = len(raw) // WIDTH[dtype]
    if dtype == "F32":
        return struct.unpack(f"<{count}f", raw)
    if dtype == "I64":
        return struct.unpack(f"<{count}q", raw)
    return [(half if dtype == "F16" else brain)(b) for b in struct.unpack(f"<{count}H", raw)]


def read(path):
    """name -> (dtype, shape, bytes)"""
    raw = pathlib.Path(path).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + size])
    return {n: (e["dtype"], e["shape"], raw[8 + size + e["data_offsets"][0]:8 + size + e["data_offsets"][1]]) for n, e in header.items() if n != "__metadata__"}


def write(path, tensors):
    header, at = {}, 0
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    text = json.dumps(header).encode()
    pathlib.Path(path).write_bytes(len(text).to_bytes(8, "little") + text + b"".join(t[2] for t in tensors.values()))


def matrix(tensor):
    dtype, (rows, columns), raw = tensor
    flat = numbers(dtype, raw)
    return [flat[r * columns:(r + 1) * columns] for r in range(rows)]


def read_npy(path):
    raw = pathlib.Path(path).read_bytes()
    size = 10 + int.from_bytes(raw[8:10], "little")
    header = eval(raw[10:size].decode(), {"__builtins__": {}}, {"True": True, "False": False})  # a file that a test just wrote
    check(header["descr"] == "<f4" and not header["fortran_order"], header)
    rows, columns = header["shape"]
    flat = struct.unpack(f"<{rows * columns}f", raw[size:])
    return [flat[r * columns:(r + 1) * columns] for r in range(rows)]


def write_npy(path, rows, descr="<f4", code="f", shape=None):
    shape = shape or (len(rows), len(rows[0]))
    header = str({"descr": descr, "fortran_order": False, "shape": shape})
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    raw = b"".join(struct.pack(f"<{len(r)}{code}", *r) for r in rows)
    pathlib.Path(path).write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + raw)


def gamma(n):
    return n * U / (1 - n * U)


def adapter_of(folder):
    """module -> (A, B, scale) with the scales that PEFT itself reported."""
    folder = pathlib.Path(folder)
    tensors = read(folder / "adapter_model.safetensors")
    expect = json.loads((folder / "expect.json").read_text())
    modules = expect["modules"]
    return {m: (matrix(tensors[f"base_model.model.{m}.lora_A.weight"]), matrix(tensors[f"base_model.model.{m}.lora_B.weight"]), modules[m]["scaling"]) for m in modules}


def delta(a, b, s):
    """s B A and |s| |B| |A|, in double."""
    columns = list(zip(*a))
    return ([[s * math.fsum(p * q for p, q in zip(row, c)) for c in columns] for row in b],
            [[abs(s) * math.fsum(abs(p * q) for p, q in zip(row, c)) for c in columns] for row in b])


def apply_test(tmp):
    for case in CASES:
        folder = PEFT / case
        adapter, base = adapter_of(folder), read(folder / "base.safetensors")
        for module, (a, b, s) in adapter.items():
            for weight, threads in ((1.0, 1), (-0.5, 2)):
                good("apply", "--base", folder / "base.safetensors", "--adapter", f"{folder}={weight}", "--module", module, "--input", folder / f"x_{module}.npy",
                     "--output", tmp / "y.npy", "--threads", threads)
                y, x, w = read_npy(tmp / "y.npy"), read_npy(folder / f"x_{module}.npy"), matrix(base[module + ".weight"])
                bias = numbers(*base[module + ".bias"][::2]) if module + ".bias" in base else [0.0] * len(w)
                for i, row in enumerate(x):
                    t = [math.fsum(p * q for p, q in zip(k, row)) for k in a]
                    t_abs = [math.fsum(abs(p * q) for p, q in zip(k, row)) for k in a]
                    for o in range(len(w)):
                        want = math.fsum(p * q for p, q in zip(w[o], row)) + bias[o] + weight * s * math.fsum(p * q for p, q in zip(b[o], t))
                        low = abs(weight * s) * math.fsum(abs(p) * q for p, q in zip(b[o], t_abs))
                        n = len(row) + len(a)
                        bound = gamma(n) * math.fsum(abs(p * q) for p, q in zip(w[o], row)) + gamma(n + 8) * low + 2 * U * abs(want)  # docs/numerics.md; the scale adds one
                        check(abs(y[i][o] - want) <= bound, case, module, i, o, y[i][o], want, bound)
                if weight == 1.0:
                    peft = read_npy(folder / f"y_{module}.npy")
                    check(all(abs(p - q) <= 4e-6 * max(1, abs(q)) for r, e in zip(y, peft) for p, q in zip(r, e)), case, module, "differs from PEFT")
    x = [[0.25 * (i % 7) - 0.5 + 0.001 * r for i in range(12)] for r in range(1030)]  # more rows than one call takes
    write_npy(tmp / "x.npy", x)
    base = PEFT / "plain" / "base.safetensors"
    common = ["apply", "--base", base, "--adapter", PEFT / "plain", "--module", "model.layers.0.q_proj", "--input", tmp / "x.npy", "--output", tmp / "y.npy"]
    good(*common)
    y = read_npy(tmp / "y.npy")
    w, (a, b, s) = matrix(read(base)["model.layers.0.q_proj.weight"]), adapter_of(PEFT / "plain")["model.layers.0.q_proj"]
    d, bias = delta(a, b, s)[0], numbers(*read(base)["model.layers.0.q_proj.bias"][::2])
    x = read_npy(tmp / "x.npy")
    check(len(y) == 1030)
    for r in (0, 1023, 1024, 1029):
        check(all(abs(y[r][o] - bias[o] - math.fsum((w[o][k] + d[o][k]) * x[r][k] for k in range(12))) < 1e-5 for o in range(20)), "row", r)


def merge_test(tmp):
    for case, dtype in ((c, d) for c in CASES for d in ("F32", "F16", "BF16")):
        folder = PEFT / case
        base = {}
        for name, (_, shape, raw) in read(folder / "base.safetensors").items():
            values = numbers("F32", raw)
            packed = {"F32": lambda v: struct.pack("<f", v), "F16": lambda v: struct.pack("<e", v), "BF16": lambda v: struct.pack("<f", v)[2:]}[dtype]
            base[name] = (dtype, shape, b"".join(map(packed, values)))
        base["other.ids"] = ("I64", [3], struct.pack("<3q", 1, -2, 3))
        base["other.bytes"] = ("U8", [3], b"abc")
        write(tmp / "base.safetensors", base)
        one, two, out = adapter_of(folder), adapter_of(PEFT / "plain"), tmp / "merged.safetensors"
        text = good("merge", "--base", tmp / "base.safetensors", "--adapter", f"{folder}=0.5", "--adapter", PEFT / "plain", "--output", out)
        merged = read(out)
        check(merged.keys() == base.keys())
        unit = {"F32": 2**-24, "F16": 2**-11, "BF16": 2**-8}[dtype]
        for name, tensor in base.items():
            module = name.removesuffix(".weight")
            if not name.endswith(".weight") or module not in one and module not in two:
                check(merged[name] == tensor, name, "changed")
                continue
            check(merged[name][:2] == tensor[:2], name, merged[name][:2])
            check(module in text, module, "is not in the report")
            old, new = matrix(tensor), matrix(merged[name])
            terms = [delta(a, b, s * w) for (a, b, s), w in [(m[module], w) for m, w in ((one, 0.5), (two, 1.0)) if module in m]]
            ranks = sum(len(m[module][0]) for m in (one, two) if module in m)
            for o, row in enumerate(old):
                for k, v in enumerate(row):
                    exact = v + sum(t[0][o][k] for t in terms)
                    chain = gamma(ranks) * abs(v) + gamma(ranks + 3) * sum(t[1][o][k] for t in terms)
                    bound = chain + unit * (abs(exact) + chain) + 2**-25 * (dtype == "F16")
                    check(abs(new[o][k] - exact) <= bound, case, dtype, name, o, k, new[o][k], exact)
    # A base in shards gives the same tensors, the base over itself too.
    names = list(base)
    shards = tmp / "shards"
    shards.mkdir()
    for i in (0, 1):
        write(shards / f"s{i}.safetensors", {n: base[n] for n in names[i::2]})
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {n: f"s{i % 2}.safetensors" for i, n in enumerate(names)}}))
    good("merge", "--base", shards, "--adapter", PEFT / "plain", "--output", tmp / "from_shards")
    good("merge", "--base", tmp / "base.safetensors", "--adapter", PEFT / "plain", "--output", tmp / "base.safetensors")
    check(read(tmp / "from_shards") == read(tmp / "base.safetensors"), "shards")
    check("no difference" in good("diff", tmp / "from_shards", tmp / "base.safetensors"))


EXTRA = ["lora_bias", "bias_all", "bias_lora_only", "dora", "dora_weighted", "dora_off", "dora_bias", "conv1d", "conv1d_dora", "conv1d_head"]


def transposed(rows):
    return [list(c) for c in zip(*rows)]


class Expected:
    """What a PEFT folder makes of a base, in doubles: module -> W [out][in] and bias as they were and as they become, and the sizes that bound the error."""
    def __init__(self, folder, base):
        tensors = read(folder / "adapter_model.safetensors")
        info = json.loads((folder / "expect.json").read_text())
        self.weight, self.modules, prefix = info.get("weight", 1.0), {}, "base_model.model."
        for key in tensors:
            module = key.removeprefix(prefix).removesuffix(".lora_A.weight").removesuffix(".bias")
            if key.endswith(".lora_A.weight") or (key.endswith(".bias") and ".base_layer." not in key and ".lora_B." not in key):
                self.modules[module] = self.module(tensors, base, prefix, module, info["modules"].get(module, {}).get("scaling", 1.0))

    @staticmethod
    def module(tensors, base, prefix, module, s):
        e, vector = type("module", (), {})(), lambda t: [float(v) for v in numbers(t[0], t[2])]
        pair = prefix + module + ".lora_A.weight" in tensors
        e.a = matrix(tensors[prefix + module + ".lora_A.weight"]) if pair else []
        e.b = matrix(tensors[prefix + module + ".lora_B.weight"]) if pair else []
        e.s, e.turned, e.w = s, False, None
        if len(base[module + ".weight"][1]) == 2:
            e.w = matrix(base[module + ".weight"])
            # Conv1D: the shapes tell, and of the fixtures' square weights the name of the case.
            e.turned = pair and (len(e.w[0]) != len(e.a[0]) or module == "proj")
            e.w = transposed(e.w) if e.turned else [list(r) for r in e.w]
        e.bias = vector(base[module + ".bias"]) if module + ".bias" in base else None
        e.new_bias = [0.0] * (len(e.w) if e.w else len(e.bias)) if e.bias is None else e.bias
        for key in (".base_layer.bias", ".bias"):
            if prefix + module + key in tensors:
                e.new_bias = vector(tensors[prefix + module + key])
        e.of_b = vector(tensors[prefix + module + ".lora_B.bias"]) if prefix + module + ".lora_B.bias" in tensors else None
        if e.of_b is not None:
            e.new_bias = [p + s * q for p, q in zip(e.new_bias, e.of_b)]
        if e.w is None:
            return e
        e.factor = [1.0] * len(e.w)
        e.d, e.d_size = delta(e.a, e.b, s) if pair else ([[0.0] * len(e.w[0])] * len(e.w),) * 2
        e.sum = [[p + q for p, q in zip(*rows)] for rows in zip(e.w, e.d)]
        if prefix + module + ".lora_magnitude_vector" in tensors:
            e.factor = [m / math.sqrt(math.fsum(v * v for v in row)) for m, row in zip(vector(tensors[prefix + module + ".lora_magnitude_vector"]), e.sum)]
        e.new = [[f * v for v in row] for f, row in zip(e.factor, e.sum)]
        return e


def extra_apply_test(tmp):
    """DoRA, biases of B, trained biases, weights that lie as [in, out]: against doubles, and against what PEFT's layers gave."""
    for case in EXTRA:
        folder, base = PEFT / case, read(PEFT / case / "base.safetensors")
        expected = Expected(folder, base)
        ran = 0
        for module, e in expected.modules.items():
            common = ["apply", "--base", folder / "base.safetensors", "--adapter", f"{folder}={expected.weight}", "--module", module, "--output", tmp / "y.npy"]
            if e.w is None:
                refused(*common, "--input", folder / f"x_{next(iter(expected.modules))}.npy", names=folder, says="no linear layer")
                continue
            if not (folder / f"x_{module}.npy").exists():  # dora_bias: PEFT was not asked about its lm.head
                continue
            ran += 1
            good(*common, "--input", folder / f"x_{module}.npy", "--threads", 1 + ran % 2)
            y, x, peft = (read_npy(p) for p in (tmp / "y.npy", folder / f"x_{module}.npy", folder / f"y_{module}.npy"))
            n = len(e.w[0]) + len(e.a)
            for i, row in enumerate(x):
                for o in range(len(e.w)):
                    want = math.fsum(p * q for p, q in zip(e.new[o], row)) + e.new_bias[o]
                    size = math.fsum(abs(p * q) for p, q in zip(e.w[o], row))
                    low = abs(e.s) * math.fsum(abs(b) * math.fsum(abs(p * q) for p, q in zip(a, row)) for b, a in zip(e.b[o], e.a)) if e.a else 0
                    bias = abs(e.s * e.of_b[o]) if e.of_b else 0
                    # docs/numerics.md; the row factor is rounded once, its product once, the sum of biases twice
                    bound = abs(e.factor[o]) * (gamma(n + 2) * size + gamma(n + 10) * low) + 3 * U * (abs(want) + abs(e.new_bias[o]) + bias)
                    check(abs(y[i][o] - want) <= bound, case, module, i, o, y[i][o], want, bound)
                    check(abs(y[i][o] - peft[i][o]) <= 4e-6 * max(1, abs(peft[i][o])), case, module, "differs from PEFT")
        check(ran > 0)


def extra_merge_test(tmp):
    for case, dtype in ((c, d) for c in EXTRA for d in ("F32", "F16", "BF16")):
        folder, base = PEFT / case, {}
        for name, (_, shape, raw) in read(folder / "base.safetensors").items():
            values = numbers("F32", raw)
            packed = {"F32": lambda v: struct.pack("<f", v), "F16": lambda v: struct.pack("<e", v), "BF16": lambda v: struct.pack("<f", v)[2:]}[dtype]
            base[name] = (dtype, shape, b"".join(map(packed, values)))
        base["conv.weight"] = (dtype, [2, 1, 3, 2], bytes(12 * WIDTH[dtype]))
        base["other.ids"] = ("I64", [3], struct.pack("<3q", 1, -2, 3))
        path, out = tmp / "base.safetensors", tmp / "merged.safetensors"
        if case in ("lora_bias", "bias_lora_only"):  # v_proj has no bias to add that of B to
            write(path, base)
            refused("merge", "--base", path, "--adapter", folder, "--output", tmp / "none", names=folder, says="v_proj.bias", output=tmp / "none")
            for i in (0, 1):
                base[f"model.layers.{i}.v_proj.bias"] = (dtype, [7], bytes(7 * WIDTH[dtype]))
        write(path, base)
        expected = Expected(folder, base)
        arguments = ["merge", "--base", path, "--adapter", f"{folder}={expected.weight}", "--output"]
        text = good(*arguments, out)
        merged, unit = read(out), {"F32": U, "F16": 2**-11, "BF16": 2**-8}[dtype]
        least = 2**-25 * (dtype == "F16")
        for name, tensor in base.items():
            module, kind = name.rsplit(".", 1)
            e = expected.modules.get(module)
            check(merged[name][:2] == tensor[:2], name, merged[name][:2])
            if e is not None and kind == "weight" and e.a:
                check(f"\n{module} " in text and ("DoRA" in text) == ("dora" in case), text)
                new = matrix(merged[name])
                new = transposed(new) if e.turned else new
                for o, row in enumerate(e.new):
                    for k, exact in enumerate(row):
                        chain = gamma(len(e.a)) * abs(e.w[o][k]) + gamma(len(e.a) + 3) * e.d_size[o][k]
                        bound = abs(e.factor[o]) * chain + 2 * U * abs(exact) * ("dora" in case)
                        bound += unit * (abs(exact) + bound) + least
                        check(abs(new[o][k] - exact) <= bound, case, dtype, name, o, k, new[o][k], exact, bound)
            elif e is not None and kind == "bias" and e.new_bias != e.bias:
                check(f"\n{name} " in text, name, text)
                for p, q, old, b in zip(numbers(*merged[name][::2]), e.new_bias, e.bias, e.of_b or [0.0] * len(e.bias)):
                    bound = 3 * U * (abs(q) + abs(e.s * b)) + unit * (1 + 8 * U) * abs(q) + least
                    check(abs(p - q) <= bound, case, dtype, name, p, q)
            else:
                check(merged[name] == tensor, name, "changed")
        # Again, and from shards: the same bytes.
        again = tmp / "again.safetensors"
        good(*arguments, again)
        check(again.read_bytes() == out.read_bytes(), case, dtype, "differs when it is done again")
        shards = tmp / f"{case}-{dtype}"
        shards.mkdir()
        names = list(base)
        for i in (0, 1):
            write(shards / f"s{i}.safetensors", {n: base[n] for n in names[i::2]})
        (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {n: f"s{i % 2}.safetensors" for i, n in enumerate(names)}}))
        good("merge", "--base", shards, "--adapter", f"{folder}={expected.weight}", "--output", again)
        check(read(again) == merged, case, dtype, "shards")


def layout_test(tmp):
    """Weights stored as [in, out]: the same bits as of the base turned over; what cannot be told is refused."""
    for case in ("conv1d", "conv1d_dora"):
        folder, base = PEFT / case, read(PEFT / case / "base.safetensors")
        plain = tmp / case
        shutil.copytree(folder, plain)
        config = json.loads((plain / "adapter_config.json").read_text())
        check(config["fan_in_fan_out"] is True)
        (plain / "adapter_config.json").write_text(json.dumps({**config, "fan_in_fan_out": False}))
        turned = {n: (d, s[::-1], struct.pack(f"<{len(r) // 4}f", *(v for row in transposed(matrix((d, s, r))) for v in row))) if len(s) == 2 else (d, s, r) for n, (d, s, r) in base.items()}
        write(tmp / "turned.safetensors", turned)
        for b, a, out in ((folder / "base.safetensors", folder, "one"), (tmp / "turned.safetensors", plain, "two")):
            good("merge", "--base", b, "--adapter", a, "--output", tmp / out)
        one, two = read(tmp / "one"), read(tmp / "two")
        for name in one:
            check(matrix(one[name]) == [tuple(r) for r in transposed(matrix(two[name]))] if len(one[name][1]) == 2 else one[name] == two[name], name)
        # The square weight is taken as [out, in] in shards too, when the flag is false.
        names, parts = list(turned), tmp / f"{case}-turned"
        parts.mkdir()
        for i in (0, 1):
            write(parts / f"s{i}.safetensors", {n: turned[n] for n in names[i::2]})
        (parts / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {n: f"s{i % 2}.safetensors" for i, n in enumerate(names)}}))
        good("merge", "--base", parts, "--adapter", plain, "--output", tmp / "parts")
        check(read(tmp / "parts") == two, "shards of [out, in]")
        # The flag cannot be believed beside a weight that lies the other way, in one file or in shards.
        names = list(base)
        shards = tmp / f"{case}-shards"
        shards.mkdir()
        for i in (0, 1):
            write(shards / f"s{i}.safetensors", {n: base[n] for n in names[i::2]})
        (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {n: f"s{i % 2}.safetensors" for i, n in enumerate(names)}}))
        for b in (folder / "base.safetensors", shards):
            refused("merge", "--base", b, "--adapter", plain, "--output", tmp / "none", names=plain, says="fan_in_fan_out", output=tmp / "none")
            refused("apply", "--base", b, "--adapter", plain, "--module", "proj", "--input", folder / "x_proj.npy", "--output", tmp / "none", names=plain, says="cannot be told", output=tmp / "none")
    one = PEFT / "conv1d"
    refused("merge", "--base", one / "base.safetensors", "--adapter", one, "--adapter", tmp / "conv1d", "--output", tmp / "none", names=tmp / "conv1d", says="fan_in_fan_out")
    # Formats: PEFT's says the flag; the others cannot, which matters for the square proj.
    good("convert", "--input", one, "--to", "peft", "--output", tmp / "again")
    check("no difference" in good("diff", one, tmp / "again"))
    good("merge", "--base", one / "base.safetensors", "--adapter", tmp / "again", "--output", tmp / "again.safetensors")
    good("merge", "--base", one / "base.safetensors", "--adapter", one, "--output", tmp / "one")
    check((tmp / "again.safetensors").read_bytes() == (tmp / "one").read_bytes())
    refused("convert", "--input", one, "--to", "kohya", "--output", tmp / "none", names=one, says="'proj'", output=tmp / "none")
    good("convert", "--input", PEFT / "conv1d_head", "--to", "kohya", "--output", tmp / "k.safetensors")
    good("compose", "--adapter", one, "--adapter", f"{one}=-0.25", "--output", tmp / "sum")
    good("merge", "--base", one / "base.safetensors", "--adapter", tmp / "sum", "--output", tmp / "sum.safetensors")
    good("merge", "--base", one / "base.safetensors", "--adapter", f"{one}=0.75", "--output", tmp / "three.safetensors")
    a, b = read(tmp / "sum.safetensors"), read(tmp / "three.safetensors")
    check(all(abs(p - q) < 1e-5 for n in a for p, q in zip(numbers(*a[n][::2]), numbers(*b[n][::2]))))
    refused("compose", "--adapter", one, "--adapter", tmp / "conv1d", "--output", tmp / "none", says="square", output=tmp / "none")


def extra_report_test(tmp):
    """inspect and diff: norms of updates against doubles, every field named."""
    for case in ("dora", "dora_bias", "conv1d_dora", "lora_bias", "bias_all"):
        folder, path = PEFT / case, PEFT / case / "base.safetensors"
        expected = Expected(folder, read(path))
        for with_base in (False, True):
            listed = json.loads(good("inspect", folder, "--json", *(["--base", path] if with_base else [])))
            check({m["name"] for m in listed["modules"]} == expected.modules.keys())
            for m in listed["modules"]:
                e = expected.modules[m["name"]]
                check(m["kind"] == "linear" and m["rank"] == len(e.a) and m["trained_bias"] == (case in ("bias_all", "dora_bias")), m)
                check(m["dora"] == ("dora" in case and bool(e.a)) and m["lora_bias"] == (case == "lora_bias"), m)
                if not e.a:
                    continue
                whole = with_base and "dora" in case
                s = e.s / expected.weight  # inspect knows no weight
                change = [[p - q for p, q in zip(*rows)] for rows in zip(e.new, e.w)] if whole else delta(e.a, e.b, s)[0]
                norm = math.sqrt(math.fsum(v * v for row in change for v in row))
                check(m["norm_of"] == ("update" if whole else "s B A") and abs(m["norm"] - norm) <= 1e-6 * norm, case, m, norm)
        text = good("inspect", folder)
        check(("pass --base" in text) == ("dora" in case) and "pass --base" not in good("inspect", folder, "--base", path), text)
        for base in ([], ["--base", path]):
            check("no difference" in good("diff", folder, folder, *base))
        # One number changed in each kind of tensor is seen.
        tensors = read(folder / "adapter_model.safetensors")
        for suffix, what in ((".lora_magnitude_vector", "magnitude of DoRA"), (".lora_B.bias", "bias of B"), (".bias", "trained bias")):
            name = next((n for n in tensors if n.endswith(suffix) and (suffix != ".bias" or ".lora_B." not in n)), None)
            if name is None:
                continue
            other = tmp / (case + suffix)
            shutil.copytree(folder, other)
            d, shape, raw = tensors[name]
            first = numbers(d, raw)[0]
            write(other / "adapter_model.safetensors", {**tensors, name: (d, shape, struct.pack("<f", first + 3) + raw[4:])})
            text = good("diff", folder, other)
            check("no difference" not in text and what + ", ||a - b|| 3\n" in text, text)
            if what == "magnitude of DoRA":
                e = Expected(other, read(path)).modules
                module = name.removeprefix("base_model.model.").removesuffix(suffix)
                far = math.sqrt(math.fsum((p - q)**2 for rows in zip(e[module].new, expected.modules[module].new) for p, q in zip(*rows)))
                check(f"largest change: {module}, ||a - b|| {far:.4g}" in good("diff", folder, other, "--base", path), far)
    for case, says in (("dora", "DoRA"), ("lora_bias", "bias"), ("bias_all", "bias")):
        refused("convert", "--input", PEFT / case, "--to", "kohya", "--output", tmp / "none", names=PEFT / case, says=says, output=tmp / "none")
        refused("convert", "--input", PEFT / case, "--to", "json", "--output", tmp / "none", names=PEFT / case, output=tmp / "none")
    refused("compose", "--adapter", PEFT / "dora", "--output", tmp / "none", names=PEFT / "dora", says="DoRA", output=tmp / "none")
    refused("merge", "--base", PEFT / "dora" / "base.safetensors", "--adapter", PEFT / "dora", "--adapter", PEFT / "rslora", "--output", tmp / "none", says="DoRA", output=tmp / "none")
    refused("merge", "--base", PEFT / "bias_all" / "base.safetensors", "--adapter", PEFT / "bias_all", "--adapter", PEFT / "bias_all", "--output", tmp / "none", says="bias", output=tmp / "none")


def product_of(path):
    """module -> s B A of a PEFT folder without rslora, the patterns as compose writes them."""
    config = json.loads((path / "adapter_config.json").read_text())
    tensors, out = read(path / "adapter_model.safetensors"), {}
    for name in tensors:
        if name.endswith(".lora_A.weight"):
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            key = "^" + module.replace(".", "\\.")
            a, b = matrix(tensors[name]), matrix(tensors[name.replace("lora_A", "lora_B")])
            check(config["rank_pattern"].get(key, config["r"]) == len(a), module, "rank")
            out[module] = (len(a), *delta(a, b, config["alpha_pattern"].get(key, config["lora_alpha"]) / len(a)))
    return out


def compose_test(tmp):
    for first, second, weights in (("plain", "f16", (0.7, -1.5)), ("rslora", "bf16", (1, 1)), ("big_rank", "pattern_regex_first", (2, 0.25))):
        one, two = adapter_of(PEFT / first), adapter_of(PEFT / second)
        good("compose", "--adapter", f"{PEFT / first}={weights[0]}", "--adapter", f"{PEFT / second}={weights[1]}", "--output", tmp / "sum")
        sums = product_of(tmp / "sum")
        check(sums.keys() == one.keys() | two.keys())
        for module, (rank, got, _) in sums.items():
            parts = [(m[module], w) for m, w in zip((one, two), weights) if module in m]
            check(rank == sum(len(p[0][0]) for p in parts), module, rank)
            terms = [delta(a, b, s * w) for (a, b, s), w in parts]
            for o, row in enumerate(got):
                for k, v in enumerate(row):
                    exact, size = sum(t[0][o][k] for t in terms), sum(t[1][o][k] for t in terms)
                    check(abs(v - exact) <= 4 * U * size, module, o, k, v, exact)  # scale, weight, their product, and B: one rounding each
        # What was composed applies as the two did.
        module = next(iter(one))
        base = PEFT / first / "base.safetensors"
        common = ["apply", "--base", base, "--module", module, "--input", PEFT / first / f"x_{module}.npy", "--output", tmp / "y.npy"]
        good(*common, "--adapter", tmp / "sum")
        y = read_npy(tmp / "y.npy")
        good(*common, "--adapter", f"{PEFT / first}={weights[0]}", "--adapter", f"{PEFT / second}={weights[1]}")
        check(all(abs(p - q) <= 1e-5 * max(1, abs(q)) for r, e in zip(y, read_npy(tmp / "y.npy")) for p, q in zip(r, e)), "composed apply")


def convert_test(tmp):
    base = tmp / "base.safetensors"
    write(base, {n + ".weight": ("F32", [o, i], bytes(4 * o * i)) for n, o, i in (
        ("down_blocks.0.attentions.0.to_q", 10, 6), ("down_blocks.0.attentions.0.to_out.0", 6, 10), ("mid_block.proj_in", 7, 5), ("mid_block.ff.net.0.proj", 9, 4))})
    kohya = DATA / "formats" / "kohya.safetensors"
    expect = json.loads((DATA / "formats" / "expect.json").read_text())["kohya.safetensors"]
    good("convert", "--input", kohya, "--to", "peft", "--output", tmp / "k", "--base", base)
    listed = {m["name"]: m for m in json.loads(good("inspect", tmp / "k", "--json"))["modules"]}
    check(listed.keys() == expect.keys() and all(listed[n]["rank"] == e["rank"] and abs(listed[n]["scale"] - e["scale"]) < 1e-7 for n, e in expect.items()))
    good("convert", "--input", tmp / "k", "--to", "kohya", "--output", tmp / "back.safetensors")
    check("no difference" in good("diff", kohya, tmp / "back.safetensors", "--base", base))
    gguf = DATA / "formats" / "adapter.gguf"
    good("convert", "--input", gguf, "--to", "peft", "--output", tmp / "g")
    good("convert", "--input", tmp / "g", "--to", "gguf", "--architecture", "llama", "--output", tmp / "g.gguf")
    check("no difference" in good("diff", gguf, tmp / "g.gguf"))
    text = DATA / "formats" / "alpha.json"
    module = json.loads(text.read_text()).get("module")
    if module:
        good("convert", "--input", text, "--to", "peft", "--output", tmp / "j")
        good("convert", "--input", tmp / "j", "--to", "json", "--output", tmp / "j.json")
        check("no difference" in good("diff", text, tmp / "j.json"))
    out = tmp / "out"
    refused("convert", "--input", kohya, "--to", "peft", "--output", out, names=kohya, says="--base", output=out)
    refused("convert", "--input", PEFT / "plain", "--to", "json", "--output", out, names=PEFT / "plain", says="modules", output=out)
    refused("convert", "--input", PEFT / "plain", "--to", "gguf", "--architecture", "llama", "--output", out, names=PEFT / "plain", says="blk.N", output=out)
    refused("convert", "--input", gguf, "--to", "gguf", "--architecture", "other", "--output", out, names=gguf, output=out)
    refused("convert", "--input", base, "--to", "peft", "--output", out, names=base, says="no adapter", output=out)
    for name in ("alora.gguf", "quantised.gguf"):
        refused("convert", "--input", DATA / "formats" / name, "--to", "peft", "--output", out, names=name, output=out)


def inspect_test(tmp):
    for case in CASES:
        listed = json.loads(good("inspect", PEFT / case, "--json"))
        adapter = adapter_of(PEFT / case)
        check({m["name"] for m in listed["modules"]} == adapter.keys())
        for m in listed["modules"]:
            a, b, s = adapter[m["name"]]
            norm = math.sqrt(math.fsum(v * v for row in delta(a, b, s)[0] for v in row))
            check(m["rank"] == len(a) and abs(m["scale"] - s) <= 1e-6 * abs(s) and abs(m["norm"] - norm) <= 1e-6 * norm, case, m, norm)
        check("█" in good("inspect", PEFT / case))
    listed = json.loads(good("inspect", PEFT / "plain" / "base.safetensors", "--json"))
    check(listed["kind"] == "base" and listed["tensors"] == len(read(PEFT / "plain" / "base.safetensors")))
    for path in sorted((DATA / "formats").glob("*")):
        if path.suffix in (".safetensors", ".gguf", ".json") and path.name not in ("expect.json", "alora.gguf", "quantised.gguf"):
            good("inspect", path)
            check(json.loads(good("inspect", path, "--json"))["kind"] == "adapter")


def nameless_test(tmp):
    """A .json holds one module and no name."""
    text = {"rank": 1, "in_dim": 3, "out_dim": 2, "a": [1, 2, 3], "b": [1, -1], "alpha": 2}
    path = tmp / "one.json"
    path.write_text(json.dumps(text))
    named = tmp / "named.json"
    named.write_text(json.dumps({**text, "module": "q"}))
    weight = ("F32", [2, 3], struct.pack("<6f", *range(6)))
    write(tmp / "single.safetensors", {"q.weight": weight})
    write(tmp / "several.safetensors", {"q.weight": weight, "v.weight": weight})
    write_npy(tmp / "x.npy", [[1.0, 0.0, -1.0]])
    for module in ("q", "v"):
        good("apply", "--base", tmp / "several.safetensors", "--adapter", path, "--module", module, "--input", tmp / "x.npy", "--output", tmp / "y.npy")
        check(read_npy(tmp / "y.npy") == [(-2.0 - 4.0, -2.0 + 4.0)], read_npy(tmp / "y.npy"))
    out = tmp / "out"
    good("merge", "--base", tmp / "single.safetensors", "--adapter", path, "--output", out)
    check(matrix(read(out)["q.weight"]) == [(2.0, 5.0, 8.0), (1.0, 0.0, -1.0)])
    good("merge", "--base", tmp / "several.safetensors", "--adapter", named, "--output", out)
    refused("merge", "--base", tmp / "several.safetensors", "--adapter", path, "--output", out, names=path, says="names no module", output=out)
    refused("compose", "--adapter", path, "--output", tmp / "dir", names=path, says="module", output=tmp / "dir")
    good("compose", "--adapter", path, "--base", tmp / "single.safetensors", "--output", tmp / "dir")
    good("compose", "--adapter", named, "--output", tmp / "dir")
    check("(no name)" in good("inspect", path))
    check("no difference" in good("diff", path, named))


def usage_test(tmp):
    p, base, out = PEFT / "plain", PEFT / "plain" / "base.safetensors", tmp / "out"
    apply = ["apply", "--base", base, "--module", "lm.head", "--input", p / "x", "--output", out]
    for arguments in ([], ["nothing"], ["inspect"], ["inspect", ""], ["inspect", p, p], ["inspect", p, "--yaml"], apply, ["merge", "--base", base, "--output", out],
                      [*apply, "--adapter", p, "--threads", "0"], [*apply, "--adapter", p, "--threads", "x"], [*apply, "--adapter", f"{p}=nan"], [*apply, "--adapter", f"{p}=x"],
                      [*apply, "--adapter", f"{p}="], [*apply, "--adapter", f"{p}=1e99"], ["compose", "--output", out], ["diff", p],
                      ["convert", "--input", p, "--to", "onnx", "--output", out], ["convert", "--input", p, "--to", "gguf", "--output", out]):
        done = run(*arguments)
        check(done.returncode == 2 and done.stderr and not done.stderr.startswith(b"error: "), arguments, done)
        check(not out.exists())
    for arguments in (["--help"], ["--version"], *([c, "--help"] for c in ("inspect", "apply", "merge", "compose", "convert", "diff"))):
        check(run(*arguments).returncode == 0, arguments)


def refusal_test(tmp):
    p, base = PEFT / "plain", PEFT / "plain" / "base.safetensors"
    module, x = "model.layers.0.q_proj", PEFT / "plain" / "x_model.layers.0.q_proj.npy"
    out = tmp / "out"
    for there in (False, True):
        if there:
            out.write_text("old")

        def apply(base=base, adapter=p, module=module, x=x, **more):
            refused("apply", "--base", base, "--adapter", adapter, "--module", module, "--input", x, "--output", out, output=out, **more)

        apply(base=tmp / "nothing", names="nothing")
        apply(base=p, names=p)
        apply(adapter=tmp / "nothing", names="nothing")
        apply(adapter=base, names=base, says="no adapter")
        apply(adapter=PEFT / "named", names=PEFT / "named", says="adapter_config.json")
        apply(module="no.module", names=base, says="no.module")
        apply(module="lm.head", names=p, says="does not adapt")
        apply(x=base, names=base, says="NUMPY")
        write_npy(tmp / "f64.npy", [[0.0] * 12], "<f8", "d")
        write_npy(tmp / "narrow.npy", [[0.0] * 11])
        write_npy(tmp / "one.npy", [[0.0] * 12], shape=(12,))
        for name in ("f64", "narrow", "one"):
            apply(x=tmp / f"{name}.npy", names=f"{name}.npy", says="f32 [n, 12]")
        refused("merge", "--base", base, "--adapter", DATA / "formats" / "adapter.gguf", "--output", out, names="adapter.gguf", output=out)
        refused("merge", "--base", base, "--adapter", p, "--adapter", tmp / "nothing", "--output", out, names="nothing", output=out)
        wrong = tmp / "wrong.safetensors"
        write(wrong, {n: ("F64", t[1], t[2] * 2) for n, t in read(base).items()})
        refused("merge", "--base", wrong, "--adapter", p, "--output", out, names=wrong, says="f64", output=out)
        write(wrong, {n: (t[0], [t[1][0] // 2, 2 * t[1][1]] if len(t[1]) == 2 and t[1][0] % 2 == 0 else t[1], t[2]) for n, t in read(base).items()})
        refused("merge", "--base", wrong, "--adapter", p, "--output", out, names=p, output=out)
        refused("compose", "--adapter", f"{p}=0", "--output", tmp / "dir", output=tmp / "dir")
    refused("merge", "--base", base, "--adapter", p, "--output", tmp / "no" / "such" / "out", names="such")
    refused("merge", "--base", base, "--adapter", p, "--output", tmp, names=tmp)
    refused("compose", "--adapter", p, "--output", out, names=out, output=out)
    refused("diff", p, base, names=base)
    # Never over the adapter itself; over the base, through a link and with '=' in names it works.
    folder = tmp / "a=b"
    shutil.copytree(p, folder)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        refused("merge", "--base", base, "--adapter", folder, "--output", folder / name, names=folder / name, says="of the adapter", output=folder / name)
    refused("apply", "--base", base, "--adapter", folder, "--module", module, "--input", x, "--output", folder / "adapter_model.safetensors", says="of the adapter", output=folder / "adapter_model.safetensors")
    good("merge", "--base", base, "--adapter", folder, "--output", folder / "merged")
    good("merge", "--base", base, "--adapter", f"{folder}=2", "--output", tmp / "twice")
    check((folder / "merged").read_bytes() != (tmp / "twice").read_bytes())
    (tmp / "link").symlink_to(folder / "merged")
    good("merge", "--base", base, "--adapter", f"{folder}=2", "--output", tmp / "link")
    check((tmp / "link").is_symlink() and (folder / "merged").read_bytes() == (tmp / "twice").read_bytes())
    refused("apply", "--base", base, "--adapter", folder, "--module", "model.layers.0.q_pro", "--input", x, "--output", tmp / "no", says="did you mean 'model.layers.0.q_proj'?", output=tmp / "no")
    refused("apply", "--base", base, "--adapter", folder, "--module", "0.v_proj", "--input", x, "--output", tmp / "no", says="did you mean 'model.layers.0.v_proj'?", output=tmp / "no")
    write_npy(tmp / "ids.npy", [[1, 2]], "<i8", "q", shape=(2,))
    refused("apply", "--base", base, "--adapter", folder, "--module", module, "--input", tmp / "ids.npy", "--output", tmp / "no", names="ids.npy", says="f32 [n, 12]", output=tmp / "no")
    (tmp / "steer.json").write_text(json.dumps({"rank": 1, "in_dim": 1, "out_dim": 1, "a": [1], "b": [1], "module": "q\x1b[31m\n"}))
    for more in ([], ["--json"]):
        text = good("inspect", tmp / "steer.json", *more)
        check("\x1b" not in text and "q\n" not in text, text)
    if os.geteuid() != 0:  # for root every folder can be written
        closed = tmp / "closed"
        closed.mkdir(mode=0o500)
        refused("merge", "--base", base, "--adapter", p, "--output", closed / "m", names=closed, output=closed / "m")
    fifo = tmp / "fifo"
    os.mkfifo(fifo)
    refused("inspect", fifo, names=fifo, says="FIFO")
    refused("merge", "--base", base, "--adapter", p, "--output", fifo, names=fifo)
    for name in ("a\nb", "a\x1b[31mb", b"a\xff\xc2\x9bb"):
        done = subprocess.run([LORA.encode(), b"inspect", os.fsencode(tmp) + b"/" + os.fsencode(name)], capture_output=True, timeout=60)
        check(done.returncode == 1 and done.stderr.count(b"\n") == 1 and b"\x1b" not in done.stderr and b"\x9b" not in done.stderr, done)
    done = subprocess.run(f'"{LORA}" inspect "{p}" | true; "{LORA}" inspect "{p}" > /dev/full; echo $?', shell=True, capture_output=True, timeout=60)
    check(done.stdout == b"1\n" and b"error: " in done.stderr, done)
    # The disk is full (a limit on the size of files): an error, the old file, nothing beside it.
    done = subprocess.run(["bash", "-c", f'ulimit -f 1; exec "{LORA}" merge --base "{base}" --adapter "{p}" --output "{out}"'], capture_output=True, timeout=60)
    check(done.returncode == 1 and done.stderr.startswith(b"error: ") and out.read_text() == "old", done)
    check(not [f for f in os.listdir(tmp) if ".tmp-" in f], os.listdir(tmp))


def hostile_test(tmp):
    """Bytes changed, cut and added in good files: the program ends by itself, with 0 or with 1 and one line."""
    draw = random.Random(5)
    out, base = tmp / "out", PEFT / "f16" / "base.safetensors"
    folder = tmp / "adapter"
    shutil.copytree(PEFT / "f16", folder)
    files = [(folder / "adapter_config.json", folder), (folder / "adapter_model.safetensors", folder), *((DATA / "formats" / n, None) for n in ("kohya.safetensors", "adapter.gguf", "alpha.json", "diffusers_new.safetensors"))]
    ended = {0: 0, 1: 0}
    for number in range(240):
        path, whole = files[number % len(files)]
        raw = bytearray(path.read_bytes())
        good_bytes = bytes(raw)
        for _ in range(draw.choice((1, 1, 2, 8))):
            if not raw:
                break
            at = draw.randrange(min(len(raw), 1200) if draw.random() < 0.8 else len(raw))
            how = draw.randrange(4)
            if how == 0:
                raw[at] = draw.randrange(256)
            elif how == 1:
                raw[at:at] = draw.choice((b"{", b"9" * 20, b"\0", b"\xff\xff\xff\xff\xff\xff\xff\x7f", b'"', b"[" * 200))
            elif how == 2:
                del raw[at:at + draw.randrange(1, 9)]
            else:
                del raw[max(at, 1):]
        target = path if whole else tmp / path.name
        target.write_bytes(raw)
        subject = whole or target
        for command in (["inspect", subject], ["merge", "--base", base, "--adapter", subject, "--output", out]):
            done = run(*command)
            check(done.returncode in ended, "mutation", number, command, done.returncode, done.stderr)
            ended[done.returncode] += 1
            if done.returncode == 1:
                check(done.stderr.startswith(b"error: ") and done.stderr.count(b"\n") == 1 and not out.exists(), number, done.stderr)
            out.unlink(missing_ok=True)
        if whole:
            path.write_bytes(good_bytes)
    check(ended[0] > 0 and ended[1] > 200, ended)


CONV, SAVED = DATA / "conv", DATA / "peft_saved"
TIED = ("--tied", "lm_head=model.embed_tokens")
# folder -> what the command line must say of the base, and the modules that the merged file must have changed
EMBEDDINGS = [PEFT / c for c in ("embedding", "embedding_pattern", "embedding_dora", "embedding_scaled", "embedding_scaled_dora")]
TIES = [PEFT / c for c in ("tied_head", "tied_both", "tied_dora", "tied_ensured", "tokens", "tokens_named", "tokens_apart", "tokens_head")]
CONVOLUTIONS = [CONV / c for c in ("plain", "f16", "bias", "dora", "dora_weighted", "dilated")]
EXPERTS = [CONV / c for c in ("experts", "experts_turned", "parameters")]
REPLACED = [SAVED / c for c in ("saved", "saved_bias_all", "base_copy", "resized", "pissa_converted", "olora_converted")]


def read_any_npy(path):
    """dtype, shape, flat numbers"""
    raw = pathlib.Path(path).read_bytes()
    size = 10 + int.from_bytes(raw[8:10], "little")
    header = eval(raw[10:size].decode(), {"__builtins__": {}}, {"True": True, "False": False})
    check(not header["fortran_order"], path)
    code = {"<f4": "f", "<i8": "q"}[header["descr"]]
    return header["descr"], header["shape"], struct.unpack(f"<{math.prod(header['shape'])}{code}", raw[size:])


def write_any_npy(path, dtype, shape, flat):
    descr, code = {"F32": ("<f4", "f"), "I64": ("<i8", "q")}[dtype]
    write_npy(path, [flat], descr, code, tuple(shape))


def floats(tensor):
    return [float(v) for v in numbers(tensor[0], tensor[2])]


def joined(tensor):
    """A tensor as a matrix: the first axis, and all others."""
    flat, rows = floats(tensor), tensor[1][0]
    columns = len(flat) // rows
    return [flat[r * columns:(r + 1) * columns] for r in range(rows)]


def by_pattern(patterns, name, otherwise):
    return next((v for k, v in patterns.items() if re.match(rf"(.*\.)?({k})$", name)), otherwise)


class Kind:
    """One module that an adapter changes: w as it was and `new` as it becomes, [out][in] in doubles, and the parts that bound the error."""
    def __init__(self, name, w, bias=None):
        self.name, self.w, self.base_bias, self.bias = name, w, bias, bias
        self.a, self.b, self.s, self.magnitude, self.of_b, self.rows, self.table = [], [], 0.0, None, None, {}, False
        self.matrix = True  # or only its rows or its bias are changed

    def finish(self):
        """Rows first, then the terms, then the magnitude: the order of docs/formats.md."""
        out, columns = len(self.w), len(self.w[0])
        self.start = [list(r) for r in self.w]
        for i, row in self.rows.items():
            for k, v in enumerate(row):
                if self.table:
                    self.start[k][i] = v
                else:
                    self.start[i][k] = v
        self.d, self.d_size = delta(self.a, self.b, self.s) if self.a else ([[0.0] * columns] * out,) * 2
        total = [[p + q for p, q in zip(*r)] for r in zip(self.start, self.d)]
        self.factor = [1.0] * out if self.magnitude is None else [m / math.sqrt(math.fsum(v * v for v in r)) for m, r in zip(self.magnitude, total)]
        self.new = [[f * v for v in r] for f, r in zip(self.factor, total)]
        if self.of_b is not None:
            self.bias = [p + self.s * q for p, q in zip(self.bias or [0.0] * out, self.of_b)]
        return self

    def element_bound(self, o, k, unit):
        """docs/numerics.md, of merged() and merged_table(); then one rounding to the file's type."""
        chain = gamma(len(self.a)) * abs(self.start[o][k]) + gamma(len(self.a) + 4) * self.d_size[o][k]
        bound = abs(self.factor[o]) * chain + (0 if self.magnitude is None else 3 * U * abs(self.new[o][k]))
        return bound + unit * (abs(self.new[o][k]) + bound)

    def output(self, o, patch, scale=1.0):
        """Output o of one input, and the bound on its error: docs/numerics.md; the factor, embed_scale and the biases are rounded on top."""
        want = scale * math.fsum(p * q for p, q in zip(self.new[o], patch)) + (self.bias[o] if self.bias else 0)
        size = math.fsum(abs(p * q) for p, q in zip(self.start[o], patch))
        low = abs(self.s) * math.fsum(abs(b) * math.fsum(abs(p * q) for p, q in zip(a, patch)) for b, a in zip(self.b[o], self.a)) if self.a else 0
        n = len(patch) + len(self.a)
        bias = (abs(self.bias[o]) if self.bias else 0) + (abs(self.s * self.of_b[o]) if self.of_b else 0)
        return want, abs(scale * self.factor[o]) * (gamma(n + 2) * size + gamma(n + 10) * low) + 4 * U * (abs(want) + bias)


def kinds_of(folder):
    """module -> Kind of all that a PEFT folder changes, from its own tensors and configuration; and the tensors that it replaces and are no matrix."""
    prefix, config = "base_model.model.", json.loads((folder / "adapter_config.json").read_text())
    tensors = {n.removeprefix(prefix): t for n, t in read(folder / "adapter_model.safetensors").items() if "original_module" not in n and "modules_to_save" not in n}
    base, info = read(folder / "base.safetensors"), json.loads((folder / "expect.json").read_text()) if (folder / "expect.json").exists() else {}
    weight, out, replaced, tables = info.get("weight", 1.0), {}, {}, set()
    source = lambda m: m + ".weight" if m + ".weight" in base or m + ".weight" in tensors else "model.embed_tokens.weight"  # the tied one

    def module(name, table=False):
        if name not in out:
            tensor = tensors.get(name + ".base_layer.weight") or tensors.get(name + ".weight") or base[source(name)]
            if name + ".base_layer.weight" in tensors or name + ".weight" in tensors:
                replaced[name + ".weight"] = tensor
            w = joined(tensor)
            out[name] = Kind(name, transposed(w) if table else w, floats(base[name + ".bias"]) if name + ".bias" in base else None)
            out[name].table = table
        return out[name]

    def scale_of(name, rank):
        alpha = by_pattern(config["alpha_pattern"], name, config["lora_alpha"])
        check(by_pattern(config["rank_pattern"], name, config["r"]) == rank, folder, name, rank)
        return weight * alpha / (math.sqrt(rank) if config["use_rslora"] else rank)

    indices = config["trainable_token_indices"] or {}
    for key, tensor in tensors.items():
        if key.endswith(".lora_embedding_A"):
            e = module(key.removesuffix(".lora_embedding_A"), table=True)
            e.a, e.b = matrix(tensor), matrix(tensors[e.name + ".lora_embedding_B"])
            e.s = scale_of(e.name, len(e.a))
        elif key.endswith(".lora_A.weight"):
            e = module(key.removesuffix(".lora_A.weight"))
            e.a, e.b = joined(tensor), joined(tensors[e.name + ".lora_B.weight"])
            e.s = scale_of(e.name, len(e.a))
        elif key.endswith(".trainable_tokens_delta"):
            name = key.removesuffix(".token_adapter.trainable_tokens_delta")
            at = indices if isinstance(indices, list) else indices[name.rsplit(".", 1)[-1]]
            e = module(name, table=name != "lm_head")
            e.rows = dict(zip(at, matrix(tensor)))
        elif key.endswith(".weight") and ".lora_" not in key and len(tensor[1]) >= 2:
            module(key.removesuffix(".weight").removesuffix(".base_layer"))
        elif key.endswith(".weight") and ".lora_" not in key:
            replaced[key] = tensor
    for name, e in out.items():
        for key in (".lora_magnitude_vector", ".lora_magnitude_vector.weight"):
            if name + key in tensors:
                e.magnitude = floats(tensors[name + key])
        if name + ".lora_B.bias" in tensors:
            e.of_b = floats(tensors[name + ".lora_B.bias"])
    for key in (k for k in tensors if k.endswith(".bias") and ".lora_B." not in k):
        name = key.removesuffix(".bias").removesuffix(".base_layer")
        if name in out:
            out[name].bias = floats(tensors[key])
        else:
            replaced[name + ".bias"] = tensors[key]
            if len(base[name + ".weight"][1]) > 1:  # a bias alone
                module(name).bias = floats(tensors[key])
                out[name].matrix = False
                replaced.pop(name + ".weight", None)
    # A tied lm_head has the token rows of the table, unless it has its own.
    table = out.get("model.embed_tokens")
    if info.get("tied") and table is not None and table.rows and (table.rows is not None) and not (out.get("lm_head") and out["lm_head"].rows):
        module("lm_head").rows = table.rows
    return {n: e.finish() for n, e in out.items()}, replaced, base, info


def patches(shape, flat, kernel, stride, padding, dilation):
    """One list of channels x height x width for each position of each image, in the order of the output [n, :, h, w]."""
    n, c, h, w = shape
    size = [(s + 2 * p - d * (k - 1) - 1) // t + 1 for s, k, t, p, d in zip((h, w), kernel, stride, padding, dilation)]
    at = lambda i, j, y, x: flat[((i * c + j) * h + y) * w + x] if 0 <= y < h and 0 <= x < w else 0.0
    return size, [[at(i, j, y * stride[0] - padding[0] + p * dilation[0], x * stride[1] - padding[1] + q * dilation[1]) for j in range(c) for p in range(kernel[0]) for q in range(kernel[1])]
                  for i in range(n) for y in range(size[0]) for x in range(size[1])]


def kind_apply(tmp, folder, e, x, peft, more, base, info):
    """apply of one module, against doubles and against what PEFT's layer gave. x and peft: dtype, shape, flat numbers."""
    (_, shape, flat), where = x, info.get("modules", {}).get(e.name, {})
    write_any_npy(tmp / "x.npy", "I64" if x[0] == "<i8" else "F32", shape, flat)
    good("apply", "--base", folder / "base.safetensors", "--adapter", f"{folder}={info.get('weight', 1.0)}", "--module", e.name, "--input", tmp / "x.npy", "--output", tmp / "y.npy", *more)
    _, y_shape, y = read_any_npy(tmp / "y.npy")
    check(tuple(y_shape) == tuple(peft[1]), folder, e.name, y_shape, peft[1])
    scale = info.get("embed_scale", 1.0) if x[0] == "<i8" else 1.0
    if x[0] == "<i8":
        tokens = len(e.w[0]) if e.table else len(e.w)
        inputs, positions = [[1.0 if k == i else 0.0 for k in range(tokens)] for i in flat], 1
    elif len(shape) == 4:
        kernel = base[e.name + ".weight"][1][2:]
        (height, width), inputs = patches(shape, flat, kernel, where.get("stride", [1, 1]), where.get("padding", [0, 0]), where.get("dilation", [1, 1]))
        positions = height * width
    else:
        columns = shape[-1]
        inputs, positions = [flat[i:i + columns] for i in range(0, len(flat), columns)], 1
    outputs = math.prod(y_shape) // len(inputs)
    for i, patch in enumerate(inputs):
        for o in range(outputs):
            place = i // positions * outputs * positions + o * positions + i % positions
            if x[0] == "<i8" and not e.table:  # a table that was replaced whole
                want, bound = e.w[patch.index(1.0)][o], 0.0
            else:
                want, bound = e.output(o, patch, scale)
            check(abs(y[place] - want) <= bound, folder, e.name, i, o, y[place], want, bound)
            check(abs(y[place] - peft[2][place]) <= 4e-6 * max(1, abs(peft[2][place])), folder, e.name, "differs from PEFT", y[place], peft[2][place])


def kinds_apply_test(tmp):
    """Embeddings, tied heads, token rows, convolutions and replaced weights, one module at a time."""
    for folder in EMBEDDINGS + TIES + CONVOLUTIONS:
        kinds, _, base, info = kinds_of(folder)
        for path in sorted(folder.glob("x_*.npy")):
            e, more = kinds[path.stem[2:]], list(TIED) if info.get("tied") else []
            more += ["--embed-scale", info["embed_scale"]] if "embed_scale" in info and e.table else []
            where = info["modules"][e.name]
            if "stride" in where:
                more += [word for option in ("stride", "padding", "dilation") for word in ("--" + option, ",".join(map(str, where[option])))]
            kind_apply(tmp, folder, e, read_any_npy(path), read_any_npy(folder / f"y_{e.name}.npy"), more, base, info)
    for folder in REPLACED:
        kinds, _, base, info = kinds_of(folder)
        answers = read(folder / "answers.safetensors")
        ran = 0
        for name in sorted(n.removeprefix("x.") for n in answers if n.startswith("x.")):
            if name not in kinds:  # a norm
                continue
            x, y = ((("<i8" if t[0] == "I64" else "<f4"), t[1], numbers(*t[::2])) for t in (answers["x." + name], answers["y." + name]))
            kind_apply(tmp, folder, kinds[name], x, y, ["--threads", 1 + ran % 2], base, info)
            ran += 1
        check(ran > 0, folder)
    # A convolution takes its patches too; one number stands for both axes.
    folder, module = CONV / "plain", "body.three"
    kinds, _, base, info = kinds_of(folder)
    _, shape, flat = read_any_npy(folder / f"x_{module}.npy")
    _, inputs = patches(shape, flat, (3, 3), (2, 2), (1, 1), (1, 1))
    write_npy(tmp / "p.npy", inputs)
    common = ["apply", "--base", folder / "base.safetensors", "--adapter", folder, "--module", module, "--output", tmp / "y.npy"]
    good(*common, "--input", tmp / "p.npy")
    rows = read_npy(tmp / "y.npy")
    good(*common, "--input", folder / f"x_{module}.npy", "--stride", "2", "--padding", "1")
    _, (n, out, height, width), y = read_any_npy(tmp / "y.npy")
    check(all(abs(rows[i * height * width + p][o] - y[(i * out + o) * height * width + p]) < 1e-5 for i in range(n) for o in range(out) for p in range(height * width)))


def experts_test(tmp):
    """Bare parameters, one matrix or one for each expert: apply and merge, against PEFT's outputs and its merge."""
    for folder in EXPERTS:
        info, weight = json.loads((folder / "expect.json").read_text()), json.loads((folder / "expect.json").read_text()).get("weight", 1.0)
        base, peft = read(folder / "base.safetensors"), read(folder / "merged.safetensors")
        common = ["--base", folder / "base.safetensors", "--adapter", f"{folder}={weight}"]
        for name in info["modules"]:
            (_, shape, x), (_, y_shape, want) = (read_any_npy(folder / f"{k}_{name}.npy") for k in "xy")
            for expert in range(shape[0]) if len(shape) == 3 else (None,):
                rows = x if expert is None else x[expert * len(x) // shape[0]:(expert + 1) * len(x) // shape[0]]
                part = want if expert is None else want[expert * len(want) // shape[0]:(expert + 1) * len(want) // shape[0]]
                write_any_npy(tmp / "x.npy", "F32", shape[-2:], rows)
                module = name if expert is None else f"{name}[{expert}]"
                good("apply", *common, "--module", module, "--input", tmp / "x.npy", "--output", tmp / "y.npy")
                _, got_shape, got = read_any_npy(tmp / "y.npy")
                check(list(got_shape) == list(y_shape[-2:]) and all(abs(p - q) <= 4e-6 * max(1, abs(q)) for p, q in zip(got, part)), folder, module)
        text = good("merge", *common, "--output", tmp / "m")
        merged = read(tmp / "m")
        check(merged.keys() == base.keys())
        # In doubles from the factors: PEFT holds A as [experts x rank, in] and B as [out, rank x experts].
        tensors, config = read(folder / "adapter_model.safetensors"), json.loads((folder / "adapter_config.json").read_text())
        wrapped = {("base_model.model.mlp.experts.base_layer", "base_model.model.mlp.experts")[("down_proj" in " ".join(peft)) + (n == "mlp.experts.down_proj") != 1]: n
                   for n in peft if n.startswith("mlp.experts.")}
        if len(wrapped) == 1:
            wrapped = {"base_model.model.mlp.experts": next(iter(wrapped.values()))}
        for prefix, name in wrapped.items():
            count, (rows, columns) = base[name][1][0], base[name][1][1:]
            a, b, old, new = joined(tensors[prefix + ".lora_A.weight"]), joined(tensors[prefix + ".lora_B.weight"]), floats(base[name]), floats(merged[name])
            rank = len(a) // count
            s = weight * config["lora_alpha"] / (math.sqrt(rank) if config["use_rslora"] else rank)
            for e in range(count):
                d, size = delta(a[e * rank:(e + 1) * rank], [r[e::count] for r in b], s)
                if folder.name == "experts_turned":
                    d, size = transposed(d), transposed(size)
                for r in range(rows):
                    for c in range(columns):
                        at = (e * rows + r) * columns + c
                        exact = old[at] + d[r][c]
                        check(abs(new[at] - exact) <= gamma(rank + 1) * abs(old[at]) + gamma(rank + 4) * size[r][c] + U * abs(exact), folder, name, e, r, c, new[at], exact)
        for name, tensor in base.items():
            check(merged[name][:2] == tensor[:2], name)
            if name not in peft:
                check(merged[name] == tensor, name, "changed")
                continue
            check(all(abs(p - q) <= 4e-6 * max(1, abs(q)) for p, q in zip(floats(merged[name]), floats(peft[name]))), folder, name, "differs from PEFT's merge")
            check(f"\n{name}" in text or f"\n{name.removesuffix('.weight')}" in text, name, text)
        check_shards(tmp, base, ["--adapter", f"{folder}={weight}"], merged)
        refused("convert", "--input", folder, "--to", "peft", "--output", tmp / "none", names=folder, says="experts", output=tmp / "none")
        refused("convert", "--input", folder, "--to", "kohya", "--output", tmp / "none", names=folder, says="experts", output=tmp / "none")
        refused("compose", "--adapter", folder, "--output", tmp / "none", names=tmp / "none", says="experts", output=tmp / "none")
        listed = json.loads(good("inspect", folder, "--json", "--base", folder / "base.safetensors"))["modules"]
        check(sum(m["name"].startswith("mlp.experts") for m in listed) == 3 * len([n for n in peft if n.startswith("mlp.experts")]), listed)
        check("no difference" in good("diff", folder, folder, "--base", folder / "base.safetensors"))
    folder = CONV / "experts"
    for name in ("mlp.experts.down_proj[3]", "mlp.experts.down_proj"):
        refused("apply", "--base", folder / "base.safetensors", "--adapter", folder, "--module", name, "--input", tmp / "x.npy", "--output", tmp / "none", says=name, output=tmp / "none")


def check_shards(tmp, base, arguments, merged):
    """The same tensors from a base in two files."""
    with tempfile.TemporaryDirectory(dir=tmp) as name:
        shards, names = pathlib.Path(name), list(base)
        for i in (0, 1):
            write(shards / f"s{i}.safetensors", {n: base[n] for n in names[i::2]})
        (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {n: f"s{i % 2}.safetensors" for i, n in enumerate(names)}}))
        good("merge", "--base", shards, *arguments, "--output", shards / "m")
        check(read(shards / "m") == merged, arguments, "shards")


def packed(dtype, values):
    one = {"F32": lambda v: struct.pack("<f", v), "F16": lambda v: struct.pack("<e", v), "BF16": lambda v: struct.pack("<f", v)[2:]}[dtype]
    return b"".join(map(one, values))


def kinds_merge_test(tmp):
    """Every kind merged into f32 and 16-bit bases, against doubles; f32 also against PEFT's own merge, where it has one of this sense."""
    for folder, dtype in ((f, d) for f in EMBEDDINGS + TIES + CONVOLUTIONS + REPLACED for d in ("F32", "F16", "BF16")):
        kinds, replaced, _, info = kinds_of(folder)
        base = {n: (dtype, s, packed(dtype, numbers(t, raw))) for n, (t, s, raw) in read(folder / "base.safetensors").items()}
        write(tmp / "base", {**base})
        # The same base, as the doubles are to see it.
        for e in kinds.values():
            tensor = base[e.name + ".weight"] if e.name + ".weight" in base else base["model.embed_tokens.weight"]
            if e.name + ".weight" not in replaced:
                e.w = transposed(joined(tensor)) if e.table else joined(tensor)
            if e.base_bias is not None:
                given = e.bias if e.of_b is None and e.bias != e.base_bias else None
                e.base_bias = floats(base[e.name + ".bias"])
                e.bias = given or e.base_bias
            e.finish()
        tied = info.get("tied", False)
        more = list(TIED) if tied else []
        text = good("merge", "--base", tmp / "base", "--adapter", f"{folder}={info.get('weight', 1.0)}", *more, "--output", tmp / "m")
        merged, unit, least = read(tmp / "m"), {"F32": U, "F16": 2**-11, "BF16": 2**-8}[dtype], 2**-25 * (dtype == "F16")
        # The tied head becomes a tensor of its own, unless it has the rows of the table and nothing else.
        apart = tied and folder.name not in ("tokens", "tokens_named")
        check(merged.keys() == base.keys() | ({"lm_head.weight"} if apart else set()), folder, merged.keys())
        check(("tie_word_embeddings" in text and ", 1 added" in text) == apart, text)
        peft = read(folder / "merged.safetensors") if (folder / "merged.safetensors").exists() and dtype == "F32" else {}
        for name, tensor in merged.items():
            module, kind = name.rsplit(".", 1)
            e = kinds.get(module)
            check(tensor[0] == dtype, name, tensor[0])
            if e is not None and kind == "weight" and e.matrix:
                shape = replaced[name][1] if name in replaced else base.get(name, base.get("model.embed_tokens.weight"))[1]
                check(tensor[1] == shape, folder, name, tensor[1], shape)
                new = transposed(joined(tensor)) if e.table else joined(tensor)
                for o, row in enumerate(e.new):
                    for k, exact in enumerate(row):
                        bound = e.element_bound(o, k, unit) + least
                        check(abs(new[o][k] - exact) <= bound, folder, dtype, name, o, k, new[o][k], exact, bound)
                for i, row in e.rows.items():  # token rows are copied, rounded to the type
                    if not e.a and dtype != "BF16":  # packed() cuts bf16 off
                        check(([r[i] for r in new] if e.table else list(new[i])) == list(numbers(dtype, packed(dtype, row))), folder, name, i)
            elif e is not None and kind == "bias" and e.bias != e.base_bias:
                for p, q, b in zip(floats(tensor), e.bias, e.of_b or [0.0] * len(e.bias)):
                    check(abs(p - q) <= 3 * U * (abs(q) + abs(e.s * b)) + unit * (1 + 8 * U) * abs(q) + least, folder, dtype, name, p, q)
            elif name in replaced:
                check(tensor[1] == replaced[name][1] and all(abs(p - q) <= (unit if dtype != "F32" else 0) * abs(q) + least for p, q in zip(floats(tensor), floats(replaced[name]))), folder, name)
            else:
                check(tensor == base[name], folder, name, "changed")
            if name in peft and name not in replaced:
                check(all(abs(p - q) <= 4e-6 * max(1, abs(q)) for p, q in zip(floats(tensor), floats(peft[name]))), folder, name, "differs from PEFT's merge")
        check_shards(tmp, base, ["--adapter", f"{folder}={info.get('weight', 1.0)}", *more], merged)
    # A replaced module of another size brings its bias along.
    folder, base = SAVED / "saved", read(SAVED / "saved" / "base.safetensors")
    base = {**base, "cls.dense.weight": ("F32", [9, 8], bytes(288)), "cls.dense.bias": ("F32", [9], bytes(36))}
    write(tmp / "base", base)
    good("merge", "--base", tmp / "base", "--adapter", folder, "--output", tmp / "m")
    wanted = read(folder / "adapter_model.safetensors")
    check(all(read(tmp / "m")["cls.dense." + n] == wanted["base_model.model.cls.dense." + n] for n in ("weight", "bias")))
    # The table alone is adapted: the tied head keeps what it was, as a tensor; without --tied, a note says what happens.
    folder = PEFT / "tied_both"
    alone = tmp / "alone"
    shutil.copytree(folder, alone)
    tensors = {n: t for n, t in read(folder / "adapter_model.safetensors").items() if "lm_head" not in n}
    write(alone / "adapter_model.safetensors", tensors)
    config = json.loads((alone / "adapter_config.json").read_text())
    (alone / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["embed_tokens"]}))
    base = read(folder / "base.safetensors")
    text = good("merge", "--base", folder / "base.safetensors", "--adapter", alone, *TIED, "--output", tmp / "m")
    check(read(tmp / "m")["lm_head.weight"] == base["model.embed_tokens.weight"] != read(tmp / "m")["model.embed_tokens.weight"] and "as its table was" in text, text)
    text = good("merge", "--base", folder / "base.safetensors", "--adapter", alone, "--output", tmp / "m")
    check(read(tmp / "m").keys() == base.keys() and "--tied NAME=model.embed_tokens" in text, text)
    # The same the other way round: a copy under the head's name is the table's new value, too, with whatever the head has on top for itself.
    given = read(folder / "adapter_model.safetensors")
    dtype, shape, raw = base["model.embed_tokens.weight"]
    copy = (dtype, shape, packed(dtype, [v - 0.5 for v in numbers(dtype, raw)]))
    write(alone / "adapter_model.safetensors", {**{n: t for n, t in given.items() if "lm_head" in n}, "base_model.model.lm_head.base_layer.weight": copy})
    (alone / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["lm_head"]}))
    good("merge", "--base", folder / "base.safetensors", "--adapter", alone, *TIED, "--output", tmp / "m")
    merged = read(tmp / "m")
    check(merged["model.embed_tokens.weight"] == copy and merged["lm_head.weight"] not in (copy, base["model.embed_tokens.weight"]))
    (alone / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["embed_tokens"]}))
    # A copy of the table in the adapter (save_embedding_layers) is a new value of the weight that both have, of whatever type: the head gets it as it
    # is, the table with the product on top, rounded once, to the base's type.
    dtype, (rows, columns), raw = base["model.embed_tokens.weight"]
    values = [1 + 0.75 * v for v in numbers(dtype, raw)]
    name = "base_model.model.model.embed_tokens"
    a, b = (matrix(tensors[f"{name}.lora_embedding_{part}"]) for part in "AB")
    s = config["lora_alpha"] / config["r"]
    for of_base, of_copy in (("F32", "F16"), ("F32", "BF16"), ("BF16", "F32"), ("F16", "F32"), ("BF16", "F16")):
        changed = {n: (of_base, t[1], packed(of_base, numbers(t[0], t[2]))) for n, t in base.items()}
        write(tmp / "base", changed)
        copy = (of_copy, [rows, columns], packed(of_copy, values))
        write(alone / "adapter_model.safetensors", {**tensors, name + ".base_layer.weight": copy})
        good("merge", "--base", tmp / "base", "--adapter", alone, *TIED, "--output", tmp / "m")
        merged = read(tmp / "m")
        check(merged.keys() == base.keys() | {"lm_head.weight"} and all(merged[n][0] == of_base for n in merged), of_base, of_copy)
        unit = {"F32": 0, "F16": 2**-11, "BF16": 2**-8}[of_base]
        for i, (had, now, exact) in enumerate(zip(floats(merged["lm_head.weight"]), floats(merged["model.embed_tokens.weight"]), floats(copy))):
            check(abs(had - exact) <= unit * abs(exact), of_base, of_copy, "head", i, had, exact)
            own = [s * b[i % columns][r] * a[r][i // columns] for r in range(len(a))]
            chain = gamma(len(a) + 8) * (abs(exact) + math.fsum(map(abs, own)))
            want = math.fsum([exact, *own])
            check(abs(now - want) <= chain + unit * 2.0**(math.frexp(abs(want) + chain)[1] - 1), of_base, of_copy, "table", i, now, want)


def fused_test(tmp):
    """A base that holds q and v in one tensor, either way round: the bits that it has apart."""
    for case in ("plain", "dora", "bias_all", "lora_bias"):
        folder = PEFT / case
        base, fused, turned = read(folder / "base.safetensors"), {}, {}
        for name, t in base.items():
            if "layers" not in name:
                fused[name] = t
        for i in (0, 1):
            q, v, to = (f"model.layers.{i}.{n}" for n in ("q_proj", "v_proj", "qv_proj"))
            fused[to + ".weight"] = ("F32", [27, 12], base[q + ".weight"][2] + base[v + ".weight"][2])
            fused[to + ".bias"] = ("F32", [27], base[q + ".bias"][2] + bytes(28))
        for name, (d, shape, raw) in fused.items():
            turned[name] = (d, [12, 27], packed("F32", (x for r in transposed(matrix((d, shape, raw))) for x in r))) if name.endswith("qv_proj.weight") else (d, shape, raw)
        apart = dict(base)
        for i in (0, 1):
            apart[f"model.layers.{i}.v_proj.bias"] = ("F32", [7], bytes(28))
        write(tmp / "apart", apart)
        option = ["--fused", "qv_proj=q_proj:20,v_proj:7"]
        good("merge", "--base", tmp / "apart", "--adapter", folder, "--output", tmp / "one")
        one = read(tmp / "one")
        for number, given in enumerate((fused, turned)):
            write(tmp / "fused", given)
            text = good("merge", "--base", tmp / "fused", "--adapter", folder, *option, "--output", tmp / "two")
            two = read(tmp / "two")
            check(two.keys() == fused.keys() and "v_proj" in text, text)
            check_shards(tmp, given, ["--adapter", folder, *option], two)
            for name, tensor in two.items():
                if "qv_proj" not in name:
                    check(tensor == one[name], name)
                    continue
                whole = one[name.replace("qv_proj", "q_proj")][2] + one[name.replace("qv_proj", "v_proj")][2]
                raw = tensor[2] if number == 0 or name.endswith("bias") else packed("F32", (x for r in transposed(matrix(tensor)) for x in r))
                check(tensor[1] == given[name][1] and raw == whole and (tensor != given[name]) == (name.endswith("weight") or "bias" in case), case, number, name)
            for module in ("model.layers.0.q_proj", "model.layers.1." + ("q_proj" if case == "bias_all" else "v_proj")):
                common = ["--adapter", folder, "--module", module, "--input", folder / f"x_{module}.npy", "--output"]
                good("apply", "--base", tmp / "apart", *common, tmp / "y1.npy")
                good("apply", "--base", tmp / "fused", *option, *common, tmp / "y2.npy")
                check(all(abs(p - q) <= 4e-6 * max(1, abs(q)) for r, e in zip(read_npy(tmp / "y2.npy"), read_npy(tmp / "y1.npy")) for p, q in zip(r, e)), case, number, module)
            check("no difference" in good("diff", folder, folder, "--base", tmp / "fused", *option))
            listed = json.loads(good("inspect", tmp / "fused", *option, "--json"))["modules"]
            check({"name": "model.layers.1.v_proj", "tensor": "model.layers.1.qv_proj.weight"}.items() <= {m["name"]: m for m in listed}["model.layers.1.v_proj"].items(), listed)
        good("compose", "--adapter", folder, "--base", tmp / "fused", *option, "--output", tmp / f"sum-{case}") if case == "plain" else None
    base, out, p = tmp / "fused", tmp / "out", PEFT / "plain"
    merge = ["merge", "--base", base, "--adapter", p, "--output", out]
    refused(*merge, names=p, says="q_proj", output=out)
    refused(*merge, "--fused", "qv_proj=q_proj:20,v_proj:8", names=base, says="20 + 8 rows", output=out)
    refused(*merge, "--fused", "qkv=q_proj:20,v_proj:7", names=base, says="'qkv'", output=out)
    for wrong in (["--fused", "qv_proj"], ["--fused", "qv_proj=q_proj"], ["--fused", "qv_proj=q_proj:0"], ["--fused", "qv_proj=q_proj:20,"], ["--fused", "=q:1"], ["--fused", "qv_proj=q_proj:2x"],
                  ["--tied", "lm_head"], ["--tied", "=x"], ["--tied", "x="]):
        done = run(*merge, *wrong)
        check(done.returncode == 2 and wrong[1].encode() in done.stderr and not out.exists(), wrong, done)
    for wrong in (["compose", "--adapter", p, "--output", out], ["inspect", p], ["diff", p, p]):
        done = run(*wrong, "--tied", "a=b")
        check(done.returncode == 2 and b"pass --base" in done.stderr, done)


def kinds_refusal_test(tmp):
    head, out = PEFT / "tied_head", tmp / "out"
    base = head / "base.safetensors"
    merge = ["merge", "--base", base, "--adapter", head, "--output", out]
    refused(*merge, names=head, says="--tied", output=out)
    refused(*merge, "--tied", "lm_head=no.such", names=base, says="'no.such'", output=out)
    write(tmp / "own", {**read(base), "lm_head.weight": read(base)["model.embed_tokens.weight"]})
    refused("merge", "--base", tmp / "own", "--adapter", head, *TIED, "--output", out, names=tmp / "own", says="of its own", output=out)
    # Ids outside the table, and inputs of another kind.
    folder, module = PEFT / "embedding", "model.embed_tokens"
    apply = ["apply", "--base", folder / "base.safetensors", "--adapter", folder, "--module", module, "--output", out, "--input"]
    for ids, where in (((0, 19), "ids[1] is 19"), ((-1,), "ids[0] is -1")):
        write_any_npy(tmp / "ids.npy", "I64", [len(ids)], ids)
        refused(*apply, tmp / "ids.npy", names=tmp / "ids.npy", says=where, output=out)
    refused(*apply, PEFT / "plain" / "x_model.layers.0.q_proj.npy", names="q_proj.npy", says="int64 [n]", output=out)
    linear = ["apply", "--base", folder / "base.safetensors", "--adapter", folder, "--module", "model.proj", "--output", out, "--input"]
    refused(*linear, tmp / "ids.npy", names="ids.npy", says="f32 [n, 12]", output=out)
    for more in (["--embed-scale", "2"], ["--stride", "2"], ["--padding", "1"]):
        done = run(*linear, folder / "x_model.proj.npy", *more)
        check(done.returncode == 2 and more[0].encode() in done.stderr and not out.exists(), done)
    # Convolutions.
    conv = CONV / "plain"
    images = ["apply", "--base", conv / "base.safetensors", "--adapter", conv, "--output", out, "--module", "body.three", "--input"]
    refused(*images, conv / "x_body.one.npy", names="x_body.one.npy", says="conv2d", output=out)
    refused(*images, conv / "x_body.linear.npy", names="x_body.linear.npy", says="f32 [n, channels, height, width]", output=out)
    for wrong in ("0", "1,", "1,2,3", "x", ",1", "-1"):
        done = run(*images, conv / "x_body.three.npy", f"--stride={wrong}")
        check(done.returncode == 2 and b"--stride" in done.stderr and not out.exists(), wrong, done)
    for case in ("grouped", "one_axis"):
        refused("merge", "--base", CONV / case / "base.safetensors", "--adapter", CONV / case, "--output", out, names=CONV / case, output=out)
    for folder in sorted((SAVED / "refused").iterdir()) + [SAVED / "pissa", SAVED / "olora"]:
        refused("inspect", folder, names=folder)
    # Two that replace the same, and what has no sum.
    saved = SAVED / "saved"
    refused("merge", "--base", saved / "base.safetensors", "--adapter", saved, "--adapter", saved, "--output", out, output=out)
    for folder, says in ((saved, "replace"), (PEFT / "tokens", "rows"), (PEFT / "embedding_dora", "DoRA")):
        refused("compose", "--adapter", folder, "--output", out, names=folder, says=says, output=out)
    for folder in (PEFT / "embedding", PEFT / "tokens", saved, SAVED / "base_copy"):
        for to in ("kohya", "json", "gguf"):
            refused("convert", "--input", folder, "--to", to, *(["--architecture", "llama"] if to == "gguf" else []), "--output", out, names=folder, output=out)


def kinds_convert_test(tmp):
    """Written as PEFT's folder and read again, every kind is what it was; convolutions as kohya's file too; sums of adapters."""
    for folder in EMBEDDINGS + TIES + CONVOLUTIONS + REPLACED:
        tied = list(TIED) if folder in TIES else []
        to = tmp / "again" / folder.name
        to.parent.mkdir(exist_ok=True)
        good("convert", "--input", folder, "--to", "peft", "--output", to)
        check("no difference" in good("diff", folder, to), folder)
        base = folder / "base.safetensors"
        for adapter, out in ((folder, tmp / "one"), (to, tmp / "two")):
            good("merge", "--base", base, "--adapter", adapter, *tied, "--output", out)
        check((tmp / "one").read_bytes() == (tmp / "two").read_bytes(), folder)
        listed = json.loads(good("inspect", folder, "--json", "--base", base, *tied))
        kinds, replaced, _, info = kinds_of(folder)
        names = {m["name"]: m for m in listed["modules"]}
        for e in kinds.values():
            if e.name == "lm_head" and not e.a and e.name not in names:  # has the rows of the table
                continue
            m = names[e.name]
            check(m["kind"] == ("embedding" if e.table and e.a else "conv2d" if "stride" in info.get("modules", {}).get(e.name, {}) else m["kind"]), m)
            check(m["rank"] == len(e.a) and m["dora"] == (e.magnitude is not None), m)
            if e.a:
                own = Kind(e.name, e.w)
                own.a, own.b, own.s, own.magnitude, own.table = e.a, e.b, e.s / info.get("weight", 1.0), e.magnitude, e.table
                own.finish()
                change = [[p - q for p, q in zip(*r)] for r in zip(own.new, own.w)] if e.magnitude is not None else own.d
                norm = math.sqrt(math.fsum(v * v for r in change for v in r))
                check(m["norm_of"] == ("update" if e.magnitude is not None else "s B A") and abs(m["norm"] - norm) <= 1e-6 * norm, folder, m, norm)
        if not any(e.magnitude is not None or e.rows or e.of_b or e.name + ".weight" in replaced for e in kinds.values()) and not replaced:
            good("compose", "--adapter", f"{folder}=0.5", "--adapter", f"{folder}=-1.25", "--output", tmp / "sum", "--base", base, *tied)
            good("merge", "--base", base, "--adapter", tmp / "sum", *tied, "--output", tmp / "one")
            good("merge", "--base", base, "--adapter", f"{folder}=-0.75", *tied, "--output", tmp / "two")
            one, two = read(tmp / "one"), read(tmp / "two")
            check(one.keys() == two.keys() and all(abs(p - q) <= 2e-5 * max(1, abs(q)) for n in one for p, q in zip(floats(one[n]), floats(two[n]))), folder)
            check(one != read(base))
    for folder, base in ((CONV / "plain", CONV / "plain" / "base.safetensors"), (CONV / "f16", CONV / "f16" / "base.safetensors")):
        good("convert", "--input", folder, "--to", "kohya", "--output", tmp / "k.safetensors")
        check("no difference" in good("diff", folder, tmp / "k.safetensors", "--base", base))
        check(len(read(tmp / "k.safetensors")["lora_unet_body_three.lora_down.weight"][1]) == 4)
        for adapter, out in ((folder, tmp / "one"), (tmp / "k.safetensors", tmp / "two")):
            good("merge", "--base", base, "--adapter", adapter, "--output", out)
        check((tmp / "one").read_bytes() == (tmp / "two").read_bytes())
    kohya, base = CONV / "kohya" / "kohya.safetensors", CONV / "kohya" / "base.safetensors"
    good("convert", "--input", kohya, "--to", "peft", "--base", base, "--output", tmp / "p")
    check("no difference" in good("diff", kohya, tmp / "p", "--base", base))
    check("no difference" in good("diff", CONV / "kohya" / "diffusers.safetensors", tmp / "p", "--base", base))
    for name, where in json.loads((CONV / "kohya" / "expect.json").read_text())["modules"].items():
        more = ["--padding", where["padding"][0]] if "padding" in where else []
        good("apply", "--base", base, "--adapter", kohya, "--module", name, "--input", CONV / "kohya" / f"x_{name}.npy", "--output", tmp / "y.npy", *more)
        (_, shape, y), (_, wanted, peft) = read_any_npy(tmp / "y.npy"), read_any_npy(CONV / "kohya" / f"y_{name}.npy")
        check(shape == wanted and all(abs(p - q) <= 4e-6 * max(1, abs(q)) for p, q in zip(y, peft)), name)
    refused("inspect", CONV / "kohya" / "tucker.safetensors", names="tucker.safetensors", says="lora_mid")


if __name__ == "__main__":
    for test in [t for n, t in list(globals().items()) if n.endswith("_test") and n[:-5] in (sys.argv[2:] or [n[:-5]])]:
        with tempfile.TemporaryDirectory(prefix="lora-program-") as folder:
            before = checks
            test(pathlib.Path(folder))
            print(f"{test.__name__}: {checks - before} checks")
    print(f"{checks} checks passed")
