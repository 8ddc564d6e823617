"""Tests of the triplet samplers: equations 3, 4 and 6 in float64, and what triplets a batch gives."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from mancs_jax.losses import sampling

PAPER = {"t0": 30.0, "t1": 60.0, "a": 15.0, "b": 0.001}
RELEASE = PAPER | {"num_nearest": 80, "mu_step": 3.0, "density_floor": 3e-5, "positives": "later"}
P, K = 16, 16
BATCH, NUM_NEGATIVES = P * K, P * K - K
# With a fixed key a chance test passes always or never; one key in ten thousand fails a right sampler.
LEAST_P_VALUE = 1e-4

SIZES = {"num_positives": K - 1, "num_negatives": NUM_NEGATIVES}

paper = jax.jit(partial(sampling.curriculum, options=sampling.Curriculum(**PAPER), **SIZES))
release = jax.jit(partial(sampling.curriculum, options=sampling.Curriculum(**RELEASE), **SIZES))
uniform = jax.jit(partial(sampling.uniform, **SIZES))
batch_hard = jax.jit(partial(sampling.batch_hard, **SIZES))
draw_ranks = jax.jit(sampling.draw_ranks, static_argnums=2)


@partial(jax.jit, static_argnames=("num_ranks", "mu_step", "density_floor"))
def probabilities(t, num_ranks: int, mu_step: float | None = None, density_floor: float = 0.0) -> jax.Array:
    """Probability of each rank in epoch t, by the code under test."""
    mu, sigma = sampling.curriculum_gaussian(t, num_ranks, **PAPER, mu_step=mu_step)
    return sampling.rank_probabilities(mu, sigma, num_ranks, density_floor)


@cache
def make_batch(seed: int = 0, copies: int = 8):
    """Keys, distances and pairs of a shuffled P x K batch; every image is the anchor `copies` times.

    A copy has its own key and distances: one call draws often. The first P*K rows are the batch proper.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(P), K))
    anchors = np.tile(np.arange(BATCH), copies)
    distances = rng.uniform(0, 2, (len(anchors), BATCH)).astype(np.float32)
    distances[np.arange(len(anchors)), anchors] = 0
    same = labels[anchors][:, None] == labels[None, :]
    is_self = anchors[:, None] == np.arange(BATCH)[None, :]
    keys = jax.random.split(jax.random.key(seed), len(anchors))
    return keys, distances, sampling.Pairs(*map(jnp.asarray, (same, is_self, ~same)))


def of_the_batch_proper(arrays):
    """The rows of a batch without its copies."""
    return [np.asarray(array)[:BATCH] for array in arrays]


def sorted_negatives(distances: np.ndarray, same: np.ndarray) -> list[list[int]]:
    """The paper's second step, anchor by anchor: the negatives' columns from small to large distance."""
    order = []
    for anchor in range(len(distances)):
        negatives = [column for column in range(distances.shape[1]) if not same[anchor, column]]
        order.append(sorted(negatives, key=lambda column: (float(distances[anchor, column]), column)))
    return order


def ranks_of(triplets, distances: np.ndarray, same: np.ndarray) -> np.ndarray:
    """The rank of each sampled negative by distance; the anchor's own identity ranks last."""
    rank_of_column = np.argsort(np.argsort(np.where(same, np.inf, distances), axis=1), axis=1)
    return np.take_along_axis(rank_of_column, np.asarray(triplets.negative), axis=1)


def normal_pdf(rank: np.ndarray, mu: float, sigma: float) -> np.ndarray:
    """The density of N(mu, sigma), float64."""
    return np.exp(-((rank - mu) ** 2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi))


def paper_probabilities(t: float, num_negatives: int) -> np.ndarray:
    """Equations 3, 4 and 6 as printed, float64."""
    mu = max(num_negatives - num_negatives / 30 * t, 0)
    sigma = 15 * 0.001 ** max((t - 30) / (60 - 30), 0)
    density = normal_pdf(np.arange(num_negatives, dtype=np.float64), mu, sigma)
    return density / density.sum()


def release_probabilities(t: float) -> np.ndarray:
    """The release's density over the 80 nearest negatives, at least 3e-5, float64."""
    mu, sigma = max(80.0 - 3.0 * t, 0), 15 * 0.001 ** max((t - 30) / 30, 0)
    density = np.maximum(normal_pdf(np.arange(80.0), mu, sigma), 3e-5)
    return density / density.sum()


def assert_follows(ranks: np.ndarray, expected_share: np.ndarray):
    """Chi-square test of drawn ranks, neighbours pooled until each bin expects at least five."""
    expected = expected_share * ranks.size
    starts, pooled = [0], 0.0
    for rank, value in enumerate(expected):
        if pooled >= 5 and expected[rank:].sum() >= 5:
            starts.append(rank)
            pooled = 0.0
        pooled += value
    observed = np.add.reduceat(np.bincount(ranks.ravel(), minlength=len(expected)), starts)
    assert observed.sum() == ranks.size
    if len(starts) == 1:
        # All in one bin: the pooling hides the distribution, but it has one rank only.
        assert expected_share.max() > 1 - 1e-9
        np.testing.assert_array_equal(ranks, np.argmax(expected_share))
    else:
        assert chisquare(observed, np.add.reduceat(expected, starts)).pvalue > LEAST_P_VALUE


