"""The nearest gallery entries of each query: exactly, or out of the candidates of an approximate index."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mancs_jax.common.one_process import check_not_forked
from mancs_jax.evaluation import checks
from mancs_jax.evaluation.distances import order_terms, pair_distances
from mancs_jax.evaluation.nearest import smallest

if TYPE_CHECKING:
    from mancs_jax.inference.index import Index

TILE_BYTES = 192 * 2**20  # of gallery embeddings that are on the device at a time
BLOCK_BYTES = 32 * 2**20  # of distances, or of candidates' embeddings, that exist at a time
# With a single row XLA on CPU takes a matrix-vector routine, which gives two equal gallery rows distances that differ
# in the last bit: queries go in multiples of 8.
ROW_STEP = 8
CANDIDATES = 4  # times k, that an index is asked for; their exact distances decide
# Candidates whose distances differ by less, relatively, are copies of one image: others may have been left out.
TIE = 1e-4
LARGEST = {"euclidean": float("inf"), "cosine": 2.0}  # distance that two embeddings may have


class Found(NamedTuple):
    """The k nearest of each of Q queries, nearest first."""

    # int32 [Q, k], into the gallery; -1 beyond the greatest distance, or where the gallery has fewer than k
    index: np.ndarray  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    distance: np.ndarray  # float32 [Q, k]; infinite where the index is -1


def search(
    query: np.ndarray,
    gallery: np.ndarray,
    k: int = 10,
    *,
    distance: str = "euclidean",
    max_distance: float | None = None,
    index: "str | Path | Index | None" = None,
    num_candidates: int | None = None,
) -> Found:
    """Finds the nearest gallery entries of each query.

    Without an index the search is exact: every entry is compared, on the default device, in tiles, so the gallery may
    be a memory-mapped file of any length. Which k are nearest is decided by float32 products; they are put in the order
    of distances taken from differences, of equal ones the lower index first. With an index, the candidates it gives
    are put in order in the same way. A query is searched exactly where the index gives fewer than k, or where the k-th
    and the last candidate are equally far: a gallery with many copies of an image has more of them than candidates.

    Args:
      query: float32 [Q, D].
      gallery: float32 [G, D].
      k: entries for each query, at least 1. A gallery with fewer entries is filled up with -1 at an infinite distance.
      distance: "euclidean", or "cosine": 1 - cosine of the angle.
      max_distance: entries farther than this are no answers; None for no limit. A threshold for "the same person" is
        in the card of a network (`Embedder.card`), and holds for the cameras that it was set on.
      index: of this gallery and distance, from `build_index`, or its file; None for the exact search.
      num_candidates: entries that the index is asked for, at least k; None for 4 k. An index that compresses its
        entries needs more.

    Raises:
      ValueError: one line: embeddings, k, distance or index are not as above.
      FileNotFoundError: no index in that file.
      ImportError: an index without FAISS.
    """
    check_not_forked()
    checks.check_distance(distance)
    query, gallery = checks.checked_embedding("query", query), checks.checked_embedding("gallery", gallery)
    checks.check_same_width(query, gallery)
    if k < 1:
        raise ValueError(f"k is {k}: it must be at least 1")
    if max_distance is not None and not 0 <= max_distance <= LARGEST[distance]:
        most = "" if distance == "euclidean" else f" to {LARGEST[distance]:g}, the largest {distance} distance"
        raise ValueError(f"max_distance is {max_distance}: it must be a number from 0{most}, or None")
    checks.squared_norms("query", query, distance)
    if num_candidates is not None and num_candidates < k:
        raise ValueError(f"num_candidates is {num_candidates}: it must be at least k, which is {k}")
    wanted, k = k, min(k, len(gallery))
    if index is None:
        exact = _in_order(query, gallery, _exact(query, gallery, k, distance), distance)
        return _filled(_within(exact, max_distance), wanted)

    from mancs_jax.inference.index import candidates  # not at the top: it needs FAISS

    number = min(CANDIDATES * k if num_candidates is None else num_candidates, len(gallery))
    nearest = _in_order(query, gallery, candidates(index, query, gallery, number, distance), distance)
    kth, last = nearest.distance[:, k - 1], nearest.distance[:, -1]
    is_tied = np.isfinite(last) & ((1 - TIE) * last <= kth)
    doubtful = np.isinf(kth) | (is_tied if k < number < len(gallery) else False)
    nearest = Found(*(field[:, :k] for field in nearest))
    if doubtful.any():
        exact = _in_order(query[doubtful], gallery, _exact(query[doubtful], gallery, k, distance), distance)
        for field, values in zip(nearest, exact, strict=True):
            field[doubtful] = values
    return _filled(_within(nearest, max_distance), wanted)


def _within(found: Found, max_distance: float | None) -> Found:
    if max_distance is None:
        return found
    is_far = found.distance > max_distance
    return Found(np.where(is_far, -1, found.index), np.where(is_far, np.float32(np.inf), found.distance))


def _filled(found: Found, k: int) -> Found:
    beyond = ((0, 0), (0, k - found.index.shape[1]))
    return Found(
        np.pad(found.index, beyond, constant_values=-1), np.pad(found.distance, beyond, constant_values=np.inf)
    )


def _exact(query, gallery, k, distance) -> np.ndarray:
    """Indices of the k nearest, int32 [Q, k]."""
    length = min(max(TILE_BYTES // gallery[0].nbytes // ROW_STEP, 1) * ROW_STEP, len(gallery))
    rows = max(BLOCK_BYTES // (4 * length * ROW_STEP), 1) * ROW_STEP
    rows = min(rows, -(-len(query) // ROW_STEP) * ROW_STEP)
    padded = np.pad(query, ((0, -len(query) % rows), (0, 0)))
    blocks = [padded[start : start + rows] for start in range(0, len(padded), rows)]
    best = [(jnp.full((rows, k), jnp.inf), jnp.zeros((rows, k), jnp.int32))] * len(blocks)
    squared_norms = []
    for first in range(0, len(gallery), length):
        start = min(first, len(gallery) - length)  # the last tile begins sooner, so that all are of one size
        tile, before = jax.device_put(gallery[start : start + length]), best
        offset, scale, squared_norm = _terms(tile, distance)
        best = [
            _nearer(*of_block, tile, offset, scale, block, start, first)
            for of_block, block in zip(before, blocks, strict=True)
        ]
        jax.block_until_ready(before)  # two tiles at a time keep all cores busy, and memory small
        squared_norms.append(squared_norm)
    if not all(_usable(np.asarray(squared_norm), distance) for squared_norm in squared_norms):
        checks.squared_norms("gallery", gallery, distance)  # says which
    return np.concatenate([index for _, index in best])[: len(query)]


@partial(jax.jit, static_argnames="distance")
def _terms(tile, distance):
    """(offset, scale, squared norm) of each entry of a tile [T, D], see `order_terms`."""
    squared_norm = jnp.sum(tile * tile, axis=1)
    return *order_terms(squared_norm, distance), squared_norm


@jax.jit
def _nearer(best, index, tile, offset, scale, query, start, first):
    """The k nearest [B, k] of those found so far and of a tile; entries before `first` have been in one already."""
    k = best.shape[1]
    dot = jnp.einsum("bd,nd->bn", query, tile, precision=jax.lax.Precision.HIGHEST)
    entry = start + jnp.arange(len(tile), dtype=jnp.int32)
    values = jnp.where(entry[None] < first, jnp.inf, offset[None] - dot * scale[None])
    position = smallest(values, min(k, len(tile)))
    # What was found before is of lower index, and so in front at the same value.
    values = jnp.concatenate([best, jnp.take_along_axis(values, position, axis=1)], axis=1)
    index = jnp.concatenate([index, entry[position]], axis=1)
    position = jax.lax.top_k(-values, k)[1]
    return tuple(jnp.take_along_axis(array, position, axis=1) for array in (values, index))


def _usable(squared_norm, distance):
    is_large_enough = squared_norm >= checks.SMALLEST_SQUARED_NORM if distance == "cosine" else True
    return np.all((squared_norm < checks.LARGEST_SQUARED_NORM) & is_large_enough)


def _in_order(query, gallery, nearby, distance) -> Found:
    """Gallery entries [Q, C], -1 for none, in the order of their distances."""
    found = Found(np.empty(nearby.shape, np.int32), np.empty(nearby.shape, np.float32))
    rows = max(BLOCK_BYTES // (nearby.shape[1] * query[0].nbytes), 1)
    for start in range(0, len(query), rows):
        block = slice(start, start + rows)
        distances = pair_distances(query[block, None], gallery[nearby[block]], distance)
        distances[nearby[block] < 0] = np.inf
        order = np.lexsort((nearby[block], distances))
        for field, values in zip(found, (nearby[block], distances), strict=True):
            field[block] = np.take_along_axis(values, order, axis=1)
    return found
