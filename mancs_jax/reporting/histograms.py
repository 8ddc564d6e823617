"""Histograms of the distances to the same person and to others."""

import numpy as np

from mancs_jax.evaluation.comparison import Comparison
from mancs_jax.evaluation.distances import all_distances, counts_for

BLOCK = 256  # queries whose distances are in memory at a time
BINS = 60  # of the histograms


def histograms(comparison: Comparison, num_queries: int = 1000) -> dict[str, np.ndarray]:
    """Shares of the distances to the same person (under another camera) and to other people.

    At most `num_queries` random queries (seed 0) are used. Returns name -> [BINS, 2], the middle of a bin and its share
    of the distances of that kind.
    """
    query, gallery = comparison.query, comparison.gallery
    order = np.random.default_rng(0).permutation(len(query.pid))[:num_queries]
    same, other = [], []
    for start in range(0, len(order), BLOCK):
        rows = order[start : start + BLOCK]
        distances = all_distances(query.embedding[rows], gallery.embedding, comparison.distance)
        counts = counts_for(query.pid[rows], query.camid[rows], gallery.pid, gallery.camid)
        is_same = query.pid[rows, None] == gallery.pid
        same.append(distances[is_same & counts])
        other.append(distances[~is_same & counts])
    kinds = {"same person": np.concatenate(same), "others": np.concatenate(other)}
    last = max((values.max() for values in kinds.values() if len(values)), default=1.0)
    shares = {}
    for name, values in kinds.items():
        number, edges = np.histogram(values, BINS, (0, last or 1.0))
        shares[name] = np.stack([(edges[:-1] + edges[1:]) / 2, number / max(len(values), 1)], axis=1)
    return shares
