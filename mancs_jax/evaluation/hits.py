"""The hits of each query, and their ranks out of counts."""

import numpy as np

from mancs_jax.evaluation.metrics import HitRanks


def hit_indices(
    query_pid: np.ndarray, query_camid: np.ndarray, gallery_pid: np.ndarray, gallery_camid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gallery indices of the hits (same pid, other camera), int32 [Q, H] filled with 0; counts int32 [Q]."""
    by_pid = np.argsort(gallery_pid, kind="stable")
    first = np.searchsorted(gallery_pid, query_pid, side="left", sorter=by_pid)
    number = np.searchsorted(gallery_pid, query_pid, side="right", sorter=by_pid) - first
    row, position = _ragged(number)
    candidate = by_pid[first[row] + position]
    is_hit = gallery_camid[candidate] != query_camid[row]
    counts = np.bincount(row[is_hit], minlength=len(query_pid))
    row, column = _ragged(counts)
    index = np.zeros((len(counts), max(1, counts.max())), np.int32)
    index[row, column] = candidate[is_hit]
    return index, counts.astype(np.int32)


def _ragged(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row, and position within the row, of every entry of a ragged table with rows of these lengths."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def sorted_ranks(in_front: np.ndarray, counts: np.ndarray) -> HitRanks:
    """Ranks from the numbers of images in front of each hit, int32 [Q, H]."""
    is_hit = np.arange(in_front.shape[1])[None] < counts[:, None]
    ranks = np.sort(np.where(is_hit, 1 + in_front, np.iinfo(np.int32).max), axis=1)
    return HitRanks(np.where(is_hit, ranks, 0), counts)
