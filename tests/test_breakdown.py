"""Rates for each pair of cameras and each group of people, compared with loops over all pairs in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sets import small_sets

from mancs_jax.evaluation import breakdown, comparison
from mancs_jax.evaluation.bootstrap import identity_weights, interval, wilson
from mancs_jax.evaluation.breakdown import by_cameras, by_groups, find_false_accepts, find_outcomes
from mancs_jax.evaluation.comparison import compare
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.ranking import hit_ranks

GROUPS = {"bag": {1: "yes", 2: "no", 3: "no"}, "age": {1: "10", 2: "9", 4: "9"}}


def pairs(query, gallery):
    """(query, gallery image, distance, whether it is of the same person) of all pairs that count."""
    for q in range(len(query.pid)):
        for g in range(len(gallery.pid)):
            same = query.pid[q] == gallery.pid[g]
            if gallery.pid[g] != -1 and not (same and query.camid[q] == gallery.camid[g]):
                difference = query.embedding[q].astype(np.float64) - gallery.embedding[g]
                yield q, g, np.sqrt(np.sum(difference**2)), bool(same)


def check_share(found, i, hits, total):
    assert (found[i] is None) == (total == 0)
    assert not total or abs(found[i] - hits / total) < 1e-12


@settings(max_examples=40)
@given(small_sets(4, cameras=3), st.sampled_from([None, 0.0, 1.0, 2.0, 3.0]), st.booleans())
def test_counts_are_those_of_loops(sets, threshold, in_tiles):
    query, gallery = sets
    limit = -1 if threshold is None else threshold
    with pytest.MonkeyPatch.context() as patch:
        if in_tiles:
            patch.setattr(comparison, "TILE_BYTES", 8 * 4 * 4)
        compared = compare(query, gallery)
        outcomes = find_outcomes(compared, threshold)
        false_accepts = find_false_accepts(compared, threshold)
        is_first = hit_ranks(compared).ranks[:, 0] == 1
    every = list(pairs(query, gallery))
    found = by_cameras(outcomes, compared, threshold)
    if found is None:
        assert len(np.unique(query.camid)) == 1 == len(np.unique(gallery.camid[gallery.pid != -1]))
    for a, query_camera in enumerate(found["query_cameras"] if found else []):
        for c, gallery_camera in enumerate(found["gallery_cameras"]):
            inside = [
                pair
                for pair in every
                if query.camid[pair[0]] == query_camera and gallery.camid[pair[1]] == gallery_camera
            ]
            mated = sorted({q for q, _, _, same in inside if same})
            firsts = [
                min((distance, g, same) for q, g, distance, same in inside if q == query_row) for query_row in mated
            ]
            assert found["queries"][a][c] == len(mated)
            assert found["identities"][a][c] == len(set(query.pid[mated].tolist()))
            check_share(found["rank1"][a], c, sum(same for _, _, same in firsts), len(mated))
            positives = [distance for _, _, distance, same in inside if same]
            assert found["pairs"][a][c] == len(positives)
            counted = len(positives) if threshold is not None else 0  # without a threshold, nothing is accepted or not
            check_share(found["tpr"][a], c, sum(distance <= limit for distance in positives), counted)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(breakdown, "LEAST_IDENTITIES", 1)
        rows = by_groups(outcomes, false_accepts, compared, is_first, GROUPS, threshold)["rows"]
    first = {
        q: min((distance, g, same) for row, g, distance, same in every if row == q)[2]
        for q in {pair[0] for pair in every}
    }
    people = {("all", ""): set(range(1, 5))}
    for attribute, value_of in GROUPS.items():
        for pid, value in value_of.items():
            people.setdefault((attribute, value), set()).add(pid)
    for row in rows:
        members = people[row["attribute"], row["value"]]
        queries = [q for q, pid in enumerate(query.pid) if pid in members]
        assert row["queries"] == len(queries) and row["identities"] == len(set(query.pid[queries].tolist()))
        check_share(row, "rank1", sum(first.get(q, False) for q in queries), len(queries))
        for name, rate, kind in (("positive_pairs", "tpr", True), ("negative_pairs", "fpr", False)):
            of_kind = [distance for q, _, distance, same in every if q in queries and same == kind]
            assert row[name] == len(of_kind)
            counted = len(of_kind) if threshold is not None else 0
            check_share(row, rate, sum(distance <= limit for distance in of_kind), counted)
    assert {(row["attribute"], row["value"]) for row in rows[1:]} == {
        key for key, members in people.items() if key[0] != "all" and members & set(query.pid.tolist())
    }


def crowd():
    """Thirty people, of whom the even ones are hard, under three cameras; and two distractors."""
    rng = np.random.default_rng(0)
    pid = np.repeat(np.arange(1, 31), 6)
    noise = np.where(pid % 2, 0.3, 1.0)[:, None]
    embedding = (rng.normal(size=(30, 5))[pid - 1] + noise * rng.normal(size=(180, 5))).astype(np.float32)
    camid = np.tile(np.arange(3), 60)
    is_query = np.tile([True] * 3 + [False] * 3, 30)
    query, gallery = (Labelled(embedding[rows], pid[rows], camid[rows]) for rows in (is_query, ~is_query))
    more = Labelled(embedding[:2] + 0.1, np.zeros(2, int), np.zeros(2, int))
    return compare(query, Labelled(*map(np.concatenate, zip(gallery, more, strict=True))))


def test_intervals_resample_people():
    """A pair of two people has the product of their weights; a distractor always has weight 1."""
    compared, threshold = crowd(), 2.0
    groups = {"kind": {pid: "odd" if pid % 2 else "even" for pid in range(1, 31)}, "few": {1: "x", 2: "x"}}
    rows = by_groups(
        find_outcomes(compared, threshold),
        find_false_accepts(compared, threshold),
        compared,
        hit_ranks(compared).ranks[:, 0] == 1,
        groups,
        threshold,
    )["rows"]
    by_name = {(row["attribute"], row["value"]): row for row in rows}
    odd, even, few = by_name["kind", "odd"], by_name["kind", "even"], by_name["few", "x"]
    assert odd["rank1_interval"][0] > even["rank1_interval"][1]
    assert few["identities"] == 2 and few["queries"] == 6 and few["rank1"] is few["fpr_interval"] is None
    weights = identity_weights(31)  # of the distractors, pid 0, and thirty people
    draws = []
    for weight in weights[:, :]:
        weight = np.concatenate([[1.0], weight[1:]])
        accepted = total = 0.0
        for query_pid, gallery_pid, is_near in ODD_PAIRS(compared, threshold):
            product = weight[query_pid] * weight[gallery_pid]
            accepted, total = accepted + product @ is_near, total + product.sum()
        draws.append(accepted / total)
    np.testing.assert_allclose(odd["fpr_interval"], interval(np.array(draws)), rtol=0, atol=1e-12)


def test_few_accepted_pairs_have_wilson_intervals():
    """Twelve people with a query and a gallery image each, 0.1 apart, and two people are at least 10 apart."""
    pid = np.arange(1, 13)
    query = Labelled(np.float32(10 * pid)[:, None], pid, np.zeros(12, int))
    compared = compare(query, Labelled(query.embedding + np.float32(0.1), pid, np.ones(12, int)))
    row, near = (
        by_groups(
            find_outcomes(compared, threshold),
            find_false_accepts(compared, threshold),
            compared,
            np.ones(12, bool),
            {},
            threshold,
        )["rows"][0]
        for threshold in (1.0, 10.0)  # one neighbour is 9.9 away, the other 10.1
    )
    assert (row["fpr"], row["negative_pairs"], row["tpr"], row["positive_pairs"]) == (0, 132, 1, 12)
    np.testing.assert_allclose(row["fpr_interval"], [0, 0.02828], atol=5e-5)  # 1.96^2 / (132 + 1.96^2)
    np.testing.assert_allclose(row["tpr_interval"], [0.7575, 1], atol=5e-5)  # 12 / (12 + 1.96^2)
    assert near["fpr"] == 11 / 132 and near["fpr_interval"] != wilson(11 / 132, 132)  # of the bootstrap


def test_the_interval_of_few_false_accepts_is_of_pairs():
    """No pair is accepted at distance 0: the upper end is Wilson's for 0 of all pairs, not of thirty people."""
    compared = crowd()
    outcomes, false_accepts = find_outcomes(compared, 0.0), find_false_accepts(compared, 0.0)
    (row,) = by_groups(outcomes, false_accepts, compared, hit_ranks(compared).ranks[:, 0] == 1, {}, 0.0)["rows"]
    assert row["negative_pairs"] > 1000 and row["fpr"] == 0
    assert row["fpr_interval"] == wilson(0.0, row["negative_pairs"])


