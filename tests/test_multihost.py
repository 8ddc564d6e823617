"""Two processes of two devices each train as one process of one device, which goes on from where they stopped."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny
from tiny_sources import run_script

from mancs_jax.data import build
from mancs_jax.data.sources import market1501
from mancs_jax.training import checkpoint, multihost

REPOSITORY = Path(__file__).parents[1]
PATIENCE = 1800  # seconds: it ends a script that hangs, and times nothing


def start(devices: int, *arguments: str, program: Sequence[str] = ("scripts/train.py",)) -> subprocess.Popen:
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ["XLA_FLAGS"])
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=REPOSITORY,
        env=os.environ
        | {
            "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
            "http_proxy": "http://127.0.0.1:9",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(running: list[subprocess.Popen]) -> list[str]:
    texts = [process.communicate(timeout=PATIENCE) for process in running]
    assert [process.returncode for process in running] == [0] * len(running), texts
    return [out for out, _ in texts]


def rows(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    with market1501.open_source(tiny.write_folder(tmp_path_factory.mktemp("source"))) as contents:
        build.build(contents, root)
    return root


def test_two_processes_are_one(root, tmp_path):
    data = ("--config=tests/tiny.py", f"--config.data.root={root}")
    finish([start(1, *data, f"--workdir={tmp_path / 'one'}")])
    cluster = [f"--coordinator=localhost:{free_port()}", "--num_processes=2", *data, f"--workdir={tmp_path / 'two'}"]
    half = "--config.max_steps=6"  # and a checkpoint
    out = finish([start(2, *cluster, half, f"--process_id={i}") for i in range(2)])
    assert "Mancs" in out[0] and "Mancs" not in out[1]  # one process writes
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert [row["step"] for row in two] == [1, 2, 3, 4, 5, 6]
    for name in one[0]:
        np.testing.assert_allclose([row[name] for row in two], [row[name] for row in one[:6]], rtol=1e-5, atol=1e-5)
    finish([start(1, *data, f"--workdir={tmp_path / 'two'}")])
    two = rows(tmp_path / "two")
    assert len(two) == len(one) == 12
    np.testing.assert_allclose([row["loss"] for row in two], [row["loss"] for row in one], rtol=2e-4)
    results = [json.loads((tmp_path / run / "results" / "single_query.json").read_text()) for run in ("one", "two")]
    assert results[1]["num_queries"] == 8 and results[0]["mAP"] == pytest.approx(results[1]["mAP"], abs=0.1)


# Process 1 kills itself at its fifth step: process 0 then waits for it in the sixth. What is proved lies around the
# step: this one asks the other process for a mean, as the network's does, and compiles at once.
LOSING = """
import os, signal
import jax
from mancs_jax.cli import train
from mancs_jax.cli.command_line import run
from mancs_jax.training import loop, multihost
from mancs_jax.training.state import TrainState
multihost.BEAT, multihost.SILENCE = 1.0, 8.0  # seconds

def make_train_step(*_, **__):
    def step(state, image, label):
        mean = jax.lax.pmean(image.mean(), "devices")
        return TrainState(state.step + 1, state.params, state.batch_stats, state.opt_state), {"loss": mean}
    return jax.pmap(step, "devices", in_axes=(None, 0, 0), out_axes=(None, None))

def add(log, step, metrics):
    if step == 5 and not multihost.is_writer():
        os.kill(os.getpid(), signal.SIGKILL)
    add_row(log, step, metrics)

