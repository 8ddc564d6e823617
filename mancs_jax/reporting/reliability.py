"""A reliability diagram: likelihood ratios that a model states, against those that were observed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mancs_jax.reporting.chart import COLOURS, GRID, LETTER, Panel, document

SIZE, LEFT, BOTTOM, MARGIN = 360, 72, 52, 16  # pixels
LEAST_PAIRS = 10  # of either kind, behind a point


def reliability_svg(rows: Sequence[Mapping[str, Any]]) -> str:
    """An SVG document with a dot for each bin of `calibration.quality`, on logarithmic axes, and the diagonal.

    Args:
      rows: its `reliability`; bins with fewer than LEAST_PAIRS pairs of either kind are left out.
    """
    points = [(row["log10_ratio"], row["observed"]) for row in rows if _is_shown(row)]
    values = [value for point in points for value in point] or [0.0]
    low, high = np.floor(min(*values, 0)), np.ceil(max(*values, 1))
    scale = (SIZE - MARGIN) / (high - low)

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + (x - low) * scale, SIZE - (y - low) * scale

    parts = []
    names = {power: f"{10.0**power:,.10g}" for power in np.arange(low, high + 1)}
    every = np.ceil(LETTER * max(map(len, names.values())) / scale)  # names below the axis are side by side
    for power, name in names.items():
        x, y = place(power, power)
        parts.append(f'<path d="M{x:.1f} {MARGIN}V{SIZE}M{LEFT} {y:.1f}H{LEFT + SIZE - MARGIN}" stroke="{GRID}"/>')
        if (power - low) % every == 0:
            parts.append(f'<text x="{x:.1f}" y="{SIZE + 18}" text-anchor="middle">{name}</text>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{name}</text>')
    (x0, y0), (x1, y1) = place(low, low), place(high, high)
    parts.append(f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke="{COLOURS[5]}" stroke-dasharray="5 4"/>')
    for x, y in (place(*point) for point in points):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{COLOURS[0]}"/>')
    middle = LEFT + (SIZE - MARGIN) / 2
    parts.append(f'<text x="{middle:.0f}" y="{SIZE + 40}" text-anchor="middle">ratio that the model states</text>')
    parts.append(
        f'<text x="14" y="{SIZE / 2:.0f}" text-anchor="middle" transform="rotate(-90 14 {SIZE / 2:.0f})">'
        "ratio in the test</text>"
    )
    width, height = LEFT + SIZE + MARGIN, SIZE + BOTTOM
    return document([Panel("".join(parts), height)], width)


def _is_shown(row: Mapping[str, Any]) -> bool:
    return row["observed"] is not None and min(row["positive"], row["negative"]) >= LEAST_PAIRS
