"""Verification: whether two images show the same person."""

from typing import Any, NamedTuple

import numpy as np

from mancs_jax.data.sources.labels import Camera
from mancs_jax.evaluation.distances import check_distance, checked_norms, pair_distances
from mancs_jax.evaluation.threshold import MAX_FPR, Threshold, checked_limit
from mancs_jax.inference.embedder import Embedder
from mancs_jax.inference.thresholds import threshold_of


class Verified(NamedTuple):
    """The decision for two images."""

    is_same: bool  # the distance is at most the threshold
    distance: float
    threshold: Threshold


def verify(
    embedder: Embedder,
    first: Any,
    second: Any,
    *,
    distance: str = "euclidean",
    max_fpr: float = MAX_FPR,
    threshold: Threshold | float | None = None,
    camera: Camera | tuple[Camera, Camera] | None = None,
) -> Verified:
    """Compares two images.

    Args:
      embedder: the model, see `mancs_jax.load`.
      first: an image, as the embedder takes it.
      second: another one.
      distance: "euclidean" or "cosine".
      max_fpr: false positive rate, whose threshold is taken from the card of the model.
      threshold: to be used instead of one of the card: of `mancs_jax.threshold_of`, or a number that was calibrated for
        this model, this distance, and the embedder's `flip` and `normalize`.
      camera: of both images, or of each, for a model that is adapted to cameras.

    Returns:
      The decision, the distance and the threshold.

    Raises:
      FileNotFoundError: no such image.
      ValueError: one line: the model has no thresholds, the threshold belongs to other distances, or an image cannot be
        read.
    """
    check_distance(distance)
    settings = {"normalize": embedder.normalize, "flip": embedder.flip}
    limit = threshold_of(embedder, max_fpr, distance=distance) if threshold is None else threshold
    number = checked_limit(limit, distance, **settings, network=embedder.network)
    assert number is not None
    known = limit if isinstance(limit, Threshold) else Threshold(number, distance, **settings, network=embedder.network)
    embedding = embedder([first, second], camera=list(camera) if isinstance(camera, tuple) else camera, progress=False)
    checked_norms("image", embedding, distance)
    wide = embedding.astype(np.float64)
    value = float(pair_distances(wide[None, :1], wide[None, 1:], distance)[0, 0])
    return Verified(value <= number, value, known)
