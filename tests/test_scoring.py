"""Scoring a workdir: which results it writes, from which embeddings. The network is untrained: nothing here depends
on what it has learnt."""

import json
import shutil

import cv2
import jax
import numpy as np
import pytest
import tiny
from tiny_runs import write_data
from tiny_sources import CUHK01_FILES, write, write_cuhk03
from tiny_workdir import write_untrained

from mancs_jax import run, scoring
from mancs_jax.data import arrays, build
from mancs_jax.data.sources import cuhk01, cuhk03, folder, market1501
from mancs_jax.evaluation import cuhk03_classic, per_query, protocols, single_shot
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.paired import compare_results
from mancs_jax.evaluation.protocols import Options
from mancs_jax.evaluation.single_shot import SingleShot
from mancs_jax.inference.export import export
from mancs_jax.inference.forward import embed
from mancs_jax.inference.trained import load_trained


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    source = tiny.write_folder(tmp_path_factory.mktemp("source"))
    write_data(root, source)
    with folder.open_own("elsewhere", source) as contents:
        build.build(contents, root)
    mat = write_cuhk03(root / "cuhk-03.mat")
    for boxes in ("labeled", "detected"):
        with cuhk03.open_source(mat, boxes) as contents:
            build.build(contents, root)
    return root


def results_of(workdir, task=scoring.USUAL):
    return scoring.evaluate(workdir, task, progress=False).results


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, root):
    path = tmp_path_factory.mktemp("run")
    return path, write_untrained(path, root)


def embedded(workdir, root, part, dataset="market1501", testset=0, flip=False):
    _, network = workdir
    split = arrays.load_split(dataset, root, part, network.config.data.image_size, testset)
    return Labelled(embed(network, split.image, flip=flip), split.pid, split.camid)


def written(path):
    return {file.stem: json.loads(file.read_text()) for file in (path / "results").glob("*.json")}


def test_all_protocols_in_one_call(workdir, root):
    path = workdir[0]
    options = Options(rerank=True, k1=4, k2=2)
    results = results_of(path, scoring.Task(multi_query=True, options=options))
    assert list(results) == [
        "Mancs",
        "Mancs, multi-query (mean)",
        "Mancs, multi-query (max)",
        "Mancs, re-ranked",
        "Mancs, multi-query (mean), re-ranked",
        "Mancs, multi-query (max), re-ranked",
    ]
    files = written(path)
    for stem in files:
        (queries,) = per_query.read_queries(path / "results" / f"{stem}.json").values()
        assert queries.average_precision.mean() == pytest.approx(files[stem]["mAP"], abs=1e-6)
        assert queries.pid.tolist() == arrays.load_split("market1501", root, "query", (64, 32)).pid.tolist()
    names = ["Mancs, multi-query (mean)", "Mancs, re-ranked"]
    (compared,) = compare_results(*(path / "results" / f"{stem}.json" for stem in ("single_query", "multi_query_max")))
    assert compared["scores"]["mAP"]["second"] == pytest.approx(results["Mancs, multi-query (max)"]["mAP"], abs=1e-6)
    assert all(results[name]["intervals"] is None for name in ("Mancs", *names))  # of four people
    stems = ["single_query", "multi_query_mean", "multi_query_max"]
    assert [files[f"{stem}{suffix}"] for suffix in ("", "_reranked") for stem in stems] == list(results.values())
    query, gallery, more = (embedded(workdir, root, part) for part in ("query", "gallery", "gt_bbox"))
    expected = protocols.multi_query(query, gallery, more, "max", options)
    assert expected.items() <= files["multi_query_max_reranked"].items()
    about = files["single_query"]
    assert about["recipe"] == "tiny" and about["split"] == "official" and about["trained_on"] == "market1501"
    assert set(about["fingerprint"]) == {"query", "gallery", "gt_bbox"} and about["versions"] and not about["flip"]


def test_options_are_in_the_name_of_the_result(workdir, root):
    task = scoring.Task(dataset="elsewhere", flip=True, options=Options(distance="cosine", normalize=True))
    (result,) = results_of(workdir[0], task).values()
    assert written(workdir[0])["single_query_flip_cosine_normalized_on_elsewhere"] == result
    assert result["dataset"] == "elsewhere" and result["trained_on"] == "market1501" and result["flip"]
    parts = (embedded(workdir, root, part, "elsewhere", flip=True) for part in ("query", "gallery"))
    assert protocols.single_query(*parts, task.options).items() <= result.items()