def ODD_PAIRS(compared, threshold, kept=[]):  # noqa: B006, N802
    """Negative pairs of the queries with an odd pid, once computed."""
    if not kept:
        every = [(q, g, d) for q, g, d, same in pairs(compared.query, compared.gallery) if not same]
        q, g, distance = (np.array(column) for column in zip(*every, strict=True))
        is_odd = compared.query.pid[q] % 2 == 1
        kept.append((compared.query.pid[q][is_odd], compared.gallery.pid[g][is_odd], distance[is_odd] <= threshold))
    return kept


def test_cameras():
    compared = crowd()
    found = by_cameras(find_outcomes(compared, 2.0), compared, 2.0)
    assert found["queries"][0][0] == 0 and found["rank1"][0][0] is None  # the same camera
    assert found["queries"][0][1] == found["identities"][0][1] == 30
    worst = found["worst"]
    lowest = min(rank1 for row in found["rank1"] for rank1 in row if rank1 is not None)
    assert worst["rank1"] == lowest and worst["identities"] == 30
    cell = found["query_cameras"].index(worst["query_camera"]), found["gallery_cameras"].index(worst["gallery_camera"])
    assert found["rank1"][cell[0]][cell[1]] == lowest
    low, high = found["rank1_interval"][cell[0]][cell[1]]
    assert low < lowest < high
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(breakdown, "MOST_CAMERAS", 2)
        assert by_cameras(find_outcomes(compared, 2.0), compared, 2.0) is None


def test_many_cameras_are_counted_together():
    """Without known cameras each image is its own: no matrix of queries by images is made, and groups are the same."""
    number = breakdown.MOST_CAMERAS + 1
    pid = np.arange(number) % 2 + 1
    query = Labelled(np.float32([[0], [10]]), np.array([1, 2]), np.array([number, number + 1]))
    gallery = Labelled(np.float32(10 * (pid - 1) + 1)[:, None], pid, np.arange(number))
    compared = compare(query, gallery)
    outcomes = find_outcomes(compared, 2.0)
    assert outcomes.positives.tolist() == outcomes.accepted.tolist() == [[26], [25]]
    assert outcomes.is_right.tolist() == [[True], [True]]
    assert by_cameras(outcomes, compared, 2.0) is None
