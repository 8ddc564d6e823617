"""Open-set rates, compared with loops over all pairs in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sets import small_sets

from mancs_jax.evaluation import comparison, open_set
from mancs_jax.evaluation.bootstrap import identity_weights
from mancs_jax.evaluation.comparison import compare, from_distances
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.open_set import Searches, described, rates_at, removed_identities, search_open_set


def brute_force(query, gallery, removed):
    """(query's pid, distance to the nearest mate, distance to the nearest other) with some people removed."""
    found = []
    for q, pid, camid in zip(query.embedding.astype(np.float64), query.pid, query.camid, strict=True):
        mate = other = np.inf
        for g, gallery_pid, gallery_camid in zip(gallery.embedding.astype(np.float64), *gallery[1:], strict=True):
            distance = np.sqrt(np.sum((q - g) ** 2))
            if gallery_pid == -1 or (gallery_pid == pid and gallery_camid == camid):
                continue  # junk, and the query's own view
            if gallery_pid == pid:
                mate = min(mate, distance)
            elif gallery_pid not in removed:
                other = min(other, distance)
        found.append((pid, mate, other))
    return found


def brute_rates(found, removed, max_fpir, weight):
    """(FPIR, FNIR) at the best of all thresholds: below each distance, and beyond all of them."""
    non_mated = [(other, weight[pid]) for pid, _, other in found if pid in removed]
    mated = [(mate, weight[pid]) for pid, mate, _ in found if pid not in removed and np.isfinite(mate)]
    best = (np.nan, np.nan)
    if not non_mated or not sum(w for _, w in non_mated):
        return best
    total, mated_total = sum(w for _, w in non_mated), sum(w for _, w in mated)
    thresholds = sorted({d for d, _ in non_mated + mated if np.isfinite(d)})
    for threshold in [-1.0, *(t - 1e-9 for t in thresholds), *thresholds, np.inf]:
        accepted = sum(w for d, w in non_mated if d <= threshold and np.isfinite(d))
        if total and accepted / total > max_fpir + 1e-12:
            continue
        fnir = sum(w for d, w in mated if d > threshold) / mated_total if mated_total else np.nan
        if not best[1] < fnir:  # of equally good thresholds the largest
            best = (accepted / total if total else np.nan, fnir)
    return best


@settings(max_examples=60)
@given(small_sets(known=(1, 2)), st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 1.0]), st.booleans(), st.booleans())
def test_rates_are_those_of_a_loop(sets, max_fpir, is_weighted, in_tiles):
    query, gallery = sets
    with pytest.MonkeyPatch.context() as patch:
        if in_tiles:
            patch.setattr(comparison, "TILE_BYTES", 8 * 4 * 4)
        searches = search_open_set(compare(query, gallery), repeats=3)
    people = np.unique(query.pid)
    weights = identity_weights(len(people), draws=4) if is_weighted else np.ones((1, len(people)))
    for repeat in range(3):
        removed = set(people[searches.is_removed[repeat]].tolist())
        assert len(removed) == len(people) // 2
        found = brute_force(query, gallery, removed)
        rates = rates_at(searches, repeat, [max_fpir], weights)
        for draw, weight in enumerate(weights):
            expected = brute_rates(found, removed, max_fpir, dict(zip(people.tolist(), weight, strict=True)))
            np.testing.assert_allclose(
                [rates.fpir[0, draw], rates.fnir[0, draw]], expected, rtol=0, atol=1e-12, equal_nan=True
            )


