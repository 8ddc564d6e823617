"""Exact ranks of the true matches, and the nearest images of each query, from embeddings or from given distances.

A rank is one more than the number of images in front, so it is counted: no row is sorted, and distances exist only
for one block of queries and one tile of the gallery at a time. Lists come out of the same products as ranks, block
for block, so that a list shows each hit at the rank that was scored.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from mancs_jax.common.screen import bar
from mancs_jax.evaluation import checks, rank_kernels
from mancs_jax.evaluation.blocks import each, mesh, query_blocks
from mancs_jax.evaluation.distances import from_order
from mancs_jax.evaluation.hits import hit_indices, sorted_ranks
from mancs_jax.evaluation.metrics import HitRanks
from mancs_jax.evaluation.plan import create_plan, every_block

DistancesOf = Callable[[np.ndarray], np.ndarray]  # indices of B queries -> distances [B, G]


class NearestLists(NamedTuple):
    """The nearest gallery images of each query that count for it, nearest first."""

    # int [Q, depth], into the gallery; -1 where fewer images count
    index: np.ndarray  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    distance: np.ndarray  # float32 [Q, depth]; infinite where fewer images count


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

    `distances.counts_for` has the rule of the images that count. Of two gallery images at exactly the same computed
    distance, the lower index comes first. The gallery is read in tiles, twice where there are several. It may be a
    memory-mapped file of any length.

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
      ValueError: one line that names the fault: shapes, dtypes, lengths, pids, an unknown distance, embeddings that
        are not finite, or too large or (cosine) too small for float32 distances.
    """
    plan = create_plan(query, gallery, query_pid, query_camid, gallery_pid, gallery_camid, distance, devices)
    one_tile = len(plan.tiles) == 1
    hit_distances = np.full(plan.hit_index.shape, np.inf, np.float32)
    in_front = np.zeros(plan.hit_index.shape, np.int32)

    def in_block(tile: slice, rows: np.ndarray) -> tuple[tuple, np.ndarray]:
        # With one tile, the hits' distances come out of the one product.
        return plan.in_block(tile, rows, None if one_tile else hit_distances[rows])

    blocks = list(plan.blocks)
    visits = len(plan.tiles) * len(blocks) * (1 if one_tile else 2)
    with bar(total=visits, desc="ranking", unit="block", disable=not progress) as progress_bar:
        if not one_tile:
            # The distances of all hits have to be known before the first image is counted. They come out of the same
            # products that are counted later, so that an image and its copy are at exactly the same distance.
            for tile in plan.tiles:
                in_tile, of_block = plan.in_tile(tile), partial(in_block, tile)
                for rows, found in each(rank_kernels.hit_distances, in_tile, blocks, of_block, plan.mesh):
                    hit_distances[rows] = np.minimum(hit_distances[rows], found)
                    progress_bar.update()
        for tile in plan.tiles:
            for rows, number in each(
                rank_kernels.in_front, plan.in_tile(tile), blocks, partial(in_block, tile), plan.mesh
            ):
                in_front[rows] += number
                progress_bar.update()
    return sorted_ranks(in_front, plan.counts)


