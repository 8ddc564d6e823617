"""`mancs evaluate` beyond the scores: open-set rates, calibration, cameras and groups; networks are untrained."""

import json

import numpy as np
import pytest
import tiny
from tiny_workdir import write_untrained

import mancs_jax
from mancs_jax import scoring
from mancs_jax.cli import evaluate
from mancs_jax.cli.command_line import run
from mancs_jax.data import build
from mancs_jax.data.sources import market1501
from mancs_jax.evaluation import analyses, calibration
from mancs_jax.evaluation.analyses import Analyses, check_analyses
from mancs_jax.evaluation.pairs import pair_blocks
from mancs_jax.evaluation.protocols import Options
from mancs_jax.evaluation.single_shot import SingleShot
from mancs_jax.publish import export_network


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Data, and runs that held four identities out and none."""
    place = tmp_path_factory.mktemp("place")
    with market1501.open_source(tiny.write_folder(place / "source")) as contents:
        build.build(contents, place / "data")
    write_untrained(place / "w", place / "data", validation_ids=4)
    write_untrained(place / "all", place / "data")
    return place


@pytest.fixture
def any_fit(monkeypatch):
    """The sets have tens of pairs: a mapping that depends on them, whether or not they support one."""

    def knots(comparison):
        farthest = max(float(np.max(block.values[block.positive], initial=0)) for block in pair_blocks(comparison))
        return [[0.0, 2.0], [1.0 + farthest, -2.0]]

    monkeypatch.setattr(calibration, "fit", knots)


def test_a_run_is_calibrated_on_the_people_it_held_out(place, any_fit):
    task = scoring.Task(analyses=Analyses(open_set=True, calibrate=True), options=Options(rerank=True, k1=4, k2=2))
    results = scoring.evaluate(place / "w", task, progress=False).results
    result = results["Mancs"]
    assert result["calibration"]["set_on"] == "4 held-out training identities of market1501"
    of_distance = result["calibration"]["euclidean"]
    assert of_distance["measured_on"]["num_positive_pairs"] == result["verification"]["num_positive_pairs"]
    assert of_distance["measured_on"]["cllr"] >= of_distance["measured_on"]["min_cllr"]
    assert result["open_set"]["repeats"] == 5 and result["cameras"]["query_cameras"]
    assert not {"calibration", "open_set", "cameras", "groups"} & results["Mancs, re-ranked"].keys()
    json.dumps(result, allow_nan=False)


def test_the_mapping_of_a_card_is_evaluated_without_a_flag(place, any_fit):
    path, card = export_network(place / "w", "shared", place / "shared", root=str(place / "data"))
    for distance in ("euclidean", "cosine"):
        of_card = card["calibration"][distance]
        options = Options(distance=distance)
        task = scoring.Task(root=str(place / "data"), options=options)
        result = scoring.evaluate(path, task, progress=False).results["Mancs"]["calibration"]
        assert result == {
            "set_on": card["calibration"]["set_on"],
            distance: {"knots": of_card["knots"], "measured_on": of_card["measured_on"]},
        }
        assert of_card["set_on"]["num_negative_pairs"] != of_card["measured_on"]["num_negative_pairs"]
        for other in (task._replace(flip=True), task._replace(options=options._replace(normalize=True))):
            assert "calibration" not in scoring.evaluate(path, other, progress=False).results["Mancs"]
    assert "by the network" not in card["calibration"]["set_on"]
    card = export_network(place / "all", "b", place / "b", root=str(place / "data"), thresholds_of=path)[1]
    assert card["calibration"]["set_on"].endswith(f", by the network {mancs_jax.load(path).network}")
    knots = [one["calibration"]["euclidean"]["knots"] for one in (card, mancs_jax.load(path).card)]
    assert knots[0] == knots[1]


def refused(place, *flags):
    with pytest.raises(SystemExit) as stop:
        run(evaluate, ["evaluate", *flags])
    assert "\n" not in str(stop.value)
    return str(stop.value)


def test_mistakes_are_one_line(place, tmp_path, monkeypatch):
    (tmp_path / "groups.csv").write_text("pid,age\n999999,1\n")
    (tmp_path / "bad.csv").write_text("age\n1\n")
    workdir = f"--workdir={place / 'all'}"
    embedded, embed = [], scoring.embed
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "embed", lambda *given, **options: embedded.append(given) or embed(*given, **options))
        few = refused(place, f"--workdir={place / 'w'}", "--calibrate")
    assert "4 held-out training identities of market1501 have too few pairs" in few
    assert len(embedded) == 2  # query and gallery of the held-out identities; nothing was evaluated
    monkeypatch.setattr(scoring, "embed", lambda *_, **__: pytest.fail("images were embedded before the mistake"))
    assert "the run held no identities out, so there are none to calibrate on" in refused(place, workdir, "--calibrate")
    assert "has no column pid" in refused(place, workdir, f"--groups={tmp_path}/bad.csv")
    people = np.array([4, 4, 9])
    check_analyses(Analyses(open_set=True, groups={"age": {9: "old"}}), people)
    with pytest.raises(ValueError, match="--open_set needs queries of at least two people"):
        check_analyses(Analyses(open_set=True), people[:2])
    assert "no query shows a person of this file" in refused(place, workdir, f"--groups={tmp_path}/groups.csv")
    with pytest.raises(ValueError, match="--open_set: only of the official single-query protocol; leave them out"):
        task = scoring.Task(single_shot=SingleShot(), analyses=Analyses(open_set=True))
        scoring.evaluate(place / "all", task, progress=False)


@pytest.fixture
def features(tmp_path):
    rng = np.random.default_rng(0)
    pid = np.repeat(np.arange(1, 41), 4)
    embedding = (rng.normal(size=(40, 6))[pid - 1] + 0.7 * rng.normal(size=(160, 6))).astype(np.float32)
    camid = np.tile(np.arange(4), 40)
    is_query = camid < 2
    arrays = {}
    for part, rows in (("query", is_query), ("gallery", ~is_query)):
        arrays |= {part: embedding[rows], f"{part}_pid": pid[rows], f"{part}_camid": camid[rows]}
    np.savez(tmp_path / "f.npz", **arrays)
    rows = [f"{pid},{'old' if pid % 2 else 'young'},{'yes' if pid < 4 else ''}" for pid in range(1, 41)]
    (tmp_path / "groups.csv").write_text("\n".join(["pid,age,bag", *rows]))
    return tmp_path


def loaded(file):
    with np.load(file) as arrays:
        return dict(arrays)


def test_embeddings_of_any_source(features, capsys):
    """What is printed, what is written, and a search with the mapping."""
    file, out = features / "f.npz", features / "out.json"
    flags = ["--open_set", "--calibrate", f"--groups={features}/groups.csv", f"--json={out}"]
    run(evaluate, ["evaluate", f"--features={file}", *flags])
    printed = capsys.readouterr().out
    result = json.loads(out.read_text())
    for words in (
        "| open set ",
        "FPIR: share of the queries of people who are not in the gallery that return a match",
        "likelihood ratios: Cllr 0.",
        "worst pair of cameras: queries of camera ",
        "| age: old ",
    ):
        assert words in printed
    rows = {(row["attribute"], row["value"]): row for row in result["groups"]["rows"]}
    assert rows["age", "old"]["identities"] == 20 and rows["bag", "yes"]["rank1"] is None
    assert result["groups"]["num_unknown"] == 0
    arrays = loaded(file)
    found = mancs_jax.search(arrays["query"][:3], arrays["gallery"], k=2, calibration=result, max_distance=1.5)
    at, values = np.array(result["calibration"]["euclidean"]["knots"]).T
    expected = np.exp(np.interp(found.distance.astype(float), at, values))
    is_answer = found.index >= 0
    np.testing.assert_allclose(found.likelihood_ratio[is_answer], expected[is_answer], rtol=1e-12)
    assert np.isnan(found.likelihood_ratio[~is_answer]).all()
    odds = expected[is_answer] / 199
    np.testing.assert_allclose(found.probability(prior=1 / 200)[is_answer], odds / (1 + odds), rtol=1e-12)
    assert (
        mancs_jax.search(arrays["query"][:3], arrays["gallery"], k=2, calibration=result, distance="cosine").knots
        is None
    )
    assert "re-ranked distances change with the gallery" in refused(
        features, f"--features={file}", "--rerank", flags[0]
    )


def test_a_rate_of_less_than_one_pair_gives_no_threshold(tmp_path, capsys):
    """Twenty people: 380 negative pairs, of which 0.1 % is none."""
    rng = np.random.default_rng(0)
    pid = np.arange(1, 21)
    query = rng.normal(size=(20, 4)).astype(np.float32)
    sides = {"query": query, "gallery": query + np.float32(0.01)}
    labels = {f"{part}_{of}": value for part in sides for of, value in (("pid", pid), ("camid", pid % 2 + len(part)))}
    np.savez(tmp_path / "f.npz", **sides, **labels)
    (tmp_path / "g.csv").write_text("pid,age\n" + "".join(f"{one},old\n" for one in pid))
    flags = [f"--groups={tmp_path / 'g.csv'}", f"--json={tmp_path / 'out.json'}"]
    run(evaluate, ["evaluate", f"--features={tmp_path / 'f.npz'}", *flags])
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["verification"]["num_negative_pairs"] == 380
    assert result["groups"]["threshold"] is result["cameras"]["threshold"] is None
    assert result["cameras"]["tpr"] == [[None] * 2] * 2 and result["cameras"]["rank1"] == [[1.0, None], [None, 1.0]]
    assert [row["tpr"] for row in result["groups"]["rows"]] == [row["fpr"] for row in result["groups"]["rows"]]
    assert result["groups"]["rows"][1]["fpr"] is None and result["groups"]["rows"][1]["rank1"] == 1.0


def test_no_ratio_without_a_mapping(features):
    arrays = loaded(features / "f.npz")
    found = mancs_jax.search(arrays["query"], arrays["gallery"], k=1)
    for ask in (lambda: found.likelihood_ratio, lambda: found.probability(prior=0.5)):
        with pytest.raises(ValueError, match="no likelihood ratio: these distances have no calib") as error:
            ask()
        assert "\n" not in str(error.value)
    damaged = {"calibration": {"euclidean": {"knots": [[1, 2]]}}}
    with pytest.raises(ValueError, match="the calibration for euclidean distance is damaged"):
        mancs_jax.search(arrays["query"], arrays["gallery"], k=1, calibration=damaged)


@pytest.mark.parametrize(("negatives", "expected"), [(999, None), (1000, 2.5)])
def test_a_rate_of_less_than_one_pair_has_no_threshold(negatives, expected):
    points = [{"max_fpr": rate, "distance": 2.5} for rate in (1e-2, 1e-3)]
    assert analyses._threshold({"num_negative_pairs": negatives, "at": points}) == expected
    assert analyses._threshold(None) is None
