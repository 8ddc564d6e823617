"""Exact ranks of the true matches and the scores that follow: mAP (trapezoid and plain), CMC and mINP.

These scores depend on nothing but the rank of each hit among the gallery images that count for its query.
A rank is one more than the number of images in front, so it is counted: no row is sorted, and distances
exist only for one block of queries at a time.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

DISTANCES = ("euclidean", "cosine")
BLOCK_BYTES = 16 * 2**20  # of distances: small enough to be counted from the cache; 248 queries at Market-1501
MIN_ROWS = 128  # if there are as many queries: with fewer, each reading of a very large gallery does too little
# XLA on CPU hands a product with a single row to a matrix-vector routine, which gives two equal gallery rows
# distances that differ in the last bit. A multiple of 8 rows keeps ties exact.
ROW_STEP = 8
HITS_AT_ONCE = 4
# With squared norms between these bounds, no product or sum of them leaves the float32 range.
SMALLEST_SQUARED_NORM, LARGEST_SQUARED_NORM = 1e-36, 1e36


class HitRanks(NamedTuple):
    """Ranks of the hits of every query.

    Attributes:
        ranks: int32 [Q, H], each row ascending, first rank 1, 0 beyond the query's number of hits. H is the
            largest number of hits, at least 1.
        counts: int32 [Q], number of hits; 0 where the gallery has no match for the query.
    """

    ranks: np.ndarray
    counts: np.ndarray


def hit_ranks(
    query: np.ndarray,
    gallery: np.ndarray,
    query_pid: np.ndarray,
    query_camid: np.ndarray,
    gallery_pid: np.ndarray,
    gallery_camid: np.ndarray,
    *,
    distance: str = "euclidean",
) -> HitRanks:
    """Rank every hit among the gallery images that count for its query.

    The rules are those of the official Market-1501 evaluation (Zheng et al., "Scalable Person
    Re-identification: A Benchmark", ICCV 2015): gallery images with pid -1 are removed for every query, and
    images of the query's own pid and camera for that query; distractors (pid 0) stay as wrong matches. Of two
    gallery images at exactly the same computed distance, the one with the lower index comes first.

    Args:
        query: embeddings, float32 [Q, D].
        gallery: embeddings, float32 [G, D].
        query_pid: integer [Q], each above 0.
        query_camid: integer [Q].
        gallery_pid: integer [G], -1 = junk, 0 = distractor.
        gallery_camid: integer [G].
        distance: "euclidean" or "cosine".

    Returns:
        The ranks, see `HitRanks`.

    Raises:
        ValueError: one line that names what is wrong: shapes, dtypes, lengths, pids, an unknown distance,
            embeddings that are not finite, or too large or (cosine) too small for float32 distances.
    """
    if distance not in DISTANCES:
        raise ValueError(f"unknown distance {distance!r}: use one of {', '.join(DISTANCES)}")
    query, query_pid, query_camid = _checked("query", query, query_pid, query_camid)
    gallery, gallery_pid, gallery_camid = _checked("gallery", gallery, gallery_pid, gallery_camid)
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query embeddings are {query.shape[1]} wide, gallery embeddings {gallery.shape[1]}:"
            " take both from the same model"
        )
    if query_pid.min() < 1:
        raise ValueError(f"query {query_pid.argmin()} has pid {query_pid.min()}: leave out queries of no known person")
    _squared_norms("query", query, distance)
    squared_norm = _squared_norms("gallery", gallery, distance)

    counted = np.flatnonzero(gallery_pid != -1)
    gallery_pid, gallery_camid = gallery_pid[counted], gallery_camid[counted]
    squared_norm = squared_norm[counted]
    hit_index, counts = _hit_indices(query_pid, query_camid, gallery_pid, gallery_camid)
    ranks = np.zeros(hit_index.shape, np.int32)
    if not counts.any():
        return HitRanks(ranks, counts)

    # For one query, the order by |q|^2 + |g|^2 - 2 q.g is the order by |g|^2 / 2 - q.g, and the order by
    # cosine distance the one by -q.g / |g|. Without |q|^2 there is no value near 0 that needs clipping, and
    # so there are no ties that clipping makes.
    if distance == "euclidean":
        offset, scale = squared_norm / 2, np.ones_like(squared_norm)
    else:
        offset, scale = np.zeros_like(squared_norm), 1 / np.sqrt(squared_norm)
    in_gallery = jax.device_put((_rows(gallery, counted), offset, scale, gallery_pid, gallery_camid))
    blocks = list(_query_blocks(counts, len(counted)))
    results = []
    for rows in blocks:
        in_block = jax.device_put((query[rows], query_pid[rows], query_camid[rows], hit_index[rows]))
        results.append(_block_ranks(in_block, in_gallery, counts[rows].max()))
        if len(results) > 1:  # two blocks at a time keep all cores busy, and memory small
            results[-2].block_until_ready()
    for rows, result in zip(blocks, results, strict=True):
        ranks[rows] = result

    is_hit = np.arange(ranks.shape[1])[None] < counts[:, None]
    ranks = np.sort(np.where(is_hit, ranks, np.iinfo(np.int32).max), axis=1)
    return HitRanks(np.where(is_hit, ranks, 0), counts)


def average_precisions(hits: HitRanks) -> tuple[np.ndarray, np.ndarray]:
    """Average precision of every query, in both customary forms.

    With n hits at ranks r_1 < ... < r_n, the plain form is the mean of k / r_k. The trapezoid form of the
    official Market-1501 script is the mean of (p + k / r_k) / 2, where p is the precision at rank r_k - 1,
    that is (k - 1) / (r_k - 1), and 1 in front of the first rank.

    Args:
        hits: ranks of the hits, see `HitRanks`.

    Returns:
        (trapezoid, plain), float64 [Q] each, in [0, 1]; 0 for a query without a match.
    """
    order = np.arange(1, hits.ranks.shape[1] + 1)[None]
    is_hit = order <= hits.counts[:, None]
    ranks = np.where(is_hit, hits.ranks, order)
    precision = order / ranks
    precision_before = np.where(ranks == 1, 1.0, (order - 1) / np.maximum(ranks - 1, 1))
    number = np.maximum(hits.counts, 1)
    trapezoid = np.sum((precision_before + precision) / 2, axis=1, where=is_hit) / number
    return trapezoid, np.sum(precision, axis=1, where=is_hit) / number


def metrics(hits: HitRanks, *, cmc_length: int = 50) -> dict:
    """Scores over all queries; a query without a match counts with 0.

    Args:
        hits: ranks of the hits, see `HitRanks`.
        cmc_length: number of CMC ranks, at least 1.

    Returns:
        Plain numbers, the scores as fractions in [0, 1]: `mAP` (official trapezoid), `mAP_plain`, `mINP`
        (mean of n / r_n; Ye et al., "Deep Learning for Person Re-identification: A Survey and Outlook",
        2021), `cmc` (list, rank 1 first: share of the queries with a hit at that rank or before),
        `num_queries`, `num_matched_queries`.

    Raises:
        ValueError: if cmc_length is below 1 or there is no query.
    """
    num_queries = len(hits.counts)
    if cmc_length < 1:
        raise ValueError(f"cmc_length is {cmc_length}: ask for at least 1 rank")
    if num_queries == 0:
        raise ValueError("there are no queries to score: the mean over none is undefined")
    matched = hits.counts > 0
    ranks, counts = hits.ranks[matched], hits.counts[matched]
    trapezoid, plain = average_precisions(hits)
    last_rank = ranks[np.arange(len(counts)), counts - 1]
    firsts = np.bincount(ranks[:, 0], minlength=cmc_length + 1)[1 : cmc_length + 1]
    return {
        "mAP": float(trapezoid.mean()),
        "mAP_plain": float(plain.mean()),
        "mINP": float(np.sum(counts / last_rank) / num_queries),
        "cmc": (np.cumsum(firsts) / num_queries).tolist(),
        "num_queries": num_queries,
        "num_matched_queries": len(counts),
    }


@jax.jit
def _block_ranks(in_block: tuple, in_gallery: tuple, columns: jax.Array) -> jax.Array:
    """Ranks of the hits of B queries, int32 [B, H]; only the first `columns` hits of each are counted."""
    query, query_pid, query_camid, hit_index = in_block
    gallery, offset, scale, gallery_pid, gallery_camid = in_gallery
    dot = jnp.einsum("bd,gd->bg", query, gallery, precision=jax.lax.Precision.HIGHEST)
    same_view = (query_pid[:, None] == gallery_pid[None]) & (query_camid[:, None] == gallery_camid[None])
    # An infinite distance puts an image behind every hit, which is as good as removing it.
    distances = jnp.where(same_view, jnp.inf, offset[None] - scale[None] * dot)
    hit_distances = jnp.take_along_axis(distances, hit_index, axis=1)
    index = jnp.arange(gallery.shape[0], dtype=jnp.int32)[None]

    # Some hits at a time, so that each distance is read fewer times. The last step may take in earlier columns
    # again: a slice that would end beyond the array starts sooner, where it is read and where it is written.
    at_once = min(HITS_AT_ONCE, hit_index.shape[1])

    def count_in_front(step: jax.Array, ranks: jax.Array) -> jax.Array:
        distance, hit = (
            jax.lax.dynamic_slice_in_dim(of_hits, step * at_once, at_once, axis=1)[:, :, None]
            for of_hits in (hit_distances, hit_index)
        )
        in_front = [
            (distances < distance[:, i]) | ((distances == distance[:, i]) & (index < hit[:, i])) for i in range(at_once)
        ]
        # One reduction with several results: of a plain sum, XLA on CPU writes the [B, G] summands to memory first,
        # which takes three times as long and as much memory again.
        counts = jax.lax.reduce(
            [mask.astype(jnp.int32) for mask in in_front],
            [np.int32(0)] * at_once,
            lambda x, y: [a + b for a, b in zip(x, y, strict=True)],
            dimensions=(1,),
        )
        ranks_of_step = 1 + jnp.stack(counts, axis=1)
        return jax.lax.dynamic_update_slice_in_dim(ranks, ranks_of_step, step * at_once, axis=1)

    steps = (columns + at_once - 1) // at_once
    return jax.lax.fori_loop(0, steps, count_in_front, jnp.zeros(hit_index.shape, jnp.int32))


def _query_blocks(counts: np.ndarray, num_gallery: int) -> Iterator[np.ndarray]:
    """Indices of the queries with a match in blocks of equal length, the last filled up with repeats.

    Queries with about as many hits share a block, since a block is counted up to its largest number.
    """
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    rows = _rows_a_block(len(order), num_gallery)
    for start in range(0, len(order), rows):
        yield order[np.minimum(np.arange(start, start + rows), len(order) - 1)]


def _rows_a_block(num_queries: int, num_gallery: int) -> int:
    """Queries a block: BLOCK_BYTES of distances at most, or MIN_ROWS if that is more, shared out evenly."""
    most = max(BLOCK_BYTES // (4 * num_gallery) // ROW_STEP * ROW_STEP, MIN_ROWS)
    num_blocks = -(-num_queries // most)
    return -(-num_queries // (num_blocks * ROW_STEP)) * ROW_STEP


def _hit_indices(
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


def _checked(part: str, embedding, pid, camid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings, pids and camids of "query" or "gallery" as NumPy arrays, labels int32; or ValueError."""
    embedding = np.asarray(embedding)
    shape = list(embedding.shape)
    if embedding.ndim != 2 or embedding.dtype != np.float32:
        kind = f"{embedding.dtype} {shape}"
        raise ValueError(f"{part} embeddings are {kind}: they must be float32 [images, width]")
    if embedding.size == 0:
        raise ValueError(f"{part} embeddings are empty, {shape}: there is nothing to rank")
    labels = []
    for name, label in (("pids", np.asarray(pid)), ("camids", np.asarray(camid))):
        if label.dtype.kind not in "iu":
            raise ValueError(f"{part} {name} are {label.dtype}: they must be integers")
        if label.shape != (len(embedding),):
            raise ValueError(f"{part} {name} have shape {list(label.shape)}, the embeddings {shape}: give one an image")
        labels.append(label.astype(np.int32))
        if (labels[-1] != label).any():
            raise ValueError(f"{part} {name} do not fit int32: number them anew")
    pid, camid = labels
    if pid.min() < -1:
        raise ValueError(
            f"{part} image {pid.argmin()} has pid {pid.min()}: pids are -1 (junk), 0 (distractor) or above"
        )
    if (pid == -1).all():
        raise ValueError(f"every {part} image has pid -1 (junk): there is nothing to rank")
    return embedding, pid, camid


def _squared_norms(part: str, embedding: np.ndarray, distance: str) -> np.ndarray:
    """Squared norms, float32 [N]; ValueError if one is not finite or out of range for float32 distances."""
    with np.errstate(over="ignore", invalid="ignore"):
        squared_norm = np.vecdot(embedding, embedding)
    too_large = ~(squared_norm < LARGEST_SQUARED_NORM)
    too_small = (squared_norm < SMALLEST_SQUARED_NORM) & (distance == "cosine")
    if not (too_large | too_small).any():
        return squared_norm
    first = np.argmax(too_large | too_small)
    if too_small[first]:
        what = "norm 0 (below 1e-18), so no cosine distance: check the model"
    elif np.isfinite(embedding[first]).all():
        what = "a norm above 1e18: scale the embeddings"
    else:
        what = "NaN or infinite values: check the model"
    number = np.count_nonzero(too_large | too_small)
    raise ValueError(f"{part} embedding {first} has {what} ({number} of {len(embedding)} are so)")
