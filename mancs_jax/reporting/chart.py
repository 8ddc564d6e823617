"""Line and dot charts as SVG, without a library: a page that shows them needs nothing else.

A chart of lines is as wide as a telephone's screen, so its text is readable there; wider pages have several in a row.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

COLOURS = ("#0969da", "#cf222e", "#1a7f37", "#9a6700", "#8250df", "#57606a")
GRID = "#d0d7de"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 380, 220, 52, 20, 44, 42  # pixels, of a panel whose legend has one line
DOTS_WIDTH, DOTS_LEFT, DOTS_TOP, DOTS_BOTTOM = 720, 70, 28, 24  # pixels, of a chart of dots
LEGEND_LINE, LETTER = 16, 6.7  # pixels, from line to line and of a letter, about
TOPS = (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10)  # first digits of the number at the top of an axis


class Panel(NamedTuple):
    """A part of a document."""

    svg: str
    height: int  # pixels


def document(panels: Sequence[Panel], width: int = WIDTH) -> str:
    """An SVG document of panels, one below the other."""
    placed, height = "", 0
    for panel in panels:
        placed += f'<g transform="translate(0 {height})">{panel.svg}</g>'
        height += panel.height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{placed}</svg>\n'
    )


def lines(
    title: str,
    curves: Mapping[str, np.ndarray],
    last: float,
    x_label: str = "",
    height: int = HEIGHT,
    ticks: Mapping[float, str] | None = None,
    band: np.ndarray | None = None,
) -> Panel:
    """A panel of curves, each from 0 to `last` across and from 0 to the largest value, rounded, up.

    Args:
      title: over the panel, left; the curves' names follow below, each in its colour, in as many lines as they need.
      curves: name -> [N, 2] points (x, y), y not below 0.
      last: right end of the x axis.
      x_label: under the numbers of the x axis.
      height: pixels, with a legend of one line; each further line adds to it.
      ticks: x -> text under the x axis; by default the numbers 0, `last` and the middle.
      band: [N, 3] points (x, low, high) of an area behind the first curve.
    """
    legend, rows = _legend(list(curves))
    ceiling, height = TOP + LEGEND_LINE * (rows - 1), height + LEGEND_LINE * (rows - 1)
    highest = [points[:, 1].max() for points in curves.values()] + ([] if band is None else [band[:, 2].max()])
    top = rounded_up(max(highest))
    right, floor = WIDTH - RIGHT, height - BOTTOM
    parts = [f'<text x="8" y="18" font-weight="bold">{escape(title)}</text>', legend]
    for share in (0.0, 0.5, 1.0):
        y = floor - share * (floor - ceiling)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="{GRID}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share * top:.3g}</text>')
    for tick, text in (ticks or {share * last: f"{share * last:.0f}" for share in (0.0, 0.5, 1.0)}).items():
        x = LEFT + tick / last * (right - LEFT)
        parts.append(f'<text x="{x:.1f}" y="{height - 26}" text-anchor="middle">{escape(text)}</text>')
    squeezed = f' textLength="{WIDTH - 16}" lengthAdjust="spacingAndGlyphs"' * (LETTER * len(x_label) > WIDTH - 16)
    x = WIDTH / 2 if squeezed else (LEFT + right) / 2
    parts.append(f'<text x="{x:.1f}" y="{height - 9}" text-anchor="middle"{squeezed}>{escape(x_label)}</text>')
    if band is not None:
        across = np.concatenate([band[:, 0], band[::-1, 0]]) / last * (right - LEFT) + LEFT
        down = floor - np.concatenate([band[:, 1], band[::-1, 2]]) / top * (floor - ceiling)
        area = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True))
        parts.append(f'<polygon points="{area}" fill="{COLOURS[0]}" fill-opacity="0.15"/>')
    for i, points in enumerate(curves.values()):
        across = LEFT + points[:, 0] / last * (right - LEFT)
        down = floor - points[:, 1] / top * (floor - ceiling)
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True))
        colour = COLOURS[i % len(COLOURS)]
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    return Panel("".join(parts), height)


def _legend(names: Sequence[str]) -> tuple[str, int]:
    """(the names, each in its colour, number of lines that they take)."""
    parts, x, row = [], 8.0, 1
    for i, name in enumerate(names):
        width = LETTER * len(name) + 14
        if x > 8 and x + width > WIDTH:
            x, row = 8.0, row + 1
        y = TOP - 10 + LEGEND_LINE * (row - 1)
        parts.append(f'<text x="{x:.0f}" y="{y}" fill="{COLOURS[i % len(COLOURS)]}">{escape(name)}</text>')
        x += width
    return "".join(parts), row


def rounded_up(value: float, tops: Sequence[float] = TOPS) -> float:
    """The least number with one of `tops` as its digits that is not below a value, 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * next(top for top in tops if value <= top * power * (1 + 1e-6)))


def dots_svg(title: str, rows: Mapping[str, Sequence[float]]) -> str:
    """An SVG document with a line for each row: its values as dots, their mean as a bar.

    Args:
      title: over the chart.
      rows: name -> values, not below 0.
    """
    line_height, label = 26, 150
    height = DOTS_TOP + line_height * len(rows) + DOTS_BOTTOM
    everything = [value for values in rows.values() for value in values]
    low, high = min(everything, default=0.0), max(everything, default=1.0)
    step = rounded_up((high - low) / 4, (1, 2, 5, 10))
    low = step * np.floor(low / step)
    high = max(step * np.ceil(high / step), low + step)
    left, right = DOTS_LEFT + label, DOTS_WIDTH - RIGHT

    def across(value):
        return left + (value - low) / (high - low) * (right - left)

    parts = [f'<text x="16" y="18" font-weight="bold">{escape(title)}</text>']
    for value in np.arange(low, high + step / 2, step):
        x = across(value)
        parts.append(f'<path d="M{x:.1f} {DOTS_TOP}V{height - DOTS_BOTTOM}" stroke="{GRID}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{value:g}</text>')
    for i, (name, values) in enumerate(rows.items()):
        y = DOTS_TOP + line_height * (i + 0.5)
        parts.append(f'<text x="{left - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>')
        if len(values):
            x = across(float(np.mean(values)))
            parts.append(f'<path d="M{x:.1f} {y - 8:.1f}V{y + 8:.1f}" stroke="{COLOURS[1]}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{across(v):.1f}" cy="{y:.1f}" r="4" fill="{COLOURS[0]}" fill-opacity="0.7"/>' for v in values
        ]
    return document([Panel("".join(parts), height)], DOTS_WIDTH)
