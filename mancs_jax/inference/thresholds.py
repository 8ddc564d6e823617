"""The decision thresholds of a model: those of its card, or those that a result of its embeddings has."""

from pathlib import Path

from mancs_jax.evaluation.distances import check_distance
from mancs_jax.evaluation.threshold import (
    CALIBRATE,
    MAX_FPR,
    Threshold,
    few_pairs_at,
    read_threshold,
    threshold_at,
)
from mancs_jax.inference.embedder import Embedder


def threshold_of(source: Embedder | str | Path, max_fpr: float = MAX_FPR, *, distance: str = "euclidean") -> Threshold:
    """Returns a decision threshold that knows what it belongs to; other distances refuse it.

    Args:
      source: a model, whose card has thresholds; or a file of `mancs evaluate --json`, which has those of the images
        that were evaluated.
      max_fpr: false positive rate, one of those that the source has: usually 0.01, 0.001 and 0.0001.
      distance: "euclidean" or "cosine".

    Raises:
      FileNotFoundError: no such file.
      ValueError: one line: the source has no threshold for this rate or distance. The card of a model has none for
        `flip` or `normalize`.
    """
    check_distance(distance)
    if not isinstance(source, Embedder):
        return read_threshold(source, max_fpr, distance)
    settings = [name for name in ("flip", "normalize") if getattr(source, name)]
    if not source.card.get("thresholds"):
        why = f" with {' and '.join(settings)}" if settings else ""
        raise ValueError(f"the model has no decision thresholds{why}: {CALIBRATE}")
    points = source.card["thresholds"][distance]
    limit = threshold_at(points, max_fpr, "the card of the model")
    calibrated = [point | point.get("set_on", {}) for point in points]  # one that is exported has its rates there
    few_pairs = few_pairs_at(calibrated, max_fpr, calibrated[0].get("pairs"))
    is_adapted = "adapted" in source.card  # whose thresholds are of `evaluation.frames`
    return Threshold(limit, distance, source.normalize, source.flip, source.network, max_fpr, is_adapted, few_pairs)
