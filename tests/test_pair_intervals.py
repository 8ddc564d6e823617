"""Intervals of pair rates: weights of pairs in every draw, compared with a sum over every pair in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sets import small_sets

from mancs_jax.evaluation import bootstrap, comparison, pair_intervals, protocols, roc
from mancs_jax.evaluation.comparison import compare
from mancs_jax.evaluation.distances import from_pair
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.protocols import Options

RATES = (0.4, 0.1, 0.02)


def pair_by_pair(query, gallery, weights):
    """(distance, is positive, weight) of every pair that counts, for one draw of weight by pid."""
    found = []
    for q, query_pid, query_camid in zip(query.embedding.astype(np.float64), query.pid, query.camid, strict=True):
        for g, pid, camid in zip(gallery.embedding.astype(np.float64), gallery.pid, gallery.camid, strict=True):
            if pid == -1 or (pid == query_pid and camid == query_camid):
                continue
            distance = np.sqrt(((q - g) ** 2).sum())
            of_image = weights[pid] if pid else 1
            weight = of_image if pid == query_pid else weights[query_pid] * of_image
            found.append((distance, pid == query_pid, weight))
    return found


def expected_point(pairs, drawn, rate):
    """(FPR at the threshold of the sample, TPR at that of the draw, this threshold) by sums over pairs."""
    total = sum(weight for _, positive, weight in drawn if not positive)
    number = sum(not positive for _, positive, _ in pairs)

    def accepted(of, limit, kind):
        return sum(weight for distance, positive, weight in of if positive == kind and distance <= limit)

    sample = [(distance, positive, 1) for distance, positive, _ in pairs]
    limits = sorted({distance for distance, positive, _ in pairs if positive})
    of_sample = [limit for limit in limits if accepted(sample, limit, False) <= rate * number * (1 + 1e-12)]
    of_draw = [limit for limit in limits if accepted(drawn, limit, False) <= rate * total * (1 + 1e-12)]
    if not total:
        return np.nan, np.nan, np.nan
    fpr = accepted(drawn, of_sample[-1], False) / total if of_sample else 0.0
    positives = sum(weight for _, positive, weight in drawn if positive)
    tpr = accepted(drawn, of_draw[-1], True) / positives if of_draw and positives else 0.0 if positives else np.nan
    within = [d for d, positive, weight in drawn if positive and weight and of_draw and d <= of_draw[-1]]
    return fpr, tpr, max(within, default=np.nan)


@settings(max_examples=40, deadline=None)
@given(small_sets(), st.booleans())
def test_every_draw_is_a_sum_over_all_pairs(problem, has_tiles):
    query, gallery = problem
    with pytest.MonkeyPatch.context() as patch:
        if has_tiles:
            patch.setattr(comparison, "TILE_BYTES", 8 * 4 * 4)
        compared = compare(query, gallery)
        curve = roc.create_roc(compared)
        if not curve.num_positives or not curve.num_negatives:
            return
        pairs = pair_intervals.near_pairs(compared, curve, np.inf)
    assert pairs.are_all and len(pairs.negative) == curve.num_negatives
    assert sum(map(len, pairs.positive)) == curve.num_positives
    people = np.union1d(query.pid, gallery.pid[gallery.pid > 0])
    weights = bootstrap.identity_weights(len(people), draws=8)
    found = pair_intervals.draws_at(pairs, weights, RATES)
    plain = pair_by_pair(query, gallery, dict.fromkeys(people.tolist(), 1))
    for number, row in enumerate(weights):
        drawn = pair_by_pair(query, gallery, dict(zip(people.tolist(), row, strict=True)))
        for rate, of in zip(RATES, found, strict=True):
            fpr, tpr, distance = expected_point(plain, drawn, rate)
            assert of.fpr[number] == pytest.approx(fpr, abs=1e-12, nan_ok=True)
            assert of.tpr[number] == pytest.approx(tpr, abs=1e-12, nan_ok=True)
            threshold = from_pair(of.value[number : number + 1], "euclidean")[0]
            assert threshold == pytest.approx(distance, abs=1e-6, nan_ok=True)


def test_a_draw_without_negative_pairs_says_nothing():
    """Two people on a line: positive pairs are 1 apart, negative pairs 4; a draw of one person has none of these."""
    query = Labelled(np.float32([[0], [5]]), np.int32([1, 2]), np.int32([0, 0]))
    gallery = Labelled(np.float32([[1], [4]]), np.int32([1, 2]), np.int32([1, 1]))
    compared = compare(query, gallery)
    pairs = pair_intervals.near_pairs(compared, roc.create_roc(compared), np.inf)
    (of,) = pair_intervals.draws_at(pairs, np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]]), [0.5])
    np.testing.assert_array_equal(of.fpr, [0, np.nan, np.nan])
    np.testing.assert_array_equal(of.tpr, [1, np.nan, np.nan])
    np.testing.assert_array_equal(np.isnan(of.value), [False, True, True])


def people_who_overlap(seed=0, num_people=30):
    rng = np.random.default_rng(seed)
    pid = rng.integers(1, num_people + 1, 200), rng.integers(-1, num_people + 1, 900)
    centres = rng.normal(size=(num_people + 2, 6))
    parts = [(centres[of] + 0.7 * rng.normal(size=(len(of), 6))).astype(np.float32) for of in pid]
    return [Labelled(part, of, rng.integers(0, 3, len(of))) for part, of in zip(parts, pid, strict=True)]


def test_the_nearest_pairs_are_enough(monkeypatch):
    """Few pairs are read at first, then more, until each threshold is among them; the draws are the same."""
    compared = compare(*people_who_overlap())
    curve = roc.create_roc(compared)
    of_all = pair_intervals.near_pairs(compared, curve, np.inf)
    weights = bootstrap.identity_weights(30)
    expected = pair_intervals.draws_at(of_all, weights, roc.RATES[:2])
    assert pair_intervals.draws_at(pair_intervals.near_pairs(compared, curve, 100), weights, roc.RATES[:2]) is None
    read = []
    near = pair_intervals.near_pairs
    monkeypatch.setattr(pair_intervals, "near_pairs", lambda *args: read.append(near(*args)) or read[-1])
    for name, value in (("LEAST_PAIRS", 50), ("MARGIN", 1.0), ("RUNS", 3), ("AT_ONCE", 1000)):
        monkeypatch.setattr(pair_intervals, name, value)
    found = pair_intervals.rate_draws(compared, curve, roc.RATES[:2])
    assert len(read) > 1 and not read[-1].are_all
    for (of, num_identities), wanted in zip(found, expected, strict=True):
        assert num_identities == 30
        for field in of._fields:
            np.testing.assert_array_equal(getattr(of, field), getattr(wanted, field))


def test_a_draw_of_everybody_once_is_the_sample():
    compared = compare(*people_who_overlap())
    curve = roc.create_roc(compared)
    pairs = pair_intervals.near_pairs(compared, curve, np.inf)
    for rate, of in zip(roc.RATES, pair_intervals.draws_at(pairs, np.ones((1, 30)), roc.RATES), strict=True):
        at = roc.at_rate(curve, rate)
        assert (of.fpr[0], of.tpr[0]) == (at["fpr"], at["tpr"])
        assert from_pair(of.value, "euclidean")[0] == at["distance"]


def test_results_have_intervals():
    query, gallery = people_who_overlap()
    result = protocols.single_query(query, gallery)["verification"]
    wide, middle, narrow = result["at"]
    for at in (wide, middle):
        assert at["tpr_interval"][0] < at["tpr"] < at["tpr_interval"][1]
        assert at["fpr_interval"][0] < at["fpr"] < at["fpr_interval"][1]
    assert wide["interval_method"] == "bootstrap" and result["num_negative_pairs"] > 100_000
    assert wide["distance_interval"][0] < wide["distance"] < wide["distance_interval"][1]
    # 0.01 % of the negative pairs are fewer than twenty, and the positive pairs that are accepted fewer than ten.
    of_sample = narrow["tpr"] * result["num_positive_pairs"]
    assert narrow["interval_method"] == ("wilson" if of_sample < 10 else "bootstrap")
    if narrow["interval_method"] == "wilson":
        assert narrow["tpr_interval"] == bootstrap.wilson(narrow["tpr"], 30)
        assert narrow["fpr_interval"] == bootstrap.wilson(narrow["fpr"], result["num_negative_pairs"])
        assert narrow["distance_interval"] is None
    reranked = protocols.single_query(query, gallery, Options(rerank=True, k1=4, k2=2))
    assert reranked["verification"] is None


def test_too_few_pairs_and_too_many(monkeypatch):
    query, gallery = (of._replace(embedding=of.embedding) for of in people_who_overlap())
    few = [Labelled(*(field[:number] for field in of)) for of, number in ((query, 20), (gallery, 60))]
    result = protocols.single_query(*few)["verification"]
    by_rate = {at["max_fpr"]: at for at in result["at"]}
    assert 1 <= 1e-3 * result["num_negative_pairs"] < 10 > 1e-4 * result["num_negative_pairs"]
    assert by_rate[1e-3]["interval_method"] == "wilson"
    assert by_rate[1e-4]["tpr_interval"] is None and by_rate[1e-4]["interval_method"] is None
    monkeypatch.setattr(pair_intervals, "MOST_PAIRS", 1000)
    result = protocols.single_query(query, gallery)["verification"]
    assert [at["interval_method"] is None for at in result["at"]] == [True, False, False]
