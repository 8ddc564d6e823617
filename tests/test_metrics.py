"""Scores from the ranks of the hits."""

import numpy as np
import pytest

from mancs_jax.evaluation import metrics

pytestmark = pytest.mark.quick


def test_scores_by_hand():
    hits = metrics.HitRanks(np.int32([[2, 4, 6], [0, 0, 0], [1, 7, 0]]), np.int32([3, 0, 2]))
    trapezoid, plain = metrics.average_precisions(hits)
    # Precision before and at each hit: 0, 1/2; 1/3, 1/2; 2/5, 1/2. And 1, 1; 1/6, 2/7.
    expected = [(0 + 1 / 2 + 1 / 3 + 1 / 2 + 2 / 5 + 1 / 2) / 6, 0, (1 + 1 + 1 / 6 + 2 / 7) / 4]
    np.testing.assert_allclose(trapezoid, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(plain, [1 / 2, 0, (1 + 2 / 7) / 2], rtol=0, atol=1e-12)
    scores = metrics.scores(hits, cmc_length=3)
    assert scores["mAP"] == pytest.approx(sum(expected) / 3, abs=1e-12)
    assert scores["mAP_plain"] == pytest.approx((1 / 2 + 9 / 14) / 3, abs=1e-12)
    assert scores["mINP"] == pytest.approx((3 / 6 + 2 / 7) / 3, abs=1e-12)
    assert scores["cmc"] == pytest.approx([1 / 3, 2 / 3, 2 / 3], abs=1e-12)
    assert (scores["num_queries"], scores["num_matched_queries"]) == (3, 2)


def test_a_first_hit_beyond_the_list_is_not_in_the_cmc():
    scores = metrics.scores(metrics.HitRanks(np.int32([[51], [50]]), np.int32([1, 1])))
    assert scores["cmc"] == [0.0] * 49 + [0.5]


@pytest.mark.parametrize(
    "hits, cmc_length, message",
    [
        (metrics.HitRanks(np.int32([[1]]), np.int32([1])), 0, "cmc_length is 0"),
        (metrics.HitRanks(np.zeros((0, 1), np.int32), np.int32([])), 50, "there are no queries to score"),
    ],
)
def test_metrics_of_nothing_are_refused(hits, cmc_length, message):
    with pytest.raises(ValueError, match=message):
        metrics.scores(hits, cmc_length=cmc_length)
