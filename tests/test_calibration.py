"""Likelihood ratios and their quality, compared with loops over all pairs in float64."""

import inspect
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from small_sets import small_sets

from mancs_jax import search
from mancs_jax.evaluation import calibration, comparison
from mancs_jax.evaluation.calibration import fit, knots_of, log_likelihood_ratio, probability, quality
from mancs_jax.evaluation.comparison import compare, from_distances
from mancs_jax.evaluation.distances import from_pair
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.pairs import pair_blocks

KNOTS = [[0.5, 6.0], [1.5, 1.0], [4.0, -5.0]]


def all_pairs(query, gallery):
    """(distances of the positive pairs, of the negative pairs), float64."""
    kinds = ([], [])
    for q, pid, camid in zip(query.embedding.astype(np.float64), query.pid, query.camid, strict=True):
        for g, gallery_pid, gallery_camid in zip(gallery.embedding.astype(np.float64), *gallery[1:], strict=True):
            if gallery_pid != -1 and not (gallery_pid == pid and gallery_camid == camid):
                kinds[int(gallery_pid != pid)].append(np.sqrt(np.sum((q - g) ** 2)))
    return np.array(kinds[0]), np.array(kinds[1])


def brute_cllr(ratios, other_ratios):
    costs = [np.log2(1 + 1 / ratio) for ratio in ratios], [np.log2(1 + ratio) for ratio in other_ratios]
    return (np.mean(costs[0]) + np.mean(costs[1])) / 2


def brute_minimum(same, other):
    """Pool-adjacent-violators one distance at a time: neighbours out of order are merged until none are."""
    blocks = []
    for distance in np.unique(np.concatenate([same, other])):
        blocks.append([np.mean(same == distance), np.mean(other == distance)])
        while len(blocks) > 1 and blocks[-1][0] * blocks[-2][1] >= blocks[-2][0] * blocks[-1][1]:
            last = blocks.pop()
            blocks[-1] = [blocks[-1][0] + last[0], blocks[-1][1] + last[1]]
    cost = 0.0
    for p, n in blocks:
        cost += p * np.log2(1 + n / p) if p else 0
        cost += n * np.log2(1 + p / n) if n else 0
    return cost / 2


@settings(max_examples=60)
@given(small_sets(3), st.booleans())
def test_quality_is_that_of_a_loop(problem, in_tiles):
    same, other = all_pairs(*problem)
    with pytest.MonkeyPatch.context() as patch:
        if in_tiles:
            patch.setattr(comparison, "TILE_BYTES", 8 * 4 * 4)
        found = quality(compare(*problem), KNOTS)
    if not len(same) or not len(other):
        assert found is None
        return
    assert (found["num_positive_pairs"], found["num_negative_pairs"]) == (len(same), len(other))
    ratios = [np.exp(np.interp(of, *np.array(KNOTS).T)) for of in (same, other)]
    assert abs(found["cllr"] - brute_cllr(*ratios)) < 1e-12
    assert abs(found["min_cllr"] - brute_minimum(same, other)) < 1e-12
    assert found["min_cllr"] <= found["cllr"] + 1e-12 and found["min_cllr"] <= 1 + 1e-12
    for name, ratio in zip(("positive", "negative"), ratios, strict=True):
        for one in found["reliability"]:
            middle = one["log10_ratio"]
            inside = (np.log10(ratio) >= middle - 0.25 - 1e-9) & (np.log10(ratio) <= middle + 0.25 + 1e-9)
            assert one[name] <= np.sum(inside)
        assert sum(one[name] for one in found["reliability"]) == len(ratio)


def test_by_hand():
    """One pair of each kind at either distance: the ratio that says nothing costs one bit, and none costs less."""
    query = Labelled(np.float32([[0]]), [1], [0])
    gallery = Labelled(np.float32([[1], [1], [2], [2]]), [1, 2, 1, 2], [1, 1, 1, 1])
    found = quality(compare(query, gallery), [[0.0, 0.0], [3.0, 0.0]])
    assert (found["cllr"], found["min_cllr"]) == (1.0, 1.0)
    apart = gallery._replace(pid=np.array([1, 1, 2, 2]))
    found = quality(compare(query, apart), [[1.0, np.log(3)], [2.0, -np.log(3)]])
    assert found["min_cllr"] == 0 and found["cllr"] == pytest.approx(np.log2(4 / 3), abs=1e-14)
    one, *_, last = found["reliability"]
    assert (last["log10_ratio"], last["positive"], last["negative"], last["observed"]) == (0.25, 2, 0, None)
    assert (one["log10_ratio"], one["positive"], one["negative"]) == (-0.25, 0, 2)


