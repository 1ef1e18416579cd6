#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Turns the JSON of ./dev bench forward into the tables of docs/benchmarks.md (between its <!-- forward: NAME --> and <!-- end --> marks) and
docs/images/forward_*.svg. Several files are taken together: one a set, say.

  plot_forward.py [--out FOLDER] [build/bench_forward.json ...]

With --out everything goes to FOLDER, the tables into FOLDER/forward.md: the way to look at a measurement without touching the documents.
"""
import argparse
import json
import pathlib

from bench_plot import GREY, into_page, lines

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
COLOURS = {"limit": GREY, "lora": "#d1242f", "lora native": "#bf5bb5", "plain": "#3a7fc4", "reordered": "#2f8f5b", "torch + PEFT": "#d9822b"}
SHAPES = {"limit": "none", "lora": "circle", "lora native": "diamond", "plain": "square", "reordered": "triangle", "torch + PEFT": "ring"}
COLUMNS = ["lora again", "oneDNN reordered", "torch mkldnn prepacked", "MKL packed", "oneDNN", "MKL", "OpenBLAS", "Eigen", "ggml", "NumPy", "torch", "torch + PEFT"]


def row(point, name):
    return next((r for r in point["peers"] if r["name"] == name), None)


def best(point, form):
    """The fastest peer that takes W this way."""
    rows = [r for r in point["peers"] if r["form"] == form]
    return min(rows, key=lambda r: r["ns"][0], default=None)


def ours(point):
    return ["lora"] + (["lora native"] if row(point, "lora native") else [])


def bounds(values):
    return "{:.2f} [{:.2f}, {:.2f}]".format(*values)


def time(ns):
    return f"{ns:.0f} ns" if ns < 1e3 else f"{ns / 1e3:.3g} us" if ns < 1e6 else f"{ns / 1e6:.3f} ms" if ns < 1e7 else f"{ns / 1e6:.4g} ms"


def variant(point):
    """What tells two tables of one set apart."""
    words = [point["type"], f"{point['threads']}t", point["pages"]]
    return "-".join(words + ["transposed"] * point["transposed"])


def markdown(header, rows):
    return "\n".join(["| " + " | ".join(header) + " |", "|---" * len(header) + "|"] + ["| " + " | ".join(r) + " |" for r in rows])


def size(point):
    return f"{point['out']} x {point['in']}" + (f", rank {point['rank']}" if point["rank"] != 16 else "") + (f", {point['adapters']} adapters" if point["adapters"] != 1 else "")


def ratio_key(base):
    return "ratio_native" if base == "lora native" else "ratio"


def targets(points):
    """The table of the targets: ours against the limit and the best peer of either form, once exact and once native where there is that."""
    out = []
    names = ours(points[0])
    header = ["M" if len({size(p) for p in points}) == 1 else "W; M", "limit"]
    for name in names:
        header += [name, "% of limit", "v plain", "v reordered", "A/A"]
    for p in points:
        cells = [str(p["n"]) if header[0] == "M" else f"{size(p)}; {p['n']}", time(p["limit_ns"]["machine"])]
        for name in names:
            r, again = row(p, name), row(p, name + " again")
            key = ratio_key(name)
            cells += [time(r["ns"][0]), f"{r['percent'][0]:.0f} [{r['percent'][1]:.0f}, {r['percent'][2]:.0f}]"] if r else ["-", "-"]
            for form in ("plain", "reordered"):
                q = best(p, form)
                cells.append(f"{bounds(q[key])} {q['name']}" if q and key in q else "-")
            cells.append(bounds(again[key]) if again and key in again else "-")
        out.append(cells)
    return markdown(header, out)


def everyone(points):
    """Each peer's time over lora's."""
    shown = [c for c in COLUMNS if any(row(p, c) or any(w["name"] == c for w in p["wrong"]) for p in points)]
    out = []
    for p in points:
        lora = row(p, "lora")
        cells = [f"{size(p)}; {p['n']}", time(lora["ns"][0]) if lora else "-"]
        for c in shown:
            r = row(p, c)
            cells.append("wrong" if any(w["name"] == c for w in p["wrong"]) else bounds(r["ratio"]) if r and "ratio" in r else "-")
        out.append(cells)
    return markdown(["W; M", "lora"] + shown, out)


def floor(point):
    """What the adapters must cost over the base: their share of the bytes while memory decides, of the arithmetic above."""
    return 1 + point["rank"] * point["adapters"] * (point["in"] + point["out"]) / (point["in"] * point["out"])


def overheads(points):
    names = [b for b in ("lora base", "lora native base") if any(row(p, b) for p in points)]
    out = []
    for p in sorted(points, key=lambda p: (p["adapters"], p["rank"], p["n"])):
        cells = [str(p["rank"]) + (f" x {p['adapters']}" if p["adapters"] != 1 else ""), str(p["n"]), f"{floor(p):.4f}"]
        for name in names:
            r = row(p, name)
            cells.append("{:.3f} [{:.3f}, {:.3f}]".format(*r["overhead"]) if r and "overhead" in r else "-")
        out.append(cells)
    return markdown(["rank", "M", "floor"] + [n.removesuffix(" base") for n in names], out)


def tiers(points):
    out = []
    for p in points:
        for name, against in (("lora avx2", "its own multiply-add peak"), ("lora generic -O2", "Eigen -O2")):
            r, peer = row(p, name), row(p, against)
            if r:
                # Both ratios are over lora, round by round; their quotient is the peer over this tier.
                value = f"{r['percent'][0]:.0f} % [{r['percent'][1]:.0f}, {r['percent'][2]:.0f}]" if peer is None else f"{peer['ns'][0] / r['ns'][0]:.2f} x"
                out.append([name, f"{size(p)}; {p['n']}", time(r["ns"][0]), f"{value} of {against}" if peer is None else f"{against} takes {value} as long"])
    return markdown(["tier", "W; M", "time", "against"], out)


def roofs(points):
    out = [[str(p["threads"]), p["pages"], p["type"], f"{p['stream_gbs']:.1f}", p["stream_way"], f"{p['fma_gflops']:.0f}", f"{p['pairs_gflops']:.0f}" if p["pairs_gflops"] else "-"] for p in points]
    return markdown(["threads", "pages", "type", "stream GB/s", "fastest way", "f32 GFLOP/s", "bf16 pairs GFLOP/s"], out)


def series(points, value, log_rank=False):
    """limit, ours, and the best peers of both forms at each batch size."""
    result = [("limit", COLOURS["limit"], "none", True, [(p["n"], value(p, p["limit_ns"]["machine"])) for p in points])]
    for name in ours(points[0]) + ["torch + PEFT"]:
        found = [(p["n"], value(p, row(p, name)["ns"][0])) for p in points if row(p, name)]
        if found:
            result.append((name, COLOURS[name], SHAPES[name], False, found))
    for form, label in (("plain", "best with W in place"), ("reordered", "best with W reordered")):
        found = [(p["n"], value(p, best(p, form)["ns"][0])) for p in points if best(p, form)]
        if found:
            result.append((label, COLOURS[form], SHAPES[form], False, found))
    return result


def machine(c, points):
    peers = sorted({r["how"].split(",")[0] for p in points for r in p["peers"] if r["form"] != "ours"})
    again = sorted(r["ratio"][0] for p in points for r in p["peers"] if r["name"] == "lora again" and "ratio" in r)
    spread = f"; lora against itself over all points: {again[len(again) // 2]:.3f}, from {again[0]:.3f} to {again[-1]:.3f}" if again else ""
    return (f"{c['cpu']}, {c['cpus']} CPUs, caches {c['l1d'] >> 10} KB, {c['l2'] >> 20} MB, {c['l3'] >> 20} MB; {c['compiler']}, lora compiled with `{c['flags']}` and no `-m` flag, tier {c['tier']};\n"
            f"{', '.join(peers) or 'no peers'}; {c['date']}{' (--quick)' if c.get('quick') else ''}{spread}.")


def build(context, points):
    """name -> table, name -> SVG"""
    tables, plots = {"machine": machine(context, points)}, {}
    groups = {}
    for p in points:
        groups.setdefault((p["set"], variant(p)), []).append(p)
    for (name, kind), members in groups.items():
        members.sort(key=lambda p: (p["out"], p["in"], p["adapters"], p["rank"], p["n"]))
        words = f"{members[0]['type']}, {members[0]['threads']} thread{'s' if members[0]['threads'] > 1 else ''}, {members[0]['pages']} pages"
        if name == "rank":
            tables[f"rank-{kind}"] = overheads(members)
            ranks = []
            for n in sorted({p["n"] for p in members}):
                line = sorted((p for p in members if p["n"] == n and p["adapters"] == 1 and p["rank"] > 0), key=lambda p: p["rank"])
                shape = ("circle", "square", "triangle", "diamond")[len(ranks) % 4]
                colour = list(COLOURS.values())[1 + len(ranks) % 5]
                found = [(p["rank"], 100 * (row(p, "lora base")["overhead"][0] - 1)) for p in line if row(p, "lora base") and "overhead" in row(p, "lora base")]
                if found:
                    ranks.append((f"M = {n}", colour, shape, False, found))
            if ranks:
                line = sorted({(p["rank"], 100 * (floor(p) - 1)) for p in members if p["adapters"] == 1 and p["rank"] > 0})
                plots[f"rank_{kind}"] = lines(f"What an adapter costs: {words}", "rank", "% over the base", [("floor", GREY, "none", True, line), *ranks], log_x=True, y_from=0)
            continue
        if name == "roofline":
            tables.setdefault("roofline", "")
            continue
        if name == "tiers":
            tables[f"tiers-{kind}"] = tiers(members)
            continue
        tables[f"{name}-{kind}"] = targets(members)
        tables[f"{name}-{kind}-peers"] = everyone(members)
        if len({p["n"] for p in members}) > 1 and len({size(p) for p in members}) == 1:
            if name == "curve":
                plots[f"curve_{kind}"] = lines(f"Time a token: {words}", "tokens M", "ms a token", series(members, lambda p, ns: ns / 1e6 / p["n"]), log_y=True)
            elif name in ("headline", "threads"):
                plots[f"{name}_{kind}"] = lines(f"Roofline: {words}", "tokens M", "GFLOP/s", series(members, lambda p, ns: 2 * p["n"] * (p["in"] * p["out"] + p["rank"] * p["adapters"] * (p["in"] + p["out"])) / ns), log_x=True, log_y=True)
    first = {}
    for p in points:
        first.setdefault((p["threads"], p["pages"], p["type"]), p)
    tables["roofline"] = roofs([first[k] for k in sorted(first)])
    return tables, plots


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("files", nargs="*", type=pathlib.Path, default=[ROOT / "build" / "bench_forward.json"])
    options = parser.parse_args()
    context, points = {}, []
    for path in options.files:
        data = json.loads(path.read_text(encoding="utf-8"))
        context = {**data["context"], **context}
        points += data["points"]
    tables, plots = build(context, points)
    images = options.out or ROOT / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    for name, svg in plots.items():
        (images / f"forward_{name.replace('-', '_')}.svg").write_text(svg, encoding="utf-8")
    if options.out:
        text = "\n\n".join(f"<!-- forward: {name} -->\n{table}\n<!-- end -->" for name, table in tables.items())
        (options.out / "forward.md").write_text(text + "\n", encoding="utf-8")
    else:
        page, missing = into_page(PAGE.read_text(encoding="utf-8"), "forward", tables)
        PAGE.write_text(page, encoding="utf-8")
        if missing:
            print(f"{PAGE.name} has no place for: {', '.join(missing)}")
    print(f"{len(points)} points: {len(tables)} tables and {len(plots)} plots")


if __name__ == "__main__":
    main()
