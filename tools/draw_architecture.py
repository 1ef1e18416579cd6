# SPDX-License-Identifier: Apache-2.0
"""Draws docs/images/architecture.svg: the way of the data from a file to an answer. Run from anywhere: python3 tools/draw_architecture.py"""
from pathlib import Path

BOXES = [  # room, title, line, line
    ("io", "mapped_file", "read-only mapping", "owns the bytes"),
    ("io", "safetensors", "every rule checked", "tensors are views, zero copy"),
    ("io", "peft", "config and names read", "low_rank {A, B, scale}"),
    ("adapter", "bind", "checked against the model", "no other way in"),
    ("adapter", "adapter_set", "names become indices", "the unit that is published"),
    ("snapshot", "cell", "immutable, stamped", "one atomic exchange"),
    ("snapshot", "reader, pin", "wait-free; one version", "from first to last layer"),
    ("adapter", "linear.forward", "shapes checked once", "linalg, then simd kernels"),
]
COLOURS = {"io": "#e8eef7", "adapter": "#eaf5ea", "snapshot": "#fdf1e0"}
INK, SOFT = "#1f2933", "#52606d"
WIDTH, HEIGHT, GAP_X, GAP_Y, LEFT, TOP = 196, 92, 26, 58, 20, 54


def box(index: int) -> tuple[float, float]:
    row, column = divmod(index, 4)
    if row == 1:
        column = 3 - column  # the second row runs back, so that the arrows never cross
    return LEFT + column * (WIDTH + GAP_X), TOP + row * (HEIGHT + GAP_Y)


def main() -> None:
    total_w = 2 * LEFT + 4 * WIDTH + 3 * GAP_X
    total_h = TOP + 2 * HEIGHT + GAP_Y + 54
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total_w} {total_h}" font-family="Helvetica, Arial, sans-serif" role="img"'
        ' aria-label="The way of the data: mapped file, safetensors, PEFT, bind, adapter set, cell, pinned reader, forward">',
        f'<rect width="{total_w}" height="{total_h}" fill="#ffffff"/>',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{SOFT}"/></marker></defs>',
        f'<text x="{LEFT}" y="30" font-size="15" font-weight="bold" fill="{INK}">From a file on disk to an answer</text>',
    ]
    for i, (room, title, *lines) in enumerate(BOXES):
        x, y = box(i)
        out.append(f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{COLOURS[room]}" stroke="{SOFT}" stroke-width="1"/>')
        out.append(f'<text x="{x + 12}" y="{y + 20}" font-size="11" fill="{SOFT}">{room}/</text>')
        out.append(f'<text x="{x + 12}" y="{y + 40}" font-size="15" font-weight="bold" fill="{INK}">{title}</text>')
        for j, line in enumerate(lines):
            out.append(f'<text x="{x + 12}" y="{y + 60 + 17 * j}" font-size="12" fill="{INK}">{line}</text>')
    for i in range(len(BOXES) - 1):
        (x0, y0), (x1, y1) = box(i), box(i + 1)
        if y0 == y1 and x1 > x0:
            line = (x0 + WIDTH + 2, y0 + HEIGHT / 2, x1 - 2, y1 + HEIGHT / 2)
        elif y0 == y1:
            line = (x0 - 2, y0 + HEIGHT / 2, x1 + WIDTH + 2, y1 + HEIGHT / 2)
        else:
            line = (x0 + WIDTH / 2, y0 + HEIGHT + 2, x1 + WIDTH / 2, y1 - 2)
        out.append('<line x1="{:g}" y1="{:g}" x2="{:g}" y2="{:g}" stroke="{}" stroke-width="1.6" marker-end="url(#tip)"/>'.format(*line, SOFT))
    x, y = box(7)
    out.append(f'<text x="{x}" y="{y + HEIGHT + 26}" font-size="13" fill="{INK}">y = W x + b + &#931; s B (A x)</text>')
    x, y = box(3)
    out.append(f'<text x="{LEFT}" y="{y + HEIGHT + 34}" font-size="12" fill="{SOFT}">mapped_file to cell: once a load, on the thread that loads</text>')
    x, y = box(7)
    out.append(f'<text x="{x + 2 * (WIDTH + GAP_X)}" y="{y + HEIGHT + 26}" font-size="12" fill="{SOFT}">reader and forward: once a request; no lock, no allocation, no string</text>')
    out.append("</svg>")
    path = Path(__file__).resolve().parent.parent / "docs" / "images" / "architecture.svg"
    path.write_text("\n".join(out) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