def overlapping(seed=0, number=400):
    """People on a line around their own points, whose pairs overlap."""
    rng = np.random.default_rng(seed)
    pid = np.repeat(np.arange(1, number // 4 + 1), 4)
    embedding = (1.5 * rng.normal(size=(number // 4, 6))[pid - 1] + rng.normal(size=(number, 6))).astype(np.float32)
    camid = np.tile(np.arange(4), number // 4)
    return [Labelled(embedding[rows], pid[rows], camid[rows]) for rows in (camid < 2, camid >= 2)]


def test_the_line_is_the_best_one():
    same, other = all_pairs(*overlapping())
    intercept, slope = calibration.logistic_regression(same, other)

    def cost(line):
        return np.mean(np.logaddexp(0, -line[0] - line[1] * same)) + np.mean(np.logaddexp(0, line[0] + line[1] * other))

    best = minimize(cost, [intercept + 0.1, slope * 1.1], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-15})
    assert slope < 0 and cost([intercept, slope]) <= best.fun + 1e-9
    np.testing.assert_allclose([intercept, slope], best.x, rtol=1e-4)


@pytest.mark.parametrize("in_tiles", [False, True])
def test_the_fit_is_that_of_all_pairs_at_once(in_tiles, monkeypatch):
    if in_tiles:
        monkeypatch.setattr(comparison, "TILE_BYTES", 8 * 4 * 6)
    compared = compare(*overlapping())
    same, other = [], []
    for block in pair_blocks(compared):
        values = from_pair(block.values.astype(np.float64), "euclidean")
        same.append(values[block.positive])
        values[block.positive] = np.inf
        other.append(values[np.isfinite(values)])
    same, other = np.concatenate(same), np.concatenate(other)
    assert (len(same), len(other)) == (400, 200 * 198)
    intercept, slope = calibration.logistic_regression(same, other)
    # 400 // 500 is below 1: the farthest of the positive pairs, and the tenth of the 39,600 negative ones.
    at = np.array([np.sort(other)[9], np.max(same)])
    np.testing.assert_allclose(fit(compared), np.stack([at, intercept + slope * at], axis=1), rtol=1e-8)


def test_a_number_of_pairs_at_one_distance():
    same, other = np.array([0.5, 1.0, 2.5]), np.array([1.0, 1.0, 1.0, 2.0, 3.0, 3.0])
    counted = calibration.logistic_regression(same, np.array([1.0, 2.0, 3.0]), np.array([3.0, 1.0, 2.0]))
    np.testing.assert_allclose(counted, calibration.logistic_regression(same, other), rtol=1e-6)


def test_calibrated_on_some_people_and_evaluated_on_others():
    sets = [compare(*overlapping(seed)) for seed in (1, 2)]
    knots = fit(sets[0])
    found = quality(sets[1], knots)
    assert found["min_cllr"] <= found["cllr"] < 1.1 * found["min_cllr"]
    same, other = all_pairs(*overlapping(1))
    assert knots[0][0] == pytest.approx(np.sort(other)[9], rel=1e-6)  # ten pairs of two people are as near
    assert knots[1][0] == pytest.approx(np.sort(same).max(), rel=1e-6)
    intercept, slope = calibration.logistic_regression(same, other)
    np.testing.assert_allclose([value for _, value in knots], [intercept + slope * at for at, _ in knots], rtol=1e-5)


def test_pairs_that_tell_nothing():
    query, gallery = overlapping()
    assert (
        fit(compare(query._replace(embedding=query.embedding[:2], pid=query.pid[:2], camid=query.camid[:2]), gallery))
        is None
    )
    apart = [part._replace(embedding=np.float32(part.pid[:, None] * np.ones(6))) for part in (query, gallery)]
    assert fit(compare(*apart)) is None  # every ratio would be infinite
    # Where people are nearer to others than to themselves, the mapping says nothing rather than the opposite.
    rng = np.random.default_rng(0)
    assert calibration.logistic_regression(3 + rng.random(50), 2 + 2 * rng.random(50))[1] == 0


def test_a_mapping():
    distance = np.float32([0, 0.5, 1.0, 1.5, 2.75, 4, np.inf])
    np.testing.assert_allclose(log_likelihood_ratio(KNOTS, distance), [6, 6, 3.5, 1, -2, -5, -5], atol=1e-12)
    again = json.loads(json.dumps(KNOTS))
    assert np.abs(log_likelihood_ratio(again, distance) - log_likelihood_ratio(KNOTS, distance)).max() < 1e-12
    assert probability(np.log([199.0, 1.0]), 1 / 200).tolist() == pytest.approx([0.5, 1 / 200], abs=1e-12)
    assert probability(np.array([1e4, -1e4]), 0.5).tolist() == [1, 0]
    for prior in (0, 1, -1, float("nan")):
        with pytest.raises(ValueError, match="it must be one number between 0 and 1, as 1/200"):
            probability(np.zeros(1), prior)


@pytest.mark.parametrize("prior", ["1/200", None, np.array([0.1, 0.2]), np.full((400, 2), 0.5)])
def test_a_prior_that_is_no_number(prior):
    with pytest.raises(ValueError, match="it must be one number between 0 and 1, as 1/200") as error:
        inspect.unwrap(calibration.probability)(np.zeros(1), prior)
    assert "\n" not in str(error.value)


def test_the_mapping_of_results_with_rows():
    knots, more = [[0.0, 1.0], [1.0, -1.0]], {"Mancs, re-ranked": {"mAP": 0.5}}
    row = {"calibration": {"euclidean": {"knots": knots}}}
    assert calibration.knots_of({"Mancs": row} | more, "euclidean") == knots
    assert calibration.knots_of(row | {"scores": row}, "euclidean") == knots
    assert calibration.knots_of(more, "euclidean") is None
    with pytest.raises(ValueError, match=r"2 rows have a calibration \(A, B\): give one of them"):
        calibration.knots_of({"A": row, "B": row}, "euclidean")


def test_the_mapping_of_a_card():
    card = {"calibration": {"set_on": "x", "euclidean": {"knots": KNOTS}, "cosine": None}}
    assert knots_of(card, "euclidean") == knots_of(card["calibration"], "euclidean") == KNOTS
    assert knots_of({"mAP": 0.5, "distance": "euclidean"}, "euclidean") is None  # a result without calibration
    assert knots_of(card, "cosine") is None and knots_of({}, "cosine") is None and knots_of(None, "cosine") is None
    for knots in ([[1.0, 2.0]], [[1.0, 2.0], [1.0, 1.0]], [[1.0, 2.0], [2.0, 3.0]], [[1, 2, 3], [2, 1, 0]], "ab", None):
        with pytest.raises(ValueError, match="the calibration for euclidean distance is damaged"):
            knots_of({"calibration": {"euclidean": {"knots": knots}}}, "euclidean")
    with pytest.raises(ValueError, match="the calibration for cosine distance is damaged"):
        knots_of({"calibration": "none"}, "cosine")
    with pytest.raises(ValueError, match="not by given or re-ranked distances"):
        fit(from_distances(np.zeros((200, 200)).__getitem__, *overlapping()))


def test_a_calibration_of_embeddings_with_another_norm_is_refused():
    embedding = np.array([[3.0, 4.0], [0.0, 5.0]], np.float32)
    mapping = {"calibration": {"euclidean": {"knots": KNOTS}, "cosine": {"knots": KNOTS}}}
    of_norm_1 = mapping | {"embedded": {"normalize": True}}
    evaluated = mapping | {"normalize": True}  # a result of evaluate --features --normalize --calibrate
    for embedded, card in (
        (embedding, mapping),
        (embedding / 5, of_norm_1),
        (embedding / 5, evaluated),
        (embedding / 5, mapping["calibration"]),
    ):
        assert search(embedded, embedded, k=1, calibration=card).likelihood_ratio is not None
    for embedded, card, line in (
        (embedding / 5, mapping, "normalize=False, and these embeddings have normalize=True"),
        (embedding, of_norm_1, "normalize=True, and these embeddings have normalize=False"),
        (embedding, evaluated, "normalize=True, and these embeddings have normalize=False"),
    ):
        with pytest.raises(ValueError, match=line):
            search(embedded, embedded, k=1, calibration=card)
        assert search(embedded, embedded, k=1, distance="cosine", calibration=card).likelihood_ratio is not None
