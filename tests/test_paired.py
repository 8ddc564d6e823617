"""Paired comparison of two results: differences on the same draws, and what is refused."""

import json

import numpy as np
import pytest

from mancs_jax.cli import command_line, compare
from mancs_jax.evaluation import bootstrap, paired, per_query, results
from mancs_jax.evaluation.per_query import PerQuery

pytestmark = pytest.mark.quick


def drawn(seed, shift=0.0, num_identities=60):
    """Scores of four queries of each identity; two with one seed are equally hard for the same identities."""
    rng = np.random.default_rng(seed)
    pid = np.repeat(np.arange(1, num_identities + 1), 4)
    skill = np.repeat(rng.normal(0.5, 1, num_identities), 4)
    rank = 1 + np.floor(np.exp(rng.normal(1.0, 0.5, len(pid)) - skill - shift)).astype(np.int32)
    precision = (1 / rank).astype(np.float32)
    return PerQuery(pid.astype(np.int32), (np.arange(len(pid)) % 4).astype(np.int32), rank, *[precision] * 3)


def write(path, rows, **more):
    """A result file as of `mancs evaluate --json`, with its file of scores by query."""
    results = {
        name: {"mAP": float(np.mean(of.average_precision, dtype=np.float64)), "num_gallery": 100, "dataset": "walkers"}
        | more
        for name, of in rows.items()
    }
    path.write_text(json.dumps(results))
    per_query.write_queries(path, rows)
    return path


def test_differences_against_a_loop():
    first, second = drawn(0), drawn(1)
    found = paired.differences(first, second)
    assert list(found) == ["rank-1", "rank-5", "rank-10", "mAP_plain", "mAP", "mINP"]
    one, other = (per_query.score_values(of)["mAP"].astype(np.float64) for of in (first, second))
    draws = []
    for weights in bootstrap.identity_weights(60):
        weight = weights[first.pid - 1]
        draws.append(np.average(other, weights=weight) - np.average(one, weights=weight))
    mean = found["mAP"]
    assert mean["interval"] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=1e-12)
    assert mean["difference"] == pytest.approx(other.mean() - one.mean(), abs=1e-12)
    assert mean["first_interval"] == per_query.intervals(first)["intervals"]["mAP"]


def test_what_is_hard_for_both_cancels_out():
    better = paired.differences(drawn(0), drawn(0, shift=0.3))["mAP"]
    unpaired = np.ptp(better["first_interval"])
    assert better["significant"] and np.ptp(better["interval"]) < 0.5 * unpaired
    assert better["second"] > better["first"] and better["interval"][0] > 0
    worse = paired.differences(drawn(0, shift=0.3), drawn(0))["mAP"]
    assert worse["significant"] and worse["interval"][1] < 0
    assert worse["interval"] == pytest.approx([-end for end in better["interval"][::-1]], abs=1e-12)
    same = paired.differences(drawn(0), drawn(0))["mAP"]
    assert same["interval"] == [0, 0] and not same["significant"]


def test_nine_people_have_no_intervals():
    first, second = (drawn(0, shift=shift, num_identities=9) for shift in (0, 0.3))
    for of in paired.differences(first, second).values():
        assert of["first_interval"] is of["second_interval"] is of["interval"] is of["significant"] is None
    both = {name: {"file": f"{name}.json", "row": "", "num_gallery": 1} for name in ("first", "second")}
    about = {"num_queries": 36, "num_identities": 9, "scores": paired.differences(first, second)}
    text = results.comparison_text(json.loads(json.dumps(both | about)))
    assert text.endswith("unknown: 9 identities are too few for an interval")
    assert "[" not in text.partition("per cent, [95 % interval]")[2] and text.count(" unknown") == len(paired.SCORES)


def test_few_identities_that_differ_prove_nothing():
    first = drawn(0)
    for differing, exceeds in ((5, False), (6, True)):
        rank = first.first_rank.copy()
        rank[: 4 * differing] = 30
        first_of = first._replace(first_rank=np.where(np.arange(len(rank)) < 4 * differing, 1, rank).astype(np.int32))
        found = paired.differences(first_of, first_of._replace(first_rank=rank))["rank-10"]
        assert found["significant"] == exceeds and found["interval"][1] < 0


