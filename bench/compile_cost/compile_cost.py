#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What including a header costs: the median of seven runs of the compiler over a file with that one #include, in user and system
time, all headers in turn in each round, and the ratio to Eigen/Core in the same run.

  compile_cost.py -- g++ -std=c++20 -fsyntax-only -Iinclude -I/usr/include/eigen3
"""
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile

ROUNDS = 7
PEER = "Eigen/Core"
LIMITS = {"lora/nd/view.hpp": 0.30, "lora/lora.hpp": 1.5}  # of the peer, in the same run
HEADERS = ["lora/fwd.hpp", "lora/nd/view.hpp", "lora/nd/array.hpp", "lora/ops/copy.hpp", "lora/ops/apply.hpp", "lora/simd/dispatch.hpp",
           "lora/parallel/thread_pool.hpp", "lora/linalg/forward.hpp", "lora/adapter/linear.hpp", "lora/snapshot/cell.hpp", "lora/lora.hpp",
           "lora/io/safetensors.hpp", "lora/io/peft.hpp", PEER]


def seconds(compiler, source):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*compiler, str(source)], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    compiler = sys.argv[sys.argv.index("--") + 1:]
    with tempfile.TemporaryDirectory() as scratch:
        sources = {}
        for header in HEADERS:
            source = pathlib.Path(scratch, header.replace("/", "_") + ".cpp")
            source.write_text(f"#include <{header}>\n", encoding="utf-8")
            tried = subprocess.run([*compiler, str(source)], capture_output=True, text=True)
            if tried.returncode == 0:
                sources[header] = source
            else:
                print(f"left out: {header}: {next((line for line in tried.stderr.splitlines() if 'error' in line), '')}")
        times = {header: [] for header in sources}
        for _ in range(ROUNDS):
            for header, source in sources.items():
                times[header].append(seconds(compiler, source))
    medians = {header: statistics.median(values) for header, values in times.items()}
    peer = medians.get(PEER)
    print(f"{' '.join(compiler[:1])}: CPU time to parse one header, median of {ROUNDS} interleaved runs")
    print(f"{'header':34} {'ms':>6} {'x ' + PEER:>14}")
    for header, value in medians.items():
        ratio = f"{value / peer:14.2f}" if peer else " " * 13 + "-"
        limit = f"   (limit {LIMITS[header]:.2f})" if header in LIMITS else ""
        print(f"{header:34} {value * 1000:6.0f} {ratio}{limit}")
    if not peer:
        print(f"{PEER} was not found (Debian: libeigen3-dev): no ratios")
        return 0
    return int(any(medians[header] > limit * peer for header, limit in LIMITS.items() if header in medians))


if __name__ == "__main__":
    sys.exit(main())
