"""`mancs export --format=weights`: files, scores and thresholds of a workdir; the network is untrained."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
import tiny
from refusals import refused
from tiny_runs import write_data
from tiny_workdir import write_untrained

from mancs_jax import publish, scoring
from mancs_jax.cli import evaluate, export
from mancs_jax.cli.command_line import run
from mancs_jax.data.arrays import load_split
from mancs_jax.data.training_data import load_training_data
from mancs_jax.evaluation import roc
from mancs_jax.evaluation.bootstrap import wilson
from mancs_jax.inference.forward import embed
from mancs_jax.inference.trained import load_trained
from mancs_jax.models.mancs import init_variables
from mancs_jax.weights.start import load_into
from mancs_jax.workdir import Workdir

COMMAND = ["scripts/train.py", "--config=c.py", "--workdir=/home/me/w", "--config.data.root=/home/me/data"]
COMMAND.append("--config.pretrained=/home/me/first.safetensors")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data and with a workdir whose run held four identities out."""
    place = tmp_path_factory.mktemp("place")
    write_data(place / "data", tiny.write_folder(place / "source"))
    network = write_untrained(place / "w", "/home/me/data", validation_ids=4)
    start = {"command": COMMAND, "git": "abc", "versions": {"jax": "1"}, "date": "2026-01-01"}
    Workdir(place / "w").starts.write_text(json.dumps({"starts": [start]}))
    return place, network


