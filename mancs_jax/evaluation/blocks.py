"""Blocks of queries and tiles of the gallery: how ranking is spread over memory and devices."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

BLOCK_BYTES = 16 * 2**20  # of distances: small enough to be counted from the cache; 248 queries at Market-1501
MIN_ROWS = 128  # queries a block, to amortise each pass over a large gallery
# Of gallery embeddings that are on a device at a time; Market-1501's at width 2,048 take 130 MB.
TILE_BYTES = 192 * 2**20
# For a product with a single row, XLA on CPU calls a matrix-vector routine. It gives two equal gallery rows distances
# that differ in the last bit. A multiple of 8 rows keeps ties exact.
ROW_STEP = 8


def mesh(devices: Sequence[jax.Device] | None, num_queries: int) -> Mesh:
    """The devices that share the queries: no more than have MIN_ROWS of them."""
    devices = jax.local_devices() if devices is None else devices
    return Mesh(np.array(devices[: max(1, num_queries // MIN_ROWS)]), "query")


def each(
    work: Callable, in_tile: tuple, blocks: Iterable[np.ndarray], in_block: Callable, mesh: Mesh
) -> Iterator[tuple[np.ndarray, Any]]:
    """Yields (rows, what `work` gives for them and the tile) of each block of queries."""
    compiled = _compiled(work, mesh)
    everywhere, spread = NamedSharding(mesh, P()), NamedSharding(mesh, P("query"))
    in_tile = jax.device_put(in_tile, everywhere)
    running: deque = deque()
    for rows in blocks:
        of_block, counts = in_block(rows)
        running.append((rows, compiled(in_tile, jax.device_put(of_block, spread), counts.max())))
        if len(running) == 2:  # two blocks at a time keep all cores busy, and memory small
            done, result = running.popleft()
            yield done, jax.tree.map(np.asarray, result)
    yield from ((rows, jax.tree.map(np.asarray, result)) for rows, result in running)


@cache
def _compiled(work: Callable, mesh: Mesh) -> Callable:
    spread = jax.shard_map(
        work, mesh=mesh, in_specs=(P(), P("query"), P()), out_specs=P("query"), check_vma=False
    )  # unchecked: nothing goes from one device to another
    return jax.jit(spread)


def tiles(num_gallery: int, width: int) -> list[slice]:
    """The gallery in runs of at most TILE_BYTES, all but the last of equal length."""
    length = max(TILE_BYTES // (4 * width) // ROW_STEP, 1) * ROW_STEP
    return [slice(start, min(start + length, num_gallery)) for start in range(0, num_gallery, length)]


def filled(embedding: np.ndarray, per_image: tuple, length: int) -> tuple:
    """(embeddings [T, D], half a squared norm, scale, pid, camid [T]) of a tile, filled up to `length` with images at
    infinity."""
    fill = length - len(embedding)
    if not fill:
        return embedding, *per_image
    embedding = np.concatenate([embedding, np.zeros((fill, embedding.shape[1]), np.float32)])
    with_fill = zip(per_image, (np.inf, 0, -1, 0), strict=True)
    return embedding, *(np.pad(array, (0, fill), constant_values=value) for array, value in with_fill)


def query_blocks(counts: np.ndarray, num_gallery: int, num_devices: int) -> Iterator[np.ndarray]:
    """Indices of the queries with a match in blocks of equal length, the last filled up with repeats.

    Queries with about as many hits share a block, since a block is counted up to its largest number.
    """
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    if not len(order):
        return
    rows = num_devices * _rows_a_block(-(-len(order) // num_devices), num_gallery)
    for start in range(0, len(order), rows):
        yield order[np.minimum(np.arange(start, start + rows), len(order) - 1)]


def _rows_a_block(num_queries: int, num_gallery: int) -> int:
    """Queries a block: BLOCK_BYTES of distances at most, or MIN_ROWS if that is more, shared out evenly."""
    most = max(BLOCK_BYTES // (4 * num_gallery) // ROW_STEP * ROW_STEP, MIN_ROWS)
    num_blocks = -(-num_queries // most)
    return -(-num_queries // (num_blocks * ROW_STEP)) * ROW_STEP


def run_of_rows(embedding: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The given ascending rows, without a copy if they are one run, as they are where junk is sorted to one end."""
    start, stop = rows[0], rows[-1] + 1
    return embedding[start:stop] if stop - start == len(rows) else embedding[rows]
