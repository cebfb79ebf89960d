"""Line charts as SVG inside a page."""

import math
from html import escape

import numpy as np

from fastzss.masks.colours import css, palette

CHART = 390, 260  # width and height of a chart, in units of its own
LINES = 200  # a longer curve is drawn as the means of this many stretches


def curve_svg(series, title, x_label, y_label, colours=None):
    """A line chart of {name: [(x, y), ...]} as inline SVG that takes the text colour of the page around it.

    `colours` maps names to CSS colours; others are the page's --series-1, --series-2, ..., or the palette's.
    Points that are not finite are left out, and a series without points is too.
    """
    series = {name: thinned([p for p in points if all(map(math.isfinite, p))]) for name, points in series.items()}
    series = {name: points for name, points in series.items() if points}
    strokes = {name: f"var(--series-{k + 1}, {css(palette(range(256))[k % 256])})" for k, name in enumerate(series)}
    strokes |= colours or {}
    points = [p for line in series.values() for p in line] or [(0, 0), (1, 1)]
    (left_x, right_x, x_ticks), (low_y, high_y, y_ticks) = (axis([p[d] for p in points], whole=d == 1) for d in (0, 1))

    width, height = CHART
    legend, rows = placed(series, width)
    top, bottom, right = 58 + 20 * rows, height - 40, width - 14
    left = 14 + 7 * max(len(label) for _, label in y_ticks)

    def at(x, y):
        across = left + (x - left_x) / (right_x - left_x) * (right - left)
        return round(across, 1), round(bottom - (y - low_y) / (high_y - low_y) * (bottom - top), 1)

    def text(x, y, words, style='opacity="0.7"'):
        return f'<text x="{x}" y="{y}" {style}>{escape(words)}</text>'

    frame = f'class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}"'
    svg = [f'<svg {frame} fill="currentColor" font-size="12">', text(0, 15, title, 'font-size="14" font-weight="600"')]
    for name, x, row in legend:
        y = 33 + 20 * row
        svg.append(f'<rect x="{x}" y="{y - 1}" width="16" height="4" rx="2" fill="{escape(strokes[name])}"/>')
        svg.append(text(x + 22, y + 5, clipped(name), ""))
    svg.append(text(0, top - 12, y_label))
    svg.append(text((left + right) / 2, height - 6, x_label, 'text-anchor="middle" opacity="0.7"'))
    for value, label in y_ticks:
        y = at(left_x, value)[1]
        svg.append(f'<path d="M{left} {y}H{right}" stroke="currentColor" opacity="0.15"/>')
        svg.append(text(left - 8, y + 4, label, 'text-anchor="end" opacity="0.7"'))
    for value, label in x_ticks:
        x = at(value, low_y)[0]
        anchor = "end" if x + 4 * len(label) > width else "middle"
        svg.append(text(x, bottom + 17, label, f'text-anchor="{anchor}" opacity="0.7"'))
    svg.append(f'<path d="M{left} {bottom}H{right}" stroke="currentColor" opacity="0.5"/>')
    for name, line in series.items():
        stroke = escape(strokes[name])
        dots = [at(*p) for p in line]
        if len(dots) == 1:
            svg.append(f'<circle cx="{dots[0][0]}" cy="{dots[0][1]}" r="3.5" fill="{stroke}"/>')
        else:
            path = " ".join(f"{x},{y}" for x, y in dots)
            style = 'fill="none" stroke-width="2" stroke-linejoin="round"'
            svg.append(f'<polyline points="{path}" stroke="{stroke}" {style}/>')
    return "\n".join(svg) + "\n</svg>"


def thinned(points):
    """The points, or the means of LINES stretches of them."""
    if len(points) <= LINES:
        return points
    return [tuple(part.mean(0).tolist()) for part in np.array_split(np.asarray(points, float), LINES)]


def axis(values, whole):
    """First and last value of an axis and its few round ticks with their labels; `whole`: it ends at ticks."""
    low, high = min(values), max(values)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # one value only: give it room
        room = abs(low) / 2 or 1
        low, high = low - room, high + room
    rough = (high - low) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    if whole:
        low, high = first * step, last * step
    digits = max(0, -math.floor(math.log10(step) + 1e-6))
    style = ".3g" if digits > 4 or max(abs(low), abs(high)) >= 1e7 else f",.{digits}f"
    margin = 1e-6 * step
    ticks = [n * step for n in range(first, last + 1) if low - margin <= n * step <= high + margin]
    return low, high, [(tick, format(tick + 0.0, style)) for tick in ticks]


def placed(names, width):
    """[(name, x, row)] of the entries of a chart's legend, and the number of rows."""
    entries, x, row = [], 0, 0
    for name in names:
        needed = 40 + round(6.6 * len(clipped(name)))
        if x and x + needed > width:
            x, row = 0, row + 1
        entries.append((name, x, row))
        x += needed
    return entries, row + 1 if entries else 0


def clipped(name):
    return name if len(name) <= 56 else name[:55] + "\N{HORIZONTAL ELLIPSIS}"
