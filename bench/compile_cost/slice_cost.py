#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What 60 distinct 4-D slices in one file cost to compile (-O2 -c): as words, as literals, and with the pack expansion that one writes
first (naive_slices.hpp). CPU time, the median of interleaved rounds, headers included; the size of the code; and the ratios.

  slice_cost.py -- g++ -std=c++20 -Iinclude
"""
import itertools
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROUNDS = 5
# Of the naive expansion's time in the same run: 1.5 times what a prototype of the design took, 2.1 s of 9.9 with g++, 1.3 of 5.7 with clang.
PROTOTYPE = {"g++": 2.1 / 9.9, "clang": 1.3 / 5.7}
NUMBERS = {"int": ("1", "-2", "0", "3"), "range": ("range(1, _)", "range(_, -1)", "range(0, 2)", "range(_, _, -1)"), "all": ("all",) * 4}
TEXTS = {"int": NUMBERS["int"], "range": ("1:", ":-1", "0:2", "::-1"), "all": (":",) * 4}


def forms():
    """60 of the 81 combinations of an integer, a range and a whole axis, those with a range first."""
    every = sorted(itertools.product(("int", "range", "all"), repeat=4), key=lambda form: -form.count("range"))
    return every[:60]


def source(kind):
    view = "naive::view" if kind == "naive" else "lora::ndview"
    lines = {"naive": ['#include "naive_slices.hpp"', "using naive::_, naive::all, naive::range;"],
             "words": ["#include <lora/nd/view.hpp>", "using lora::_, lora::all, lora::range;"],
             "literals": ["#include <lora/nd/slice_text.hpp>", "#include <lora/nd/view.hpp>", "using namespace lora::literals;"]}[kind]
    for number, form in enumerate(forms()):
        written = NUMBERS if kind != "literals" else TEXTS
        words = ", ".join(written[word][axis] for axis, word in enumerate(form))
        call = f'"{words}"_s' if kind == "literals" else words
        rank = 4 - form.count("int")
        lines.append(f"{view}<float, {rank}> f{number}(const {view}<float, 4>& a) {{ return a({call}); }}" if rank else
                     f"float f{number}(const {view}<float, 4>& a) {{ return a({call}); }}")
    return "\n".join(lines) + "\n"


def seconds(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def text_bytes(path):
    printed = subprocess.run(["size", "-A", str(path)], check=True, capture_output=True, text=True).stdout
    return sum(int(line.split()[1]) for line in printed.splitlines() if line.startswith(".text"))


def main():
    compiler = sys.argv[sys.argv.index("--") + 1:]
    kinds = ("naive", "words", "literals")
    times = {kind: [] for kind in kinds}
    sizes = {}
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(ROUNDS):
            for kind in kinds:
                path = pathlib.Path(scratch, kind + ".cpp")
                path.write_text(source(kind), encoding="utf-8")
                compiled = path.with_suffix(".o")
                times[kind].append(seconds([*compiler, f"-I{HERE}", "-O2", "-DNDEBUG", "-c", str(path), "-o", str(compiled)]))
                sizes[kind] = text_bytes(compiled)
    medians = {kind: statistics.median(values) for kind, values in times.items()}
    limit = 1.5 * PROTOTYPE["clang" if "clang" in pathlib.Path(compiler[0]).name else "g++"]
    print(f"{compiler[0]}: 60 distinct 4-D slices in one file, -O2, median of {ROUNDS} interleaved runs")
    print(f"{'form':10} {'s':>6} {'x naive':>8} {'code':>9} {'x naive':>8}")
    for kind in kinds:
        note = f"   (limit {limit:.2f} of the time)" if kind != "naive" else ""
        print(f"{kind:10} {medians[kind]:6.2f} {medians[kind] / medians['naive']:8.2f} {sizes[kind]:7} B {sizes[kind] / sizes['naive']:8.2f}{note}")
    return int(any(medians[kind] > limit * medians["naive"] for kind in kinds[1:]))


if __name__ == "__main__":
    sys.exit(main())
