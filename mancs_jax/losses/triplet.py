"""Euclidean distances and the triplet loss over sampled triplets (paper section 3.3, equation 5)."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Float32

from mancs_jax.losses.sampling import Triplets

# Squared distances up to this share of the sum of both squared norms are rounding errors of float32, and taken as 0.
# Errors up to 1.3e-6 were measured.
RESOLUTION = 4e-6


def euclidean_distances(
    anchors: Float[jax.Array, "A D"], candidates: Float[jax.Array, "B D"]
) -> Float32[jax.Array, "A B"]:
    """Returns D(a, c), not squared; NaN where an embedding is not finite.

    Equal embeddings have distance 0 with gradient 0. The square root has an infinite gradient there, so that an
    image sampled twice for a batch would make every parameter NaN.
    """
    anchors, candidates = anchors.astype(jnp.float32), candidates.astype(jnp.float32)
    # Far from the origin, the difference of the norms would lose all digits of the distance, which centring keeps.
    centre = jax.lax.stop_gradient(jnp.mean(candidates, axis=0, keepdims=True))
    anchors, candidates = anchors - centre, candidates - centre
    squared_norms = jnp.sum(anchors**2, axis=1)[:, None] + jnp.sum(candidates**2, axis=1)[None, :]
    squared = squared_norms - 2 * jnp.matmul(anchors, candidates.T, precision=jax.lax.Precision.HIGHEST)
    is_equal = squared <= RESOLUTION * squared_norms
    # The inner `where` keeps the infinite gradient of the root out: a product of it with 0 would be NaN.
    return jnp.where(is_equal, 0.0, jnp.sqrt(jnp.where(is_equal, 1.0, squared)))


def triplet_loss(distances: Float32[jax.Array, "A B"], triplets: Triplets, margin: float) -> Float32[jax.Array, ""]:
    """Returns `mean max(margin + D(a, p) - D(a, n), 0)` (equation 5); the margin m is in units of distance."""
    return jnp.mean(triplets.weight * jnp.maximum(margin + triplet_gap(distances, triplets), 0.0))


def triplet_gap(distances: Float32[jax.Array, "A B"], triplets: Triplets) -> Float32[jax.Array, "A T"]:
    """Returns `D(a, p) - D(a, n)` of each triplet, below 0 where the order is right."""
    to_positive = jnp.take_along_axis(distances, triplets.positive, axis=1)
    to_negative = jnp.take_along_axis(distances, triplets.negative, axis=1)
    return to_positive - to_negative