def test_distractors_join_the_gallery_and_match_nobody(workdir, root, tmp_path):
    source = tmp_path / "distractors" / "images"
    source.mkdir(parents=True)
    for number in range(3):
        image = np.full((64, 32, 3), 80 * number, np.uint8)
        assert cv2.imwrite(str(source / f"0000_c1s1_{number:06d}_01.jpg"), image)
    with market1501.open_distractors(source) as contents:
        build.build(contents, root)
    (result,) = results_of(workdir[0], scoring.Task(distractors="market1501_500k")).values()
    assert result["num_gallery"] == 8 + 1 + 3 and result["num_distractors"] == 1 + 3
    assert result["num_matched_queries"] == 8 and len(result["fingerprint"]["distractors"]) == 1
    assert written(workdir[0])["single_query_with_market1501_500k"] == result


def test_a_classic_split_is_scored_by_the_classic_protocol(root, tmp_path):
    network = write_untrained(tmp_path, root, name="cuhk03_labeled", testset=1)
    (result,) = results_of(tmp_path, scoring.Task(repeats=7)).values()
    of_testset = {"dataset": "cuhk03_labeled", "testset": 1}
    query, gallery = (embedded((tmp_path, network), root, part, **of_testset) for part in ("query", "gallery"))
    distances = single_shot.distance_matrix(query.embedding, gallery.embedding)
    assert cuhk03_classic.evaluate(distances, query.pid, gallery.pid, repeats=7).items() <= result.items()
    assert written(tmp_path) == {"cuhk03_classic": result} and result["split"] == "test set 1"
    with pytest.raises(ValueError, match="CUHK03's classic protocol is single-query"):
        results_of(tmp_path, scoring.Task(multi_query=True))
    # The other boxes show the same people: only those of the test set were not trained on.
    (other,) = results_of(tmp_path, scoring.Task(dataset="cuhk03_detected", repeats=7)).values()
    assert other["protocol"] == "cuhk03_classic" and other["num_queries"] == result["num_queries"]
    (elsewhere,) = results_of(tmp_path, scoring.Task(dataset="elsewhere")).values()
    assert elsewhere["protocol"] == "single_query" and elsewhere["trained_on"] == "cuhk03_labeled"


def test_baselines_are_scored_as_the_network_is(workdir, root, tmp_path):
    options = Options(distance="cosine")
    results = results_of(workdir[0], scoring.Task(baselines=True, flip=True, options=options))
    assert list(results) == ["Mancs", "untrained network", "colour histogram"]
    assert [result["distance"] for result in results.values()] == ["cosine"] * 3
    assert [result["flip"] for result in results.values()] == [True, True, False]
    with pytest.raises(ValueError, match="baselines are not evaluated with distractors"):
        results_of(workdir[0], scoring.Task(baselines=True, distractors="elsewhere"))
    write_untrained(tmp_path, root, name="cuhk03_labeled", testset=1)
    results = results_of(tmp_path, scoring.Task(baselines=True, repeats=3))
    assert {result["protocol"] for result in results.values()} == {"cuhk03_classic"}


def test_single_shot_takes_query_and_gallery_together(workdir, root):
    path, protocol = workdir[0], SingleShot(splits=4, identities=3, seed=2)
    options = Options(distance="cosine", rerank=True, k1=4, k2=2)
    task = scoring.Task(single_shot=protocol, dataset="elsewhere", options=options, baselines=True, flip=True)
    scored = scoring.evaluate(path, task, progress=False)
    assert list(scored.results) == ["Mancs", "Mancs, re-ranked", "untrained network", "colour histogram"]
    assert scored.comparisons == {} and list(scored.parts) == ["query", "gallery"]
    parts = (embedded(workdir, root, part, "elsewhere", flip=True) for part in ("query", "gallery"))
    images = Labelled(*map(np.concatenate, zip(*parts)))
    for name, of_way in (("Mancs", options._replace(rerank=False)), ("Mancs, re-ranked", options)):
        assert single_shot.evaluate(images, protocol, of_way).result.items() <= scored.results[name].items()
    of_histogram = scored.results["colour histogram"]
    assert of_histogram["protocol"] == "single_shot" and of_histogram["num_queries"] == 3 and not of_histogram["flip"]
    files = written(path)
    of_all = scored.queries["Mancs"]  # of all splits
    result = scored.results["Mancs"]
    assert len(of_all.pid) == result["num_splits"] * 3 and result["intervals"] is None
    assert np.mean(of_all.first_rank == 1) == pytest.approx(result["cmc"][0])
    stem = "single_shot_3_identities_cameras_1_2_4_splits_seed_2_flip_cosine"
    assert files[f"{stem}_on_elsewhere"] == scored.results["Mancs"]
    assert files[f"{stem}_reranked_on_elsewhere"] == scored.results["Mancs, re-ranked"]
    assert files[stem.replace("flip_", "") + "_on_elsewhere_colour_histogram"] == of_histogram


