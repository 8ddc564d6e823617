"""Scores by query: their values, intervals and file."""

import numpy as np
import pytest

from mancs_jax.evaluation import bootstrap, metrics, per_query
from mancs_jax.evaluation.metrics import HitRanks

pytestmark = pytest.mark.quick

# Query 0: matches at ranks 1 and 4; query 1: at rank 7; query 2: no match.
HITS = HitRanks(np.int32([[1, 4], [7, 0], [0, 0]]), np.int32([2, 1, 0]))
PID, CAMID = np.array([5, 5, 8]), np.array([1, 2, 1])


def test_values_by_hand():
    queries = per_query.per_query(HITS, PID, CAMID)
    assert queries.first_rank.tolist() == [1, 7, 0]
    assert queries.average_precision_plain.tolist() == [(1 + 2 / 4) / 2, 1 / 7, 0]
    assert queries.inverse_negative_penalty.tolist() == [2 / 4, 1 / 7, 0]
    values = per_query.score_values(queries)
    assert values["rank-1"].tolist() == [1, 0, 0] and values["rank-10"].tolist() == [1, 1, 0]
    assert values["rank-5"].tolist() == [1, 0, 0]  # a query without a match is not found at rank 0


def test_scores_are_the_means_of_the_values():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 6, 40)
    ranks = [np.sort(rng.choice(np.arange(1, 60), number, replace=False)) for number in counts]
    hits = HitRanks(np.stack([np.pad(of, (0, 5 - len(of))) for of in ranks]).astype(np.int32), counts.astype(np.int32))
    scores = metrics.scores(hits)
    queries = per_query.per_query(hits, rng.integers(1, 11, 40), np.zeros(40))
    means = {name: value.mean() for name, value in per_query.score_values(queries).items()}
    expected = {f"rank-{rank}": scores["cmc"][rank - 1] for rank in (1, 5, 10, 20)}
    expected |= {name: scores[name] for name in ("mAP", "mAP_plain", "mINP")}
    assert means == pytest.approx(expected, abs=1e-12)

    found = per_query.intervals(queries)
    assert found["bootstrap"]["num_identities"] == 10 and found["intervals"].keys() == expected.keys()
    people = np.unique(queries.pid)
    weights = bootstrap.identity_weights(len(people))
    values = queries.average_precision
    sums = np.array([values[queries.pid == person].sum() for person in people])
    numbers = np.array([(queries.pid == person).sum() for person in people])
    draws = [(row * sums).sum() / (row * numbers).sum() for row in weights]
    assert found["intervals"]["mAP"] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=1e-12)


def test_fewer_than_ten_people_have_no_intervals():
    hits = HitRanks(np.ones((10, 1), np.int32), np.ones(10, np.int32))
    for people, has_intervals in ((9, False), (10, True)):
        found = per_query.intervals(per_query.per_query(hits, np.arange(10) % people, np.zeros(10)))
        assert (found["intervals"] is not None) == has_intervals
        assert found["bootstrap"]["num_identities"] == people


def test_the_file_reads_back(tmp_path):
    queries = per_query.per_query(HITS, PID, CAMID)
    rows = {"Mancs": queries, "Mancs, re-ranked": queries._replace(first_rank=np.int32([2, 3, 0]))}
    per_query.write_queries(tmp_path / "out.json", rows)
    assert [path.name for path in tmp_path.iterdir()] == ["out.queries.npz"]
    found = per_query.read_queries(tmp_path / "out.json")
    assert list(found) == list(rows)
    for name, of in rows.items():
        for field in of._fields:
            np.testing.assert_allclose(getattr(found[name], field), getattr(of, field), rtol=1e-7)
    assert found["Mancs"].average_precision.dtype == np.float32 and found["Mancs"].pid.dtype == np.int32


def test_a_missing_and_a_damaged_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"out\.queries\.npz does not exist: .* run mancs evaluate again"):
        per_query.read_queries(tmp_path / "out.json")
    per_query.write_queries(tmp_path / "out.json", {"Mancs": per_query.per_query(HITS, PID, CAMID)})
    file = tmp_path / "out.queries.npz"
    whole = file.read_bytes()
    for damaged in (b"", b"text", whole[: len(whole) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"out\.queries\.npz is no file of scores by query, or is damaged"):
            per_query.read_queries(tmp_path / "out.json")
    np.savez(file, **{name: np.zeros(3) for name in ("row", *per_query.PerQuery._fields)})
    with pytest.raises(ValueError, match="is no file of scores by query"):
        per_query.read_queries(tmp_path / "out.json")
