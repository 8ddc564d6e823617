"""Training curves as one SVG file, drawn from the rows of metrics.jsonl."""

import numpy as np

from mancs_jax.reporting import chart

# Panels from top to bottom: title, and the metrics drawn in it.
PANELS = (
    ("losses", ("rank_loss", "cls_loss", "att_loss")),
    ("share that is right", ("accuracy", "triplets_in_order")),
    ("validation", ("validation/mAP", "validation/rank-1")),
    ("learning rate", ("learning_rate",)),
)
SMOOTHING = 50  # of about so many points a curve is made, each the mean of its neighbours


def curves_svg(rows: list[dict[str, float]]) -> str:
    """An SVG document: a panel for each of PANELS whose metrics are in the rows, each of which has "step", too."""
    last = max(row["step"] for row in rows)
    panels = []
    for title, names in PANELS:
        points = {name: [(row["step"], row[name]) for row in rows if name in row] for name in names}
        curves = {name: smooth(np.array(values)) for name, values in points.items() if values}
        if curves:
            panels.append(chart.lines(title, curves, last, "steps"))
    return chart.document(panels)


def smooth(points: np.ndarray) -> np.ndarray:
    """Means of consecutive points: [N, 2] -> about [SMOOTHING, 2] where N is larger."""
    size = max(1, len(points) // SMOOTHING)
    return np.array([points[start : start + size].mean(axis=0) for start in range(0, len(points), size)])
