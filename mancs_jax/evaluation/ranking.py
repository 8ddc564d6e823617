"""Exact ranks of the true matches, from embeddings or from given distances.

A rank is one more than the number of images in front, so it is counted: no row is sorted, and distances exist only
for one block of queries and one tile of the gallery at a time.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm import tqdm

from mancs_jax.evaluation import checks, rank_kernels
from mancs_jax.evaluation.metrics import HitRanks

BLOCK_BYTES = 16 * 2**20  # of distances: small enough to be counted from the cache; 248 queries at Market-1501
MIN_ROWS = 128  # if there are as many queries: with fewer, each reading of a very large gallery does too little
# Of gallery embeddings that are on a device at a time; Market-1501's at width 2,048 take 130 MB.
TILE_BYTES = 192 * 2**20
# Embeddings are moved to the origin where their mean is, squared, so many times as large as their spread: before that,
# float32 loses less than a hit in ten thousand, and a copy of a large gallery is saved.
FAR = 16
# XLA on CPU hands a product with a single row to a matrix-vector routine, which gives two equal gallery rows
# distances that differ in the last bit. A multiple of 8 rows keeps ties exact.
ROW_STEP = 8

DistancesOf = Callable[[np.ndarray], np.ndarray]  # indices of B queries -> distances [B, G]


def hit_ranks(
    query: np.ndarray,
    gallery: np.ndarray,
    query_pid: np.ndarray,
    query_camid: np.ndarray,
    gallery_pid: np.ndarray,
    gallery_camid: np.ndarray,
    *,
    distance: str = "euclidean",
    devices: Sequence[jax.Device] | None = None,
    progress: bool = False,
) -> HitRanks:
    """Rank every hit among the gallery images that count for its query.

    The rules are those of the official Market-1501 evaluation (Zheng et al., "Scalable Person
    Re-identification: A Benchmark", ICCV 2015): gallery images with pid -1 are removed for every query, and
    images of the query's own pid and camera for that query; distractors (pid 0) stay as wrong matches. Of two
    gallery images at exactly the same computed distance, the one with the lower index comes first.

    The gallery is read in tiles, twice where it is more than one: it may be a memory-mapped file of any length.

    Args:
        query: embeddings, float32 [Q, D].
        gallery: embeddings, float32 [G, D].
        query_pid: integer [Q], each above 0.
        query_camid: integer [Q].
        gallery_pid: integer [G], -1 = junk, 0 = distractor.
        gallery_camid: integer [G].
        distance: "euclidean" or "cosine".
        devices: that share the queries; all local ones by default.
        progress: whether a bar is shown.

    Returns:
        The ranks, see `HitRanks`.

    Raises:
        ValueError: one line that names what is wrong: shapes, dtypes, lengths, pids, an unknown distance,
            embeddings that are not finite, or too large or (cosine) too small for float32 distances.
    """
    checks.check_distance(distance)
    query, query_pid, query_camid = checks.checked("query", query, query_pid, query_camid)
    gallery, gallery_pid, gallery_camid = checks.checked("gallery", gallery, gallery_pid, gallery_camid)
    checks.check_same_width(query, gallery)
    checks.check_known(query_pid)
    of_query = checks.squared_norms("query", query, distance)
    squared_norm = checks.squared_norms("gallery", gallery, distance)

    counted = np.flatnonzero(gallery_pid != -1)
    gallery_pid, gallery_camid = gallery_pid[counted], gallery_camid[counted]
    hit_index, counts = hit_indices(query_pid, query_camid, gallery_pid, gallery_camid)

    # Far from the origin float32 has few digits left for distances.
    offset = checks.common_offset(query)
    squared_offset = np.vecdot(offset, offset)
    is_far = distance == "euclidean" and squared_offset > FAR * (of_query.mean() - squared_offset)
    query = query - offset if is_far else query

    tiles = _tiles(len(counted), gallery.shape[1])
    one_tile = len(tiles) == 1
    mesh = _mesh(devices, np.count_nonzero(counts))
    blocks = list(_query_blocks(counts, tiles[0].stop, mesh.size))
    hit_distances = np.full(hit_index.shape, np.inf, np.float32)
    in_front = np.zeros(hit_index.shape, np.int32)

    def in_tile(tile):
        embedding = _rows(gallery, counted[tile])
        squared = squared_norm[counted[tile]]
        if is_far:
            embedding = embedding - offset
            squared = np.vecdot(embedding, embedding)
        # For one query, the order by |q|^2 + |g|^2 - 2 q.g is the order by |g|^2 / 2 - q.g, and the order by
        # cosine distance the one by -q.g / |g|. Without |q|^2 there is no value near 0 that needs clipping, and
        # so there are no ties that clipping makes.
        half, scale = squared / 2, np.ones_like(squared)
        if distance == "cosine":
            half, scale = np.zeros_like(squared), 1 / np.sqrt(squared)
        per_image = (half, scale, gallery_pid[tile], gallery_camid[tile])
        return _filled(embedding, per_image, tiles[0].stop)

    def in_block(tile, rows):
        # With one tile, the hits' distances come out of the one product.
        known = None if one_tile else hit_distances[rows]
        return (query[rows], query_pid[rows], query_camid[rows], hit_index[rows] - tile.start, known), counts[rows]

    visits = len(tiles) * len(blocks) * (1 if one_tile else 2)
    with tqdm(total=visits, desc="ranking", unit="block", disable=not progress) as progress_bar:
        if not one_tile:
            # The distances of all hits have to be known before the first image is counted. They come out of the same
            # products that are counted later, so that an image and its copy are at exactly the same distance.
            for tile in tiles:
                for rows, found in _each(
                    rank_kernels.hit_distances, in_tile(tile), blocks, partial(in_block, tile), mesh
                ):
                    hit_distances[rows] = np.minimum(hit_distances[rows], found)
                    progress_bar.update()
        for tile in tiles:
            for rows, number in _each(rank_kernels.in_front, in_tile(tile), blocks, partial(in_block, tile), mesh):
                in_front[rows] += number
                progress_bar.update()
    return _sorted_ranks(in_front, counts)


def hit_ranks_by(
    distances_of: DistancesOf,
    query_pid: np.ndarray,
    query_camid: np.ndarray,
    gallery_pid: np.ndarray,
    gallery_camid: np.ndarray,
) -> HitRanks:
    """Rank every hit by given distances, by the rules of `hit_ranks`.

    Args:
        distances_of: function of the indices of B queries, int [B], that gives their distances, float [B, G]; of a
            matrix [Q, G] that is `matrix.__getitem__`. Distances are compared as float32.
        query_pid: integer [Q], each above 0.
        query_camid: integer [Q].
        gallery_pid: integer [G], -1 = junk, 0 = distractor.
        gallery_camid: integer [G].

    Returns:
        The ranks, see `HitRanks`.

    Raises:
        ValueError: labels as in `hit_ranks`; distances of another shape or not finite.
    """
    query_pid, query_camid = checks.checked_labels("query", query_pid, query_camid, len(query_pid))
    gallery_pid, gallery_camid = checks.checked_labels("gallery", gallery_pid, gallery_camid, len(gallery_pid))
    checks.check_known(query_pid)
    hit_index, counts = hit_indices(query_pid, query_camid, gallery_pid, gallery_camid)
    in_front = np.zeros(hit_index.shape, np.int32)

    def in_block(rows):
        distances = np.asarray(distances_of(rows), np.float32)
        if distances.shape != (len(rows), len(gallery_pid)):
            shape = f"{list(distances.shape)}, not [{len(rows)}, {len(gallery_pid)}]"
            raise ValueError(f"the distances of {len(rows)} queries have shape {shape}: one a query and gallery image")
        if not np.isfinite([distances.min(), distances.max()]).all():  # they are NaN if any distance is
            raise ValueError("some distances are NaN or infinite: check the embeddings they were made from")
        return (distances, query_pid[rows], query_camid[rows], hit_index[rows]), counts[rows]

    mesh = _mesh(jax.local_devices()[:1], 1)
    blocks = _query_blocks(counts, len(gallery_pid), mesh.size)
    for rows, number in _each(rank_kernels.in_front_by, (gallery_pid, gallery_camid), blocks, in_block, mesh):
        in_front[rows] = number
    return _sorted_ranks(in_front, counts)


def _mesh(devices: Sequence[jax.Device] | None, num_queries: int) -> Mesh:
    """The devices that share the queries: no more than have MIN_ROWS of them."""
    devices = jax.local_devices() if devices is None else devices
    return Mesh(np.array(devices[: max(1, num_queries // MIN_ROWS)]), "query")


def _each(
    work: Callable, in_tile: tuple, blocks: Iterable[np.ndarray], in_block: Callable, mesh: Mesh
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
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
            yield done, np.asarray(result)
    yield from ((rows, np.asarray(result)) for rows, result in running)


@cache
def _compiled(work: Callable, mesh: Mesh) -> Callable:
    spread = jax.shard_map(
        work, mesh=mesh, in_specs=(P(), P("query"), P()), out_specs=P("query"), check_vma=False
    )  # unchecked: nothing goes from one device to another
    return jax.jit(spread)


def _sorted_ranks(in_front: np.ndarray, counts: np.ndarray) -> HitRanks:
    """Ranks from the numbers of images in front of each hit, int32 [Q, H]."""
    is_hit = np.arange(in_front.shape[1])[None] < counts[:, None]
    ranks = np.sort(np.where(is_hit, 1 + in_front, np.iinfo(np.int32).max), axis=1)
    return HitRanks(np.where(is_hit, ranks, 0), counts)


def _tiles(num_gallery: int, width: int) -> list[slice]:
    """The gallery in runs of at most TILE_BYTES, all but the last of equal length."""
    length = max(TILE_BYTES // (4 * width) // ROW_STEP, 1) * ROW_STEP
    return [slice(start, min(start + length, num_gallery)) for start in range(0, num_gallery, length)]


def _filled(embedding: np.ndarray, per_image: tuple, length: int) -> tuple:
    """(embeddings [T, D], half a squared norm, scale, pid, camid [T]) of a tile, filled up to `length` with images at
    infinity."""
    fill = length - len(embedding)
    if not fill:
        return embedding, *per_image
    embedding = np.concatenate([embedding, np.zeros((fill, embedding.shape[1]), np.float32)])
    with_fill = zip(per_image, (np.inf, 0, -1, 0), strict=True)
    return embedding, *(np.pad(array, (0, fill), constant_values=value) for array, value in with_fill)


def _query_blocks(counts: np.ndarray, num_gallery: int, num_devices: int) -> Iterator[np.ndarray]:
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


def _rows(embedding: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The given ascending rows, without a copy if they are one run, as they are where junk is sorted to one end."""
    start, stop = rows[0], rows[-1] + 1
    return embedding[start:stop] if stop - start == len(rows) else embedding[rows]
