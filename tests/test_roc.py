"""Same person or not: rates over all pairs, compared with a count of every pair in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sets import small_sets

from mancs_jax.evaluation import comparison, protocols, roc
from mancs_jax.evaluation.comparison import compare, from_distances
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.protocols import Options

# One query at 0 and a gallery on a line. Positive pairs at 1, 2, 2 and 5; negative ones at 2, 3, 4, 5 (a distractor)
# and 6; junk and the query's own view at 0.5 count for nothing.
QUERY = Labelled(np.float32([[0]]), np.int32([1]), np.int32([1]))
GALLERY = Labelled(
    np.float32([[1], [2], [-2], [5], [2], [3], [-4], [-5], [6], [0.5], [-0.5]]),
    np.int32([1, 1, 1, 1, 2, 2, 3, 0, 2, -1, 1]),
    np.int32([2, 2, 3, 2, 1, 2, 1, 2, 2, 2, 1]),
)


def all_pairs(query, gallery, distance="euclidean"):
    """(distances of the positive pairs, of the negative pairs), query by query, float64."""
    embedding, kinds = gallery.embedding.astype(np.float64), ([], [])
    for q, pid, camid in zip(query.embedding.astype(np.float64), query.pid, query.camid, strict=True):
        if distance == "cosine":
            values = 1 - embedding @ q / np.linalg.norm(q) / np.linalg.norm(embedding, axis=1)
        else:
            values = np.linalg.norm(embedding - q, axis=1)
        for g, value in enumerate(values):
            if not (gallery.pid[g] == -1 or (gallery.pid[g] == pid and gallery.camid[g] == camid)):
                kinds[int(gallery.pid[g] != pid)].append(value)
    return np.array(kinds[0]), np.array(kinds[1])


def corners(positives, negatives):
    """(false, true positive rates) at every distance of any pair, behind (0, 0)."""
    thresholds = np.unique(np.concatenate([positives, negatives]))
    accepted = lambda pairs: np.searchsorted(np.sort(pairs), thresholds, side="right") / len(pairs)  # noqa: E731
    return np.array([0.0, *accepted(negatives)]), np.array([0.0, *accepted(positives)])


def equal_error_rate(false, true):
    for i in range(1, len(false)):
        if false[i] + true[i] >= 1:
            start, end = false[i - 1] + true[i - 1], false[i] + true[i]
            return false[i - 1] + (1 - start) / (end - start) * (false[i] - false[i - 1])
    raise AssertionError


def test_by_hand():
    found = roc.create_roc(compare(QUERY, GALLERY))
    assert (found.num_positives, found.num_negatives) == (4, 5)
    near = found.distance <= 2
    assert found.distance[near].tolist() == [1, 2]
    assert found.true_positives[near].tolist() == [1, 3]
    assert found.false_positives[near].tolist() == [0, 1] and found.nearer_negatives[near].tolist() == [0, 0]
    assert roc.at_rate(found, 0.0) == {"max_fpr": 0.0, "fpr": 0.0, "tpr": 0.25, "distance": 1.0}
    assert roc.at_rate(found, 0.2) == {"max_fpr": 0.2, "fpr": 0.2, "tpr": 0.75, "distance": 2.0}
    # From (0, 1/4) to (1/5, 3/4) and on to (2/5, 3/4): the line "false positives = refused positives" is met between
    # the last two, at 1/4.
    assert roc.equal_error(found) == {"rate": pytest.approx(0.25, abs=1e-15), "distance": 2.0}


@settings(max_examples=50)
@given(small_sets(3), st.sampled_from(["one tile", "compared twice", "kept"]))
def test_rates_are_those_of_all_pairs(problem, way):
    """Small whole numbers give many ties, and distances that float32 holds exactly."""
    positives, negatives = all_pairs(*problem)
    with pytest.MonkeyPatch.context() as patch:
        if way != "one tile":
            patch.setattr(comparison, "TILE_BYTES", 8 * 4 * 4)
        if way == "compared twice":
            patch.setattr(comparison, "KEPT_BYTES", 0)
        compared = compare(*problem)
        found = roc.create_roc(comparison.kept(compared) if way == "kept" else compared)
    assert (found.num_positives, found.num_negatives) == (len(positives), len(negatives))
    if not len(positives) or not len(negatives):
        assert roc.described(found) is None
        return
    false, true = corners(positives, negatives)
    for rate in roc.RATES:
        assert abs(roc.at_rate(found, rate)["tpr"] - true[false <= rate].max()) < 1e-12
    described = roc.described(found)
    assert abs(described["equal_error"]["rate"] - equal_error_rate(false, true)) < 1e-12
    # Every threshold, of the coarse part too, gives a point of the curve.
    shares = (found.false_positives / found.num_negatives, found.true_positives / found.num_positives)
    of_all = set(zip(false.round(12), true.round(12), strict=True))
    assert set(zip(*(share.round(12) for share in shares), strict=True)) <= of_all


@settings(max_examples=50)
@given(small_sets(3), st.booleans())
def test_only_pairs_within_a_group_count(problem, in_tiles):
    """People with odd and with even numbers are two groups; a distractor (0) is in the even one."""
    groups = [labelled.pid % 2 for labelled in problem]
    kinds = [
        all_pairs(*(Labelled(*(field[of == group] for field in labelled)) for labelled, of in zip(problem, groups)))
        for group in (0, 1)
    ]
    positives, negatives = map(np.concatenate, zip(*kinds))
    with pytest.MonkeyPatch.context() as patch:
        if in_tiles:
            patch.setattr(comparison, "TILE_BYTES", 8 * 4 * 4)
        found = roc.create_roc(comparison.within_groups(compare(*problem), *groups))
    assert (found.num_positives, found.num_negatives) == (len(positives), len(negatives))
    if len(positives) and len(negatives):
        false, true = corners(positives, negatives)
        for rate in roc.RATES:
            assert abs(roc.at_rate(found, rate)["tpr"] - true[false <= rate].max()) < 1e-12


@settings(max_examples=50)
@given(small_sets(3), st.lists(st.floats(0, 6), min_size=1, max_size=3))
def test_rates_within_distances(problem, thresholds):
    positives, negatives = all_pairs(*problem)
    if not len(positives) or not len(negatives):
        with pytest.raises(ValueError, match="rates need pairs of one person under two cameras"):
            roc.rates_within(compare(*problem), thresholds)
        return
    limits = np.float32(thresholds)
    for limit, rates in zip(limits, roc.rates_within(compare(*problem), thresholds), strict=True):
        assert rates["fpr"] == np.mean(negatives.astype(np.float32) <= limit)
        assert rates["tpr"] == np.mean(positives.astype(np.float32) <= limit)


@pytest.mark.parametrize(("distance", "offset"), [("euclidean", 0), ("euclidean", 50), ("cosine", 0)])
def test_people_who_overlap(distance, offset):
    """Many pairs, of which the curve needs a part; the whole is counted in float64."""
    rng = np.random.default_rng(0)
    pid = [rng.integers(1, 21, 150), rng.integers(0, 21, 700)]
    centres = rng.normal(size=(21, 8))
    embeddings = [(centres[pids] + offset + 0.6 * rng.normal(size=(len(pids), 8))).astype(np.float32) for pids in pid]
    problem = [Labelled(*fields, rng.integers(0, 3, len(fields[0]))) for fields in zip(embeddings, pid)]
    positives, negatives = all_pairs(*problem, distance)
    found = roc.create_roc(compare(*problem, distance=distance))
    false, true = corners(positives, negatives)
    for rate in (*roc.RATES, 0.05):
        reached = roc.at_rate(found, rate)
        assert abs(reached["tpr"] - true[false <= rate].max()) <= 2 / len(positives)  # float32 may swap two neighbours
        assert abs(np.mean(positives <= reached["distance"] * (1 + 1e-5)) - reached["tpr"]) <= 2 / len(positives)
        assert reached["fpr"] <= rate and reached["distance"] > 0
    equal = roc.equal_error(found)
    assert abs(equal["rate"] - equal_error_rate(false, true)) < 1e-3
    assert abs(np.mean(negatives <= equal["distance"]) - np.mean(positives > equal["distance"])) < 2e-3


def test_copies_are_at_one_distance():
    """An image and its copy under another name are accepted together, wherever they lie in blocks and tiles."""
    rng = np.random.default_rng(1)
    image = rng.normal(size=(300, 16)).astype(np.float32)
    gallery = Labelled(np.concatenate([image, image]), np.repeat([1, 2], 300), np.ones(600, int))
    query = Labelled(rng.normal(size=(9, 16)).astype(np.float32), np.full(9, 1), np.zeros(9, int))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "TILE_BYTES", 4 * 16 * 88)
        found = roc.create_roc(compare(query, gallery))
    assert len(found.distance) > 100
    np.testing.assert_array_equal(found.true_positives, found.false_positives)


def test_equal_images_and_no_distance():
    """A distance of 0 is a threshold like any other, and -0 is 0."""
    gallery = Labelled(np.float32([[0, 1], [0, 1], [0, -1]]), [1, 2, 2], [1, 1, 1])
    found = roc.create_roc(compare(Labelled(np.float32([[0, 1]]), [1], [0]), gallery))
    assert found.distance[0] == 0 and found.true_positives[0] == 1 and found.false_positives[0] == 1
    assert roc.at_rate(found, 0.4) == {"max_fpr": 0.4, "fpr": 0.0, "tpr": 0.0, "distance": None}
    assert roc.at_rate(found, 0.5)["tpr"] == 1.0
    assert roc.equal_error(found)["rate"] == pytest.approx(1 / 3)  # a part of the pairs at 0


def test_results_have_it_but_not_after_re_ranking():
    verification = protocols.single_query(QUERY, GALLERY)["verification"]
    assert verification["num_positive_pairs"] == 4 and verification["num_negative_pairs"] == 5
    assert [at["max_fpr"] for at in verification["at"]] == [1e-2, 1e-3, 1e-4]
    assert [at["tpr"] for at in verification["at"]] == [0.25] * 3
    rates, tprs = np.array(verification["curve"]).T
    assert rates[0] == 1e-6 and rates[-1] == 1 and tprs[0] == 0.25 and tprs[-1] == 1 and (np.diff(tprs) >= 0).all()
    reranked = protocols.single_query(QUERY, GALLERY, Options(rerank=True, k1=2, k2=1))
    assert reranked["verification"] is None
    given = from_distances(np.zeros((1, 11)).__getitem__, QUERY, GALLERY)
    with pytest.raises(ValueError, match="pairs can be compared by distances of embeddings, not by given or re-ranked"):
        roc.create_roc(given)


def test_normalised_embeddings():
    query, gallery = QUERY._replace(embedding=QUERY.embedding + 1), GALLERY._replace(embedding=GALLERY.embedding + 7)
    result = protocols.single_query(query, gallery, Options(normalize=True))
    nothing = {"max_fpr": 0.01, "fpr": 0.0, "tpr": 0.0, "distance": None}
    assert nothing.items() <= result["verification"]["at"][0].items()
