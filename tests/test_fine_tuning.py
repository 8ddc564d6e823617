"""Fine-tuning: the architecture of the pretrained network, frozen BatchNorm statistics, early stopping."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict
from tiny_workdir import write_workdir

from mancs_jax.config import checks
from mancs_jax.data.prepare import prepare
from mancs_jax.inference.trained import load_trained
from mancs_jax.publish import export_network
from mancs_jax.run import train_and_evaluate
from mancs_jax.scoring import Task, evaluate_network
from mancs_jax.weights.start import with_pretrained_model


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data set, and a pretrained network that is another architecture than the configuration's."""
    place = tmp_path_factory.mktemp("fine_tuning")
    prepare("market1501", str(tiny.write_folder(place / "source")), str(place / "data"), allow_differences=True)
    write_workdir(place / "first")
    export_network(place / "first", "first", place, dtype="float32", scores=False)
    return place


def config_of(place, **changed):
    config = tiny.get_config().unlock()
    config.data.root, config.pretrained, config.like_pretrained = str(place / "data"), str(place / "first.json"), True
    config.model.width, config.model.arch = 24, "resnet50"  # replaced by those of the pretrained network
    config.batch_norm_frozen, config.early_stopping, config.eval_every = True, 1.0, 0.5
    config.data.validation_ids, config.eval_baselines = 4, True
    config.optim.learning_rate = 1e-12
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changed.items()})
    return config.lock()


def test_the_architecture_is_that_of_the_pretrained_network(place):
    config = with_pretrained_model(config_of(place, data__image_size=(128, 64), model__mixstyle_stages=(2, 3)))
    assert (config.model.arch, config.model.width, config.data.image_size) == ("resnet10", 8, (64, 32))
    assert config.is_locked and config.data.validation_ids == 4
    assert config.model.mixstyle_stages == (2, 3)  # of the training, not of the network
    plain = config_of(place, like_pretrained=False)
    assert with_pretrained_model(plain) is plain


@pytest.mark.usefixtures("one_device")
def test_training_ends_when_no_network_is_better_than_the_pretrained_one(place, tmp_path):
    results = train_and_evaluate(config_of(place), tmp_path, report=False)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2]  # an epoch of the 16 that were asked for
    assert [row["step"] for row in rows if "validation/mAP" in row] == [0, 1, 2]
    assert results["Mancs"]["step"] == 0
    for name in ("mAP", "mAP_plain", "cmc"):
        assert results["Mancs"][name] == results["before fine-tuning"][name]
    # Done is done: the same command trains no further.
    train_and_evaluate(config_of(place), tmp_path, report=False)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == len(rows)
    trained = load_trained(tmp_path)
    assert trained.description.pretrained_on == ["market1501"]
    # A pretrained model that is gone is missed before anything is embedded.
    with trained.network.config.unlocked():
        trained.network.config.pretrained = "gone.safetensors"
    with pytest.raises(ValueError, match="no file gone.safetensors"):
        evaluate_network(trained, Task(baselines=True), embed_all=lambda *_: pytest.fail("embedded"))


@pytest.mark.usefixtures("one_device")
def test_frozen_statistics_stay_and_parameters_learn(place, tmp_path):
    config = config_of(place, optim__learning_rate=1e-3, early_stopping=0.0, max_steps=2, eval_baselines=False)
    train_and_evaluate(config, tmp_path, report=False)
    before, after = (flatten_dict(load_trained(each).network.variables) for each in (place / "first", tmp_path))
    backbone = [path for path in before if path[1] == "backbone"]
    for path in backbone:
        equal = np.array_equal(before[path], after[path])
        assert equal == (path[0] == "batch_stats"), path
    assert any(path[0] == "batch_stats" for path in backbone)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"pretrained": ""}, "config.like_pretrained is True, but config.pretrained names no pretrained model"),
        ({"pretrained": "", "like_pretrained": False}, "config.batch_norm_frozen is True, but config.pretrained"),
        (
            {"data__validation_ids": 0, "eval_every": 0.0},
            "config.early_stopping is 1.0, which needs held-out identities",
        ),
        ({"early_stopping": -1.0}, "config.early_stopping is -1.0; it has to be at least 0"),
    ],
)
def test_configurations_that_cannot_work(place, changed, line):
    with pytest.raises(ValueError, match=line):
        checks.validate(config_of(place, **changed), num_devices=1)


def test_a_network_without_a_card(place, tmp_path):
    with pytest.raises(ValueError, match=r"config.pretrained: no file nothing\.pth"):
        with_pretrained_model(config_of(place, pretrained="nothing.pth"))
    (tmp_path / "weights.pth").write_bytes(b"x")
    with pytest.raises(ValueError, match="config.like_pretrained is True, but .*weights.pth has no card"):
        with_pretrained_model(config_of(place, pretrained=str(tmp_path / "weights.pth")))


@pytest.mark.usefixtures("one_device")
def test_the_benchmark_scores_the_other_identities_before_and_after(place, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    benchmark = importlib.import_module("fine_tuning")
    monkeypatch.setattr(benchmark, "keep_compiled_programs", lambda: None)
    flags = [f"--network={place / 'first.json'}", "--dataset=market1501", f"--root={place / 'data'}", "--subsets=1"]
    flags += ["--identities", "10", f"--workdirs={tmp_path}", f"--json={tmp_path / 'figures.json'}"]
    benchmark.main([*flags, "--set", "max_steps=1", "data.p=4", "optim.learning_rate=1e-12"])
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert [(row["training identities"], row["score"]) for row in rows] == [(10, "rank-1"), (10, "plain mAP")]
    assert all(row["before"] == row["after"] > 0 and row["gain"] == 0 for row in rows)  # at this learning rate
