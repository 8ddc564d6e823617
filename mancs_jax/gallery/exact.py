"""Exact nearest neighbours of a few queries among many rows of memory-mapped embeddings, by NumPy.

One matrix product per block of rows gives values in the order of the distances, up to rounding. All rows within the
error bound of the k-th value are then compared in float64. So the result is that of float64 throughout, equal distances
included: the lower id comes first, however many copies of an image there are.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

VALUES_BYTES = 32 * 2**20  # of the values of a block of rows, for all queries
GROUP = 64  # neighbouring values of which only the least is looked at first
LARGE_SHARE = 4  # of a block's rows, one in so many: if more are chosen, computing all is faster than gathering them
COMPARED_BYTES = 16 * 2**20  # of rows that are compared in float64 at a time
UNIT = 2.0**-24  # of rounding in float32


class Block(NamedTuple):
    """Embeddings of images, in the order of their ids."""

    ids: np.ndarray  # int64 [N], increasing
    rows: np.ndarray  # float32 [N, D]
    half_squared: np.ndarray  # float32 [N], half the squared norm; infinite where the row is erased


class Nearest(NamedTuple):
    """The k nearest of each of Q queries, nearest first; of equal distances the lower id."""

    ids: np.ndarray  # int64 [Q, k]; -1 where there are fewer than k
    distance: np.ndarray  # float64 [Q, k]; infinite where the id is -1


def half_squared_norms(rows: np.ndarray) -> np.ndarray:
    """Half the squared norms of rows [N, D], float32 [N]."""
    return np.vecdot(rows, rows) / np.float32(2)


def nearest(
    query: np.ndarray, blocks: Iterable[Block], k: int, distance: str, chosen: np.ndarray | None = None
) -> Nearest:
    """Finds the nearest rows of all blocks.

    Args:
      query: float32 [Q, D].
      blocks: whose ids do not overlap.
      k: rows for each query, at least 1.
      distance: "euclidean", or "cosine": 1 - cosine of the angle.
      chosen: ids that may be found, int64, increasing; None for all.
    """
    best = Nearest(np.full((len(query), k), -1), np.full((len(query), k), np.inf))
    for block in blocks:
        if chosen is not None:
            block = _chosen_of(block, chosen)
        size = max(VALUES_BYTES // (4 * len(query)) // GROUP, 1) * GROUP
        for start in range(0, len(block.ids), size):
            part = Block(*(field[start : start + size] for field in block))
            best = merged(best, _nearest_of(query, part, k, distance))
    return best


def distances(query: np.ndarray, rows: np.ndarray, distance: str) -> np.ndarray:
    """Distances of one query [D] to rows [N, D], from differences in float64; [N]."""
    query, found = query.astype(np.float64), np.empty(len(rows))
    if distance == "cosine":
        query = query / np.sqrt(query @ query)
    size = max(COMPARED_BYTES // rows[:1].nbytes, 1) if len(rows) else 1
    for start in range(0, len(rows), size):
        part = rows[start : start + size].astype(np.float64)
        if distance == "cosine":
            part /= np.sqrt(np.vecdot(part, part))[:, None]
        part -= query
        squared = np.vecdot(part, part)
        found[start : start + size] = squared / 2 if distance == "cosine" else np.sqrt(squared)
    return found


def _chosen_of(block: Block, chosen: np.ndarray) -> Block:
    """The rows of a block whose ids are chosen; where these are many, all rows, with the others as if erased."""
    chosen = (
        chosen[np.searchsorted(chosen, block.ids[0]) : np.searchsorted(chosen, block.ids[-1], side="right")]
        if len(block.ids)
        else chosen[:0]
    )
    position = np.searchsorted(block.ids, chosen)
    position = position[block.ids[position] == chosen]
    if len(position) * LARGE_SHARE < len(block.ids):
        return Block(*(field[position] for field in block))
    half_squared = np.full(len(block.ids), np.float32(np.inf))
    half_squared[position] = block.half_squared[position]
    return block._replace(half_squared=half_squared)


def _nearest_of(query: np.ndarray, block: Block, k: int, distance: str) -> Nearest:
    """`nearest` in a block whose values fit into memory."""
    erased = np.flatnonzero(np.isinf(block.half_squared))
    norm = np.sqrt(2 * np.max(block.half_squared, where=np.isfinite(block.half_squared), initial=0))
    values = query @ block.rows.T if len(query) > 1 else (block.rows @ query[0])[None]
    if distance == "cosine":
        with np.errstate(divide="ignore"):
            values *= -1 / np.sqrt(2 * block.half_squared)
        norm = np.float32(1)
    else:
        np.subtract(block.half_squared, values, out=values)
    values[:, erased] = np.inf
    # A product of D terms, a norm's square of D terms where the distance has one, and a few roundings more.
    length = np.sqrt(np.vecdot(query, query))
    slack = 2 * (query.shape[1] + 8) * UNIT * norm * (length + (norm if distance == "euclidean" else 0))
    found = Nearest(np.full((len(query), k), -1), np.full((len(query), k), np.inf))
    for row, (of_query, bound) in enumerate(zip(values, _kth(values, k) + slack, strict=True)):
        near = np.flatnonzero(of_query <= bound)
        near = near[np.isfinite(of_query[near])]
        exact = distances(query[row], block.rows[near], distance)
        order = np.lexsort((near, exact))[:k]
        found.ids[row, : len(order)] = block.ids[near[order]]
        found.distance[row, : len(order)] = exact[order]
    return found


def _kth(values: np.ndarray, k: int) -> np.ndarray:
    """An upper bound [Q] of the k-th smallest of each row: the k-th of the least values of groups."""
    number = values.shape[1]
    if number <= k:
        return np.full(len(values), np.inf)
    whole = number // GROUP
    if whole >= k:
        values = values[:, : whole * GROUP].reshape(len(values), whole, GROUP).min(axis=2)
    return np.partition(values, k - 1, axis=1)[:, k - 1]


def merged(one: Nearest, other: Nearest) -> Nearest:
    """The k nearest of two searches for the same queries, which found different ids."""
    ids, distance = (np.concatenate(fields, axis=1) for fields in zip(one, other, strict=True))
    order = np.lexsort((np.where(ids < 0, np.iinfo(np.int64).max, ids), distance))[:, : one.ids.shape[1]]
    return Nearest(np.take_along_axis(ids, order, axis=1), np.take_along_axis(distance, order, axis=1))
