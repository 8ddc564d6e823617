"""Line and dot charts as SVG, without a library: a page that shows them needs nothing else."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

COLOURS = ("#0969da", "#cf222e", "#1a7f37", "#9a6700", "#8250df", "#57606a")
GRID = "#d0d7de"
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 180, 70, 16, 28, 24  # pixels, of a panel
TOPS = (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10)  # first digits of the number at the top of an axis


def document(panels: Sequence[str], width: int = WIDTH, height: int = HEIGHT) -> str:
    """An SVG document of panels, one below the other."""
    placed = "".join(f'<g transform="translate(0 {height * i})">{panel}</g>' for i, panel in enumerate(panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height * len(panels)}" width="{width}" '
        f'height="{height * len(panels)}" font-family="sans-serif" font-size="12">'
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
) -> str:
    """A panel of curves, each from 0 to `last` across and from 0 to the largest value, rounded, up.

    Args:
      title: over the panel, left; the curves' names follow it, each in its colour.
      curves: name -> [N, 2] points (x, y), y not below 0.
      last: right end of the x axis.
      x_label: under the x axis, after its numbers.
      height: pixels.
      ticks: x -> text under the x axis; by default the numbers 0, `last` and the middle.
      band: [N, 3] points (x, low, high) of an area behind the first curve.
    """
    highest = [points[:, 1].max() for points in curves.values()] + ([] if band is None else [band[:, 2].max()])
    top = rounded_up(max(highest))
    right, floor = WIDTH - RIGHT, height - BOTTOM
    parts = [f'<text x="{LEFT}" y="18" font-weight="bold">{escape(title)}</text>']
    for share in (0.0, 0.5, 1.0):
        y = floor - share * (floor - TOP)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="{GRID}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share * top:.3g}</text>')
    for tick, text in (ticks or {share * last: f"{share * last:.0f}" for share in (0.0, 0.5, 1.0)}).items():
        x = LEFT + tick / last * (right - LEFT)
        parts.append(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{escape(text)}</text>')
    middle = LEFT + 0.75 * (right - LEFT)
    parts.append(f'<text x="{middle:.1f}" y="{height - 8}" text-anchor="middle">{escape(x_label)}</text>')
    if band is not None:
        across = np.concatenate([band[:, 0], band[::-1, 0]]) / last * (right - LEFT) + LEFT
        down = floor - np.concatenate([band[:, 1], band[::-1, 2]]) / top * (floor - TOP)
        area = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True))
        parts.append(f'<polygon points="{area}" fill="{COLOURS[0]}" fill-opacity="0.15"/>')
    start = LEFT + 8 * len(title) + 16
    step = min(150, (right - start) // max(len(curves), 1))
    for i, (name, points) in enumerate(curves.items()):
        across = LEFT + points[:, 0] / last * (right - LEFT)
        down = floor - points[:, 1] / top * (floor - TOP)
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True))
        colour = COLOURS[i % len(COLOURS)]
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{start + step * i}" y="18" fill="{colour}">{escape(name)}</text>')
    return "".join(parts)


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
    height = TOP + line_height * len(rows) + BOTTOM
    everything = [value for values in rows.values() for value in values]
    low, high = min(everything, default=0.0), max(everything, default=1.0)
    step = rounded_up((high - low) / 4, (1, 2, 5, 10))
    low = step * np.floor(low / step)
    high = max(step * np.ceil(high / step), low + step)
    left, right = LEFT + label, WIDTH - RIGHT

    def across(value):
        return left + (value - low) / (high - low) * (right - left)

    parts = [f'<text x="16" y="18" font-weight="bold">{escape(title)}</text>']
    for value in np.arange(low, high + step / 2, step):
        x = across(value)
        parts.append(f'<path d="M{x:.1f} {TOP}V{height - BOTTOM}" stroke="{GRID}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{value:g}</text>')
    for i, (name, values) in enumerate(rows.items()):
        y = TOP + line_height * (i + 0.5)
        parts.append(f'<text x="{left - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>')
        if len(values):
            x = across(float(np.mean(values)))
            parts.append(f'<path d="M{x:.1f} {y - 8:.1f}V{y + 8:.1f}" stroke="{COLOURS[1]}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{across(v):.1f}" cy="{y:.1f}" r="4" fill="{COLOURS[0]}" fill-opacity="0.7"/>' for v in values
        ]
    return document(["".join(parts)], WIDTH, height)