def test_by_hand():
    """Six people with one query each; a fourth of four searches for strangers is let through."""
    searches = Searches(
        identity=np.arange(6),
        mate=np.float32([np.inf, np.inf, np.inf, np.inf, 1.0, 3.0]),
        non_mate=np.float32([[2.0, 2.5, 3.5, 4.0, 9, 9]]),
        is_removed=np.array([[True, True, True, True, False, False]]),
    )
    strict, loose = (rates_at(searches, 0, [rate]) for rate in (0.0, 0.5))
    assert (strict.fpir[0, 0], strict.fnir[0, 0]) == (0, 0.5)  # 1 is nearer than 2, the nearest stranger; 3 is not
    assert strict.distance[0, 0] == np.nextafter(np.float32(2), np.float32(0))
    assert (loose.fpir[0, 0], loose.fnir[0, 0]) == (0.5, 0)
    assert rates_at(searches, 0, [1.0]).distance[0, 0] == np.inf
    # A draw of the last two people alone has no search for a stranger, so it sets no threshold.
    nobody = rates_at(searches, 0, [0.5], np.array([[0, 0, 0, 0, 3, 3.0]]))
    assert np.isnan(nobody.fpir[0, 0]) and np.isnan(nobody.fnir[0, 0])


def test_removed_people_are_seeded_halves():
    removed = removed_identities(9, repeats=4, seed=1)
    assert removed.sum(axis=1).tolist() == [4] * 4 and len({row.tobytes() for row in removed}) == 4
    np.testing.assert_array_equal(removed, removed_identities(9, repeats=4, seed=1))
    assert (removed != removed_identities(9, repeats=4, seed=2)).any()


def test_a_result():
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(60, 8))
    pid = np.repeat(np.arange(1, 61), 5)
    embedding = (centre[pid - 1] + 0.4 * rng.normal(size=(300, 8))).astype(np.float32)
    camid = np.tile(np.arange(5), 60)
    is_query = camid == 0
    sets = [Labelled(embedding[rows], pid[rows], camid[rows]) for rows in (is_query, ~is_query)]
    result = described(search_open_set(compare(*sets)))
    assert (result["num_identities"], result["num_removed"], result["num_non_mated"]) == (60, 30, 30)
    strict, loose = result["at"]
    assert strict["max_fpir"] == 0.01 and strict["fnir"] is None  # of 30 searches, 1 % is less than one
    assert loose["fpir"] <= 0.1 and 0 < loose["fnir"] < 1
    low, high = loose["fnir_interval"]
    assert low <= loose["fnir"] <= high and high > low
    assert loose["distance_interval"][0] <= loose["distance"] <= loose["distance_interval"][1]
    fnir = [row[1] for row in result["curve"]]
    assert result["curve"][-1][0] == 1 and fnir[-1] == 0 and fnir == sorted(fnir, reverse=True)


def test_fewer_than_ten_people_have_a_curve_without_intervals():
    rng = np.random.default_rng(0)
    pid = np.repeat(np.arange(1, 9), 6)
    embedding = (rng.normal(size=(9, 8))[pid] + 0.7 * rng.normal(size=(48, 8))).astype(np.float32)
    is_query = np.tile(np.arange(6), 8) < 3
    sets = [Labelled(embedding[rows], pid[rows], np.where(rows, 1, 2)[rows]) for rows in (is_query, ~is_query)]
    sets[1] = sets[1]._replace(camid=sets[1].camid + 1)
    result = described(search_open_set(compare(*sets)))
    curve = result["curve"]
    assert len(curve) > 10 and curve[-1][0] == 1
    assert all(fnir is not None and (low, high) == (None, None) for _, fnir, low, high in curve)
    assert result["at"][1]["fnir"] is not None and result["at"][1]["fnir_interval"] is None


def test_refused():
    query, gallery = Labelled(np.float32([[0], [1]]), [1, 1], [0, 0]), Labelled(np.float32([[2]]), [1], [1])
    with pytest.raises(ValueError, match="needs queries of at least two people"):
        search_open_set(compare(query, gallery))
    given = from_distances(np.zeros((2, 1)).__getitem__, query._replace(pid=np.array([1, 2])), gallery)
    with pytest.raises(ValueError, match="not by given or re-ranked distances"):
        search_open_set(given)
    assert open_set.REPEATS == 5
