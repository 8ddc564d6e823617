"""What a query finds: its nearest gallery images that count, and how far matches and others lie from it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

BLOCK = 256  # queries whose distances are in memory at a time
BINS = 60  # of the histograms


class Answers(NamedTuple):
    """The nearest gallery images of each query, nearest first."""

    index: np.ndarray  # int [Q, depth], into the gallery; -1 where fewer images count
    distance: np.ndarray  # float32 [Q, depth]; infinite where fewer images count


def nearest_answers(
    distances_of: Callable[[np.ndarray], np.ndarray],
    query_pid: np.ndarray,
    query_camid: np.ndarray,
    gallery_pid: np.ndarray,
    gallery_camid: np.ndarray,
    depth: int = 10,
) -> Answers:
    """The first `depth` answers of each query, without what the official evaluation leaves out: junk (pid -1), and the
    query's own person under its own camera.

    Args:
      distances_of: indices of B queries -> distances [B, G], see `ranking.hit_ranks_by`.
      query_pid, query_camid: int [Q].
      gallery_pid, gallery_camid: int [G].
      depth: answers a query.
    """
    depth = min(depth, len(gallery_pid))
    index = np.empty((len(query_pid), depth), np.int64)
    distance = np.empty((len(query_pid), depth), np.float32)
    for start in range(0, len(query_pid), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(query_pid)))
        distances = counting(distances_of(rows), query_pid[rows], query_camid[rows], gallery_pid, gallery_camid)
        some = np.sort(np.argpartition(distances, depth - 1, axis=1)[:, :depth], axis=1)
        order = np.argsort(np.take_along_axis(distances, some, axis=1), axis=1, kind="stable")
        index[rows] = np.take_along_axis(some, order, axis=1)
        distance[rows] = np.take_along_axis(distances, index[rows], axis=1)
    return Answers(np.where(np.isfinite(distance), index, -1), distance)


def counting(distances, query_pid, query_camid, gallery_pid, gallery_camid):
    """Distances [B, G] in float32, infinite where an image does not count for a query."""
    own_view = (query_pid[:, None] == gallery_pid) & (query_camid[:, None] == gallery_camid)
    return np.where(own_view | (gallery_pid == -1), np.inf, np.asarray(distances, np.float32))


def histograms(
    distances_of: Callable[[np.ndarray], np.ndarray],
    query_pid: np.ndarray,
    query_camid: np.ndarray,
    gallery_pid: np.ndarray,
    gallery_camid: np.ndarray,
    num_queries: int = 1000,
) -> dict[str, np.ndarray]:
    """Shares of the distances to the same person (under another camera) and to everybody else.

    Args: as those of `nearest_answers`; and
      num_queries: random queries (seed 0) that are looked at, at most.

    Returns:
      name -> [BINS, 2], the middle of a bin and its share of that kind's distances.
    """
    rows = np.random.default_rng(0).permutation(len(query_pid))[:num_queries]
    same, other = [], []
    for start in range(0, len(rows), BLOCK):
        some = rows[start : start + BLOCK]
        distances = counting(distances_of(some), query_pid[some], query_camid[some], gallery_pid, gallery_camid)
        is_same, counts = query_pid[some, None] == gallery_pid, np.isfinite(distances)
        same.append(distances[is_same & counts])
        other.append(distances[~is_same & counts])
    kinds = {"same person": np.concatenate(same), "others": np.concatenate(other)}
    last = max((values.max() for values in kinds.values() if len(values)), default=1.0)
    shares = {}
    for name, values in kinds.items():
        number, edges = np.histogram(values, BINS, (0, last or 1.0))
        shares[name] = np.stack([(edges[:-1] + edges[1:]) / 2, number / max(len(values), 1)], axis=1)
    return shares