@pytest.fixture(scope="module", autouse=True)
def rates():
    """The sets have tens of pairs: 1e-9 of them is less than one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roc, "RATES", (0.1, 1e-9))
        yield


@pytest.fixture(scope="module")
def published(place):
    path, card = publish.export_network(place[0] / "w", "tiny", place[0] / "out", root=str(place[0] / "data"))
    assert path == place[0] / "out" / "tiny.json" and json.loads(path.read_text()) == json.loads(json.dumps(card))
    return path, card


def test_the_card_says_who_made_it_and_no_path(published):
    path, card = published
    assert (card["name"], card["dtype"], card["trained_on"]) == ("tiny", "float16", "market1501")
    assert card["made_with"]["command"] == "mancs train --config=c.py --config.pretrained=first.safetensors --workdir=W"
    assert card["made_with"]["git"] == "abc" and "/home/me" not in path.read_text()
    assert str(path.parents[1]) not in path.read_text()


HOME = "/home/alice"


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (f"mancs train --config=market:small --workdir={HOME}/w", "train --config=market:small"),
        (f"mancs train --config market --workdir {HOME}/run", "train --config=market"),
        (
            f"train.py -config={HOME}/alice/own.py:small -workdir {HOME} --config.seed -1",
            "train --config=own.py:small --config.seed=-1",
        ),
        (
            f"__main__.py train --config=market --config.data.root {HOME}/d --config.eval_baselines",
            "train --config=market --config.eval_baselines",
        ),
        (
            f"mancs train --config=market --noconfig.report --workdir w --config.pretrained {HOME}/a.pth",
            "train --config=market --noconfig.report --config.pretrained=a.pth",
        ),
        (
            f"mancs cuhk03-classic --config=cuhk03:classic --workdir={HOME}",
            "cuhk03-classic --config=cuhk03:classic",
        ),
        (f"mancs import-weights --source={HOME}/m.pth --config=market", "import-weights --config=market"),
    ],
)
def test_a_command_for_everybody_has_no_path(words, command):
    assert publish.without_paths(words.split()) == f"mancs {command} --workdir=W" and "alice" not in command


@pytest.mark.parametrize(
    "words", [["ipykernel_launcher.py", "-f", f"{HOME}/k.json"], ["mine.py", f"--config={HOME}"], ["-c"]]
)
def test_a_run_that_was_started_from_python_has_no_command_of_ours(words):
    assert publish.without_paths(words) == "train_and_evaluate(config, workdir)"


def test_the_scores_are_those_of_the_file(published, place, capsys):
    path, card = published
    run(evaluate, ["evaluate", f"--network={path}", f"--root={place[0] / 'data'}", f"--json={place[0] / 'out.json'}"])
    assert capsys.readouterr().out.count("same person or not") == 1
    scored = json.loads((place[0] / "out.json").read_text())["Mancs"]
    for name in ("mAP", "cmc", "verification", "fingerprint", "step", "seed", "trained_on"):
        assert card["scores"][name] == scored[name]
    task = scoring.Task(root=str(place[0] / "data"))
    of_workdir = scoring.evaluate(place[0] / "w", task, progress=False).results["Mancs"]
    assert abs(of_workdir["mAP"] - scored["mAP"]) < 0.02  # float16 may swap neighbours of so few images
    assert not (path.parent / "results").exists()


def test_results_go_where_the_network_comes_from_whichever_flag_names_it(published, place, capsys):
    weights, root = published[0].with_suffix(".safetensors"), f"--root={place[0] / 'data'}"
    run(evaluate, ["evaluate", f"--workdir={weights}", root])
    assert capsys.readouterr().out.endswith("results: not written to a file; use --json=FILE\n")
    result = Workdir(place[0] / "w").result("single_query")
    result.unlink(missing_ok=True)
    run(evaluate, ["evaluate", f"--network={place[0] / 'w'}", root])
    assert capsys.readouterr().out.endswith(f"results: {place[0] / 'w'}/results\n") and result.exists()


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_thresholds_are_set_on_held_out_people_and_measured_on_others(published, place, distance):
    """Both rates by counting all pairs."""
    card, network = published[1], place[1]
    config = network.config.copy_and_resolve_references()
    config.data.root = str(place[0] / "data")
    held_out = load_training_data(config).validation["market1501"]
    test = [load_split("market1501", config.data.root, part, config.data.image_size) for part in ("query", "gallery")]
    assert card["thresholds"]["set_on"] == "4 held-out training identities of market1501"
    assert card["thresholds"][distance]
    for threshold in card["thresholds"][distance]:
        for name, parts in (("set_on", held_out), ("measured_on", test)):
            same, other = pair_distances(network, parts, distance)
            # The file's kernels are rounded: of so few pairs, one or two may change sides.
            assert abs(np.mean(same <= threshold["max_distance"]) - threshold[name]["tpr"]) <= 2.1 / len(same)
            assert abs(np.mean(other <= threshold["max_distance"]) - threshold[name]["fpr"]) <= 2.1 / len(other)
        assert threshold["set_on"]["fpr"] <= threshold["max_fpr"] == 0.1
        rates = threshold["set_on"]
        assert rates["pairs"] == len(pair_distances(network, held_out, distance)[1])
        is_few = round(rates["fpr"] * rates["pairs"]) < 10
        assert rates["fpr_interval"] == (wilson(rates["fpr"], rates["pairs"]) if is_few else None)


def pair_distances(network, parts, distance):
    query, gallery = (embed(network, part.image).astype(np.float64) for part in parts)
    if distance == "cosine":
        query, gallery = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (query, gallery))
        distances = 1 - query @ gallery.T
    else:
        distances = np.linalg.norm(query[:, None] - gallery[None], axis=2)
    same = parts[0].pid[:, None] == parts[1].pid[None]
    counts = (parts[1].pid != -1)[None] & ~(same & (parts[0].camid[:, None] == parts[1].camid[None]))
    return distances[same & counts], distances[~same & counts]


def test_without_scores_no_data_is_needed(place, tmp_path, capsys):
    flags = f"--format=weights --workdir={place[0] / 'w'} --output={tmp_path}/bare.safetensors --noscores"
    run(export, ["export", *flags.split()])
    card = json.loads((tmp_path / "bare.json").read_text())
    assert card["scores"] is None and card["thresholds"] is None
    size = (tmp_path / "bare.safetensors").stat().st_size
    assert capsys.readouterr().out == (
        f"{tmp_path}/bare.safetensors: {size / 1e6:.1f} MB; {tmp_path}/bare.json: the model card\n"
        f'use it: mancs_jax.load("{tmp_path}/bare.safetensors"), or --network={tmp_path}/bare.safetensors of the '
        "commands\n"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--output=out/a b.safetensors", "--noscores"], "'a b' is not a valid model name: use only letters"),
        (["--output=out/.hidden.safetensors", "--noscores"], "'.hidden' is not a valid model name"),
        (["--output=out/fine.safetensors"], "/home/me/data"),
        (["--noscores"], "--output is missing"),
        (["--output=out/fine.safetensors", "--flip"], "--flip is for --format=onnx and jax, not for weights"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(place, tmp_path, flags, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run(export, ["export", "--format=weights", f"--workdir={place[0] / 'w'}", *flags])
    assert message in str(stop.value) and "\n" not in str(stop.value) and not (tmp_path / "out").exists()


def test_without_classifiers_the_embeddings_are_the_same(published, place, tmp_path, capsys):
    path = tmp_path / "small.safetensors"
    flags = ["--format=weights", "--noscores", "--noclassifiers", f"--output={path}"]
    run(export, ["export", f"--workdir={place[0] / 'w'}", *flags])
    small, whole = load_trained(path), load_trained(published[0])
    assert small.card["num_classes"] == 0 and whole.card["num_classes"] > 0
    assert path.stat().st_size < published[0].with_suffix(".safetensors").stat().st_size
    image = np.random.default_rng(0).integers(0, 256, (3, *small.network.config.data.image_size, 3), np.uint8)
    np.testing.assert_array_equal(embed(small.network, image), embed(whole.network, image))
    # A run on the same images starts with classifiers of its own, and with all other parameters.
    config = small.network.config
    start, fingerprint = init_variables(config, 12), small.card["data_fingerprint"]
    params, _ = load_into(**start, pretrained=path, arch=config.model.arch, data_fingerprint=fingerprint)
    loaded, expected = (tree["rank_fc"]["kernel"] for tree in (params, small.network.variables["params"]))
    np.testing.assert_array_equal(loaded, expected)
    assert "classifiers" not in capsys.readouterr().err
    assert params["cls_classifier"]["kernel"] is start["params"]["cls_classifier"]["kernel"]


def test_an_average_says_what_of(published, place, tmp_path):
    path, card = published
    other = tmp_path / "other.json"
    shutil.copy(path.with_suffix(".safetensors"), other.with_suffix(".safetensors"))
    other.write_text(json.dumps(json.loads(path.read_text()) | {"pretrained_on": ["elsewhere"]}))
    _, of_mean = publish.export_network(
        place[0] / "w", "mean", tmp_path, dtype="float32", scores=False, average_with=other, average_share=0.25
    )
    assert of_mean["made_with"]["averaged_with"] == {"network": card["network"], "step": card["step"], "share": 0.25}
    assert "averaged_with" not in card["made_with"] and of_mean["network"] != card["network"]
    assert of_mean["pretrained_on"] == ["elsewhere"] and card["pretrained_on"] == []


@pytest.fixture(scope="module")
def on_everybody(place):
    """A workdir of the same model whose run held nobody out."""
    write_untrained(place[0] / "all", "/home/me/data", seed=1)
    return place[0] / "all"


def test_a_run_on_everybody_takes_the_thresholds_of_another(published, place, on_everybody, tmp_path):
    """The limits lie in the middle of this network's distances, so that its rates are no round numbers."""
    network = load_trained(on_everybody).network
    config = network.config.copy_and_resolve_references()
    config.data.root = str(place[0] / "data")
    test = [load_split("market1501", config.data.root, part, config.data.image_size) for part in ("query", "gallery")]
    lent = dict(published[1]["thresholds"])
    for distance in publish.DISTANCES:
        limit = float(np.median(pair_distances(network, test, distance)[1]))
        lent[distance] = [one | {"max_distance": limit} for one in lent[distance]]
        assert lent[distance]
    path = changed(published, tmp_path, {}, thresholds=lent)
    output, root = f"--output={tmp_path}/all.safetensors", f"--root={config.data.root}"
    run(export, ["export", "--format=weights", f"--workdir={on_everybody}", output, root, f"--thresholds_of={path}"])
    card = json.loads((tmp_path / "all.json").read_text())
    assert card["thresholds"]["set_on"] == f"{lent['set_on']}, by the network {published[1]['network']}"
    network = load_trained(tmp_path / "all.json").network
    for distance in publish.DISTANCES:
        same, other = pair_distances(network, test, distance)
        for threshold, before in zip(card["thresholds"][distance], lent[distance], strict=True):
            for name in ("max_distance", "max_fpr", "set_on"):
                assert threshold[name] == before[name]
            for rate, distances in (("tpr", same), ("fpr", other)):
                # A pair at the limit itself may fall on either side.
                within = np.mean(distances <= threshold["max_distance"])
                assert abs(within - threshold["measured_on"][rate]) <= 1.1 / len(distances)
            assert 0.3 < threshold["measured_on"]["fpr"] < 0.7


