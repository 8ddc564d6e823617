"""Histograms of the distances to the same person and to others."""

from collections.abc import Callable

import numpy as np

from mancs_jax.evaluation.distances import counts_for

BLOCK = 256  # queries whose distances are in memory at a time
BINS = 60  # of the histograms


def histograms(
    distances_of: Callable[[np.ndarray], np.ndarray],
    query_pid: np.ndarray,
    query_camid: np.ndarray,
    gallery_pid: np.ndarray,
    gallery_camid: np.ndarray,
    num_queries: int = 1000,
) -> dict[str, np.ndarray]:
    """Shares of the distances to the same person (under another camera) and to everybody else.

    Args:
      distances_of: indices of B queries -> distances [B, G].
      query_pid: int [Q].
      query_camid: int [Q].
      gallery_pid: int [G].
      gallery_camid: int [G].
      num_queries: random queries (seed 0) that are looked at, at most.

    Returns:
      name -> [BINS, 2], the middle of a bin and its share of that kind's distances.
    """
    rows = np.random.default_rng(0).permutation(len(query_pid))[:num_queries]
    same, other = [], []
    for start in range(0, len(rows), BLOCK):
        some = rows[start : start + BLOCK]
        distances = np.asarray(distances_of(some), np.float32)
        counts = counts_for(query_pid[some], query_camid[some], gallery_pid, gallery_camid)
        is_same = query_pid[some, None] == gallery_pid
        same.append(distances[is_same & counts])
        other.append(distances[~is_same & counts])
    kinds = {"same person": np.concatenate(same), "others": np.concatenate(other)}
    last = max((values.max() for values in kinds.values() if len(values)), default=1.0)
    shares = {}
    for name, values in kinds.items():
        number, edges = np.histogram(values, BINS, (0, last or 1.0))
        shares[name] = np.stack([(edges[:-1] + edges[1:]) / 2, number / max(len(values), 1)], axis=1)
    return shares
