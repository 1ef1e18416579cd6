#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The operations on views against C++ peers and NumPy, in one process: the library of bench_ops is loaded here, NumPy works on the same
memory. Each peer is checked before it is timed; rounds are interleaved in shuffled order; a ratio is the median of the rounds' own ratios.

  ops.py --library build/release/bin/libbench_ops_tasks.so [--quick] [--only TEXT] [--rounds N] [--json FILE]

Without NumPy (build/venv-numpy, made by tools/numpy_venv.py) its rows are absent. tools/plot_ops.py turns the JSON into tables and plots.
"""
import argparse
import ctypes
import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
VENV = ROOT / "build" / "venv-numpy" / "bin" / "python"
NO_CHECK = {"memcpy"}  # a limit, not a peer: it moves as many bytes, not the same result


def restart_in_numpy_environment():
    """NumPy of a pinned version, where it is there or can be made; this process ends when it is."""
    if os.environ.get("LORA_BENCH_OPS_STARTED"):
        return
    subprocess.run([sys.executable, str(ROOT / "tools" / "numpy_venv.py")])
    os.environ["LORA_BENCH_OPS_STARTED"] = "1"
    if VENV.exists():
        os.execv(VENV, [str(VENV), "-B", *sys.argv])


def load(path):
    library = ctypes.CDLL(str(path.resolve()))
    for name, result, arguments in (("ops_context", ctypes.c_char_p, []), ("ops_tasks", ctypes.c_int, []), ("ops_task", ctypes.c_char_p, [ctypes.c_int]),
                                    ("ops_open", ctypes.c_int, [ctypes.c_int, ctypes.c_double]), ("ops_from", ctypes.c_void_p, [ctypes.c_int]),
                                    ("ops_to", ctypes.c_void_p, [ctypes.c_int]), ("ops_soil", None, []), ("ops_check", ctypes.c_char_p, []),
                                    ("ops_run", None, [ctypes.c_int]), ("ops_time", ctypes.c_double, [ctypes.c_int, ctypes.c_long]), ("ops_close", None, [])):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def array(np, address, kind, count, shape, stride):
    """A view of the library's memory."""
    dtype = np.dtype({"f32": "f4", "f64": "f8", "i32": "i4", "i64": "i8", "f16": "f2"}[kind])
    flat = np.frombuffer((ctypes.c_char * (count * dtype.itemsize)).from_address(address), dtype)
    return np.lib.stride_tricks.as_strided(flat, shape, [s * dtype.itemsize for s in stride])


def c_strides(shape):
    strides, step = [], 1
    for n in reversed(shape):
        strides.insert(0, step)
        step *= n
    return strides


def numpy_peer(np, library, task, sets):
    """One callable a pair of buffers, or None where NumPy has nothing alike: bfloat16, erf, a record of a slice."""
    if task["op"] in ("gelu", "pass") or "bf16" in (task["from_type"], task["to_type"]):
        return None
    shape, axis = task["shape"], task["axis"]
    calls = []
    for k in range(sets):
        x = array(np, library.ops_from(k), task["from_type"], task["from_count"], shape, task["from_stride"])
        if task["op"] in ("sum", "max", "argmax"):
            out_shape = [] if axis < 0 else shape[:axis] + shape[axis + 1:]
        else:
            out_shape = shape[::-1] if task["op"] == "transpose" else shape
        strides = task["to_stride"] if task["op"] == "scale" else c_strides(out_shape)
        if task["op"] != "slice":
            y = array(np, library.ops_to(k), task["to_type"], task["to_count"], out_shape, strides)
        calls.append({
            "scale": lambda: lambda x=x, y=y, two=np.float32(2): np.multiply(x, two, y),
            "transpose": lambda: lambda x=x, y=y: np.copyto(y, x.T),
            "sum": lambda: lambda x=x, y=y, a=None if axis < 0 else axis: np.add.reduce(x, a, None, y),
            "max": lambda: lambda x=x, y=y, a=None if axis < 0 else axis: np.maximum.reduce(x, a, None, y),
            "argmax": lambda: lambda x=x, y=y, a=None if axis < 0 else axis: x.argmax(a, y),
            "convert": lambda: lambda x=x, y=y: np.copyto(y, x, casting="unsafe"),
            "softmax": lambda: lambda x=x, y=y: softmax(np, x, y),
            "layer_norm": lambda: layer_norm(np, x, y),
            "slice": lambda: lambda x=x: numpy_slice(x, task["strided"]),
        }[task["op"]]())
    return calls