def test_thresholds_that_do_not_fit_are_one_line(published, place, on_everybody, tmp_path):
    path = published[0]
    refusal = partial(refused, publish.export_network, name="x", folder=tmp_path / "out", root=str(place[0] / "data"))
    assert "held identities out and sets its own" in refusal(place[0] / "w", thresholds_of=path)
    assert "this one is not evaluated" in refusal(on_everybody, thresholds_of=path, scores=False)
    assert "its card has no thresholds" in refusal(on_everybody, thresholds_of=on_everybody)
    assert "its model is another" in refusal(on_everybody, thresholds_of="market1501")
    assert "its thresholds are borrowed" in refusal(on_everybody, thresholds_of=changed(published, tmp_path, {}, 0))
    size = {"image_size": [64, 64]}
    assert "its size of images is another" in refusal(on_everybody, thresholds_of=changed(published, tmp_path, size))
    other = changed(published, tmp_path, {}, trained_on="walkers")
    assert "its data set is another" in refusal(on_everybody, thresholds_of=other)
    assert not (tmp_path / "out").exists()


def changed(published, folder, data, validation_ids=4, **others):
    """The published network under another card."""
    path, card = published
    folder = folder / "lender"
    folder.mkdir(exist_ok=True)
    shutil.copy(path.with_suffix(".safetensors"), folder / "x.safetensors")
    config = card["config"] | {"data": card["config"]["data"] | data | {"validation_ids": validation_ids}}
    (folder / "x.json").write_text(json.dumps(card | {"config": config} | others))
    return folder / "x.json"