loop.make_train_step, add_row, loop.MetricsLog.add = make_train_step, loop.MetricsLog.add, add
run(train)
"""


def test_a_lost_process_ends_the_others_in_one_line(root, tmp_path):
    arguments = ["--config=tests/tiny.py:bare", f"--config.data.root={root}", f"--workdir={tmp_path / 'w'}"]
    arguments += [f"--coordinator=localhost:{free_port()}", "--num_processes=2", "--config.checkpoint_every=4"]
    running = [start(1, *arguments, f"--process_id={i}", program=["-c", LOSING]) for i in range(2)]
    _, error = running[0].communicate(timeout=PATIENCE)
    running[1].communicate(timeout=PATIENCE)
    assert running[1].returncode == -signal.SIGKILL, error
    line = "train: process 1 was lost; start all processes again with the same command: they "
    line += "begin again, for there is no checkpoint"
    assert running[0].returncode == 1 and error.splitlines()[-1] == line, error
    assert "Traceback" not in error


class Silence:
    """The store of a cluster in which the other process never beats."""

    def key_value_set(self, *_, **__):
        pass

    def key_value_try_get(self, _):
        return ""


def ends(status):
    raise SystemExit(status)


@pytest.mark.parametrize(
    ("steps", "then"),
    [((), "they begin again, for there is no checkpoint"), ((3, 12, 9, "\u00b2"), "they go on from step 12")],
)
def test_the_line_of_a_lost_process_has_the_step(steps, then, tmp_path, monkeypatch, capsys):
    for name in (*map(str, steps), "15.orbax-checkpoint-tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(multihost, "BEAT", 0.001)
    monkeypatch.setattr(multihost, "SILENCE", 0.0)
    monkeypatch.setattr(multihost.os, "_exit", ends)
    with pytest.raises(SystemExit):
        multihost._watch(Silence(), 0, [1], lambda: checkpoint.latest_on_disk(tmp_path))
    line = "\ntrain: process 1 was lost; start all processes again with the same command: "
    assert capsys.readouterr().err == f"{line}{then}\n"


def test_a_disk_that_went_with_the_process_does_not_hold_the_line_back(monkeypatch, capsys):
    monkeypatch.setattr(multihost, "LOOK", 0.01)
    for answer in (lambda: time.sleep(60), lambda: 1 // 0):
        multihost._tell_of_loss(1, answer)
        assert capsys.readouterr().err.endswith("with the same command: they go on from the latest checkpoint\n")


@pytest.mark.filterwarnings("ignore:the load_module")  # ml_collections reads --config by it
def test_flags_that_belong_together():
    line = run_script("train", f"--config={tiny.__file__}", "--workdir=nowhere", "--num_processes=2")
    assert line == "train: --coordinator=HOST:PORT, --num_processes and --process_id go together"


@pytest.mark.parametrize("coordinator", ["localhost", ":1234", "localhost:", "localhost:http", "localhost:65536"])
def test_a_coordinator_without_a_port(coordinator):
    with pytest.raises(ValueError, match=f"^--coordinator={coordinator} is no HOST:PORT: give --coordinator=HOST:PORT"):
        multihost.start(coordinator, num_processes=2, process_id=0)


def test_shares_cover_all_rows_once(monkeypatch):
    for number, count in [(10, 4), (3, 4), (8, 2), (1, 1), (0, 3)]:
        monkeypatch.setattr(multihost.jax, "process_count", lambda count=count: count)
        covered = []
        for index in range(count):
            monkeypatch.setattr(multihost.jax, "process_index", lambda index=index: index)
            covered += list(range(number))[multihost.share(number)]
        assert covered == list(range(number))


def test_processes_ask_each_other_at_every_tenth_step_only(monkeypatch):
    asked = []

    def gather(flag):
        asked.append(bool(flag))
        return np.array([flag, True])  # the other process was told to stop

    monkeypatch.setattr(multihost.multihost_utils, "process_allgather", gather)
    assert multihost.any_process(True, step=3) and not multihost.any_process(False, step=10)  # alone
    monkeypatch.setattr(multihost.jax, "process_count", lambda: 2)
    answers = [multihost.any_process(step == 4, step) for step in range(1, 21)]
    assert [step for step, answer in enumerate(answers, 1) if answer] == [10, 20]
    assert asked == [False, False]