def test_the_command(tmp_path, capsys):
    rows = {"Mancs": drawn(0), "Mancs, re-ranked": drawn(0, shift=0.5)}
    one, other = write(tmp_path / "a.json", rows), write(tmp_path / "b.json", {"Mancs": drawn(0, shift=0.3)})
    command_line.run(compare, ["mancs", str(one), str(other), f"--json={tmp_path / 'out.json'}"])
    out = capsys.readouterr().out
    (found,) = json.loads((tmp_path / "out.json").read_text())
    assert found["first"] == {"file": str(one), "row": "Mancs", "num_gallery": 100}
    assert found["num_queries"] == 240 and found["num_identities"] == 60
    assert found["scores"] == paired.compare_results(one, other)[0]["scores"]
    mean = found["scores"]["mAP"]
    assert f"{100 * mean['difference']:+.2f} [{100 * mean['interval'][0]:+.2f}, " in out
    assert "B: " in out and "yes: significant at the 5 % level, because the interval excludes 0. Two equally" in out
    assert "galleries differ" not in out

    # Two rows of one file; and a gallery of another size.
    command_line.run(compare, ["mancs", str(one), str(one), "--row=Mancs", "--other_row=Mancs, re-ranked"])
    assert "A: " + str(one) + ", Mancs\n" in capsys.readouterr().out
    write(other, {"Mancs": drawn(0)}, num_gallery=200)
    command_line.run(compare, ["mancs", str(one), str(other)])
    out = capsys.readouterr().out
    assert "the galleries differ (100 and 200 images)" in out and "yes" not in out
    assert "no: the difference may be due to chance" in out


def test_a_result_of_a_workdir_has_one_row(tmp_path):
    for name, shift in (("single_query", 0.0), ("single_query_reranked", 0.2)):
        queries = drawn(0, shift)
        (tmp_path / f"{name}.json").write_text(json.dumps({"mAP": float(queries.average_precision.mean())}))
        per_query.write_queries(tmp_path / f"{name}.json", {name: queries})
    (found,) = paired.compare_results(tmp_path / "single_query.json", tmp_path / "single_query_reranked.json")
    assert found["scores"]["rank-1"]["difference"] > 0


def test_a_network_and_embeddings_of_another_program(tmp_path):
    """A result of --features has no data set; the same queries are enough."""
    network = write(tmp_path / "a.json", {"Mancs": drawn(0)}, split="official")
    other = tmp_path / "b.json"
    other.write_text(json.dumps({"mAP": float(drawn(0, shift=0.5).average_precision.mean(dtype=np.float64))}))
    per_query.write_queries(other, {"single query": drawn(0, shift=0.5)})
    (found,) = paired.compare_results(network, other)
    assert (found["first"]["row"], found["second"]["row"]) == ("Mancs", "single query")
    assert found["scores"]["mAP"]["difference"] > 0


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda of: of._replace(pid=of.pid + 1), "different queries (240 and 240, whose pids are not the same)"),
        (lambda of: PerQuery(*(field[:-4] for field in of)), "different queries (240 and 236, whose pids"),
        (lambda of: of._replace(camid=of.camid + 1), "different queries (240 and 240, whose camids"),
    ],
)
def test_other_queries_are_refused(tmp_path, change, line):
    one, other = (
        write(tmp_path / "a.json", {"Mancs": drawn(0)}),
        write(tmp_path / "b.json", {"Mancs": change(drawn(0))}),
    )
    with pytest.raises(SystemExit) as stop:
        command_line.run(compare, ["mancs", str(one), str(other)])
    assert line in str(stop.value) and "\n" not in str(stop.value)


def test_what_else_is_refused(tmp_path):
    one = write(tmp_path / "a.json", {"Mancs": drawn(0)})
    other = write(tmp_path / "b.json", {"Mancs": drawn(0)}, dataset="cuhk01")
    with pytest.raises(ValueError, match=r"different queries \(dataset walkers and cuhk01\)"):
        paired.compare_results(one, other)
    seeds = [
        write(tmp_path / f"seed{i}.json", {"Mancs": drawn(0)}, split_seed=seed) for i, seed in enumerate((0, None))
    ]
    with pytest.raises(ValueError, match=r"different queries \(split_seed 0 and None\)"):
        paired.compare_results(*seeds)
    with pytest.raises(FileNotFoundError, match=r"c\.json does not exist"):
        paired.compare_results(one, tmp_path / "c.json")
    for text in ("[]", "{}", "no JSON"):
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(ValueError, match=r"c\.json is no result of mancs evaluate"):
            paired.compare_results(one, tmp_path / "c.json")
    with pytest.raises(ValueError, match=r"a\.json has no result 'best'; it has 'Mancs'"):
        paired.compare_results(one, one, first_row="best")
    with pytest.raises(SystemExit, match="--other_row goes with --row"):
        command_line.run(compare, ["mancs", str(one), str(one), "--other_row=Mancs"])
    # The JSON of one run next to the scores of another.
    other.write_text(one.read_text().replace('"mAP": 0.', '"mAP": 0.0'))
    with pytest.raises(ValueError, match="are of different runs: run mancs evaluate again"):
        paired.compare_results(one, other)
    one.with_name("a.queries.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.queries\.npz does not exist"):
        paired.compare_results(one, one)
    assert [name for name in ("a.json",) if (tmp_path / name).exists()]
