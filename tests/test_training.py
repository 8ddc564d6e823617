"""Whole runs through the scripts: results, curves, kills, signals, changed configurations."""

import fcntl
import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from tiny import EPOCHS, STEPS_PER_EPOCH, write_folder
from tiny_runs import REPOSITORY, finish, rows, start
from tiny_sources import run_script

from mancs_jax.training.loop import stop_signals

pytestmark = pytest.mark.filterwarnings("ignore:the load_module")  # ml_collections reads --config by it
NUM_STEPS = EPOCHS * STEPS_PER_EPOCH


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A prepared data set, made by the command that users run."""
    source = write_folder(tmp_path_factory.mktemp("source"))
    root = tmp_path_factory.mktemp("data")
    arguments = ("--dataset=market1501", f"--source={source}", f"--root={root}", "--allow_differences")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("signal.signal", lambda *_: None)  # the handlers of the tests stay
        assert run_script("prepare_data", *arguments) == ""
    return root


@pytest.fixture(scope="module")
def command(data):
    """The arguments of scripts/train.py for a workdir."""

    def command(workdir, config="tests/tiny.py"):
        return f"--config={config}", f"--config.data.root={data}", f"--workdir={workdir}"

    return command


@pytest.fixture(scope="module")
def train(command):
    def train(workdir, *arguments, devices=1, program=("scripts/train.py",), **options):
        return start(*command(workdir, **options), *arguments, devices=devices, program=program)

    return train


@pytest.fixture
def refusal(command, monkeypatch):
    """Runs scripts/train.py in this process; returns the line with which it exits."""
    monkeypatch.chdir(REPOSITORY)
    return lambda workdir, *arguments: run_script("train", *command(workdir), *arguments)


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
    assert result["recipe"] == "tiny" and result["step"] == NUM_STEPS and result["seed"] == 0
    assert "Mancs" in out and f"{100 * result['mAP']:.1f}" in out
    start_of_run = json.loads((workdir / "run.json").read_text())["starts"][0]
    assert start_of_run["versions"]["jax"] and start_of_run["data_fingerprint"] == result["train_fingerprint"]
    assert json.loads((workdir / "config.json").read_text())["data"]["p"] == 4
    assert any((workdir / "tensorboard").iterdir())
    assert f"report: {workdir}/report.html" in out and "Ranked lists" in (workdir / "report.html").read_text()
    pictures = {path.name for path in (workdir / "results").iterdir()}
    expected = "ranked_lists_best.png ranked_lists_worst.png masks.png masks.json curves.svg cmc.svg"
    assert set(expected.split()) <= pictures


def test_evaluate_gives_the_result_of_training_again(whole, data):
    workdir, _ = whole
    path = workdir / "results" / "single_query.json"
    before = json.loads(path.read_text())
    path.unlink()
    code, out, err = finish(start(f"--workdir={workdir}", "--baselines", program=["scripts/evaluate.py"]))
    assert code == 0, err
    after = json.loads(path.read_text())
    names = ("mAP", "mAP_plain", "mINP", "cmc", "fingerprint")
    assert [after[name] for name in names] == [before[name] for name in names]
    assert "untrained network" in out and "colour histogram" in out


def test_visualize_shows_the_lists_after_re_ranking_too(whole, capsys):
    workdir, _ = whole
    (workdir / "report.html").unlink()
    line = run_script("visualize", f"--workdir={workdir}", "--rerank")
    assert line.startswith("visualize: k1 is 20: it must be from 1 to ")
    assert run_script("visualize", f"--workdir={workdir}", "--rerank", "--k1=5", "--k2=2") == ""
    assert f"report: {workdir}/report.html" in capsys.readouterr().out
    assert '"re-ranked":{"ap":' in (workdir / "report.html").read_text()
    assert (workdir / "results" / "ranked_lists_worst_reranked.png").exists()


# scripts/train.py that sends itself a signal: when it hands a step to the log, or as soon as it writes its checkpoint.
INTERRUPTED = """
import os, signal, time
from pathlib import Path
from mancs_jax.cli import train
from mancs_jax.cli.command_line import run
from mancs_jax.training import checkpoint
from mancs_jax.training.log import MetricsLog
name, at_step, saving = os.environ["INTERRUPTED"].split()
interrupt = lambda: os.kill(os.getpid(), getattr(signal, name))

def save(manager, state, description):
    start_saving(manager, state, description)
    if saving == "saving" and int(state.step) == int(at_step):
        while not any(Path(manager.directory).glob(f"{at_step}*")):
            time.sleep(0.001)
        interrupt()

def add(log, step, metrics):
    add_row(log, step, metrics)
    if saving == "-" and step == int(at_step):
        interrupt()