def test_single_shot_scores_an_exported_file(workdir, root, tmp_path):
    export(workdir[0], tmp_path / "mancs.onnx")
    task = scoring.Task(single_shot=SingleShot(splits=2), root=str(root))
    of_file, of_workdir = (
        scoring.evaluate(source, task, progress=False, write=False).results["Mancs"]
        for source in (tmp_path / "mancs.onnx", workdir[0])
    )
    assert of_file["exported"] and not (tmp_path / "results").exists()
    same = ("cmc", "mAP", "splits", "num_gallery", "fingerprint")
    assert [of_file[name] for name in same] == [of_workdir[name] for name in same]


def test_single_shot_on_people_of_the_training_is_refused(root, tmp_path):
    source = write(tmp_path / "cuhk01", CUHK01_FILES, as_zip=False)
    with cuhk01.open_source(source) as contents:
        build.build(contents, root)
    write_untrained(tmp_path / "own", root, name="cuhk01")
    task = scoring.Task(single_shot=SingleShot(splits=2))
    with pytest.raises(ValueError, match="trained on the identities of cuhk01, which has no others"):
        scoring.evaluate(tmp_path / "own", task, progress=False)
    write_untrained(tmp_path / "other", root)
    (result,) = results_of(tmp_path / "other", task._replace(dataset="cuhk01")).values()
    assert result["split"] == "train" and set(result["fingerprint"]) == {"train"}
    assert (result["num_queries"], result["query_camera"], result["gallery_camera"]) == (2, 1, 2)
    assert list(written(tmp_path / "other")) == ["single_shot_2_identities_cameras_1_2_2_splits_on_cuhk01"]


def test_single_shot_on_people_of_the_pretrained_model_is_pointed_out(root, tmp_path, capsys):
    source = write(tmp_path / "cuhk01", CUHK01_FILES, as_zip=False)
    with cuhk01.open_source(source) as contents:
        build.build(contents, tmp_path / "data")
    shutil.copytree(root / "market1501", tmp_path / "data" / "market1501")
    write_untrained(tmp_path / "w", tmp_path / "data")
    task = scoring.Task(single_shot=SingleShot(splits=2), dataset="cuhk01")
    trained = load_trained(tmp_path / "w")
    for before, times in (["cuhk01"], 1), (["elsewhere"], 0):
        made_from = trained._replace(description=trained.description._replace(pretrained_on=before))
        scoring.evaluate_network(made_from, task, progress=False)
        assert capsys.readouterr().err.count("was trained on cuhk01: it may have seen these identities") == times


def test_cameras_that_share_statistics_are_named(workdir, root, capsys):
    trained = load_trained(workdir[0])
    one_camera = trained._replace(card=trained.card | {"camera": "1"})
    result = scoring.evaluate_network(one_camera, progress=False).results["Mancs"]
    assert result["camera"] == "1"
    said = "the exported file has the statistics of camera 1 only: images of camera 2 of market1501 are embedded"
    assert capsys.readouterr().err.count(said) == 1
    statistics = trained.network.variables["batch_stats"]
    site = trained._replace(network=trained.network._replace(cameras={"2": statistics, "door": statistics}))
    scoring.evaluate_network(site, progress=False)
    said = "images of camera 2 of market1501 are embedded with the statistics of the cameras that the model is adapted"
    assert capsys.readouterr().err.count(said) == 1
    scoring.evaluate_network(trained, progress=False)
    assert "statistics" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dataset", "splits", "testset", "seen"),
    [
        ("cuhk01", ["train"], 0, ["cuhk01"]),
        ("cuhk01", ["query", "gallery"], 0, []),  # whose people are in no training split
        ("viper", ["train"], 0, []),
        ("cuhk03_labeled", ["query", "gallery"], 1, ["cuhk03_detected"]),  # the same people in other boxes
        ("cuhk03_labeled", ["all_images"], 0, ["cuhk03_detected"]),
        ("cuhk03_labeled", ["query", "gallery"], 0, []),
    ],
)
def test_data_sets_behind_a_model_that_may_have_the_evaluated_people(dataset, splits, testset, seen):
    parts = dict.fromkeys(splits, arrays.Split(*[np.empty(0)] * 4))
    assert scoring._seen_before(dataset, ["cuhk01", "cuhk03_detected"], parts, testset) == seen
    assert scoring._seen_before(dataset, [], parts, testset) == []


def test_single_shot_of_a_classic_split_is_on_its_test_set(root, tmp_path):
    write_untrained(tmp_path, root, name="cuhk03_labeled", testset=1)
    task = scoring.Task(single_shot=SingleShot(splits=2))
    (result,) = results_of(tmp_path, task).values()
    assert (result["protocol"], result["split"], result["num_queries"]) == ("single_shot", "test set 1", 2)
    # Without the file of the 767/700 protocol, the data set has all images in one split.
    write_untrained(tmp_path / "other", root)
    (result,) = results_of(tmp_path / "other", task._replace(dataset="cuhk03_labeled")).values()
    assert (result["split"], result["num_queries"]) == ("all_images", 4)  # person 2 has no second view


