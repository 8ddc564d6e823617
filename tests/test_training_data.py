"""Several data sets as one: identities and cameras kept apart, held-out identities of each, a line for each mistake."""

import json

import numpy as np
import pytest
import tiny
from tiny_workdir import write_untrained

from mancs_jax import scoring
from mancs_jax.config import checks
from mancs_jax.data import arrays
from mancs_jax.data.prepare import prepare
from mancs_jax.data.training_data import join, load_training_data
from mancs_jax.evaluation import calibration, roc
from mancs_jax.evaluation.analyses import Analyses
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.protocols import Options
from mancs_jax.evaluation.roc import create_roc
from mancs_jax.inference.forward import embed
from mancs_jax.inference.network import Network
from mancs_jax.inference.trained import Trained
from mancs_jax.publish import export_network
from mancs_jax.run import train_and_evaluate
from mancs_jax.scoring import compare_held_out, held_out_images
from mancs_jax.training.description import Description
from mancs_jax.workdir import Workdir


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two data sets: "market1501" with 12 identities and "other" with 6, whose ids and cameras are the same."""
    place = tmp_path_factory.mktemp("sources")
    prepare("market1501", str(tiny.write_folder(place / "a")), str(place / "data"), allow_differences=True)
    source = tiny.write_folder(place / "b", people=6)
    rows = ["path,pid,camid,split"]
    for path in sorted((source / "bounding_box_train").iterdir()):
        rows.append(f"bounding_box_train/{path.name},{int(path.name[:4])},{path.name[6]},train")
    (place / "labels.csv").write_text("\n".join(rows))
    prepare("folder", str(source), str(place / "data"), name="other", csv=str(place / "labels.csv"))
    return place / "data"


def config_of(root, **changed):
    config = tiny.get_config().unlock()
    config.data.root, config.data.name = str(root), "market1501,other"
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changed.items()})
    return config.lock()


def split_of(pid, camid, name):
    image = np.arange(len(pid), dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    return arrays.Split(image, np.array(pid, np.int32), np.array(camid, np.int32), np.array(name))


def test_join_by_hand():
    first = split_of([3, 0, 3, -1], [1, 2, 4, 1], ["a", "b", "c", "d"])
    second = split_of([1, 3, 0], [7, 8, 7], ["a", "b", "c"])
    joined = join([first, second], ["x", "y"])
    assert joined.pid.tolist() == [3, 0, 3, -1, 4, 6, 0]  # 1 and 3 behind 3; distractors and junk stay
    assert joined.camid.tolist() == [1, 2, 4, 1, 5, 6, 5]
    assert joined.name.tolist() == ["x/a", "x/b", "x/c", "x/d", "y/a", "y/b", "y/c"]
    assert joined.image[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert join([first], ["x"]) is first


def test_sources_stand_one_behind_the_other(root):
    data = load_training_data(config_of(root))
    assert data.num_ids == (12, 6) and data.validation == {}
    labels = arrays.relabel(data.split.pid)
    is_first = np.char.startswith(data.split.name, "market1501/")
    assert labels[is_first].tolist() == np.repeat(np.arange(12), 4).tolist()
    assert sorted(set(labels[~is_first])) == list(range(12, 18))
    assert not set(data.split.camid[is_first]) & set(data.split.camid[~is_first])


def test_identities_of_each_source_are_held_out(root):
    data = load_training_data(config_of(root, data__validation_ids=2))
    assert data.num_ids == (10, 4) and list(data.validation) == ["market1501", "other"]
    for name, (query, gallery) in data.validation.items():
        alone = arrays.load_split(name, root, "train", (64, 32))
        _, expected_query, expected_gallery = arrays.hold_out(alone, 2, seed=0)
        assert query.name.tolist() == expected_query.name.tolist()
        assert gallery.name.tolist() == expected_gallery.name.tolist()


def test_one_source_is_as_before(root):
    data = load_training_data(config_of(root, data__name="market1501"))
    expected = arrays.load_split("market1501", root, "train", (64, 32))
    assert arrays.fingerprint(data.split) == arrays.fingerprint(expected) and data.num_ids == (12,)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {"data__p": 14},
            "config.data.p is 14, 7 of each data set, but other has 6 identities to train on; take --con",
        ),
        ({"data__p": 10, "data__validation_ids": 2}, "but other has 6 .* = 2 are held out; take --config.data.p=8 or"),
        ({"data__p": 19, "data__balance": "identities"}, "config.data.p is 19, but market1501,other has 18 identities"),
    ],
)
def test_more_identities_than_a_source_has(root, changed, line):
    with pytest.raises(ValueError, match=line):
        load_training_data(config_of(root, **changed))


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"data__name": "a,"}, "config.data.name is 'a,'; it is one data set, or several with commas"),
        ({"data__name": "a,b,a"}, "several with commas between, each once"),
        ({"data__name": "a,b,c,d,e"}, "config.data.p is 4, but config.data.name has 5 data sets"),
        ({"data__unused_ids": 3}, "config.data.unused_ids is 3, which is for one data set"),
        ({"choose_on": "test"}, "config.choose_on is 'test', which is for one data set"),
        ({"data__testset": 1}, "config.data.testset is 1, but market1501,other has no test sets"),
        ({"loss__negatives": "source", "data__balance": "identities"}, "set config.data.balance to 'sources'"),
        ({"loss__negatives": "source", "data__name": "a,b,c"}, "config.data.p = 4 to a multiple of 3"),
        ({"loss__negatives": "source", "data__p": 2}, "an anchor has no negative; raise p"),
    ],
)
def test_configurations_that_cannot_work(root, changed, line):
    with pytest.raises(ValueError, match=line):
        checks.validate(config_of(root, **changed), num_devices=1)


def test_thresholds_come_from_pairs_within_each_data_set(root):
    """The first data set has twelve people, the second six: no query is compared with a person of the other one."""
    config = config_of(root, data__validation_ids=2)
    trained = Trained(Network(config, 14, {}), 0, Description(config.to_dict(), 14, "f", None), {}, None)
    held_out = held_out_images(trained, str(root))
    assert held_out.people == "2 held-out training identities of each of market1501 and other"
    parts = [
        Labelled(np.random.default_rng(0).normal(size=(len(split.pid), 3)).astype(np.float32), split.pid, split.camid)
        for split in held_out[:2]
    ]
    curve = create_roc(compare_held_out(*parts, held_out, Options()))
    positives = negatives = 0
    for query, gallery in load_training_data(config).validation.values():
        is_same = query.pid[:, None] == gallery.pid
        positives += np.count_nonzero(is_same & (query.camid[:, None] != gallery.camid))
        negatives += np.count_nonzero(~is_same)
    assert (curve.num_positives, curve.num_negatives) == (positives, negatives)
    assert negatives < np.count_nonzero(parts[0].pid[:, None] != parts[1].pid)

    def held_out_by_model_after(*data_sets):
        description = trained.description._replace(pretrained_on=data_sets)
        return held_out_images(trained._replace(description=description), str(root))

    unseen = held_out_by_model_after("elsewhere", "market1501")
    assert unseen.people == "2 held-out training identities of other"
    assert unseen.query.name.tolist() == load_training_data(config).validation["other"][0].name.tolist()
    everything = held_out_by_model_after("market1501", "other")
    assert everything.people.endswith(
        " market1501 and other, whom a model that this one was made from may have been trained on"
    )
    assert len(everything.query.pid) == len(held_out.query.pid)


def test_the_commands_use_pairs_within_each_data_set(root, tmp_path, monkeypatch):
    """Thresholds and calibration of `mancs export`, and the calibration of `mancs evaluate --calibrate`."""
    monkeypatch.setattr(roc, "RATES", (0.5,))
    fitted = []
    monkeypatch.setattr(calibration, "fit", lambda pairs: fitted.append(pairs) or [[0.0, 2.0], [1.0, -2.0]])
    network = write_untrained(tmp_path / "w", root, name="market1501,other", validation_ids=2)
    held_out = load_training_data(network.config).validation.values()
    embedded = [[embed(network, split.image) for split in parts] for parts in held_out]
    is_other = [query.pid[:, None] != gallery.pid for query, gallery in held_out]
    negatives = sum(map(np.count_nonzero, is_other))
    task = scoring.Task(analyses=Analyses(calibrate=True))
    scoring.evaluate(tmp_path / "w", task, progress=False, write=False)
    assert [create_roc(pairs).num_negatives for pairs in fitted] == [negatives]
    _, card = export_network(tmp_path / "w", "two", tmp_path / "out", dtype="float32")
    assert card["calibration"]["euclidean"]["set_on"]["num_negative_pairs"] == negatives
    (threshold,) = card["thresholds"]["euclidean"]
    distances = [np.linalg.norm(query[:, None] - gallery, axis=2) for query, gallery in embedded]
    others = np.sort(np.concatenate([of[other] for of, other in zip(distances, is_other, strict=True)]))
    is_within = others <= threshold["max_distance"] * (1 + 1e-5)
    assert np.mean(is_within) == pytest.approx(threshold["set_on"]["fpr"]) and 0 < threshold["set_on"]["fpr"] <= 0.5


def run_of(root, workdir, max_steps):
    config = tiny.get_config("bare").unlock()
    config.data.root, config.data.name, config.data.validation_ids = str(root), "market1501,other", 2
    config.eval_every, config.max_steps, config.loss.negatives = 1.0, max_steps, "source"
    return train_and_evaluate(config.lock(), workdir, report=False)


@pytest.mark.usefixtures("one_device")
def test_a_run_on_two_sources_resumes_exactly_and_names_them(root, tmp_path):
    whole = run_of(root, tmp_path / "whole", 7)
    for max_steps in (2, 5, 7):
        parts = run_of(root, tmp_path / "parts", max_steps)
    rows, resumed = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    )
    # A run that ends is validated, and the parts end more often.
    steps, resumed_steps = ([row for row in each if "loss" in row] for each in (rows, resumed))
    assert steps == resumed_steps and [row["step"] for row in steps] == list(range(1, 8))
    assert list(whole) == ["Mancs on market1501", "Mancs on other"]
    assert [result["mAP"] for result in parts.values()] == [result["mAP"] for result in whole.values()]
    last = next(row for row in reversed(rows) if "validation/mAP" in row)
    each = [last[f"validation/{name}/mAP"] for name in ("market1501", "other")]
    assert last["validation/mAP"] == pytest.approx(np.mean(each))
    results = sorted(path.name for path in Workdir(tmp_path / "whole").result("x").parent.glob("*.json"))
    assert results == ["validation.json", "validation_on_other.json"]
    assert json.loads((tmp_path / "whole/results/validation_on_other.json").read_text())["dataset"] == "other"
