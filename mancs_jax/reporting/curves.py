"""Training curves as one SVG file, drawn from the rows of metrics.jsonl."""

from html import escape
from pathlib import Path

import numpy as np

from mancs_jax.training.log import read_rows

# Panels from top to bottom: title, and the metrics drawn in it.
PANELS = (
    ("losses", ("rank_loss", "cls_loss", "att_loss")),
    ("share that is right", ("accuracy", "triplets_in_order")),
    ("validation", ("validation/mAP", "validation/rank-1")),
    ("learning rate", ("learning_rate",)),
)
COLOURS = ("#0969da", "#cf222e", "#1a7f37")
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 720, 180, 70, 28, 24  # pixels, of a panel
SMOOTHING = 50  # of about so many points a curve is made, each the mean of its neighbours


def write_curves(workdir: Path) -> Path:
    """Draws workdir/metrics.jsonl into workdir/results/curves.svg; returns that path."""
    path = workdir / "results" / "curves.svg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(curves_svg(read_rows(workdir / "metrics.jsonl")))
    return path


def curves_svg(rows: list[dict[str, float]]) -> str:
    """An SVG document: a panel for each of PANELS whose metrics are there.

    Args:
      rows: each with "step" and some metrics.
    """
    last = max(row["step"] for row in rows)
    panels = []
    for title, names in PANELS:
        curves = {name: [(row["step"], row[name]) for row in rows if name in row] for name in names}
        curves = {name: smooth(np.array(points)) for name, points in curves.items() if points}
        if curves:
            panels.append(f'<g transform="translate(0 {HEIGHT * len(panels)})">{_panel(title, curves, last)}</g>')
    height = HEIGHT * len(panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        + "".join(panels)
        + "</svg>\n"
    )


def smooth(points: np.ndarray) -> np.ndarray:
    """Means of consecutive points: [N, 2] -> about [SMOOTHING, 2] where N is larger."""
    size = max(1, len(points) // SMOOTHING)
    return np.array([points[start : start + size].mean(axis=0) for start in range(0, len(points), size)])


def _panel(title: str, curves: dict[str, np.ndarray], last: float) -> str:
    top = max(points[:, 1].max() for points in curves.values()) or 1.0
    right, floor = WIDTH - 16, HEIGHT - BOTTOM
    parts = [f'<text x="{LEFT}" y="18" font-weight="bold">{escape(title)}</text>']
    for share in (0.0, 0.5, 1.0):
        y = floor - share * (floor - TOP)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share * top:.3g}</text>')
        x = LEFT + share * (right - LEFT)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{share * last:.0f}</text>')
    for i, (name, points) in enumerate(curves.items()):
        x = LEFT + points[:, 0] / last * (right - LEFT)
        y = floor - points[:, 1] / top * (floor - TOP)
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{COLOURS[i]}" stroke-width="1.5"/>')
        parts.append(f'<text x="{LEFT + 170 + 150 * i}" y="18" fill="{COLOURS[i]}">{escape(name)}</text>')
    return "".join(parts)
