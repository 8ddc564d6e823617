"""The comparable values of all pairs of a query and a gallery image that count, block by block, on the host."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int

from mancs_jax.evaluation.comparison import Comparison, map_blocks


class PairBlock(NamedTuple):
    """Some queries and a tile of the gallery; each pair that counts is in one block."""

    query: Int[np.ndarray, " B"]  # rows of the queries
    gallery: Int[np.ndarray, " T"]  # rows of the gallery images, ascending
    values: Float32[np.ndarray, "B T"]  # see `distances.query_terms`, not below 0; infinite where a pair does not count
    positive: tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]  # (row, column) of the positive pairs in `values`


def pair_blocks(comparison: Comparison) -> Iterator[PairBlock]:
    """Yields the values of all pairs, which `distances.from_pair` turns into distances.

    Raises:
      ValueError: the comparison is not one of embeddings: such distances depend on the rest of the gallery.
    """
    if comparison.pair_terms is None:
        raise ValueError("pairs can be compared by distances of embeddings, not by given or re-ranked distances")
    layout, (offset, scale) = comparison.layout, comparison.pair_terms
    blocks = layout.matched + layout.unmatched
    for tile, rows, values in map_blocks(comparison, blocks, _comparable, lambda _, rows: (offset[rows], scale[rows])):
        values = values[: np.count_nonzero(np.diff(rows)) + 1]  # the last block ends with repeats
        rows = rows[: len(values)]
        hit_index = layout.hit_index[rows] - tile.start
        is_hit = np.arange(hit_index.shape[1]) < layout.num_hits[rows, None]
        row, order = np.nonzero(is_hit & (hit_index >= 0) & (hit_index < values.shape[1]))
        column = hit_index[row, order]
        is_new = np.isfinite(values[row, column])  # those of the tile before are infinite
        yield PairBlock(rows, layout.counted[tile], values, (row[is_new], column[is_new]))


def _comparable(
    values: Float32[jax.Array, "B T"], offset: Float32[jax.Array, " B"], scale: Float32[jax.Array, " B"]
) -> Float32[jax.Array, "B T"]:
    # The absolute value takes the sign from -0, whose bits would not be in order.
    return jnp.abs(jnp.maximum(offset[:, None] + scale[:, None] * values, 0))
