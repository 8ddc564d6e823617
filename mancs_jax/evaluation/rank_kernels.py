"""How many images are in front of each hit: the compiled part of `ranking`.

For one block of queries and one tile of the gallery. What goes in is grouped as (tile or gallery, block of queries,
number of columns of hits to count).
"""

import jax
import jax.numpy as jnp
import numpy as np

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
    gallery_pid, gallery_camid = in_gallery
    distances, query_pid, query_camid, hit_index = in_block
    distances = _without_own_view(distances, query_pid, query_camid, gallery_pid, gallery_camid)
    distances = jnp.where(gallery_pid[None] == -1, jnp.inf, distances)  # junk
    return _count_in_front(distances, _taken(distances, hit_index), hit_index, columns)


def _distances(in_tile, query, query_pid, query_camid):
    """Distances [B, T] as far as the order of a query's answers goes; infinite where an image does not count for it."""
    gallery, offset, scale, gallery_pid, gallery_camid = in_tile
    dot = jnp.einsum("bd,gd->bg", query, gallery, precision=jax.lax.Precision.HIGHEST)
    distances = offset[None] - scale[None] * dot
    return _without_own_view(distances, query_pid, query_camid, gallery_pid, gallery_camid)


def _without_own_view(distances, query_pid, query_camid, gallery_pid, gallery_camid):
    # An infinite distance puts an image behind every hit, which is as good as removing it.
    same_view = (query_pid[:, None] == gallery_pid[None]) & (query_camid[:, None] == gallery_camid[None])
    return jnp.where(same_view, jnp.inf, distances)


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