def nearest_lists(
    query: np.ndarray,
    gallery: np.ndarray,
    query_pid: np.ndarray,
    query_camid: np.ndarray,
    gallery_pid: np.ndarray,
    gallery_camid: np.ndarray,
    *,
    distance: str = "euclidean",
    depth: int = 10,
    devices: Sequence[jax.Device] | None = None,
) -> NearestLists:
    """Lists the nearest gallery images of each query, each hit at the rank of `hit_ranks`.

    Args: as those of `hit_ranks`; and
      depth: images a query, at most.

    Returns:
      `depth` images a query, or all that the gallery has without junk.

    Raises:
      ValueError: as `hit_ranks`.
    """
    plan = create_plan(query, gallery, query_pid, query_camid, gallery_pid, gallery_camid, distance, devices)
    depth = min(depth, len(plan.counted))
    values = np.full((len(query), depth), np.inf, np.float32)
    index = np.full((len(query), depth), -1, np.int64)
    work = rank_kernels.nearest(min(depth, plan.tiles[0].stop))
    for tile in plan.tiles:
        of_block = partial(plan.in_block, tile, known=None)
        for rows, (found, position) in each(work, plan.in_tile(tile), plan.all_blocks(), of_block, plan.mesh):
            there = np.where(np.isfinite(found), plan.counted[np.minimum(tile.start + position, tile.stop - 1)], -1)
            # Earlier tiles hold lower indices, so that a stable sort keeps the order of equal distances.
            both = np.concatenate([values[rows], found], axis=1), np.concatenate([index[rows], there], axis=1)
            order = np.argsort(both[0], axis=1, kind="stable")[:, :depth]
            values[rows], index[rows] = (np.take_along_axis(of, order, axis=1) for of in both)
    return NearestLists(index, from_order(values, plan.squared_query, distance).astype(np.float32))


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
    labels, hit_index, counts = _checked_labels(query_pid, query_camid, gallery_pid, gallery_camid)
    in_front = np.zeros(hit_index.shape, np.int32)
    blocks = query_blocks(counts, len(labels[2]), 1)
    for rows, number in _each_by(rank_kernels.in_front_by, distances_of, labels, hit_index, counts, blocks):
        in_front[rows] = number
    return sorted_ranks(in_front, counts)


def nearest_lists_by(
    distances_of: DistancesOf,
    query_pid: np.ndarray,
    query_camid: np.ndarray,
    gallery_pid: np.ndarray,
    gallery_camid: np.ndarray,
    *,
    depth: int = 10,
) -> NearestLists:
    """Lists the nearest gallery images of each query by given distances, each hit at the rank of `hit_ranks_by`.

    Args: as those of `hit_ranks_by`; and
      depth: images a query, at most.

    Raises:
      ValueError: as `hit_ranks_by`.
    """
    labels, hit_index, counts = _checked_labels(query_pid, query_camid, gallery_pid, gallery_camid)
    depth = min(depth, len(labels[2]))
    distance = np.empty((len(counts), depth), np.float32)
    index = np.empty((len(counts), depth), np.int64)
    work, blocks = rank_kernels.nearest_by(depth), every_block(counts, len(labels[2]), 1)
    for rows, (found, position) in _each_by(work, distances_of, labels, hit_index, counts, blocks):
        distance[rows], index[rows] = found, np.where(np.isfinite(found), position, -1)
    return NearestLists(index, distance)


def _checked_labels(query_pid, query_camid, gallery_pid, gallery_camid) -> tuple[tuple, np.ndarray, np.ndarray]:
    query_pid, query_camid = checks.checked_labels("query", query_pid, query_camid, len(query_pid))
    gallery_pid, gallery_camid = checks.checked_labels("gallery", gallery_pid, gallery_camid, len(gallery_pid))
    checks.check_known(query_pid)
    labels = (query_pid, query_camid, gallery_pid, gallery_camid)
    return labels, *hit_indices(*labels)


def _each_by(
    work: Callable,
    distances_of: DistancesOf,
    labels: tuple,
    hit_index: np.ndarray,
    counts: np.ndarray,
    blocks: Iterator[np.ndarray],
) -> Iterator[tuple[np.ndarray, Any]]:
    query_pid, query_camid, gallery_pid, gallery_camid = labels

    def in_block(rows: np.ndarray) -> tuple[tuple, np.ndarray]:
        distances = np.asarray(distances_of(rows), np.float32)
        if distances.shape != (len(rows), len(gallery_pid)):
            shape = f"{list(distances.shape)}, not [{len(rows)}, {len(gallery_pid)}]"
            raise ValueError(f"the distances of {len(rows)} queries have shape {shape}: one a query and gallery image")
        if not np.isfinite([distances.min(), distances.max()]).all():  # they are NaN if any distance is
            raise ValueError("some distances are NaN or infinite: check the embeddings they were made from")
        return (distances, query_pid[rows], query_camid[rows], hit_index[rows]), counts[rows]

    return each(work, (gallery_pid, gallery_camid), blocks, in_block, mesh(jax.local_devices()[:1], 1))
