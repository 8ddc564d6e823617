"""Bootstrap over identities: weights, weighted means and intervals against literal loops."""

import numpy as np
import pytest

from mancs_jax.evaluation import bootstrap

pytestmark = pytest.mark.quick


def test_weights_count_what_was_drawn():
    weights = bootstrap.identity_weights(7, draws=500)
    assert weights.shape == (500, 7) and (weights.sum(axis=1) == 7).all() and (weights == weights.round()).all()
    assert (weights >= 0).all()
    rng = np.random.default_rng(0)
    drawn = [rng.integers(7, size=7).tolist() for _ in range(500)]
    assert weights.tolist() == [[float(row.count(i)) for i in range(7)] for row in drawn]
    np.testing.assert_array_equal(weights, bootstrap.identity_weights(7, draws=500))
    assert (weights != bootstrap.identity_weights(7, draws=500, seed=1)).any()


def test_means_repeat_the_queries_of_drawn_identities():
    rng = np.random.default_rng(3)
    identity = np.array([0, 0, 0, 2, 2, 1, 3, 3, 3, 3])
    values = rng.random((10, 2))
    weights = bootstrap.identity_weights(4, draws=50)
    means = bootstrap.weighted_means(values, identity, weights)
    for draw, mean in zip(weights, means, strict=True):
        repeated = [values[n] for i in range(4) for _ in range(int(draw[i])) for n in np.flatnonzero(identity == i)]
        np.testing.assert_allclose(mean, np.mean(repeated, axis=0), rtol=0, atol=1e-12)
    one = bootstrap.weighted_means(values[:, 0], identity, weights)
    np.testing.assert_allclose(one, means[:, 0], rtol=0, atol=1e-15)


def test_a_draw_without_an_observation_is_left_out():
    weights = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    means = bootstrap.weighted_means(np.array([0.25, 0.75]), np.array([0, 0]), weights)
    assert means.tolist() == [0.5, pytest.approx(np.nan, nan_ok=True), 0.5]
    assert bootstrap.interval(means) == [0.5, 0.5]
    assert np.isnan(bootstrap.interval(np.full(3, np.nan))).all()


def test_interval_is_between_percentiles():
    assert bootstrap.interval(np.arange(101) / 100) == pytest.approx([0.025, 0.975])
    assert bootstrap.interval(np.arange(101) / 100, confidence=0.5) == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize(
    ("share", "number", "expected"),
    # statsmodels 0.14: proportion_confint(k, n, method="wilson")
    [(0.0, 10, (0.0, 0.2775328)), (0.3, 10, (0.1077913, 0.6032219)), (1.0, 4, (0.5101092, 1.0))],
)
def test_wilson(share, number, expected):
    assert bootstrap.wilson(share, number) == pytest.approx(expected, abs=1e-6)


def test_intervals_of_means():
    pid = np.array([5, 5, 9, 9, 9, 3])
    values = {"mixed": np.array([1, 0, 1, 1, 0, 1]), "right": np.ones(6), "wrong": np.zeros(6)}
    found = bootstrap.mean_intervals(values, pid)
    draws = bootstrap.weighted_means(values["mixed"], np.array([1, 1, 2, 2, 2, 0]), bootstrap.identity_weights(3))
    assert found["mixed"] == bootstrap.interval(draws) and found["mixed"][0] < 4 / 6 < found["mixed"][1]
    assert found["right"] == bootstrap.wilson(1.0, 3) and found["wrong"] == bootstrap.wilson(0.0, 3)


def test_an_interval_by_identity_is_wider_than_one_by_query():
    """Ten equal queries of each identity tell no more than one."""
    rng = np.random.default_rng(0)
    right = (rng.random(100) < 0.7).astype(float)
    pid = np.arange(100)
    once = bootstrap.mean_intervals({"rank-1": right}, pid)["rank-1"]
    tenfold = bootstrap.mean_intervals({"rank-1": np.repeat(right, 10)}, np.repeat(pid, 10))["rank-1"]
    naive = bootstrap.mean_intervals({"rank-1": np.repeat(right, 10)}, np.arange(1000))["rank-1"]
    assert tenfold == pytest.approx(once, abs=1e-12)
    assert np.ptp(naive) < 0.4 * np.ptp(tenfold)
