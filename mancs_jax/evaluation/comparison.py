"""Two sets, compared: the values of all pairs, block by block, for ranks, lists, rates of pairs and search.

The queries are cut into blocks and the gallery into tiles. Only the values of a block and a tile exist at a time, so
the gallery may be a memory-mapped file of any length. Everything that is computed from a comparison reads the same
values: a list shows each hit at the rank that was scored.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Float32, Int, Int32, Integer

from mancs_jax.common.one_process import check_not_forked
from mancs_jax.common.pipelined import pipelined
from mancs_jax.evaluation.distances import (
    are_usable,
    centre_of,
    check_distance,
    checked_norms,
    counts_for,
    order_terms,
    query_terms,
    squared_norms,
)
from mancs_jax.evaluation.labelled import Labelled, check_known, check_same_width

BLOCK_BYTES = 16 * 2**20  # of values: small enough to be counted from the cache; 248 queries at Market-1501
MIN_ROWS = 128  # queries a block, to amortise each pass over a large gallery
# Of gallery embeddings that are on a device at a time; Market-1501's at width 2,048 take 130 MB.
TILE_BYTES = 192 * 2**20
TILE_IMAGES = 2**17  # of narrow embeddings: the values of MIN_ROWS queries then take 64 MB
# For a product with a single row, XLA on CPU calls a matrix-vector routine. It gives two equal gallery rows distances
# that differ in the last bit. A multiple of 8 rows keeps ties exact.
ROW_STEP = 8
KEPT_BYTES = 2**29  # of the values that `kept` holds, without those that fill up blocks; Market-1501's take 214 MB

Rows = Int[np.ndarray, " _"]  # the queries of a block
DistancesOf = Callable[[Rows], Float[np.ndarray, "B G"]]


class Layout(NamedTuple):
    """The hits of each query, and the blocks and tiles that two sets are cut into."""

    counted: Int[np.ndarray, " N"]  # the gallery images that take part, ascending: tiles and hits count these
    hit_index: Int32[np.ndarray, "Q H"]  # the hits of each query, positions among `counted`, filled up with 0
    num_hits: Int32[np.ndarray, " Q"]
    tiles: list[slice]  # of `counted`, all of one length: the last one begins with images of the tile before
    matched: list[Rows]  # blocks of the queries with a hit, all of one length: the last ends with repeats
    unmatched: list[Rows]  # blocks of the other queries
    mesh: Mesh  # the devices that share the queries of a block


class Comparison(NamedTuple):
    """Two sets, compared.

    A value orders the gallery for one query as the distance does. It is infinite where the image does not count, see
    `distances.counts_for`, and where the tile before has the image already. `offset + scale * value` compares pairs of
    different queries, see `distances.query_terms`.
    """

    query: Labelled  # each of a known person
    gallery: Labelled
    distance: str  # "euclidean", "cosine" or "given"
    layout: Layout
    values: Callable[[tuple, tuple], Float32[jax.Array, "B T"]]  # of the arrays of a block and a tile; to be compiled
    block_arrays: Callable[[Rows], tuple]  # with a row for each query
    tile_arrays: Callable[[slice], tuple]
    pair_terms: tuple[Float32[np.ndarray, " Q"], Float32[np.ndarray, " Q"]] | None = None  # (offset, scale)
    # (start of the tile, first query of the block) -> values that were computed; None keeps none, see `kept`
    memory: dict[tuple[int, int], Float32[jax.Array, "B T"]] | None = None


def compare(
    query: Labelled,
    gallery: Labelled,
    *,
    distance: str = "euclidean",
    devices: Sequence[jax.Device] | None = None,
    streamed: bool = False,
) -> Comparison:
    """Compares by the "euclidean" or "cosine" `distance` of embeddings.

    The gallery may be a memory-mapped file, which is read tile by tile. `devices` share the queries; by default all
    local ones. A `streamed` gallery is read once, and as it is: its embeddings are checked when their tile is read, and
    are not centred, which costs digits far from the origin. Raises ValueError, one line that names the fault: shapes,
    dtypes, lengths, pids, an unknown distance, embeddings that are not finite, or too large or (cosine) too small for
    float32 distances; and RuntimeError, one line, in a forked process.
    """
    check_not_forked()
    check_distance(distance)
    query, gallery = checked_pair(query, gallery)
    embedding, squared_query = query.embedding, checked_norms("query", query.embedding, distance)
    squared_gallery = None if streamed else checked_norms("gallery", gallery.embedding, distance)
    centre = None if streamed else centre_of(embedding, squared_query, distance)
    if centre is not None:
        embedding, squared_gallery = embedding - centre, None
        squared_query = squared_norms(embedding)
    width = gallery.embedding.shape[1]
    length = min(max(TILE_BYTES // (4 * width) // ROW_STEP, 1) * ROW_STEP, TILE_IMAGES)
    layout = _layout(query, gallery, np.flatnonzero(gallery.pid != -1), length, devices)

    def tile_arrays(tile: slice) -> tuple:
        images = layout.counted[tile]
        tile_embedding = rows_of(gallery.embedding, images)
        if centre is not None:
            tile_embedding = tile_embedding - centre
        squared = squared_norms(tile_embedding) if squared_gallery is None else squared_gallery[images]
        if streamed and not are_usable(squared, distance).all():
            checked_norms("gallery", gallery.embedding, distance)  # which names the image
        return tile_embedding, *order_terms(squared, distance), *_labels(gallery, layout, tile)

    def block_arrays(rows: Rows) -> tuple:
        return embedding[rows], query.pid[rows], query.camid[rows]

    terms = query_terms(squared_query, distance)
    return Comparison(query, gallery, distance, layout, _values, block_arrays, tile_arrays, terms)


def from_distances(distances_of: DistancesOf, query: Labelled, gallery: Labelled) -> Comparison:
    """Compares by given distances (as float32); the embeddings of the two sets do not matter.

    `distances_of` is a function of the indices of some queries that gives their distances; of a matrix [Q, G] that is
    `matrix.__getitem__`. Raises ValueError for labels as `compare`, and, when they are read, for distances of another
    shape or not finite; and RuntimeError, one line, in a forked process.
    """
    check_not_forked()
    query, gallery = checked_pair(query, gallery)
    number = len(gallery.pid)
    layout = _layout(query, gallery, np.arange(number), number, jax.local_devices()[:1])

    def block_arrays(rows: Rows) -> tuple:
        distances = np.asarray(distances_of(rows), np.float32)
        if distances.shape != (len(rows), number):
            shape = f"{list(distances.shape)}, not [{len(rows)}, {number}]"
            raise ValueError(f"the distances of {len(rows)} queries have shape {shape}: one a query and gallery image")
        if not np.isfinite([distances.min(), distances.max()]).all():  # they are NaN if any distance is
            raise ValueError("some distances are NaN or infinite: check the embeddings they were made from")
        return distances, query.pid[rows], query.camid[rows]

    tile_arrays = partial(_labels, gallery, layout)
    return Comparison(query, gallery, "given", layout, _where_counted, block_arrays, tile_arrays)


def within_groups(
    comparison: Comparison, query_group: Int[np.ndarray, " Q"], gallery_group: Int[np.ndarray, " G"]
) -> Comparison:
    """The same comparison, in which a query and a gallery image count only if they are of one group, as a data set."""
    counted = comparison.layout.counted

    def block_arrays(rows: Rows) -> tuple:
        return comparison.block_arrays(rows), query_group[rows]

    def tile_arrays(tile: slice) -> tuple:
        return comparison.tile_arrays(tile), gallery_group[counted[tile]]

    values = _values_within_groups(comparison.values)
    return comparison._replace(values=values, block_arrays=block_arrays, tile_arrays=tile_arrays, memory=None)


def kept(comparison: Comparison) -> Comparison:
    """The same comparison, whose values stay in memory once they are computed, if all fit into KEPT_BYTES.

    Ranks, lists and rates that are computed from it then share one product.
    """
    return comparison._replace(memory={}) if fits_in_memory(comparison) else comparison


def fits_in_memory(comparison: Comparison) -> bool:
    """Whether the values of all pairs fit into KEPT_BYTES."""
    return 4 * len(comparison.query.pid) * len(comparison.layout.counted) <= KEPT_BYTES


def map_blocks(
    comparison: Comparison, blocks: Sequence[Rows], work: Callable, arguments: Callable, **options: Any
) -> Iterator[tuple[slice, Rows, Any]]:
    """Yields (tile, block, result of `work`) for every tile and block of queries, while the next block is computed.

    `work` is a function of (values, *arguments), to be compiled, with a row for each query of the block; `options` are
    its keywords, which do not change. `arguments` is a function of (tile, block) that gives its other arguments, arrays
    or None.
    """
    mesh, memory = comparison.layout.mesh, comparison.memory
    everywhere, spread = NamedSharding(mesh, P()), NamedSharding(mesh, P("query"))
    compiled = partial(_compiled, work=work, mesh=mesh, **options)

    def started() -> Iterator[tuple[slice, Rows, Any]]:
        for tile in comparison.layout.tiles:
            placed = cache(lambda tile=tile: jax.device_put(comparison.tile_arrays(tile), everywhere))
            for rows in blocks:
                given, place = arguments(tile, rows), (tile.start, int(rows[0]))
                if memory is not None and place in memory:
                    block = jax.device_put(((memory[place],), given), spread)
                    _, result = compiled(_remembered)(block, ())
                else:
                    block = jax.device_put((comparison.block_arrays(rows), given), spread)
                    values, result = compiled(comparison.values, keeps=memory is not None)(block, placed())
                    if memory is not None:
                        memory[place] = values
                yield tile, rows, result

    for tile, rows, result in pipelined(started()):
        yield tile, rows, jax.tree.map(np.asarray, result)


@cache
def _compiled(values: Callable, *, work: Callable, mesh: Mesh, keeps: bool = False, **options: Any) -> Callable:
    """Compiles `work` on values, in one program, with the values as a result only if it `keeps` them."""

    def program(block: tuple[tuple, tuple], tile: tuple) -> tuple[jax.Array | None, Any]:
        arrays, arguments = block
        computed = values(arrays, tile)
        return computed if keeps else None, work(computed, *arguments, **options)

    shared = jax.shard_map(
        program, mesh=mesh, in_specs=(P("query"), P()), out_specs=P("query"), check_vma=False
    )  # unchecked: nothing goes from one device to another
    return jax.jit(shared)


def checked_pair(query: Labelled, gallery: Labelled) -> tuple[Labelled, Labelled]:
    """Two checked sets that belong together; ValueError, one line, as `compare`."""
    query, gallery = Labelled.checked("query", *query), Labelled.checked("gallery", *gallery)
    check_same_width(query.embedding, gallery.embedding)
    check_known(query.pid)
    return query, gallery


def device_mesh(devices: Sequence[jax.Device] | None, num_queries: int) -> Mesh:
    """The devices that share the queries: no more than have MIN_ROWS of them."""
    devices = jax.local_devices() if devices is None else devices
    return Mesh(np.array(devices[: max(1, num_queries // MIN_ROWS)]), "query")


def tiles(num_gallery: int, length: int) -> list[slice]:
    """Runs of one length that cover the gallery; the last one begins sooner than the one before ends."""
    length = min(length, num_gallery)
    ends = range(length, num_gallery + length, length)
    return [slice(min(end, num_gallery) - length, min(end, num_gallery)) for end in ends]


def query_blocks(num_hits: Int32[np.ndarray, " Q"], num_gallery: int, num_devices: int) -> Iterator[Rows]:
    """Indices of the queries with a hit in blocks of equal length, the last filled up with repeats.

    Queries with about as many hits share a block, since a block is counted up to its largest number.
    """
    order = np.argsort(-num_hits, kind="stable")[: np.count_nonzero(num_hits)]
    if not len(order):
        return
    rows = num_devices * rows_a_block(-(-len(order) // num_devices), num_gallery)
    for start in range(0, len(order), rows):
        yield order[np.minimum(np.arange(start, start + rows), len(order) - 1)]


def rows_a_block(num_queries: int, num_gallery: int) -> int:
    """Queries a block: BLOCK_BYTES of values at most, or MIN_ROWS if that is more, shared out evenly."""
    most = max(BLOCK_BYTES // (4 * num_gallery) // ROW_STEP * ROW_STEP, MIN_ROWS)
    num_blocks = -(-num_queries // most)
    return -(-num_queries // (num_blocks * ROW_STEP)) * ROW_STEP


def rows_of(embedding: Float32[np.ndarray, "G D"], rows: Int[np.ndarray, " N"]) -> Float32[np.ndarray, "N D"]:
    """The given ascending rows, without a copy if they are one run, as they are where junk is sorted to one end."""
    start, stop = rows[0], rows[-1] + 1
    return embedding[start:stop] if stop - start == len(rows) else embedding[rows]


def hit_indices(
    query_pid: Integer[np.ndarray, " Q"],
    query_camid: Integer[np.ndarray, " Q"],
    gallery_pid: Integer[np.ndarray, " G"],
    gallery_camid: Integer[np.ndarray, " G"],
) -> tuple[Int32[np.ndarray, "Q H"], Int32[np.ndarray, " Q"]]:
    """Gallery indices of the hits (same pid, other camera) of each query, filled up with 0; and their numbers."""
    by_pid = np.argsort(gallery_pid, kind="stable")
    first = np.searchsorted(gallery_pid, query_pid, side="left", sorter=by_pid)
    number = np.searchsorted(gallery_pid, query_pid, side="right", sorter=by_pid) - first
    row, position = _ragged(number)
    candidate = by_pid[first[row] + position]
    is_hit = gallery_camid[candidate] != query_camid[row]
    num_hits = np.bincount(row[is_hit], minlength=len(query_pid))
    row, column = _ragged(num_hits)
    index = np.zeros((len(num_hits), max(1, num_hits.max())), np.int32)
    index[row, column] = candidate[is_hit]
    return index, num_hits.astype(np.int32)


def _ragged(lengths: Int[np.ndarray, " R"]) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Row, and position within the row, of every entry of a ragged table with rows of these lengths."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _layout(
    query: Labelled,
    gallery: Labelled,
    counted: Int[np.ndarray, " N"],
    length: int,
    devices: Sequence[jax.Device] | None,
) -> Layout:
    hit_index, num_hits = hit_indices(query.pid, query.camid, gallery.pid[counted], gallery.camid[counted])
    mesh, cut = device_mesh(devices, int(np.count_nonzero(num_hits))), tiles(len(counted), length)
    matched, unmatched = (
        list(query_blocks(number, cut[0].stop, mesh.size)) for number in (num_hits, (num_hits == 0).astype(np.int32))
    )
    return Layout(counted, hit_index, num_hits, cut, matched, unmatched, mesh)


def _labels(
    gallery: Labelled, layout: Layout, tile: slice
) -> tuple[Integer[np.ndarray, " T"], Integer[np.ndarray, " T"]]:
    """(pid, camid) of a tile; images that the tile before has are junk in this one."""
    length, images = tile.stop - tile.start, layout.counted[tile]
    is_new = np.arange(tile.start, tile.stop) >= -(-tile.start // length) * length
    return np.where(is_new, gallery.pid[images], -1), gallery.camid[images]


def _values(block: tuple, tile: tuple) -> Float32[jax.Array, "B T"]:
    """Distances up to a constant per query; their order is exact."""
    (query, *query_labels), (gallery, offset, scale, *gallery_labels) = block, tile
    dot = jnp.einsum("bd,gd->bg", query, gallery, precision=jax.lax.Precision.HIGHEST)
    return _where_counted((offset[None] - scale[None] * dot, *query_labels), tuple(gallery_labels))


def _where_counted(block: tuple, tile: tuple) -> Float32[jax.Array, "B T"]:
    # An infinite value ranks an image after every hit, which is as good as removing it.
    values, *query_labels = block
    return jnp.where(counts_for(*query_labels, *tile), values, jnp.inf)


@cache
def _values_within_groups(values: Callable) -> Callable:
    def values_within(block: tuple, tile: tuple) -> Float32[jax.Array, "B T"]:
        (block, query_group), (tile, gallery_group) = block, tile
        return jnp.where(query_group[:, None] == gallery_group[None], values(block, tile), jnp.inf)

    return values_within


def _remembered(block: tuple, _: tuple) -> Float32[jax.Array, "B T"]:
    (values,) = block
    return values
