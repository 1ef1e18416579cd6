#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The fused forward against its peers and against the machine: y = x W^T + s (x A^T) B^T, W from memory.

  forward.py                     the headline: M = 1 ... 512, 4096 x 4096, rank 16, f32 and bf16, one thread, 4 KiB pages, 5 process starts
  forward.py --quick             the same from one start and few rounds, under two minutes
  forward.py --set curve         a named set: curve, rank, size, swap, small, tiers, transposed, threads, roofline; several with commas, or all
  forward.py --peers             first makes build/venv-peers with PyTorch, PEFT, oneMKL and the newest OpenBLAS (says how much it downloads)

The library of bench_forward is loaded into one process with PyTorch, PEFT and NumPy, as far as these can be imported, and all work on its memory.
Each peer is compared with float64 before it is timed; one that is wrong is named and left out. Every round runs all of them in shuffled order, on
another x and y and on the layers in turn; the limits of the machine are measured in the same rounds. A ratio is the median of the rounds' own ratios
over several process starts, with a 95 % interval from a bootstrap over starts and rounds (tools/bench_stats.py). tools/plot_forward.py makes tables
and plots of the JSON.
"""
import argparse
import ctypes
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import random
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import bench_stats  # noqa: E402

HEADLINE = [1, 4, 8, 16, 32, 64, 512]
OURS = ["lora", "lora again", "lora native", "lora native again"]
PLAIN = ["OpenBLAS", "MKL", "oneDNN", "Eigen", "ggml", "torch", "torch + PEFT", "NumPy"]
REORDERED = ["oneDNN reordered", "MKL packed", "torch mkldnn prepacked"]
BEST = ["oneDNN", "torch", "MKL", "oneDNN reordered", "torch mkldnn prepacked", "MKL packed"]
# The peers' own threads go on spinning after a call (OpenBLAS's 30 ms, libgomp's 15, MKL's 200 unless told otherwise) and take a CPU from whoever is
# timed next. They are told to spin a millisecond or two, a hundred times the gap between two calls; then each peer starts after a pause.
SPIN = {"OPENBLAS_THREAD_TIMEOUT": "22", "GOMP_SPINCOUNT": "20000", "KMP_BLOCKTIME": "2"}
QUIET_SECONDS = 0.01


def sets():
    """name -> (process starts, its problems). A problem is what forward_open takes, with several batch sizes and the peers that get it."""
    def problem(**changes):
        return {"type": "f32", "out": 4096, "in": 4096, "rank": 16, "adapters": 1, "transposed": False, "threads": 1, "swap": False, "rotate": 4e8,
                "tokens": HEADLINE, "peers": OURS + PLAIN + REORDERED, **changes}

    def square(n):
        return {"out": n, "in": n}
    few = ["lora", "lora again", "lora native"]
    overhead = [*few, "lora base", "lora native base", "oneDNN", "torch + PEFT", "torch mkldnn prepacked"]
    both = ("f32", "bf16")
    return {
        "headline": (5, [problem(type=t) for t in both]),
        "curve": (2, [problem(type=t, tokens=list(range(1, 41)), peers=few + BEST) for t in both]),
        "rank": (2, [problem(type=t, rank=r, tokens=[1, 16, 64], peers=overhead) for t in both for r in (0, 4, 8, 16, 32, 64, 128, 256)] +
                 [problem(type=t, adapters=2, tokens=[1, 16, 64], peers=overhead) for t in both]),
        "size": (3, [problem(type=t, **square(n), tokens=[1, 16, 64], peers=few + BEST) for t in both for n in (256, 512, 1024, 2048, 8192)] +
                 [problem(type=t, out=11008, tokens=[1, 4, 8, 16, 64], peers=few + BEST) for t in both]),
        "swap": (5, [problem(type=t, swap=True, tokens=[1, 16, 64]) for t in both]),
        "small": (5, [problem(**square(64), rank=4, rotate=0, tokens=[1, 4, 16])]),
        "tiers": (3, [problem(tokens=[64, 512], peers=["lora", "lora again", "lora avx2"]),
                      problem(**square(2048), tokens=[1, 4, 8, 16, 64], peers=["lora", "lora generic -O2", "Eigen -O2"])]),
        "transposed": (3, [problem(type=t, transposed=x, tokens=[1, 4, 16, 64], peers=few + BEST) for t in both for x in (False, True)]),
        "threads": (5, [problem(type=t, threads=2) for t in both]),
        "roofline": (1, [problem(threads=n, tokens=[1], peers=["lora"]) for n in (1, 2)]),
    }


def chosen(options):
    """The problems that the options ask for: (set, starts, problem)."""
    known = sets()
    names = list(known) if options.set == "all" else options.set.split(",")
    result = []
    for name in names:
        if name not in known:
            sys.exit(f"no set {name}: there are {', '.join(known)}, all")
        starts, problems = known[name]
        for p in problems:
            if options.types and p["type"] not in options.types.split(","):
                continue
            p = {**p, "set": name}
            if options.tokens:
                p["tokens"] = [int(m) for m in options.tokens.split(",")]
            if options.shape:
                p["out"], p["in"] = (int(v) for v in options.shape.lower().split("x"))
            for key in ("rank", "adapters"):
                if getattr(options, key) is not None:
                    p[key] = getattr(options, key)
            if options.transposed:
                p["transposed"] = True
            if options.rotate_mb is not None:
                p["rotate"] = options.rotate_mb * 1e6
            if options.only:
                p["peers"] = options.only.split(",")
            for threads in ([int(t) for t in options.threads.split(",")] if options.threads else [p["threads"]]):
                if not any(q == {**p, "threads": threads} for _, _, q in result):
                    result.append((name, options.starts or (1 if options.quick else starts), {**p, "threads": threads}))
    return result


# ---- one process: everything below runs in a child, which prints a line of JSON a result -------------------------------------------------

class timed:
    """time(calls, set) is seconds a call."""

    def __init__(self, name, how, form, rounds_between, time_calls, once, base_only=False):
        self.name, self.how, self.form, self.rounds_between, self.time, self.once = name, how, form, rounds_between, time_calls, once
        self.base_only, self.calls, self.samples = base_only, 1, []


def load(path):
    library = ctypes.CDLL(str(path.resolve()))
    text, number, real, address = ctypes.c_char_p, ctypes.c_int, ctypes.c_double, ctypes.c_void_p
    for name, result, arguments in (
            ("context", text, []), ("load", text, [text, text]), ("open", number, [number] + [ctypes.c_long] * 5 + [number] * 4 + [real]), ("close", None, []),
            ("peers", text, []), ("prepare", None, [number]), ("x", address, [number]), ("y", address, [number]), ("w", address, [number]),
            ("a", address, [number, number]), ("b", address, [number, number]), ("scale", real, []), ("soil", None, []), ("check", text, [number, number]),
            ("run", None, [number]), ("time", real, [number, ctypes.c_long, number]), ("turn", number, []), ("bytes", real, []), ("flops", real, []),
            ("calibrate", text, []), ("stream", real, [ctypes.c_long]), ("burst", real, [number])):
        function = getattr(library, "forward_" + name)
        function.restype, function.argtypes = result, arguments
    return library


def wheel_file(package, name):
    """A file that a wheel installed, wherever that is; None without the wheel."""
    try:
        found = [f for f in importlib.metadata.files(package) or [] if f.name.startswith(name)]
    except importlib.metadata.PackageNotFoundError:
        return None
    return str(pathlib.Path(found[0].locate()).resolve()) if found else None


class python_peers:
    """PyTorch, PEFT and NumPy on the library's memory."""

    def __init__(self, wanted):
        self.np = self.torch = self.peft = None
        try:
            import numpy
            self.np = numpy
            if any(n.startswith("torch") for n in wanted):
                import torch
                torch.set_grad_enabled(False)
                self.torch = torch
            if "torch + PEFT" in wanted:
                import peft
                self.peft = peft
        except ImportError as missing:
            emit("note", {"text": f"{missing}: its rows are absent"})
        self.numpy_threads = None  # as many as it was asked for; otherwise it takes all
        path = wheel_file("numpy", "libscipy_openblas")
        if self.np is not None and path is not None:
            self.numpy_threads = getattr(ctypes.CDLL(path), "scipy_openblas_set_num_threads64_", None)

    def versions(self):
        found = {"numpy": self.np.__version__} if self.np else {}
        if self.torch:
            found["torch"] = self.torch.__version__
            onednn = [line for line in self.torch.__config__.show().splitlines() if "MKL-DNN" in line]
            found["torch_onednn"] = onednn[0].split(" v")[1].split()[0] if onednn else "none"
        if self.peft:
            found["peft"] = self.peft.__version__
        return found

    def array(self, address, p, *shape):
        dtype = self.np.dtype("f4" if p["type"] == "f32" else "u2")
        count = shape[0] * shape[1]
        return self.np.frombuffer((ctypes.c_char * (count * dtype.itemsize)).from_address(address), dtype).reshape(shape)

    def tensor(self, address, p, *shape):
        t = self.torch.from_numpy(self.array(address, p, *shape))
        return t if p["type"] == "f32" else t.view(self.torch.bfloat16)

    def make(self, library, p, n, layers, wanted):
        """The peers that take this problem; what they keep lives in their closures."""
        if self.np is None or p["rank"] == 0:
            return
        adapters = range(p["adapters"])
        if "NumPy" in wanted and p["type"] == "f32" and self.numpy_threads is not None:
            self.numpy_threads(p["threads"])
            yield self.numpy(library, p, n, layers, adapters)
        if self.torch is None:
            return
        self.torch.set_num_threads(p["threads"])
        if "torch" in wanted:
            yield self.plain(library, p, n, layers, adapters)
        if "torch + PEFT" in wanted and self.peft is not None and not p["transposed"]:
            yield self.adapter(library, p, n, layers, adapters)
        if "torch mkldnn prepacked" in wanted:
            yield self.prepacked(library, p, n, layers, adapters)

    def operands(self, library, p, n, layers, adapters, make):
        rows, columns = (p["in"], p["out"]) if p["transposed"] else (p["out"], p["in"])
        w = [make(library.forward_w(k), p, rows, columns) for k in range(layers)]
        if p["transposed"]:
            w = [v.T for v in w]
        a = [[make(library.forward_a(k, i), p, p["rank"], p["in"]) for i in adapters] for k in range(layers)]
        b = [[make(library.forward_b(k, i), p, p["out"], p["rank"]) for i in adapters] for k in range(layers)]
        return w, a, b, [make(library.forward_x(s), p, n, p["in"]) for s in range(3)], [make(library.forward_y(s), p, n, p["out"]) for s in range(3)]

    @staticmethod
    def timer(library, call):
        def run(count, batch):
            start = time.perf_counter()
            for _ in range(count):
                call(library.forward_turn(), batch)
            return (time.perf_counter() - start) / count
        return run

    def numpy(self, library, p, n, layers, adapters):
        np = self.np
        w, a, b, x, y = self.operands(library, p, n, layers, adapters, self.array)
        scale = np.float32(library.forward_scale())

        def call(k, s):
            np.matmul(x[s], w[k].T, out=y[s])
            for i in adapters:
                y[s] += (x[s] @ a[k][i].T * scale) @ b[k][i].T
        return timed("NumPy", f"NumPy {np.__version__} (its own OpenBLAS), x @ w.T + (x @ a.T * s) @ b.T", "plain", False, self.timer(library, call), lambda: call(0, 0))

    def plain(self, library, p, n, layers, adapters):
        torch = self.torch
        linear, scale = torch.nn.functional.linear, library.forward_scale()
        w, a, b, x, y = self.operands(library, p, n, layers, adapters, self.tensor)

        def call(k, s):
            r = linear(x[s], w[k])
            for i in adapters:
                r.add_(linear(linear(x[s], a[k][i]), b[k][i]), alpha=scale)
            return r
        return timed("torch", f"PyTorch {torch.__version__}, three linear calls, no module", "plain", True, self.timer(library, call), lambda: y[0].copy_(call(0, 0)))

    def prepacked(self, library, p, n, layers, adapters):
        torch = self.torch
        mkldnn = torch.ops.mkldnn
        linear, scale = torch.nn.functional.linear, library.forward_scale()
        w, a, b, x, y = self.operands(library, p, n, layers, adapters, self.tensor)
        packed = [] if p["swap"] else [mkldnn._reorder_linear_weight(v.contiguous(), n) for v in w]

        def call(k, s):
            ready = mkldnn._reorder_linear_weight(w[k], n) if p["swap"] else packed[k]
            r = mkldnn._linear_pointwise(x[s], ready, None, "none", [], "")
            for i in adapters:
                r.add_(linear(linear(x[s], a[k][i]), b[k][i]), alpha=scale)
            return r
        return timed("torch mkldnn prepacked", f"PyTorch {torch.__version__}, W reordered beforehand by its oneDNN {self.versions()['torch_onednn']}", "reordered", True,
                     self.timer(library, call), lambda: y[0].copy_(call(0, 0)))

    def adapter(self, library, p, n, layers, adapters):
        """PEFT's own layer around a linear whose weight is the library's memory. A and B stay in the type of W: like for like."""
        torch = self.torch
        w, a, b, x, y = self.operands(library, p, n, layers, adapters, self.tensor)
        config = self.peft.LoraConfig(r=p["rank"], lora_alpha=p["rank"] * library.forward_scale(), lora_dropout=0.0, init_lora_weights=False)
        modules = []
        for k in range(layers):
            with torch.device("meta"):
                linear = torch.nn.Linear(p["in"], p["out"], bias=False)
            linear.weight = torch.nn.Parameter(w[k], requires_grad=False)
            module = self.peft.tuners.lora.Linear(linear, "0", config=config, r=p["rank"], lora_alpha=p["rank"] * library.forward_scale())
            for i in list(adapters)[1:]:
                module.update_layer(str(i), p["rank"], lora_alpha=p["rank"] * library.forward_scale(), config=config)
            for i in adapters:
                module.lora_A[str(i)].weight = torch.nn.Parameter(a[k][i], requires_grad=False)
                module.lora_B[str(i)].weight = torch.nn.Parameter(b[k][i], requires_grad=False)
            module.set_adapter([str(i) for i in adapters])
            modules.append(module.eval())
        return timed("torch + PEFT", f"PEFT {self.peft.__version__} on PyTorch {torch.__version__}: its LoraLayer, eval, no gradients", "plain", True,
                     self.timer(library, lambda k, s: modules[k](x[s])), lambda: y[0].copy_(modules[0](x[0])))


