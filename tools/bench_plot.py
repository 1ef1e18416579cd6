# SPDX-License-Identifier: Apache-2.0
"""What plot_ops.py and plot_forward.py share: marks, plots as SVG that read on white and on black, and the parts of a page between its marks."""
import math
import re
from xml.sax.saxutils import escape

GREY = "#808890"
STYLE = ("<style>text{fill:#24292f}.s{stroke:#8b949e;stroke-width:.6}.one{stroke:#24292f;stroke-width:1.4}"
         "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.one{stroke:#e6edf3}}</style>")


def head(width, height):
    return [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">', STYLE]


def heading(text):
    return f'<text x="12" y="20" font-size="15" font-weight="bold">{escape(text)}</text>'


def mark(shape, x, y, colour):
    return {"circle": f'<circle cx="{x:.1f}" cy="{y}" r="4.5" fill="{colour}"/>',
            "ring": f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="none" stroke="{colour}" stroke-width="2.2"/>',
            "square": f'<rect x="{x - 4:.1f}" y="{y - 4}" width="8" height="8" fill="{colour}"/>',
            "bar": f'<rect x="{x - 1.5:.1f}" y="{y - 7}" width="3" height="14" fill="{colour}"/>',
            "triangle": f'<path d="M{x - 5:.1f} {y + 4}h10l-5 -9z" fill="{colour}"/>',
            "diamond": f'<path d="M{x:.1f} {y - 6}l5 6l-5 6l-5 -6z" fill="{colour}"/>', "none": ""}[shape]


def into_page(page, tag, parts):
    """The page with the text between <!-- tag: name --> and <!-- end --> replaced; and the names that it has no place for."""
    missing = []
    for name, text in parts.items():
        page, count = re.subn(rf"(<!-- {tag}: {re.escape(name)} -->\n).*?(<!-- end -->)", lambda m, text=text: m[1] + text + "\n" + m[2], page, flags=re.DOTALL)
        if count == 0:
            missing.append(name)
    return page, missing


def dash(dashed):
    return ' stroke-dasharray="5 4"' if dashed else ""


def ticks(low, high, logarithmic):
    if logarithmic:
        first, last = math.floor(math.log2(low)), math.ceil(math.log2(high))
        step = max(1, (last - first) // 8)
        return [2.0 ** k for k in range(first, last + step, step)]
    step = 10 ** math.floor(math.log10(high - low or 1))
    step = next(step * f for f in (0.1, 0.2, 0.5, 1, 2, 5) if (high - low) / (step * f) <= 8)
    return [step * k for k in range(math.floor(low / step), math.ceil(high / step) + 1)]


def lines(title, x_label, y_label, series, log_x=False, log_y=False, y_from=None):
    """Curves of (name, colour, shape, dashed, [(x, y)]) over common axes."""
    left, top, width, height = 70, 84, 640, 340
    xs = [x for *_, points in series for x, _ in points]
    ys = [y for *_, points in series for _, y in points] + ([y_from] if y_from is not None else [])
    x_ticks, y_ticks = ticks(min(xs), max(xs), log_x), ticks(min(ys), max(ys), log_y)

    def place(v, marks, logarithmic):
        f = math.log2 if logarithmic else float
        return (f(v) - f(marks[0])) / ((f(marks[-1]) - f(marks[0])) or 1)

    def x_at(v):
        return left + width * place(v, x_ticks, log_x)

    def y_at(v):
        return top + height * (1 - place(v, y_ticks, log_y))
    out = head(left + width + 30, top + height + 52) + [heading(title)]
    at, row = left, 42
    for name, colour, shape, dashed, _ in series:
        if at + 30 + 7 * len(name) > left + width:
            at, row = left, row + 18
        out += [f'<line x1="{at - 10}" x2="{at + 10}" y1="{row}" y2="{row}" stroke="{colour}" stroke-width="2"{dash(dashed)}/>', mark(shape, at, row, colour),
                f'<text x="{at + 15}" y="{row + 4}">{escape(name)}</text>']
        at += 44 + 7 * len(name)
    for v in x_ticks:
        out += [f'<line class="s" x1="{x_at(v):.1f}" x2="{x_at(v):.1f}" y1="{top}" y2="{top + height}"/>', f'<text x="{x_at(v):.1f}" y="{top + height + 18}" text-anchor="middle">{v:g}</text>']
    for v in y_ticks:
        out += [f'<line class="s" x1="{left}" x2="{left + width}" y1="{y_at(v):.1f}" y2="{y_at(v):.1f}"/>', f'<text x="{left - 8}" y="{y_at(v) + 4:.1f}" text-anchor="end">{v:.4g}</text>']
    out += [f'<text x="{left + width / 2}" y="{top + height + 40}" text-anchor="middle">{escape(x_label)}</text>',
            f'<text x="16" y="{top + height / 2}" text-anchor="middle" transform="rotate(-90 16 {top + height / 2})">{escape(y_label)}</text>']
    for _, colour, shape, dashed, points in series:
        path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dash(dashed)}/>')
        out += [mark(shape, x_at(x), round(y_at(y), 1), colour) for x, y in points]
    return "\n".join(out + ["</svg>"]) + "\n"