@pytest.mark.parametrize("t", [0, 1, 10, 15, 29, 30, 37, 45, 60])
def test_probabilities_against_float64(t):
    np.testing.assert_allclose(probabilities(t, 240), paper_probabilities(t, 240), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("t", [0, 1, 10, 26, 27, 30, 45, 60])
def test_density_floor_against_float64(t):
    actual = probabilities(t, 80, mu_step=3.0, density_floor=3e-5)
    np.testing.assert_allclose(actual, release_probabilities(t), rtol=1e-3)


@given(t=st.floats(0, 1e5, width=32), floor=st.sampled_from([0.0, 3e-5]), step=st.sampled_from([None, 3.0, 0.07]))
def test_probabilities_are_finite_and_sum_to_one(t, floor, step):
    actual = np.asarray(probabilities(t, 112, mu_step=step, density_floor=floor), np.float64)
    assert np.all(np.isfinite(actual))
    assert np.all(actual >= 0)
    np.testing.assert_allclose(actual.sum(), 1, rtol=1e-5)


@pytest.mark.parametrize("t", [90, 160, 500, 2_000, 100_000])
def test_long_after_t1_only_the_hardest_is_drawn(t):
    keys, distances, pairs = make_batch()
    triplets = paper(keys, distances, pairs, t)
    np.testing.assert_array_equal(ranks_of(triplets, distances, pairs.same), 0)


@pytest.mark.parametrize("t", [0, 10, 29, 30, 45, 60, 160])
def test_draws_follow_the_paper(t):
    keys, distances, pairs = make_batch(seed=t)
    triplets = paper(keys, distances, pairs, t)
    assert_follows(ranks_of(triplets, distances, pairs.same), paper_probabilities(t, NUM_NEGATIVES))


@pytest.mark.parametrize("t", [0, 10, 27, 45])
def test_draws_follow_the_release(t):
    keys, distances, pairs = make_batch(seed=t)
    ranks = ranks_of(release(keys, distances, pairs, t), distances, pairs.same)
    assert ranks.max() < 80
    assert_follows(ranks, release_probabilities(t))


def test_uniform_draws_are_uniform():
    keys, distances, pairs = make_batch()
    triplets = uniform(keys, distances, pairs, 0)
    assert_follows(ranks_of(triplets, distances, pairs.same), np.full(NUM_NEGATIVES, 1 / NUM_NEGATIVES))
    assert_each_positive_once(triplets.positive, np.asarray(pairs.same), np.asarray(pairs.is_self))
    np.testing.assert_array_equal(triplets.weight, 1)


def test_each_triplet_has_a_draw_of_its_own():
    """'Then, we select another negative': no correlation within an anchor or between two."""
    keys, distances, pairs = make_batch()
    ranks = ranks_of(paper(keys, distances, pairs, 15), distances, pairs.same)
    of_an_anchor = np.corrcoef(ranks, rowvar=False)[~np.eye(K - 1, dtype=bool)]
    assert np.abs(of_an_anchor).max() < 5 / np.sqrt(len(ranks))
    between_anchors = np.corrcoef(ranks[:-1].ravel(), ranks[1:].ravel())[0, 1]
    assert abs(between_anchors) < 5 / np.sqrt(ranks.size)


@pytest.mark.parametrize(("draw", "rank"), [(0.0, 1), (1 - 2**-23, 3)])
def test_a_rank_of_probability_zero_is_never_drawn(monkeypatch, draw, rank):
    """The least and the greatest number of `jax.random.uniform`, each met once in eight million draws."""
    monkeypatch.setattr(sampling.jax.random, "uniform", lambda key, shape: jnp.full(shape, draw))
    keys = jax.random.split(jax.random.key(0), 2)
    ranks = sampling.draw_ranks(keys, jnp.array([0, 0.25, 0.5, 0.25, 0, 0]), 3)
    np.testing.assert_array_equal(ranks, np.full((2, 3), rank))


def assert_each_positive_once(positive: jax.Array, same: np.ndarray, is_self: np.ndarray):
    for anchor, columns in enumerate(np.asarray(positive)):
        np.testing.assert_array_equal(np.sort(columns), np.flatnonzero(same[anchor] & ~is_self[anchor]))


def test_all_pairs_of_the_paper():
    keys, distances, pairs = make_batch()
    triplets = paper(keys, distances, pairs, 20)
    assert triplets.positive.dtype == triplets.negative.dtype == jnp.int32
    assert triplets.weight.dtype == jnp.float32
    same, is_self, _ = of_the_batch_proper(pairs)
    positive, negative, weight = of_the_batch_proper(triplets)
    assert positive.shape == negative.shape == weight.shape == (256, 15)
    assert np.count_nonzero(weight) == 3840
    np.testing.assert_array_equal(weight, 1)
    assert_each_positive_once(positive, same, is_self)
    assert not np.any(np.take_along_axis(same, negative, axis=1))


def test_later_pairs_of_the_release():
    keys, distances, pairs = make_batch()
    triplets = release(keys, distances, pairs, 20)
    same, *_ = of_the_batch_proper(pairs)
    positive, negative, weight = of_the_batch_proper(triplets)
    counts = weight > 0
    assert counts.sum() == 1920
    # Half of the triplets at weight 2: the mean over all is the mean over those that count.
    np.testing.assert_array_equal(weight[counts], 2)
    found = {(anchor, column) for anchor in range(BATCH) for column in positive[anchor, counts[anchor]]}
    assert found == {(i, j) for i in range(BATCH) for j in range(i + 1, BATCH) if same[i, j]}
    assert not np.any(np.take_along_axis(same, negative, axis=1))


@pytest.mark.parametrize("t", [0, 20, 35])
@pytest.mark.parametrize(
    ("sample", "options"),
    [(paper, {"num_ranks": 240}), (release, {"num_ranks": 80, "mu_step": 3.0, "density_floor": 3e-5})],
)
def test_against_a_loop_over_anchors(sample, options, t):
    """Section 3.3 one anchor at a time, with many equal distances and the drawn ranks given."""
    keys, distances, pairs = make_batch()
    distances = np.round(distances * 16) / 16
    triplets = sample(keys, distances, pairs, t)
    ranks = draw_ranks(keys, probabilities(t, **options), K - 1)
    distances, same, ranks, negative = of_the_batch_proper((distances, pairs.same, ranks, triplets.negative))
    order = np.array(sorted_negatives(distances, same))
    np.testing.assert_array_equal(negative, np.take_along_axis(order, ranks, axis=1))


def test_hardest_first_by_hand():
    """Anchor 0 of identity A among A A B C B C; the two at 2.0 keep the order of their columns."""
    distances = np.array([[0.0, 0.1, 2.0, 3.0, 2.0, 1.0]], np.float32)
    same = np.array([[True, True, False, False, False, False]])
    np.testing.assert_array_equal(sampling.hardest_first(jnp.asarray(distances), jnp.asarray(~same), 4), [[5, 2, 4, 3]])


def test_batch_hard_against_a_loop():
    keys, distances, pairs = make_batch()
    distances = np.round(distances * 16) / 16
    triplets = batch_hard(keys, distances, pairs, 0)
    assert triplets.positive.dtype == triplets.negative.dtype == jnp.int32
    distances, same = of_the_batch_proper((distances, pairs.same))
    positives, negatives, weight = of_the_batch_proper(triplets)
    for anchor in range(BATCH):
        positive = negative = None
        for column in range(BATCH):
            d = distances[anchor, column]
            if not same[anchor, column]:
                if negative is None or d < distances[anchor, negative]:
                    negative = column
            elif column != anchor and (positive is None or d > distances[anchor, positive]):
                positive = column
        assert (positives[anchor].tolist(), negatives[anchor].tolist()) == ([positive], [negative])
    np.testing.assert_array_equal(weight, np.ones((BATCH, 1)))


@pytest.mark.parametrize("sample", [paper, release, uniform, batch_hard])
def test_a_device_draws_for_its_anchors_what_the_whole_batch_would(sample):
    keys, distances, pairs = make_batch()
    whole = sample(keys, distances, pairs, 20)
    for part in (slice(0, 32), slice(160, 192)):
        alone = sample(keys[part], distances[part], sampling.Pairs(*(each[part] for each in pairs)), 20)
        for expected, actual in zip(whole, alone, strict=True):
            np.testing.assert_array_equal(actual, expected[part])


def test_negatives_are_those_that_the_mask_allows():
    keys, distances, pairs = make_batch(copies=1)
    allowed = ~np.asarray(pairs.same) & (np.arange(BATCH) % 2 == 0)[None, :]
    num = int(allowed.sum(1).min())
    allowed &= np.cumsum(allowed, axis=1) <= num  # as many for each anchor
    sizes = {"num_positives": K - 1, "num_negatives": num}
    options = sampling.Curriculum(**PAPER)
    for sample in (partial(sampling.curriculum, options=options), sampling.uniform, sampling.batch_hard):
        triplets = jax.jit(partial(sample, **sizes))(keys, distances, pairs._replace(is_negative=allowed), 10)
        negative = np.asarray(triplets.negative)
        assert np.take_along_axis(allowed, negative, axis=1).all()
    nearest = np.argmin(np.where(allowed, distances, np.inf), axis=1)
    np.testing.assert_array_equal(negative[:, 0], nearest)  # batch-hard, the last one
