"""Whole runs through the scripts: results, curves, kills, signals, changed configurations."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny import EPOCHS, STEPS_PER_EPOCH, write_folder

REPOSITORY = Path(__file__).parents[1]
NUM_STEPS = EPOCHS * STEPS_PER_EPOCH
PATIENCE = 240  # seconds until a script that hangs is given up


def start(script: str, *arguments: str, devices: int = 1) -> subprocess.Popen:
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ["XLA_FLAGS"])
    flags += f" --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, f"scripts/{script}.py", *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def rows(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def wait_until(condition, process):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A prepared data set, made by the script that users run."""
    source = write_folder(tmp_path_factory.mktemp("source"))
    root = tmp_path_factory.mktemp("data")
    arguments = ("--dataset=market1501", f"--source={source}", f"--root={root}", "--allow_differences")
    code, _, err = finish(start("prepare_data", *arguments))
    assert code == 0, err
    return root


@pytest.fixture(scope="module")
def train(data):
    def train(workdir, *arguments, devices=1):
        fixed = ("--config=tests/tiny.py", f"--config.data.root={data}", f"--workdir={workdir}")
        return start("train", *fixed, *arguments, devices=devices)

    return train


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    """(workdir, standard output) of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole")
    code, out, err = finish(train(workdir))
    assert code == 0, err
    return workdir, out


def test_a_run_leaves_curves_results_and_what_it_was(whole):
    workdir, out = whole
    assert [row["step"] for row in rows(workdir)] == list(range(1, NUM_STEPS + 1))
    assert rows(workdir)[-1]["cls_loss"] < rows(workdir)[0]["cls_loss"]
    result = json.loads((workdir / "results" / "single_query.json").read_text())
    assert result["num_queries"] == result["num_matched_queries"] == 8
    assert 0 <= result["mAP"] <= 1 and len(result["cmc"]) >= 8
    assert result["recipe"] == "paper" and result["step"] == NUM_STEPS and result["seed"] == 0
    assert "Mancs" in out and f"{100 * result['mAP']:.1f}" in out
    start_of_run = json.loads((workdir / "run.json").read_text())["starts"][0]
    assert start_of_run["versions"]["jax"] and start_of_run["data_fingerprint"] == result["train_fingerprint"]
    assert json.loads((workdir / "config.json").read_text())["data"]["p"] == 4
    assert any((workdir / "tensorboard").iterdir())


def test_evaluate_gives_the_result_of_training_again(whole, data):
    workdir, _ = whole
    path = workdir / "results" / "single_query.json"
    before = json.loads(path.read_text())
    path.unlink()
    code, out, err = finish(start("evaluate", f"--workdir={workdir}", "--baselines"))
    assert code == 0, err
    after = json.loads(path.read_text())
    assert {name: after[name] for name in ("mAP", "mAP_plain", "mINP", "cmc", "fingerprint")} == {
        name: before[name] for name in ("mAP", "mAP_plain", "mINP", "cmc", "fingerprint")
    }
    assert "untrained network" in out and "colour histogram" in out


@pytest.mark.parametrize("moment", ["between steps", "while saving"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(train, whole, tmp_path, moment):
    process = train(tmp_path)
    if moment == "between steps":
        metrics = tmp_path / "metrics.jsonl"
        wait_until(lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= 5, process)
    else:
        wait_until(lambda: any(tmp_path.glob("checkpoints/*tmp*")), process)
    process.kill()
    process.communicate()
    assert len(rows(tmp_path)) < NUM_STEPS
    # What a kill in the middle of a row leaves.
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "lo')
    code, _, err = finish(train(tmp_path))
    assert code == 0, err
    assert (tmp_path / "metrics.jsonl").read_text() == (whole[0] / "metrics.jsonl").read_text()
    assert not list(tmp_path.glob("checkpoints/*tmp*"))


def test_sigterm_saves_and_another_number_of_devices_goes_on(train, whole, tmp_path):
    process = train(tmp_path, devices=2)
    metrics = tmp_path / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") >= 4, process)
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert code == 0 and "SIGTERM" in err and "saved" in err
    done = len(rows(tmp_path))
    assert 4 <= done < NUM_STEPS
    assert (tmp_path / "checkpoints" / str(done)).is_dir()
    code, _, err = finish(train(tmp_path, devices=1))
    assert code == 0, err
    assert f"from step {done}" in err
    losses = [np.array([row["loss"] for row in rows(path)]) for path in (tmp_path, whole[0])]
    np.testing.assert_allclose(*losses, rtol=2e-3)


def test_a_changed_configuration_is_refused_unless_told(train, whole, tmp_path):
    workdir, _ = whole
    before = (workdir / "metrics.jsonl").read_text()
    code, _, err = finish(train(workdir, "--config.optim.learning_rate=1e-3", "--config.loss.margin=0.3"))
    assert code == 1
    assert "loss.margin: 0.5 -> 0.3" in err and "optim.learning_rate: 0.0003 -> 0.001" in err
    assert "Traceback" not in err
    assert (workdir / "metrics.jsonl").read_text() == before
    assert json.loads((workdir / "config.json").read_text())["loss"]["margin"] == 0.5


def test_training_stops_at_the_first_value_that_is_not_finite(train, tmp_path):
    code, _, err = finish(train(tmp_path, "--config.optim.learning_rate=1e30", "--config.checkpoint_every=0.33"))
    assert code == 1
    assert re.search(r"train: step \d+: \w+_loss is (nan|inf)", err), err
    assert "the checkpoint of step" in err and "Traceback" not in err
    assert all(np.isfinite(list(row.values())).all() for row in rows(tmp_path))


def test_validation_identities_choose_the_best_checkpoint(train, tmp_path):
    code, _, err = finish(train(tmp_path, "--config.data.validation_ids=4", "--config.eval_every=1.0"))
    assert code == 0, err
    scored = {row["step"]: row["validation/mAP"] for row in rows(tmp_path) if "validation/mAP" in row}
    assert list(scored) == [2, 4, 6, 8]
    best = max(scored, key=lambda step: (scored[step], -step))
    assert [path.name for path in (tmp_path / "best").iterdir() if path.name.isdigit()] == [str(best)]
    assert json.loads((tmp_path / "results" / "single_query.json").read_text())["step"] == best


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--config.optim.learning_rat=1e-3",), "learning_rate"),
        (("--config.data.image_size=384",), "image_size"),
        (("--config.data.p=13", "--config.data.k=2"), "12 identities"),
        (("--config.data.root=/nowhere",), "prepare_data.py --dataset=market1501"),
        (("--config.pretrained=nowhere.pth",), "--config.pretrained=''"),
    ],
)
def test_mistakes_on_the_command_line_get_one_line(train, tmp_path, arguments, words):
    code, _, err = finish(train(tmp_path / "run", *arguments))
    assert code == 1
    last = err.strip().splitlines()[-1]
    assert words in last, err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_evaluating_where_nothing_was_trained_gets_one_line(tmp_path):
    code, _, err = finish(start("evaluate", f"--workdir={tmp_path / 'nothing'}"))
    assert code == 1
    assert "no checkpoint there" in err.strip().splitlines()[-1] and "Traceback" not in err
    assert not (tmp_path / "nothing").exists()
