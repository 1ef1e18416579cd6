# SPDX-License-Identifier: Apache-2.0
"""Tables and a plot from the samples of bench_snapshot, into a page between its marks.

    python3 tools/plot_snapshot.py measured.json [more.json...] --page docs/snapshots-benchmarks.md --plot docs/images/snapshot-reads.svg

Several files are samples of several starts: they are pooled as bench_stats.py says. Without --page the tables go to the output.
"""
import argparse
import json
import pathlib
import sys

from bench_plot import into_page, lines
from bench_stats import interval, median, quantile, ratio

COLOURS = {"lora read()": ("#d62728", "circle"), "lora pin()": ("#ff7f0e", "square"), "lora pin(), membarrier": ("#e377c2", "diamond"), "liburcu memb": ("#2ca02c", "triangle"), "liburcu qsbr": ("#808890", "ring"),
           "mutex + shared_ptr": ("#1f77b4", "diamond"), "shared_mutex, copied into": ("#9467bd", "bar"), "atomic<shared_ptr>": ("#8c564b", "square")}


def time_text(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return "under 1 us" if ns == 0 else f"{ns:.2g} ns" if ns < 10 else f"{ns:.0f} ns"


def bytes_text(n):
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if n >= size:
            return f"{n / size:.4g} {unit}"
    return f"{n:.0f}"


def table(head, rows):
    return "\n".join("| " + " | ".join(r) + " |" for r in [head, ["---"] + ["---:"] * (len(head) - 1)] + rows)


def parts_named(starts, name):
    return [s[name] for s in starts if name in s]


def reads(starts):
    """The samples of each cell as lists, one a start: {(peer, readers, swaps): [[ns...], ...]}, and the peers in order."""
    cells, order = {}, []
    for start in parts_named(starts, "reads"):
        for row in start:
            cells.setdefault((row["peer"], row["readers"], row["swaps"]), []).append(row["ns"])
            if row["peer"] not in order:
                order.append(row["peer"])
    return cells, order


def reads_table(starts):
    cells, order = reads(starts)
    columns = sorted({k[1:] for k in cells})
    rows = [[peer] + [f"{interval(cells[peer, *c])[0]:.3g}" if (peer, *c) in cells else "" for c in columns] for peer in order]
    return table(["ns a use"] + [f"{r} reader{'s' * (r > 1)}, {s:g}/s" for r, s in columns], rows)


def ratio_table(starts):
    cells, order = reads(starts)
    columns = [c for c in sorted({k[1:] for k in cells}) if c[0] == 2]
    rows = []
    for own, others in (("lora read()", order), ("lora pin()", order), ("lora pin(), membarrier", order)):
        for peer in others:
            if own not in order or peer == own or (own.startswith("lora pin()") and peer.startswith("lora")):
                continue
            row = [f"{peer} / {own}"]
            for c in columns:
                middle, low, high = ratio(cells[peer, *c], cells[own, *c])
                row.append(f"{middle:.3g} ({low:.3g} .. {high:.3g})")
            rows.append(row)
    return table(["2 readers, ratio of times"] + [f"{s:g} swaps/s" for _, s in columns], rows)


def visibility_table(starts):
    rows = {}
    for start in parts_named(starts, "visibility"):
        for row in start:
            kept = rows.setdefault(row["bytes"], {})
            for k in ("visible_ns", "publish_ns", "reclaim_ns", "copy_under_lock_ns"):
                kept.setdefault(k, []).extend(row[k])
    out = []
    for size, r in sorted(rows.items()):
        seen = sorted(r["visible_ns"])
        out.append([bytes_text(size), time_text(median(seen)), time_text(quantile(seen, 0.95)), time_text(median(r["publish_ns"])), time_text(median(r["reclaim_ns"])),
                    time_text(median(r["copy_under_lock_ns"]))])
    return table(["payload", "publish to visible", "95 %", "publish()", "freeing the old one", "a copy under a lock"], out)


def first_read_table(starts):
    pooled = {}
    for start in parts_named(starts, "first_read"):
        for k, v in start.items():
            pooled.setdefault(k, []).extend(v)
    clock = median(pooled["clock_ns"])
    names = (("steady_ns", "nothing was published"), ("same_core_ns", "after a swap on the same core"), ("other_core_ns", "after a swap on another core"))
    return table(["a read, the clock's own time taken off", "median", "99 %"],
                 [[text, f"{max(0.0, median(pooled[k]) - clock):.0f} ns", f"{quantile(sorted(pooled[k]), 0.99) - clock:.0f} ns"] for k, text in names])


def layer_table(starts):
    got = parts_named(starts, "layer")
    rows = []
    for key, name in (("none", "no swaps"), ("none_again", "no swaps, again"), ("swapped", "1000 swaps/s"), ("locked", "1000 copies/s under a lock")):
        p50, p99 = ([w[q] for start in got for w in start[key]] for q in ("p50_us", "p99_us"))
        middle, low, high = ratio([[w["p99_us"] for w in s[key]] for s in got], [[w["p99_us"] for w in s["none"]] for s in got])
        swaps = sum(w["swaps"] for s in got for w in s[key])
        rows.append([name, time_text(1e3 * median(p50)), time_text(1e3 * median(p99)), f"{middle:.3f} ({low:.3f} .. {high:.3f})", str(len(p99)), str(swaps)])
    return table(["4096 x 4096, one token", "p50", "p99 of a window", "p99 against no swaps", "windows", "swaps"], rows)


def loading_table(starts):
    pooled = {}
    for start in parts_named(starts, "loading"):
        for name, samples in start["ways"].items():
            pooled.setdefault(name, []).extend(samples)
    rows = []
    for name, samples in sorted(pooled.items(), key=lambda p: median([s["total_ms"] for s in p[1]])):
        of = {k: median([s[k] for s in samples]) for k in samples[0]}
        rows.append([name, time_text(1e3 * of["pause_us"]), time_text(1e6 * of["total_ms"]), bytes_text(of["bytes_copied"]), f"{of['page_faults']:.0f}", str(len(samples))])
    return table(["way", "longest pause of the reader", "total", "tensor bytes copied", "page faults", "runs"], rows)


def plot(starts):
    cells, order = reads(starts)
    series = []
    for peer in order:
        if peer in COLOURS:
            colour, shape = COLOURS[peer]
            points = [(r, interval(cells[peer, r, s])[0]) for _, r, s in sorted(k for k in cells if k[0] == peer) if s == 1000]
            series.append((peer, colour, shape, False, points))
    return lines("One use of the current version, 1000 swaps a second", "reader threads", "ns on one core", series, log_x=True, log_y=True)


PARTS = {"reads": reads_table, "ratios": ratio_table, "visibility": visibility_table, "first_read": first_read_table, "layer": layer_table, "loading": loading_table}
NEEDS = {"ratios": "reads"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=pathlib.Path)
    parser.add_argument("--page", type=pathlib.Path)
    parser.add_argument("--plot", type=pathlib.Path)
    args = parser.parse_args()
    starts = [json.loads(f.read_text()) for f in args.files]
    texts = {name: make(starts) for name, make in PARTS.items() if parts_named(starts, NEEDS.get(name, name))}
    if args.plot and "reads" in texts:
        args.plot.write_text(plot(starts))
    if not args.page:
        print("\n\n".join(f"{name}\n{text}" for name, text in texts.items()))
        return
    page, missing = into_page(args.page.read_text(), "measured", texts)
    if missing:
        sys.exit(f"{args.page} has no place for: {', '.join(missing)}")
    args.page.write_text(page)


if __name__ == "__main__":
    main()
