"""Bars in SVG, on a logarithmic scale: enough of a plot for a handful of numbers, and no dependency."""

import math
from html import escape

WIDTH, LEFT, ROW = 720, 160, 30


def bars(title, values, *, mine):
    """The picture of some numbers, each by its name; the bar of `mine` stands out."""
    low = 10 ** math.floor(math.log10(min(values.values())))
    high = 10 ** math.ceil(math.log10(max(values.values())))
    height = 56 + ROW * len(values)

    def across(value):
        share = (math.log10(value) - math.log10(low)) / (math.log10(high) - math.log10(low))
        return LEFT + share * (WIDTH - LEFT - 70)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<style>text { font: 13px sans-serif }</style>",
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="10" y="20" font-weight="bold">{escape(title)} (logarithmic)</text>',
    ]
    tick = low
    while tick <= high:
        x = across(tick)
        parts.append(f'<line x1="{x:.1f}" y1="30" x2="{x:.1f}" y2="{height - 22}" stroke="#ccc"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 7}" text-anchor="middle" fill="#555">{tick:g}</text>')
        tick *= 10
    for n, (name, value) in enumerate(values.items()):
        y = 36 + ROW * n
        colour = "#3f51b5" if name == mine else "#9aa0a6"
        parts.append(f'<text x="{LEFT - 8}" y="{y + 16}" text-anchor="end">{escape(name)}</text>')
        parts.append(
            f'<rect x="{LEFT}" y="{y}" width="{across(value) - LEFT:.1f}" height="22" fill="{colour}"/>'
        )
        parts.append(f'<text x="{across(value) + 6:.1f}" y="{y + 16}">{value:.1f}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
