"""Decision thresholds without labels: two people in one frame are different identities.

Their distances are those of negative pairs, so they give the false positive rate at each threshold. Both people stand
under one camera in one light, so the rate between two cameras is another; docs/adapt.md has its size.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from mancs_jax.evaluation.distances import pair_distances
from mancs_jax.evaluation.roc import RATES


def frame_distances(
    embedding: Float32[np.ndarray, "N D"], frame: Int[np.ndarray, " N"], distance: str = "euclidean"
) -> Float32[np.ndarray, " P"]:
    """Computes the distances of all pairs of images in one frame, ascending.

    A frame with n people has n (n - 1) / 2 of the P pairs.

    Args:
      embedding: of the people.
      frame: equal for images of one frame of one camera; -1 where the frame is unknown.
      distance: "euclidean" or "cosine".
    """
    order = np.argsort(frame, kind="stable")
    order = order[frame[order] >= 0]
    starts = np.flatnonzero(np.diff(frame[order], prepend=-1))
    distances = [np.empty(0, np.float32)]
    for rows in np.split(order, starts[1:]):
        people = embedding[rows]
        distances += [pair_distances(people[None, i : i + 1], people[None, :i], distance)[0] for i in range(len(rows))]
    return np.sort(np.concatenate(distances))


def frame_thresholds(distances: Float32[np.ndarray, " P"], rates: Sequence[float] = RATES) -> list[dict[str, Any]]:
    """Finds the largest threshold at which at most a given share of the pairs is accepted, for each rate.

    A pair is accepted where its distance is at most the threshold.

    Args:
      distances: ascending, of `frame_distances`.
      rates: false positive rates.

    Returns:
      For each rate `max_fpr` (that rate), `max_distance` (the threshold, the distance of the farthest pair accepted),
      `fpr` (the rate reached) and `pairs` (P). `max_distance` and `fpr` are None where the rate is less than one pair,
      or where the nearest pairs have one distance and are more than the rate allows.
    """
    number = len(distances)
    points = []
    for rate in rates:
        # Multiplied and not divided, so that a rate of k / P accepts k.
        allowed = int(rate * number * (1 + 1e-12))
        if allowed < number:  # the pairs nearer than the first that is not allowed: of equal distances all or none
            allowed = int(np.searchsorted(distances, distances[allowed]))
        limit, reached = (float(distances[allowed - 1]), allowed / number) if allowed else (None, None)
        points.append({"max_fpr": float(rate), "max_distance": limit, "fpr": reached, "pairs": number})
    return points