def set_pages(huge):
    """For whatever the process allocates from now on. What a library makes for itself is asked for through malloc: see child_environment()."""
    if not huge:
        ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE


def child_environment(huge):
    environment = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "GLIBC_TUNABLES")}
    environment.update(PYTHONDONTWRITEBYTECODE="1", TOKENIZERS_PARALLELISM="false", **SPIN, CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1")
    if huge:
        environment["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"  # malloc asks for huge pages too: the copies that PyTorch's oneDNN keeps
    return environment


def huge_megabytes():
    try:
        for line in pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines():
            if line.startswith("AnonHugePages:"):
                return int(line.split()[1]) >> 10
    except OSError:
        pass
    return None


def emit(kind, value):
    print(json.dumps({"kind": kind, **value}), flush=True)


def measure(library, python, p, n, job, shuffle):
    """One problem at one batch size."""
    huge = job["huge"]
    layers = library.forward_open(0 if p["type"] == "f32" else 1, n, p["in"], p["out"], p["rank"], p["adapters"], p["transposed"], p["threads"], huge, p["swap"], p["rotate"])
    if layers == 0:
        return emit("skipped", {"why": f"not enough memory for {p['out']} x {p['in']}"})
    way = library.forward_calibrate().decode()
    peers, wrong = [], []
    found = json.loads(library.forward_peers())

    def take(peer):
        try:
            library.forward_soil()
            begin = time.perf_counter()
            peer.once()
            taken = time.perf_counter() - begin
            problem = library.forward_check(peer.rounds_between, peer.base_only).decode()
        except Exception as failure:  # a peer's own error is its own: the others go on
            problem = f"{type(failure).__name__}: {failure}".splitlines()[0][:200]
        if problem:
            return wrong.append({"name": peer.name, "why": problem})
        if taken > 0.05:  # one call is a sample, and has warmed it up
            return peers.append(peer)
        peer.time(1, 1)
        peer.calls = max(1, min(200000, round(job["sample"] / max(peer.time(1, 1), 1e-9))))
        peers.append(peer)

    for number, who in enumerate(found):
        if who["name"] in p["peers"]:
            library.forward_prepare(number)
            take(timed(who["name"], who["how"], who["form"], who["rounds_between"], lambda count, batch, i=number: library.forward_time(i, count, batch), lambda i=number: library.forward_run(i), who["base_only"]))
    for peer in python.make(library, p, n, layers, p["peers"]):
        take(peer)
    limits = {"stream": [], "fma": [], "ymm": [], "pairs": []}
    spin = p["threads"] > 1

    def one_round(batch):
        for peer in shuffle.sample(peers + [None], len(peers) + 1):
            if spin:
                time.sleep(QUIET_SECONDS)
            if peer is None:
                limits["stream"].append(library.forward_stream(max(1, round(job["sample"] / (p["in"] * p["out"] * 4 / 15e9))) if p["rotate"] else 100))
                for kind, name in enumerate(("fma", "ymm", "pairs")):
                    needed = name == "fma" or (p["type"] == "bf16" if name == "pairs" else "lora avx2" in p["peers"]) or p["set"] == "roofline"
                    limits[name].append(library.forward_burst(kind) if needed else 0)
            else:
                if spin:
                    peer.time(1, batch)
                peer.samples.append(peer.time(peer.calls, batch))
    start = time.perf_counter()
    rounds = 0
    # Slow problems get fewer rounds, so that a set's time is known; never fewer than two.
    while rounds < job["rounds"] and (rounds < 2 or time.perf_counter() - start < job["budget"]):
        one_round(1 + rounds % 2)
        rounds += 1
    emit("result", {"problem": {**{k: v for k, v in p.items() if k not in ("tokens", "peers")}, "n": n}, "huge": huge, "layers": layers, "way": way, "bytes": library.forward_bytes(), "flops": library.forward_flops(),
                    "limits": limits, "peers": [{"name": q.name, "how": q.how, "form": q.form, "samples": q.samples} for q in peers], "wrong": wrong, "huge_mb": huge_megabytes()})


def child(text):
    job = json.loads(text)
    set_pages(job["huge"])
    wanted = {name for p in job["problems"] for name in p["peers"]}
    python = python_peers(wanted)
    library = load(pathlib.Path(job["library"]))
    context = json.loads(library.forward_context())
    for kind, package, name in (("openblas", "scipy-openblas32", "libscipy_openblas"), ("mkl", "mkl", "libmkl_rt.so")):
        path = wheel_file(package, name)
        if path is not None:
            failure = library.forward_load(kind.encode(), path.encode()).decode()
            if failure:
                emit("note", {"text": f"{package} cannot be used: {failure.split('/')[-1]}"})
    emit("context", {"context": {**context, **python.versions()}})
    shuffle = random.Random(job["seed"])
    for p in job["problems"]:
        for n in p["tokens"]:
            measure(library, python, p, n, job, shuffle)
    library.forward_close()


# ---- the parent -------------------------------------------------------------------------------------------------------------------------------------

def key_of(result):
    return json.dumps([result["problem"], result["huge"]], sort_keys=True)


def summary(results):
    """One point of the JSON from the same problem in several process starts."""
    first = results[0]
    flops, size = first["flops"], first["bytes"]
    names = [q["name"] for r in results for q in r["peers"]]
    names = list(dict.fromkeys(names))
    samples = {name: [next((q["samples"] for q in r["peers"] if q["name"] == name), []) for r in results] for name in names}
    how = {q["name"]: (q["how"], q["form"]) for r in results for q in r["peers"]}
    bf16 = first["problem"]["type"] == "bf16"
    limits = {"machine": [], "f32": [], "pairs": [], "ymm": []}
    cached = first["layers"] == 1
    for r in results:
        streams = [0 if cached else size / v for v in r["limits"]["stream"]]
        peaks = r["limits"]
        limits["f32"].append([max(s, flops / v) for s, v in zip(streams, peaks["fma"])])
        limits["ymm"].append([max(s, flops / v) if v else 0 for s, v in zip(streams, peaks["ymm"])])
        limits["pairs"].append([max(s, flops / v) if v else 0 for s, v in zip(streams, peaks["pairs"])])
        # bf16 may be multiplied either way; what the machine can do is the faster.
        limits["machine"].append([max(s, flops / max(f, q if bf16 else 0)) for s, f, q in zip(streams, peaks["fma"], peaks["pairs"])])

    def rounded(values, digits):
        return [round(v, digits) for v in values]
    rows = []
    for name in names:
        row = {"name": name, "how": how[name][0], "form": how[name][1], "ns": rounded(bench_stats.interval(samples[name], scale=1e9), 1)}
        limit = "ymm" if name == "lora avx2" else "f32" if bf16 and name in ("lora", "lora again") else "machine"
        row["percent"] = rounded(bench_stats.ratio(limits[limit], samples[name], scale=100), 1)
        for base, label in (("lora", "ratio"), ("lora native", "ratio_native")):
            if base in samples:
                row[label] = rounded(bench_stats.ratio(samples[name], samples[base]), 3)
        if name.endswith("base"):
            whole = name.removesuffix(" base")
            if whole in samples:
                row["overhead"] = rounded(bench_stats.ratio(samples[whole], samples[name]), 4)
        rows.append(row)

    def rate(kind):
        return round(bench_stats.median([v for r in results for v in r["limits"][kind]]) * 1e-9, 2)
    wrong = {w["name"]: w for r in results for w in r["wrong"]}
    return {**first["problem"], "pages": "2m" if first["huge"] else "4k", "layers": first["layers"], "starts": len(results), "rounds": min(len(s) for r in samples.values() for s in r if s) if names else 0,
            "huge_mb": first["huge_mb"], "limit_ns": {k: round(bench_stats.median([v for s in each for v in s]) * 1e9, 1) for k, each in limits.items()},
            "stream_gbs": rate("stream"), "stream_way": first["way"], "fma_gflops": rate("fma"), "ymm_gflops": rate("ymm"), "pairs_gflops": rate("pairs"), "peers": rows, "wrong": list(wrong.values())}


def label(p):
    words = [p["type"], f"{p['out']}x{p['in']}", f"M {p['n']}", f"rank {p['rank']}" + (f" x {p['adapters']}" if p["adapters"] != 1 else "")]
    words += ["transposed"] * p["transposed"] + ["first answer after a swap"] * p["swap"] + [f"{p['threads']} thread{'s' if p['threads'] > 1 else ''}", f"{p['pages']} pages"]
    return ", ".join(words)


def show(point):
    print(f"\n{point['set']}: {label(point)}: limit {point['limit_ns']['machine'] / 1e6:.4g} ms ({point['stream_gbs']} GB/s, {point['fma_gflops']} GFLOP/s f32, {point['pairs_gflops']} bf16 pairs)")
    for row in sorted(point["peers"], key=lambda r: r["ns"][0]):
        text = f"  {row['name']:24} {row['ns'][0] / 1e6:11.5f} ms {row['percent'][0]:6.1f} %"
        if "ratio" in row:
            text += "  {:6.3f} x lora [{:.3f}, {:.3f}]".format(*row["ratio"])
        if "ratio_native" in row:
            text += "  {:6.3f} x native [{:.3f}, {:.3f}]".format(*row["ratio_native"])
        print(text)
    for w in point["wrong"]:
        print(f"  {w['name']}: WRONG, not timed: {w['why']}")
    sys.stdout.flush()


def write(path, context, points):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ",\n".join(json.dumps(r, separators=(",", ":")) for r in points)
    path.write_text(f'{{"context": {json.dumps(context)},\n"points": [\n{rows}\n]}}\n', encoding="utf-8")


def run_child(job, progress):
    """The results of one process; one that ends badly costs its own results only."""
    process = subprocess.Popen([sys.executable, "-B", __file__, "--child", json.dumps(job)], stdout=subprocess.PIPE, text=True, env=child_environment(job["huge"]))
    results, context = [], {}
    for line in process.stdout:
        try:
            message = json.loads(line)
            kind = message.pop("kind")
        except (ValueError, KeyError, AttributeError):
            print(line, end="")  # a library that writes to stdout
            continue
        if kind == "result":
            results.append(message)
            progress()
        elif kind == "context":
            context = message["context"]
        else:
            print(f"  {message.get('text') or message.get('why')}", flush=True)
    if process.wait() != 0:
        print(f"  a process ended with code {process.returncode}; what it had measured is kept", flush=True)
    return results, context


def interpreter(options):
    """The environment with the peers, or the one with NumPy, where they have been made."""
    if os.environ.get("LORA_BENCH_FORWARD_STARTED") or options.here:
        return
    if options.peers and subprocess.run([sys.executable, str(ROOT / "tools" / "peers_venv.py")]).returncode:
        sys.exit(1)
    os.environ["LORA_BENCH_FORWARD_STARTED"] = "1"
    for venv in ("venv-peers", "venv-numpy"):
        python = ROOT / "build" / venv / "bin" / "python"
        if python.exists() and (python.parent.parent / "ready").exists():
            os.execv(python, [str(python), "-B", *sys.argv])


def main():
    if sys.argv[1:2] == ["--child"]:
        return child(sys.argv[2])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=pathlib.Path, default=ROOT / "build/release/bin/libbench_forward_tasks.so")
    parser.add_argument("--set", default="headline", help="headline, curve, rank, size, swap, small, tiers, transposed, threads, roofline; several with commas; all")
    parser.add_argument("--types", help="f32,bf16: bf16 is W, A, B, x and y in bf16, ours exact and with precision::native")
    parser.add_argument("--tokens", help="batch sizes M, with commas")
    parser.add_argument("--shape", help="NxK: W is [N, K]")
    parser.add_argument("--rank", type=int)
    parser.add_argument("--adapters", type=int)
    parser.add_argument("--threads", help="1, 2 or 1,2")
    parser.add_argument("--pages", default="4k", help="4k, 2m or 4k,2m: for ours and the peers alike")
    parser.add_argument("--transposed", action="store_true", help="W lies as [K, N]")
    parser.add_argument("--starts", type=int, help="process starts")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--rotate-mb", type=float, help="layers are made up to this many MB of W, at least 400 to come from memory; 0: one layer")
    parser.add_argument("--only", help="peers, with commas")
    parser.add_argument("--quick", action="store_true", help="one start, few rounds, under two minutes")
    parser.add_argument("--peers", action="store_true", help="makes build/venv-peers first")
    parser.add_argument("--here", action="store_true", help="stays with this Python interpreter")
    parser.add_argument("--json", type=pathlib.Path, default=ROOT / "build/bench_forward.json")
    options = parser.parse_args()
    interpreter(options)
    if options.quick and not options.tokens and options.set == "headline":
        options.tokens = "1,4,8,16,32,64"
    problems = chosen(options)
    if not problems:
        sys.exit("no problem is left: see --help")
    kinds = options.pages.split(",")
    jobs = [(start, kind) for start in range(max(starts for _, starts, _ in problems)) for kind in kinds]
    pooled, context, points, begin, done = {}, {}, [], time.time(), [0]
    expected = sum(starts * len(p["tokens"]) for _, starts, p in problems) * len(kinds)

    def progress():
        done[0] += 1
        if sys.stderr.isatty() or done[0] % 10 == 0 or done[0] == expected:
            print(f"\r  {done[0]} of {expected}, {time.time() - begin:.0f} s ", end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)
    for start, kind in jobs:
        job = {"problems": [p for _, starts, p in problems if start < starts], "huge": kind == "2m", "seed": 1000 * start + (kind == "2m"), "library": str(options.library),
               "rounds": options.rounds or (4 if options.quick else 7), "budget": 0.8 if options.quick else 1.0, "sample": 0.006 if options.quick else 0.010}
        results, found = run_child(job, progress)
        context = found or context
        for r in results:
            pooled.setdefault(key_of(r), []).append(r)
        context.update(python=platform.python_version(), kernel=platform.release(), date=datetime.date.today().isoformat(), quick=options.quick, sample_ms=job["sample"] * 1e3)
        points = [summary(r) for r in pooled.values()]
        write(options.json, context, points)  # what is interrupted keeps what it has
    if not context.get("cpu"):
        sys.exit("nothing was measured")
    print(f"{context['cpu']}, {context['cpus']} CPUs; {context['compiler']}; flags: {context['flags']}; tier {context['tier']}")
    for point in points:
        show(point)
    print(f"\n{len(points)} points in {time.time() - begin:.0f} s; written to {options.json}")
    return int(any(w["name"].startswith("lora") for point in points for w in point["wrong"]))  # a peer's mistake is its own


if __name__ == "__main__":
    sys.exit(main())
