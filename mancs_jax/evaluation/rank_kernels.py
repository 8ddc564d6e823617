"""Counts of the images in front of each hit, and nearest images: the compiled part of `ranking`.

For one block of queries and one tile of the gallery. What goes in is grouped as (tile or gallery, block of queries,
number of columns of hits to count).
"""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from mancs_jax.evaluation.distances import counts_for
from mancs_jax.evaluation.nearest import smallest

HITS_AT_ONCE = 4


def hit_distances(in_tile: tuple, in_block: tuple, columns: jax.Array) -> jax.Array:
    """Distances of the hits of B queries that are in the tile, float32 [B, H]; infinite for the others."""
    del columns
    *of_query, hit_index, _ = in_block
    return _taken(_distances(in_tile, *of_query), hit_index)


def in_front(in_tile: tuple, in_block: tuple, columns: jax.Array) -> jax.Array:
    """Images of the tile in front of each hit of B queries, int32 [B, H]; only the first `columns` hits are counted.

    The last of `in_block` are the hits' distances, [B, H]; None where the tile is the whole gallery.
    """
    *of_query, hit_index, known = in_block
    distances = _distances(in_tile, *of_query)
    return _count_in_front(distances, _taken(distances, hit_index) if known is None else known, hit_index, columns)


def in_front_by(in_gallery: tuple, in_block: tuple, columns: jax.Array) -> jax.Array:
    """As `in_front`, by given distances [B, G]."""
    *of_query, hit_index = in_block
    distances = _counting(*of_query, *in_gallery)
    return _count_in_front(distances, _taken(distances, hit_index), hit_index, columns)


def pair_values(in_tile: tuple, in_block: tuple, columns: jax.Array) -> jax.Array:
    """Values that compare all pairs of B queries and a tile, float32 [B, T]; infinite where a pair does not count.

    The last of `in_block` are (offset, scale) of `distances.query_terms`, [B] each.
    """
    del columns
    *of_query, _, (offset, scale) = in_block
    # The absolute value takes the sign from -0, whose bits would not be in order.
    return jnp.abs(jnp.maximum(offset[:, None] + scale[:, None] * _distances(in_tile, *of_query), 0))


@cache
def nearest(depth: int) -> Callable:
    """Makes the function that finds the `depth` nearest images of a tile, by the distances of `in_front`.

    It gives (distances float32 [B, depth], infinite where fewer images count; positions in the tile, int32).
    """

    def nearest(in_tile: tuple, in_block: tuple, columns: jax.Array) -> tuple[jax.Array, jax.Array]:
        del columns
        *of_query, _, _ = in_block
        return _smallest(_distances(in_tile, *of_query), depth)

    return nearest


@cache
def nearest_by(depth: int) -> Callable:
    """As `nearest`, by given distances [B, G]."""

    def nearest_by(in_gallery: tuple, in_block: tuple, columns: jax.Array) -> tuple[jax.Array, jax.Array]:
        del columns
        *of_query, _ = in_block
        return _smallest(_counting(*of_query, *in_gallery), depth)

    return nearest_by


def _smallest(distances, depth):
    position = smallest(distances, depth)
    return jnp.take_along_axis(distances, position, axis=1), position


def _distances(in_tile, query, query_pid, query_camid):
    """Distances up to a constant per query, [B, T]; their order is exact, and images that do not count are infinite."""
    gallery, offset, scale, gallery_pid, gallery_camid = in_tile
    dot = jnp.einsum("bd,gd->bg", query, gallery, precision=jax.lax.Precision.HIGHEST)
    return _counting(offset[None] - scale[None] * dot, query_pid, query_camid, gallery_pid, gallery_camid)


def _counting(distances, query_pid, query_camid, gallery_pid, gallery_camid):
    # An infinite distance puts an image behind every hit, which is as good as removing it.
    counts = counts_for(query_pid, query_camid, gallery_pid, gallery_camid)
    return jnp.where(counts, distances, jnp.inf)


def _taken(distances, hit_index):
    """distances[b, hit_index[b, h]], [B, H]; infinite where the index is beyond the tile."""
    width = distances.shape[1]
    taken = jnp.take_along_axis(distances, jnp.clip(hit_index, 0, width - 1), axis=1)
    return jnp.where((hit_index >= 0) & (hit_index < width), taken, jnp.inf)


def _count_in_front(distances, hit_distances, hit_index, columns):
    index = jnp.arange(distances.shape[1], dtype=jnp.int32)[None]

    # Some hits at a time, so that each distance is read fewer times. The last step may take in earlier columns
    # again: a slice that would end beyond the array starts sooner, where it is read and where it is written.
    at_once = min(HITS_AT_ONCE, hit_index.shape[1])

    def count(step: jax.Array, counted: jax.Array) -> jax.Array:
        distance, hit = (
            jax.lax.dynamic_slice_in_dim(of_hits, step * at_once, at_once, axis=1)[:, :, None]
            for of_hits in (hit_distances, hit_index)
        )
        is_in_front = [
            (distances < distance[:, i]) | ((distances == distance[:, i]) & (index < hit[:, i])) for i in range(at_once)
        ]
        # One reduction with several results: of a plain sum, XLA on CPU writes the [B, G] summands to memory first,
        # which takes three times as long and as much memory again.
        counts = jax.lax.reduce(
            [mask.astype(jnp.int32) for mask in is_in_front],
            [np.int32(0)] * at_once,
            lambda x, y: [a + b for a, b in zip(x, y, strict=True)],
            dimensions=(1,),
        )
        return jax.lax.dynamic_update_slice_in_dim(counted, jnp.stack(counts, axis=1), step * at_once, axis=1)

    steps = (columns + at_once - 1) // at_once
    return jax.lax.fori_loop(0, steps, count, jnp.zeros(hit_index.shape, jnp.int32))
