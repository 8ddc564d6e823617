"""Exact ranks of the true matches, and the nearest images of each query, from a comparison of two sets.

A rank is one more than the number of images in front, so it is counted: no row is sorted, and values exist only for
one block of queries and one tile of the gallery at a time.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Float64, Int32

from mancs_jax.common.screen import bar
from mancs_jax.evaluation.calibration import Knots, log_likelihood_ratio, probability
from mancs_jax.evaluation.comparison import Comparison, Rows, map_blocks
from mancs_jax.evaluation.distances import from_pair, smallest
from mancs_jax.evaluation.metrics import HitRanks

HITS_AT_ONCE = 4


class Found(NamedTuple):
    """The k nearest of each of Q queries, nearest first."""

    # into the gallery; -1 where no more images count, or are near enough
    index: Int32[np.ndarray, "Q k"]  # type: ignore[assignment]  # hides tuple.index, which is not needed here
    distance: Float32[np.ndarray, "Q k"]  # infinite where the index is -1
    knots: Knots | None = None  # of the network's calibration for this distance, see `evaluation.calibration`

    @property
    def likelihood_ratio(self) -> Float64[np.ndarray, "Q k"]:
        """How many times more often such a distance occurs between two images of one person than of two people.

        NaN where the index is -1.

        Raises:
          ValueError: one line: there is no calibration for these distances.
        """
        return np.exp(self._log_likelihood_ratio())

    def probability(self, prior: float) -> Float64[np.ndarray, "Q k"]:
        """The probability that query and image show the same person.

        Args:
          prior: that probability before the two images were compared, for example 1/200 where one of 200 people may be
            on the image. The images do not contain it.

        Returns:
          Each image on its own: probabilities of one query need not add up to 1. NaN where the index is -1.

        Raises:
          ValueError: one line: a prior that is not between 0 and 1, or as `likelihood_ratio`.
        """
        return probability(self._log_likelihood_ratio(), prior)

    def _log_likelihood_ratio(self) -> Float64[np.ndarray, "Q k"]:
        if self.knots is None:
            raise ValueError(
                "no likelihood ratio: these distances have no calibration; use search(..., calibration=embed.card) "
                "with a model that was calibrated on held-out identities (re-ranking has none)"
            )
        return np.where(self.index >= 0, log_likelihood_ratio(self.knots, self.distance), np.nan)


def hit_ranks(comparison: Comparison, *, progress: bool = False) -> HitRanks:
    """Ranks every hit among the gallery images that count for its query.

    Of two gallery images at exactly the same computed distance, the lower index comes first. The gallery is read tile
    by tile, and twice where there are several tiles.

    Args:
      comparison: of query and gallery.
      progress: whether a bar is shown.
    """
    layout = comparison.layout
    hit_index, num_hits, has_one_tile = layout.hit_index, layout.num_hits, len(layout.tiles) == 1
    hit_values = np.full(hit_index.shape, np.inf, np.float32)
    in_front = np.zeros(hit_index.shape, np.int32)

    def positions(tile: slice, rows: Rows) -> tuple:
        return (hit_index[rows] - tile.start,)

    def hits(tile: slice, rows: Rows) -> tuple:
        # With one tile, the values of the hits come out of the one product.
        return *positions(tile, rows), num_hits[rows], None if has_one_tile else hit_values[rows]

    visits = len(layout.tiles) * len(layout.matched) * (1 if has_one_tile else 2)
    with bar(total=visits, desc="ranking", unit="block", disable=not progress) as progress_bar:
        if not has_one_tile:
            # The values of all hits have to be known before the first image is counted. They come out of the same
            # products that are counted later, so that an image and its copy have exactly the same value.
            for _, rows, values in map_blocks(comparison, layout.matched, _hit_values, positions):
                hit_values[rows] = np.minimum(hit_values[rows], values)
                progress_bar.update()
        for _, rows, number in map_blocks(comparison, layout.matched, _in_front, hits):
            in_front[rows] += number
            progress_bar.update()
    is_hit = np.arange(hit_index.shape[1])[None] < num_hits[:, None]
    ranks = np.sort(np.where(is_hit, 1 + in_front, np.iinfo(np.int32).max), axis=1)
    return HitRanks(np.where(is_hit, ranks, 0), num_hits)


def nearest(comparison: Comparison, depth: int = 10) -> Found:
    """Lists the nearest gallery images of each query, each hit at the rank of `hit_ranks`.

    Args:
      comparison: of query and gallery.
      depth: images a query, at most; fewer where the gallery has no more.
    """
    layout = comparison.layout
    depth = min(depth, len(layout.counted))
    values = np.full((len(layout.num_hits), depth), np.inf, np.float32)
    index = np.full(values.shape, -1, np.int32)
    blocks, at_once = layout.matched + layout.unmatched, min(depth, layout.tiles[0].stop)
    for tile, rows, (near, position) in map_blocks(comparison, blocks, _nearest, lambda *_: (), depth=at_once):
        images = np.where(np.isfinite(near), layout.counted[tile.start + position], -1)
        # Earlier tiles hold lower indices, so that a stable sort keeps the order of equal values.
        near, images = np.concatenate([values[rows], near], axis=1), np.concatenate([index[rows], images], axis=1)
        order = np.argsort(near, axis=1, kind="stable")[:, :depth]
        values[rows], index[rows] = np.take_along_axis(near, order, axis=1), np.take_along_axis(images, order, axis=1)
    if comparison.pair_terms is not None:
        offset, scale = (term[:, None] for term in comparison.pair_terms)
        values = from_pair(offset + scale * values, comparison.distance).astype(np.float32)
    return Found(index, values)


def _hit_values(values: Float32[jax.Array, "B T"], hit_index: Int32[jax.Array, "B H"]) -> Float32[jax.Array, "B H"]:
    """Values of the hits that are in the tile; infinite for the others."""
    width = values.shape[1]
    taken = jnp.take_along_axis(values, jnp.clip(hit_index, 0, width - 1), axis=1)
    return jnp.where((hit_index >= 0) & (hit_index < width), taken, jnp.inf)


def _in_front(
    values: Float32[jax.Array, "B T"],
    hit_index: Int32[jax.Array, "B H"],
    num_hits: Int32[jax.Array, " B"],
    hit_values: Float32[jax.Array, "B H"] | None,
) -> Int32[jax.Array, "B H"]:
    """Images of the tile in front of each hit, up to the largest number of hits.

    `hit_values` is None where the tile is the whole gallery.
    """
    hit_values = _hit_values(values, hit_index) if hit_values is None else hit_values
    index = jnp.arange(values.shape[1], dtype=jnp.int32)[None]

    # Some hits at a time, so that each value is read fewer times. The last step may take in earlier columns again: a
    # slice that would end beyond the array starts sooner, where it is read and where it is written.
    at_once = min(HITS_AT_ONCE, hit_index.shape[1])

    def count(step: jax.Array, counted: jax.Array) -> jax.Array:
        value, hit = (
            jax.lax.dynamic_slice_in_dim(array, step * at_once, at_once, axis=1)[:, :, None]
            for array in (hit_values, hit_index)
        )
        is_in_front = [(values < value[:, i]) | ((values == value[:, i]) & (index < hit[:, i])) for i in range(at_once)]
        # One reduction with several results: of a plain sum, XLA on CPU writes the [B, T] summands to memory first,
        # which takes three times as long and as much memory again.
        counts = jax.lax.reduce(
            [mask.astype(jnp.int32) for mask in is_in_front],
            [np.int32(0)] * at_once,
            lambda x, y: [a + b for a, b in zip(x, y, strict=True)],
            dimensions=(1,),
        )
        return jax.lax.dynamic_update_slice_in_dim(counted, jnp.stack(counts, axis=1), step * at_once, axis=1)

    steps = (num_hits.max() + at_once - 1) // at_once
    return jax.lax.fori_loop(0, steps, count, jnp.zeros(hit_index.shape, jnp.int32))


def _nearest(
    values: Float32[jax.Array, "B T"], *, depth: int
) -> tuple[Float32[jax.Array, "B {depth}"], Int32[jax.Array, "B {depth}"]]:
    """(values, infinite where fewer images count; positions in the tile)."""
    position = smallest(values, depth)
    return jnp.take_along_axis(values, position, axis=1), position