def test_single_shot_that_cannot_work_gets_one_line(workdir):
    task = scoring.Task(single_shot=SingleShot())
    for changed, line in [
        (task._replace(multi_query=True), "leave multi-query and distractors out"),
        (task._replace(distractors="market1501_500k"), "leave multi-query and distractors out"),
        (task._replace(single_shot=SingleShot(identities=99)), "of 99 identities is impossible"),
        (task._replace(options=Options(rerank=True, k1=99)), "k1 is 99: it must be from 1 to "),
    ]:
        with pytest.raises(ValueError, match=line):
            results_of(workdir[0], changed)
    with pytest.raises(ValueError, match="market1501_500k under r has no images for .*, only distractors"):
        scoring.single_shot_parts(["distractors"], "market1501_500k", "r")


def test_what_is_not_there_gets_one_line(workdir, root, tmp_path):
    with pytest.raises(ValueError, match="has no split gt_bbox, only .*: multi-query needs"):
        write_untrained(tmp_path, root, name="cuhk03_labeled")
        results_of(tmp_path, scoring.Task(multi_query=True))
    with pytest.raises(FileNotFoundError, match="nowhere is not prepared under"):
        results_of(workdir[0], scoring.Task(dataset="nowhere"))
    for options, line in [
        (Options(rerank=True, k2=0), "k2 is 0"),
        (Options(rerank=True, weight=2), "lambda is 2"),
        (Options(distance="l1"), "unknown distance 'l1'"),
    ]:
        with pytest.raises(ValueError, match=line):  # before anything is embedded
            results_of(workdir[0], scoring.Task(dataset="nowhere", options=options))
    with pytest.raises(FileNotFoundError, match="no model there"):
        results_of(tmp_path / "empty")


def test_a_run_over_the_splits_goes_on_where_it_stopped(monkeypatch, tmp_path):
    monkeypatch.setattr("mancs_jax.config.names.NUM_TESTSETS", 4)
    calls, stop_at = [], [3]

    def train_and_evaluate(config, workdir, *, allow_config_change):
        calls.append((config.data.testset, workdir.name))
        if config.data.testset in stop_at:
            return None
        cmc = [config.data.testset / 10] * 50
        of_run = {"cmc": cmc, "config": config.to_dict(), "step": config.data.testset}
        return {scoring.NETWORK: of_run | dict.fromkeys(set(run.SAME_IN_ALL_SPLITS) - {"config"}, "same")}

    monkeypatch.setattr(run, "train_and_evaluate", train_and_evaluate)
    program = jax.jit(lambda x: x + 1)
    program(1.0)
    config = tiny.get_config()
    assert run.train_and_evaluate_splits(config, tmp_path) is None
    assert calls == [(1, "testset_01"), (2, "testset_02"), (3, "testset_03")]
    assert program._cache_size() == 0  # programs of all splits together would be too many
    assert written(tmp_path)["cuhk03_classic"]["num_splits"] == 2
    calls.clear(), stop_at.clear()
    other = config.copy_and_resolve_references().unlock()
    other.loss.margin = 0.3
    with pytest.raises(ValueError, match=r"loss.margin: 0.5 -> 0.3\).*allow_config_change"):
        run.train_and_evaluate_splits(other, tmp_path)
    (summary,) = run.train_and_evaluate_splits(config, tmp_path).values()
    assert calls == [(3, "testset_03"), (4, "testset_04")]
    assert summary["mean"]["rank-1"] == pytest.approx(0.25)
    assert summary["sd"]["rank-1"] == pytest.approx(np.std([0.1, 0.2, 0.3, 0.4], ddof=1))
    assert "step" not in summary and summary["recipe"] == "same"  # what differs is in the splits alone
    assert [split["cmc"][0] for split in summary["splits"]] == [0.1, 0.2, 0.3, 0.4]
    assert written(tmp_path)["cuhk03_classic"] == json.loads(json.dumps(summary))
    calls.clear()
    assert run.train_and_evaluate_splits(config, tmp_path)[scoring.NETWORK]["cmc"] == summary["cmc"] and calls == []


@pytest.mark.quick
def test_only_published_splits_are_called_official():
    parts = {"query": None, "gallery": None}
    assert scoring._name_of_split(parts, "market1501") == "official"
    assert scoring._name_of_split(parts, "mydata") == "query and gallery"
    assert scoring._name_of_split({"train": None}, "cuhk01") == "train"