start_saving, checkpoint.save = checkpoint.save, save
add_row, MetricsLog.add = MetricsLog.add, add
run(train)
"""


@pytest.fixture
def interrupted(train, monkeypatch):
    """Runs a training that gets a signal at a step, or while it saves a checkpoint: (exit code, stderr)."""

    def interrupted(name, step, workdir, saving="-", **options):
        monkeypatch.setenv("INTERRUPTED", f"{name} {step} {saving}")  # "saving" or "-"
        code, _, err = finish(train(workdir, program=("-c", INTERRUPTED), **options))
        assert len(rows(workdir)) < NUM_STEPS and not (workdir / "results").exists()
        return code, err

    return interrupted


def test_a_stopped_and_killed_run_goes_on_as_if_nothing_had_happened(train, interrupted, whole, tmp_path):
    """Stopped by SIGTERM, killed while it saves, then between steps; each time the same command resumes."""
    metrics, undisturbed = tmp_path / "metrics.jsonl", (whole[0] / "metrics.jsonl").read_text()
    checkpoints = tmp_path / "checkpoints"
    code, err = interrupted("SIGTERM", 4, tmp_path)
    assert code == 0 and "SIGTERM" in err and "saved" in err
    assert (checkpoints / "4").is_dir() and metrics.read_text() == first_rows(undisturbed, 4)
    # There is a whole checkpoint beside the one that is being written.
    code, err = interrupted("SIGKILL", 6, tmp_path, saving="saving")
    assert code == -signal.SIGKILL and "resuming from step 4 of 12" in err, err
    assert (checkpoints / "4").is_dir() and list(checkpoints.glob("6*"))
    assert first_rows(metrics.read_text(), 6) == first_rows(undisturbed, 6)
    code, err = interrupted("SIGKILL", 8, tmp_path)
    assert code == -signal.SIGKILL and re.search(r"resuming from step [46] of 12", err), err
    # What a kill in the middle of a row leaves.
    with metrics.open("a") as file:
        file.write('{"step": 99, "lo')
    code, _, err = finish(train(tmp_path))
    assert code == 0 and re.search(r"resuming from step [46] of 12", err), err
    assert metrics.read_text() == undisturbed
    assert not list(checkpoints.glob("*tmp*"))
    starts = [entry["step"] for entry in json.loads((tmp_path / "run.json").read_text())["starts"]]
    assert starts[:2] == [0, 4] and len(starts) == 4 and set(starts[2:]) <= {4, 6}


def first_rows(text: str, number: int) -> str:
    return "".join(text.splitlines(keepends=True)[:number])


def test_a_training_whose_screen_goes_away_is_the_same_training(train, whole, tmp_path):
    """As `mancs train ... 2>&1 | head -1`."""
    process = train(tmp_path)
    process.stdout.close()
    process.stderr.close()
    assert process.wait(600) == 0
    assert (tmp_path / "metrics.jsonl").read_text() == (whole[0] / "metrics.jsonl").read_text()
    assert (tmp_path / "report.html").exists()


def test_signals_that_end_a_training_after_it_is_saved():
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        number = getattr(signal, name)
        usual = signal.signal(number, signal.default_int_handler)  # whatever the tests were started by
        with stop_signals() as stop:
            os.kill(os.getpid(), number)
            assert stop == [name]
        signal.signal(number, usual)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_number_of_devices_goes_on(train, interrupted, whole, tmp_path):
    assert interrupted("SIGTERM", 4, tmp_path, devices=2)[0] == 0
    code, _, err = finish(train(tmp_path, devices=1))
    assert code == 0, err
    losses = [np.array([row["loss"] for row in rows(path)]) for path in (tmp_path, whole[0])]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_a_second_process_in_the_same_workdir_is_refused(refusal, whole):
    with (whole[0] / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another process trains there" in refusal(whole[0])


def test_a_changed_configuration_is_refused_unless_told(refusal, whole):
    workdir, _ = whole
    before = (workdir / "metrics.jsonl").read_text()
    line = refusal(workdir, "--config.optim.learning_rate=1e-3", "--config.loss.margin=0.3")
    assert "loss.margin: 0.5 -> 0.3" in line and "optim.learning_rate: 0.0003 -> 0.001" in line
    assert (workdir / "metrics.jsonl").read_text() == before
    assert json.loads((workdir / "config.json").read_text())["loss"]["margin"] == 0.5


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        ("1e30", r"step 1: param_norm is inf; no checkpoint"),
        ("1e12", r"step \d: \w+_loss is (nan|inf).*; the checkpoint of"),
    ],
)
def test_training_stops_at_the_first_value_that_is_not_finite(train, tmp_path, rate, words):
    arguments = (f"--config.optim.learning_rate={rate}", "--config.checkpoint_every=0.33")
    code, _, err = finish(train(tmp_path, *arguments, config="tests/tiny.py:bare"))
    assert code == 1
    assert re.search(words, err), err
    assert "Traceback" not in err
    assert all(np.isfinite(list(row.values())).all() for row in rows(tmp_path))


def test_validation_identities_choose_the_best_checkpoint(train, tmp_path):
    code, _, err = finish(train(tmp_path, "--config.data.validation_ids=4", "--config.eval_every=1.0"))
    assert code == 0, err
    scored = {row["step"]: row["validation/mAP"] for row in rows(tmp_path) if "validation/mAP" in row}
    assert list(scored) == [2, 4, 6, 8]
    best = max(scored, key=lambda step: (scored[step], -step))
    assert [path.name for path in (tmp_path / "best").iterdir() if path.name.isdigit()] == [str(best)]
    result = json.loads((tmp_path / "results" / "validation.json").read_text())
    assert (result["step"], result["mAP"]) == (best, pytest.approx(scored[best], abs=1e-6))
    assert result["num_queries"] == 8
    assert not (tmp_path / "results" / "single_query.json").exists()  # query and gallery were not looked at