def softmax(np, x, y):
    np.subtract(x, x.max(-1, keepdims=True), out=y)
    np.exp(y, out=y)
    np.divide(y, y.sum(-1, keepdims=True), out=y)


def layer_norm(np, x, y):
    k = np.arange(x.shape[1])
    w = np.float32(1) + np.float32(0.001) * (k % 97).astype(np.float32)
    b = np.float32(0.01) * (k % 13).astype(np.float32)

    def run():
        np.subtract(x, x.mean(-1, keepdims=True), out=y)
        s = np.sqrt(np.square(y).mean(-1, keepdims=True) + np.float32(1e-5))
        np.divide(y, s, out=y)
        np.multiply(y, w, out=y)
        np.add(y, b, out=y)
    return run


def numpy_slice(x, strided):
    return x[1:7:2, ..., ::-1, 5] if strided else x[1:7, :, 2:30, 5]


def check_numpy(library, task, call, x_address):
    """The slice is compared here, because its result is not in the library's memory."""
    library.ops_soil()
    result = call()
    if task["op"] != "slice":
        return library.ops_check().decode()
    want = ((3, 16, 32), (65536, 2048, -64), 32768 + 31 * 64 + 5) if task["strided"] else ((6, 16, 28), (32768, 2048, 64), 32768 + 2 * 64 + 5)
    got = (result.shape, tuple(s // 4 for s in result.strides), (result.__array_interface__["data"][0] - x_address) // 4)
    return "" if got == want else "another slice"


class timed:
    """time(calls): seconds a repetition."""

    def __init__(self, name, how, time_calls):
        self.name, self.how, self.time, self.samples, self.calls = name, how, time_calls, [], 1


def numpy_timer(calls):
    turn = [0]

    def run(count):
        at, sets = turn[0], len(calls)
        if sets == 1:
            call = calls[0]
            start = time.perf_counter()
            for _ in range(count):
                call()
        else:
            start = time.perf_counter()
            for k in range(count):
                calls[(at + k) % sets]()
        taken = time.perf_counter() - start
        turn[0] = (at + count) % sets
        return taken / count
    return run


def quartiles(values):
    if len(values) < 2:
        return [values[0]] * 3
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return [statistics.median(values), low, high]


def measure(library, np, number, task, options, rotate, shuffle):
    sets = library.ops_open(number, rotate)
    peers, wrong = [], []

    def take(peer, problem):
        if problem:
            wrong.append({"name": peer.name, "why": problem})
            print(f"  {peer.name}: WRONG, not timed: {problem}", flush=True)
            return
        once = peer.time(1)
        peer.calls = max(1, min(1000000, int(options.sample / max(once, 1e-9))))
        peers.append(peer)

    for index, p in enumerate(task["peers"]):
        library.ops_soil()
        library.ops_run(index)
        problem = "" if p["name"] in NO_CHECK else library.ops_check().decode()
        take(timed(p["name"], p["how"], lambda count, index=index: library.ops_time(index, count)), problem)
    calls = numpy_peer(np, library, task, sets) if np is not None else None
    if calls:
        take(timed("NumPy", f"NumPy {np.__version__}, called from Python", numpy_timer(calls)), check_numpy(library, task, calls[0], library.ops_from(0)))
    for _ in range(min(options.rounds, options.cold_rounds) if task["cold"] else options.rounds):
        for peer in shuffle.sample(peers, len(peers)):
            peer.samples.append(peer.time(peer.calls))
    library.ops_close()
    base = next((p for p in peers if p.name == "lora"), None)
    rows = []
    for p in peers:
        row = {"name": p.name, "how": p.how, "ns": [round(v * 1e9, 2) for v in quartiles(p.samples)]}
        if base is not None:
            row["ratio"] = [round(v, 3) for v in quartiles([a / b for a, b in zip(p.samples, base.samples)])]
        rows.append(row)
    return {"group": task["group"], "name": task["name"], "op": task["op"], "bytes": task["bytes"], "cold": task["cold"], "peers": rows, "wrong": wrong}


def write(path, context, results):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ",\n".join(json.dumps(r, separators=(",", ":")) for r in results)
    path.write_text(f'{{"context": {json.dumps(context)},\n"tasks": [\n{rows}\n]}}\n', encoding="utf-8")


def show(result):
    print(f"{result['group']}: {result['name']}")
    for row in result["peers"]:
        rate = f"{result['bytes'] / row['ns'][0]:8.1f} GB/s" if result["bytes"] else ""
        ratio = "{:8.2f} x lora  [{:.2f}, {:.2f}]".format(*row["ratio"]) if "ratio" in row else ""
        print(f"  {row['name']:30} {row['ns'][0] / 1000:12.3f} us {ratio:32} {rate}")
    sys.stdout.flush()


def main():
    restart_in_numpy_environment()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=pathlib.Path, default=ROOT / "build/release/bin/libbench_ops_tasks.so")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds; from memory only copies and f32; under a minute")
    parser.add_argument("--only", default="", help="tasks whose group or name holds this text")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--json", type=pathlib.Path, default=ROOT / "build/bench_ops.json")
    options = parser.parse_args()
    options.rounds = options.rounds or (5 if options.quick else 21)
    options.cold_rounds = 3 if options.quick else 11
    options.sample = 2e-4 if options.quick else 2e-3

    library = load(options.library)
    context = json.loads(library.ops_context())
    # OpenBLAS 0.3.21 runs CPUs it does not know with its oldest kernels; it reads a better choice when it is loaded.
    if context["openblas_core"] == "Prescott" and "OPENBLAS_CORETYPE" not in os.environ and "avx512dq" in pathlib.Path("/proc/cpuinfo").read_text():
        os.environ["OPENBLAS_CORETYPE"] = "SkylakeX"
        os.execv(sys.executable, [sys.executable, "-B", *sys.argv])
    try:
        import numpy as np
        context["numpy"] = np.__version__
        empty, two = np.zeros(1, np.float32), np.float32(2)
        numpy_call = numpy_timer([lambda: np.multiply(empty, two, empty)])
        context["numpy_call_ns"] = round(statistics.median(numpy_call(2000) for _ in range(9)) * 1e9)
    except ImportError:
        np = None
        print("NumPy is not there: its rows are absent")
    context.update(python=platform.python_version(), kernel=platform.release(), rounds=options.rounds, quick=options.quick)
    rotate = 128e6 if options.quick else min(max(1.5 * max(context["l3"], 0), 256e6), 768e6)
    print(f"{context['cpu']}, {context['cpus']} CPUs; {context['compiler']}; flags: {context['flags']}; tier {context['tier']}")
    shuffle = random.Random(1)
    results = []
    start = time.time()
    for number in range(library.ops_tasks()):
        task = json.loads(library.ops_task(number))
        if options.only not in f"{task['group']}: {task['name']}":
            continue
        if options.quick and task["cold"] and task["op"] not in ("scale", "transpose") and not (task["op"] == "sum" and task["name"].startswith("f32")):
            continue
        results.append(measure(library, np, number, task, options, rotate, shuffle))
        show(results[-1])
        write(options.json, context, results)  # what is interrupted keeps what it has
    again = [row["ratio"][0] for r in results for row in r["peers"] if row["name"] == "lora again"]
    if again:
        context["again"] = [round(v, 3) for v in quartiles(again)]
        print("lora against itself (A/A), over all tasks: {:.2f} [{:.2f}, {:.2f}]".format(*context["again"]))
    write(options.json, context, results)
    print(f"{len(results)} tasks in {time.time() - start:.0f} s; written to {options.json}")
    slower = [(row["ratio"][0], r, row) for r in results for row in r["peers"] if "ratio" in row and row["ratio"][0] < 0.95 and not row["name"].startswith(("lora", "memcpy", "by "))]
    for ratio, r, row in sorted(slower, key=lambda s: s[0]):
        print(f"  faster than lora: {row['name']}, {r['group']}: {r['name']}: {ratio:.2f} [{row['ratio'][1]:.2f}, {row['ratio'][2]:.2f}]")
    return int(any(w["name"].startswith("lora") for r in results for w in r["wrong"]))  # a peer's mistake is its own


if __name__ == "__main__":
    sys.exit(main())
