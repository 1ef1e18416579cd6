#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Turns the JSON of ./dev bench ops into the tables of docs/ops-benchmarks.md (between its <!-- ops: ... --> marks) and docs/images/ops_*.svg.

  plot_ops.py [build/bench_ops.json]
"""
import json
import math
import pathlib
import sys
from xml.sax.saxutils import escape

from bench_plot import GREY, head, heading, into_page, mark

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "ops-benchmarks.md"
TITLES = {"scale": "2 * src into dst", "transpose": "Transposing copy", "sum": "sum", "max": "max", "argmax": "argmax",
          "convert": "Conversions", "math": "Vector math", "slice": "Slices and views"}
# Readable on white and on black; the peers differ in shape too.
COLOURS = {"NumPy": "#d9822b", "Eigen": "#2f8f5b", "xtensor": "#8e5bb5", "OpenBLAS": "#c2453d", "memcpy": "#808890", "loops": "#3a7fc4"}
SHAPES = {"NumPy": "circle", "Eigen": "square", "xtensor": "triangle", "OpenBLAS": "diamond", "memcpy": "bar", "loops": "ring"}


def peer(result, name):
    return next((row for row in result["peers"] if row["name"] == name), None)


def best_loop(result):
    rows = [row for row in result["peers"] if row["name"].startswith(("loop", "mdspan", "by "))]
    return min(rows, key=lambda row: row["ns"][0], default=None)


def columns(results):
    names = []
    for r in results:
        for row in r["peers"]:
            if not row["name"].startswith(("lora", "loop", "mdspan", "by ")) and row["name"] not in names:
                names.append(row["name"])
    return (["loops"] if any(best_loop(r) for r in results) else []) + names


def row_of(result, column):
    return best_loop(result) if column == "loops" else peer(result, column)


def duration(ns):
    return f"{ns:.1f} ns" if ns < 1e3 else f"{ns / 1e3:.2f} us" if ns < 1e6 else f"{ns / 1e6:.2f} ms"


def table(results, o2):
    shown = columns(results)
    extra = [n for n in ("lora -O2",) if o2]
    lines = ["| task | lora | GB/s | " + " | ".join({"loops": "best loop"}.get(c, c) for c in shown + extra) + " | A/A |",
             "|---" * (len(shown) + len(extra) + 4) + "|"]
    for r in results:
        lora, again = peer(r, "lora"), peer(r, "lora again")
        if lora is None:
            continue
        cells = [r["name"], duration(lora["ns"][0]), f"{r['bytes'] / lora['ns'][0]:.1f}" if r["bytes"] else "-"]
        for c in shown + extra:
            row = row_of(r, c)
            wrong = row is None and any(w["name"].startswith("loop" if c == "loops" else c) for w in r["wrong"])
            cells.append("wrong" if wrong else "-" if row is None else "{:.2f} [{:.2f}, {:.2f}]".format(*row["ratio"]))
        cells.append(f"{again['ratio'][0]:.2f}" if again else "-")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def slice_table(results):
    lines = ["| form | ns | quartiles |", "|---|---|---|"]
    for r in results:
        lines.append(f"| **`{r['name']}`** | | |" if r["op"] == "slice" else f"| **{r['name']}** | | |")
        lines += ["| {} | {:.1f} | {:.1f} to {:.1f} |".format(row["name"], *row["ns"]) for row in r["peers"]]
    return "\n".join(lines)


def plot(title, results):
    """Ratios on a logarithmic axis: a mark right of 1 is a peer slower than lora; the whisker is the quartiles."""
    shown = columns(results)
    left, width, step, top = 300, 520, 24, 64
    values = [v for r in results for c in shown if row_of(r, c) for v in row_of(r, c)["ratio"]]
    low = math.floor(math.log2(min(values + [0.5])))
    high = math.ceil(math.log2(max(values + [4])))

    def x(v):
        return left + width * (math.log2(v) - low) / (high - low)
    bottom = top + step * len(results)
    out = head(left + width + 30, bottom + 44) + [heading(f"{title}: the peer's time over lora's (right of 1: lora is faster)")]
    at = left
    for c in shown:
        out += [mark(SHAPES.get(c, "circle"), at, 42, COLOURS.get(c, GREY)), f'<text x="{at + 9}" y="46">{"best loop" if c == "loops" else escape(c)}</text>']
        at += 30 + 7 * (9 if c == "loops" else len(c))
    for k in range(low, high + 1, max(1, (high - low) // 8)):
        out.append(f'<line class="{"one" if k == 0 else "s"}" x1="{x(2 ** k):.1f}" x2="{x(2 ** k):.1f}" y1="{top - 8}" y2="{bottom}"/>')
        out.append(f'<text x="{x(2 ** k):.1f}" y="{bottom + 18}" text-anchor="middle">{2 ** k:g}</text>')
    out.append(f'<line class="one" x1="{x(1):.1f}" x2="{x(1):.1f}" y1="{top - 8}" y2="{bottom}"/>')
    for n, r in enumerate(results):
        y = top + step * n + 6
        out.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{escape(r["name"])}</text>')
        for c in shown:
            row = row_of(r, c)
            if row is None:
                continue
            middle, lo, hi = row["ratio"]
            colour = COLOURS.get(c, GREY)
            out += [f'<line x1="{x(lo):.1f}" x2="{x(hi):.1f}" y1="{y}" y2="{y}" stroke="{colour}"/>', mark(SHAPES.get(c, "circle"), x(middle), y, colour)]
    return "\n".join(out + ["</svg>"]) + "\n"


def machine(c, results):
    numpy = f"; NumPy {c['numpy']}, one call of which takes {c['numpy_call_ns']} ns with one element" if "numpy" in c else "; without NumPy"
    # With the quartiles as bounds, so that the page says itself how far it can be trusted.
    again = "; lora against itself over all tasks: {:.2f}, quartiles {:.2f} to {:.2f}".format(*c["again"]) if "again" in c else ""
    how = sorted({row["how"].split(";")[0] for r in results for row in r["peers"] if row["name"] in ("Eigen", "xtensor", "mdspan")})
    return (f"{c['cpu']}, {c['cpus']} CPUs, caches {c['l1d'] >> 10} KB, {c['l2'] >> 20} MB, {c['l3'] >> 20} MB; {c['compiler']}, lora compiled with `{c['flags']}` and no `-m` flag,\n"
            f"tier {c['tier']}; {', '.join(how)}; OpenBLAS core {c['openblas_core'] or 'absent'}{numpy}; {c['rounds']} rounds{' (--quick)' if c['quick'] else ''}{again}.")


def main():
    source = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "bench_ops.json"
    data = json.loads(source.read_text(encoding="utf-8"))
    groups = {}
    for r in data["tasks"]:
        if peer(r, "lora"):
            groups.setdefault(r["group"], []).append(r)
    page = PAGE.read_text(encoding="utf-8")
    parts = {"machine": machine(data["context"], data["tasks"])}
    for group, results in groups.items():
        parts[group] = slice_table(results) if group == "slice" else table(results, group == "scale")
        if group != "slice":
            (ROOT / "docs" / "images" / f"ops_{group}.svg").write_text(plot(TITLES[group], results), encoding="utf-8")
    PAGE.write_text(into_page(page, "ops", parts)[0], encoding="utf-8")
    print(f"{len(data['tasks'])} tasks of {source} into {PAGE.relative_to(ROOT)} and {sum(g != 'slice' for g in groups)} plots")


if __name__ == "__main__":
    main()
