"""Samplers of triplets: curriculum (paper section 3.3), batch-hard and uniform.

All samplers share the signature `(keys, distances, pairs, epoch, *, num_positives, num_negatives) -> Triplets`. They
see a batch only through its distance matrix, so that each device runs them for its anchors.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float32, Int32, Key, Real

# Below this width the Gaussian is one rank wide: exp(-1 / (2 * 0.01^2)) is 0 in float32. Eq. 4 itself underflows to 0.
MIN_SIGMA = 0.01

Scalar = float | Real[jax.Array, ""]


class Pairs(NamedTuple):
    """Relations between A anchors and B candidates."""

    same: Bool[jax.Array, "A B"]  # of the anchor's identity, the anchor itself included: K in every row
    is_self: Bool[jax.Array, "A B"]  # the anchor itself
    is_negative: Bool[jax.Array, "A B"]  # may be sampled as a negative; every row has equally many


class Triplets(NamedTuple):
    """T triplets for each of A anchors.

    `positive` and `negative` are columns of the distance matrix. The mean of `weight` * hinge over all anchors and T is
    the mean over the triplets that count.
    """

    positive: Int32[jax.Array, "A T"]
    negative: Int32[jax.Array, "A T"]
    weight: Float32[jax.Array, "A T"]


def curriculum_gaussian(
    epoch: Scalar, num_ranks: int, *, t0: float, t1: float, a: float, b: float, mu_step: float | None = None
) -> tuple[Float32[jax.Array, ""], Float32[jax.Array, ""]]:
    """Returns mean and standard deviation of the ranks (equations 3 and 4) in epoch t; rank 0 is the hardest negative.

    The mean begins at N_n, `num_ranks`, and moves `mu_step` ranks per epoch (None: N_n / t0, the paper's; 3 in the
    release) down to 0. The standard deviation, at least MIN_SIGMA, is `a` ranks up to epoch `t0`, and `a * b` in epoch
    `t1`.
    """
    t = jnp.asarray(epoch, jnp.float32)
    step = num_ranks / t0 if mu_step is None else mu_step
    mu = jnp.maximum(num_ranks - step * t, 0.0)
    sigma = a * jnp.asarray(b, jnp.float32) ** jnp.maximum((t - t0) / (t1 - t0), 0.0)
    return mu, jnp.maximum(sigma, MIN_SIGMA)


def rank_probabilities(
    mu: Scalar, sigma: Scalar, num_ranks: int, density_floor: float = 0.0
) -> Float32[jax.Array, " {num_ranks}"]:
    """Returns the probability of each of N_n ranks (equation 6), finite from MIN_SIGMA on.

    `density_floor` is the least value of the density before it is normalised: 0 (paper), 3e-5 (release).
    """
    exponent = -0.5 * ((jnp.arange(num_ranks) - mu) / sigma) ** 2
    if density_floor == 0.0:
        return jax.nn.softmax(exponent)
    density = jnp.maximum(jnp.exp(exponent) / (sigma * jnp.sqrt(2 * jnp.pi)), density_floor)
    return density / density.sum()


def draw_ranks(
    keys: Key[jax.Array, " A"], probabilities: Float32[jax.Array, " N"], num: int
) -> Int32[jax.Array, "A {num}"]:
    """Samples `num` independent ranks for every key, by inversion of the cumulative distribution."""
    cumulative = jnp.cumsum(probabilities)
    # The last sum is 1 only up to rounding, and a rank past the end must not be sampled.
    levels = jax.vmap(lambda key: jax.random.uniform(key, (num,)))(keys) * cumulative[-1]
    return jnp.searchsorted(cumulative, levels, side="right", method="compare_all").astype(jnp.int32)


class Curriculum(NamedTuple):
    """Options of `curriculum`; see `curriculum_gaussian` for t0, t1, a, b and mu_step."""

    t0: float  # epochs
    t1: float  # epochs
    a: float  # ranks
    b: float
    num_nearest: int = 0  # nearest negatives that are ranked (release: 80); 0: all (paper)
    mu_step: float | None = None
    density_floor: float = 0.0  # see `rank_probabilities`
    positives: str = "all"  # or "later": only those after the anchor in the batch (release: half of the triplets)


def curriculum(
    keys: Key[jax.Array, " A"],
    distances: Float32[jax.Array, "A B"],
    pairs: Pairs,
    epoch: Scalar,
    *,
    num_positives: int,
    num_negatives: int,
    options: Curriculum,
) -> Triplets:
    """Samples by the curriculum: easy negatives first, hard ones later; each positive is used once (T = K-1).

    `keys` has one for each anchor, `epoch` is t; `num_positives` is K-1, and `num_negatives` N_n, which is B - K where
    all other identities are negatives.
    """
    negatives = hardest_first(distances, pairs.is_negative, num_negatives, options.num_nearest)
    num_ranks = negatives.shape[1]
    mu, sigma = curriculum_gaussian(
        epoch, num_ranks, t0=options.t0, t1=options.t1, a=options.a, b=options.b, mu_step=options.mu_step
    )
    probabilities = rank_probabilities(mu, sigma, num_ranks, options.density_floor)
    triplets = _sample_by_rank(keys, negatives, probabilities, pairs, num_positives)
    if options.positives == "all":
        return triplets
    # Exactly half of all (anchor, positive) pairs count, so that with a weight of 2 the mean over [A, T] is their mean.
    is_later = triplets.positive > jnp.argmax(pairs.is_self, axis=1)[:, None]
    return triplets._replace(weight=jnp.where(is_later, 2.0, 0.0))


def uniform(
    keys: Key[jax.Array, " A"],
    distances: Float32[jax.Array, "A B"],
    pairs: Pairs,
    epoch: Scalar,
    *,
    num_positives: int,
    num_negatives: int,
) -> Triplets:
    """Samples a negative uniformly for each positive (T = K-1); arguments as in `curriculum`."""
    negatives = hardest_first(distances, pairs.is_negative, num_negatives)
    return _sample_by_rank(keys, negatives, jnp.full(num_negatives, 1 / num_negatives), pairs, num_positives)


def batch_hard(
    keys: Key[jax.Array, " A"],
    distances: Float32[jax.Array, "A B"],
    pairs: Pairs,
    epoch: Scalar,
    *,
    num_positives: int,
    num_negatives: int,
) -> Triplets:
    """Takes the farthest positive and the nearest negative of each anchor (Hermans et al. 2017; T = 1).

    The paper calls it "OHEM". Arguments as in `curriculum`; ties go to the lower column.
    """
    positive = jnp.argmax(jnp.where(pairs.same & ~pairs.is_self, distances, -jnp.inf), axis=1, keepdims=True)
    negative = jnp.argmin(jnp.where(pairs.is_negative, distances, jnp.inf), axis=1, keepdims=True)
    weight = jnp.ones(positive.shape, jnp.float32)
    return Triplets(positive.astype(jnp.int32), negative.astype(jnp.int32), weight)


def hardest_first(
    distances: Float32[jax.Array, "A B"], is_negative: Bool[jax.Array, "A B"], num_negatives: int, num_nearest: int = 0
) -> Int32[jax.Array, "A N"]:
    """Returns the columns of each anchor's negatives, nearest first, ties by column; only `num_nearest`, if not 0."""
    num_ranks = min(num_nearest or num_negatives, num_negatives)
    return _columns_of_largest(jnp.where(is_negative, -distances, -jnp.inf), num_ranks)


def _sample_by_rank(
    keys: Key[jax.Array, " A"],
    negatives: Int32[jax.Array, "A N"],
    probabilities: Float32[jax.Array, " N"],
    pairs: Pairs,
    num_positives: int,
) -> Triplets:
    """Samples a negative by its rank for each positive; the positives are in the order of the batch."""
    ranks = draw_ranks(keys, probabilities, num_positives)
    positive = _columns_of_largest((pairs.same & ~pairs.is_self).astype(jnp.float32), num_positives)
    negative = jnp.take_along_axis(negatives, ranks, axis=1)
    return Triplets(positive, negative, jnp.ones(positive.shape, jnp.float32))


def _columns_of_largest(values: Float32[jax.Array, "A B"], num: int) -> Int32[jax.Array, "A {num}"]:
    """Returns the columns of the `num` largest values of each row, largest first, ties by column.

    `top_k` and not a sort of the rows, which takes XLA three times as long on a CPU.
    """
    return jax.lax.top_k(values, num)[1].astype(jnp.int32)
