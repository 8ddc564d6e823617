"""Exact nearest neighbours of queries among the rows of a possibly memory-mapped array, with NumPy.

One matrix product per block of rows gives values in the order of the distances, up to rounding. All rows within the
error bound of the k-th value are then compared in float64. So the result is that of float64 throughout, equal distances
included: the lower id comes first, however many copies of an image there are.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

VALUES_BYTES = 32 * 2**20  # of the values of a block of rows and QUERIES queries
QUERIES = 1024  # compared with a block at a time
GROUP = 64  # neighbouring values of which only the least is looked at first
LARGE_SHARE = 4  # of a block's rows, one in so many: if more are chosen, computing all is faster than gathering them
COMPARED_BYTES = 16 * 2**20  # of rows that are compared in float64 at a time
CACHED_BYTES = 2**19  # of rows that a core reads twice, the second time from its cache
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
    with np.errstate(over="ignore", invalid="ignore"):
        return np.vecdot(rows, rows) / np.float32(2)


def nearest(
    query: np.ndarray, blocks: Iterable[Block], k: int, distance: str, chosen: np.ndarray | None = None
) -> Nearest:
    """Finds the k nearest rows of all blocks, whose ids do not overlap.

    `chosen` has the ids that may be found, int64, increasing; None for all.
    """
    best = _none(query, k)
    for block in blocks:
        if chosen is not None:
            block = _chosen_of(block, chosen)
        for some in _parts(query, len(block.ids)):
            _improve(best, query, Block(*(field[some] for field in block)), distance)
    return best


def nearest_rows(
    query: np.ndarray, rows: np.ndarray, k: int, distance: str, check: Callable[[np.ndarray], None]
) -> Nearest:
    """Finds the nearest of rows [N, D] whose norms are not known; `ids` are their indices. The rows are read once.

    Args:
      check: gets half the squared norms of rows as they are read, float32, and raises an error where they are out of
        range.
    """
    best = _none(query, k)
    for some in _parts(query, len(rows)):
        products, half_squared = _read(query, rows[some])
        check(half_squared)
        _improve(best, query, Block(np.arange(some.start, some.stop), rows[some], half_squared), distance, products)
    return best


def _none(query: np.ndarray, k: int) -> Nearest:
    return Nearest(np.full((len(query), k), -1), np.full((len(query), k), np.inf))


def _parts(query: np.ndarray, number: int) -> list[slice]:
    """Runs of rows whose values fit into VALUES_BYTES."""
    size = max(VALUES_BYTES // (4 * min(len(query), QUERIES)) // GROUP, 1) * GROUP
    return [slice(start, min(start + size, number)) for start in range(0, number, size)]


def distances(query: np.ndarray, rows: np.ndarray, distance: str) -> np.ndarray:
    """Distances of one query [D] to rows [N, D], from differences in float64; [N]."""
    query, result = query.astype(np.float64), np.empty(len(rows))
    if distance == "cosine":
        query = query / np.sqrt(query @ query)
    size = max(COMPARED_BYTES // rows[:1].nbytes, 1) if len(rows) else 1
    for start in range(0, len(rows), size):
        part = rows[start : start + size].astype(np.float64)
        if distance == "cosine":
            part /= np.sqrt(np.vecdot(part, part))[:, None]
        part -= query
        squared = np.vecdot(part, part)
        result[start : start + size] = squared / 2 if distance == "cosine" else np.sqrt(squared)
    return result


def _chosen_of(block: Block, chosen: np.ndarray) -> Block:
    """The rows of a block whose ids are chosen; where these are many, all rows, with the others as if erased."""
    chosen = (
        chosen[np.searchsorted(chosen, block.ids[0]) : np.searchsorted(chosen, block.ids[-1], side="right")]
        if len(block.ids)
        else chosen[:0]
    )
    if len(block.ids) and block.ids[-1] - block.ids[0] == len(block.ids) - 1:  # no id is missing
        position = chosen - block.ids[0]
    else:
        position = np.searchsorted(block.ids, chosen)
        position = position[block.ids[position] == chosen]
    if len(position) * LARGE_SHARE < len(block.ids):
        return Block(*(field[position] for field in block))
    half_squared = np.full(len(block.ids), np.float32(np.inf))
    half_squared[position] = block.half_squared[position]
    return block._replace(half_squared=half_squared)


def _read(query: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """Half the squared norms of rows and, of a single query, its products with them, from one pass by all cores."""
    products = np.empty((1, len(rows)), np.float32) if len(query) == 1 else None
    half_squared = np.empty(len(rows), np.float32)
    step = max(CACHED_BYTES // rows[:1].nbytes, 1)
    cores = 1 if len(rows) <= step else os.cpu_count() or 1
    share = -(-len(rows) // cores)

    def read(core: int) -> None:
        end = min((core + 1) * share, len(rows))
        for start in range(core * share, end, step):
            some = slice(start, min(start + step, end))
            half_squared[some] = half_squared_norms(rows[some])
            if products is not None:
                with np.errstate(over="ignore", invalid="ignore"):  # here, because a thread has a state of its own
                    products[0, some] = np.vecdot(rows[some], query[0])

    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(read, range(cores)))
    return products, half_squared


def _improve(best: Nearest, query: np.ndarray, block: Block, distance: str, products: np.ndarray | None = None) -> None:
    """Puts the rows of a block among the nearest so far, in place, for QUERIES at a time."""
    for start in range(0, len(query), QUERIES):
        some = slice(start, start + QUERIES)
        _improve_some(Nearest(best.ids[some], best.distance[some]), query[some], block, distance, products)


def _improve_some(
    best: Nearest, query: np.ndarray, block: Block, distance: str, products: np.ndarray | None = None
) -> None:
    """As `_improve`, for queries whose values fit into memory; `products` are those of a single query."""
    k, erased = best.ids.shape[1], np.flatnonzero(np.isinf(block.half_squared))
    norm = np.sqrt(2 * np.max(block.half_squared, where=np.isfinite(block.half_squared), initial=0))
    if products is None:
        products = query @ block.rows.T if len(query) > 1 else (block.rows @ query[0])[None]
    wide = query.astype(np.float64)
    length = np.sqrt(np.vecdot(wide, wide))
    if distance == "cosine":
        with np.errstate(divide="ignore"):
            values = np.multiply(products, -1 / np.sqrt(2 * block.half_squared), out=products)
        norm, kth = np.float32(1), (best.distance[:, -1] - 1) * length
    else:
        values = np.subtract(block.half_squared, products, out=products)
        kth = (best.distance[:, -1] ** 2 - length**2) / 2
    values[:, erased] = np.inf
    # A product of D terms, a norm's square of D terms where the distance has one, and a few roundings more.
    slack = 2 * (query.shape[1] + 8) * UNIT * norm * (length + (norm if distance == "euclidean" else 0))
    least, bound = _bounds(values, k)
    bound = np.minimum(bound, kth) + slack
    for row in np.flatnonzero(least <= bound):
        near = np.flatnonzero(values[row] <= bound[row])
        near = near[np.isfinite(values[row, near])]
        nearer = Nearest(block.ids[None, near], distances(query[row], block.rows[near], distance)[None])
        so_far = Nearest(best.ids[row : row + 1], best.distance[row : row + 1])
        for field, joined in zip(so_far, merged(so_far, nearer), strict=True):
            field[:] = joined


def _bounds(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The least value of each row, and an upper bound of the k-th: the k-th of the least values of groups; both [Q]."""
    number = values.shape[1]
    whole = number // GROUP
    if whole < k:
        kth = np.partition(values, k - 1, axis=1)[:, k - 1] if number > k else np.full(len(values), np.inf)
        return values.min(axis=1), kth
    least = values[:, : whole * GROUP].reshape(len(values), whole, GROUP).min(axis=2)
    rest = values[:, whole * GROUP :].min(axis=1, initial=np.inf)
    return np.minimum(least.min(axis=1), rest), np.partition(least, k - 1, axis=1)[:, k - 1]


def merged(one: Nearest, other: Nearest) -> Nearest:
    """The k nearest of two searches for the same queries, which found different ids."""
    ids, distance = (np.concatenate(fields, axis=1) for fields in zip(one, other, strict=True))
    order = np.lexsort((np.where(ids < 0, np.iinfo(np.int64).max, ids), distance))[:, : one.ids.shape[1]]
    return Nearest(np.take_along_axis(ids, order, axis=1), np.take_along_axis(distance, order, axis=1))
