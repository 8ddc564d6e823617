"""Two processes of two devices each train as one process of one device, which goes on from where they stopped."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest
import tiny
from tiny_runs import PATIENCE, finish, rows, start, write_data
from tiny_sources import run_script

from mancs_jax.common import processes

TRAIN = "from mancs_jax.cli import train; from mancs_jax.cli.command_line import run; run(train)"


PROXY = {"http_proxy": "http://127.0.0.1:9"}  # where nobody listens


def succeed(*running: subprocess.Popen) -> list[str]:
    """Waits until all have ended well; returns their stdout."""
    ends = [finish(process) for process in running]
    assert [code for code, *_ in ends] == [0] * len(running), ends
    return [out for _, out, _ in ends]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def test_two_processes_are_one(root, tmp_path):
    data = ("--config=tests/tiny.py", f"--config.data.root={root}")
    succeed(start(*data, f"--workdir={tmp_path / 'one'}"))
    cluster = [f"--coordinator=localhost:{free_port()}", "--num_processes=2", *data, f"--workdir={tmp_path / 'two'}"]
    half = "--config.max_steps=6"  # and a checkpoint
    out = succeed(*[start(*cluster, half, f"--process_id={i}", devices=2, **PROXY) for i in range(2)])
    assert "Mancs" in out[0] and "Mancs" not in out[1]  # one process writes
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert [row["step"] for row in two] == [1, 2, 3, 4, 5, 6]
    for name in one[0]:
        np.testing.assert_allclose([row[name] for row in two], [row[name] for row in one[:6]], rtol=1e-5, atol=1e-5)
    succeed(start(*data, f"--workdir={tmp_path / 'two'}"))
    two = rows(tmp_path / "two")
    assert len(two) == len(one) == 12
    np.testing.assert_allclose([row["loss"] for row in two], [row["loss"] for row in one], rtol=2e-4)
    results = [json.loads((tmp_path / run / "results" / "single_query.json").read_text()) for run in ("one", "two")]
    assert results[1]["num_queries"] == 8 and results[0]["mAP"] == pytest.approx(results[1]["mAP"], abs=0.1)


# A process ends or stops at its fifth step: the others then wait for it in the sixth. What is proved lies around the
# step: this one asks the other process for a mean, as the network's does, and compiles at once.
LOSING = """
import os, signal
import jax
from mancs_jax.cli import train
from mancs_jax.cli.command_line import run
from mancs_jax.common import processes
from mancs_jax.training import loop
from mancs_jax.training.state import TrainState
processes.HEARTBEAT_TIMEOUT = 10  # seconds

def make_train_step(*_, **__):
    def step(state, image, label):
        mean = jax.lax.pmean(image.mean(), "devices")
        return TrainState(state.step + 1, state.params, state.batch_stats, state.opt_state), {"loss": mean}
    return jax.pmap(step, "devices", in_axes=(None, 0, 0), out_axes=(None, None))

def add(log, step, metrics):
    if step == 5 and jax.process_index() == LOST:
        END
    add_row(log, step, metrics)

loop.make_train_step, add_row, loop.MetricsLog.add = make_train_step, loop.MetricsLog.add, add
run(train)
"""


def lose(process: int, end: str, root: Path, workdir: Path) -> tuple[subprocess.Popen, str]:
    """Trains with two processes of which one is lost; returns the other and its stderr. The lost one is ended."""
    program = ["-c", LOSING.replace("LOST", str(process)).replace("END", end)]
    arguments = ["--config=tests/tiny.py:bare", f"--config.data.root={root}", f"--workdir={workdir}"]
    arguments += [f"--coordinator=localhost:{free_port()}", "--num_processes=2", "--config.checkpoint_every=4"]
    running = [start(*arguments, f"--process_id={i}", program=program, **PROXY) for i in range(2)]
    left, lost = running[1 - process], running[process]
    _, error = left.communicate(timeout=PATIENCE)
    lost.kill()
    lost.communicate(timeout=PATIENCE)
    return left, error


def test_a_lost_process_ends_the_others_in_one_line(root, tmp_path):
    left, error = lose(1, "os.kill(os.getpid(), signal.SIGKILL)", root, tmp_path / "w")
    line = r"train: JAX failed, as it does where another process was lost \(.*\); start all processes again with "
    line += "the same command: training resumes from the latest checkpoint, where there is one"
    assert left.returncode == 1 and re.fullmatch(line, error.splitlines()[-1]), error
    assert "Traceback" not in error


def test_an_error_of_one_process_ends_all(root, tmp_path):
    left, error = lose(1, 'raise OSError(28, "No space left on device", "some file")', root, tmp_path / "w")
    assert left.returncode == 1 and "another process was lost" in error.splitlines()[-1], error


@pytest.mark.parametrize(
    ("process", "end"),
    [
        (0, "os.kill(os.getpid(), signal.SIGKILL)"),  # the service that all talk through goes with it
        (1, "os.kill(os.getpid(), signal.SIGSTOP)"),  # no connection breaks: heartbeats say that it is lost
    ],
)
def test_jax_ends_the_others_where_no_error_reaches_them(process, end, root, tmp_path):
    left, error = lose(process, end, root, tmp_path / "w")
    assert left.returncode in (1, -signal.SIGABRT), error
    assert "another process was lost" in error or "another task died" in error


def test_process_0_out_of_reach(tmp_path):
    program = ["-c", "from mancs_jax.common import processes as p; p.CONNECT_TIMEOUT = 2.0; " + TRAIN]
    address = f"localhost:{free_port()}"
    arguments = ["--config=tests/tiny.py:bare", f"--workdir={tmp_path / 'w'}"]
    process = start(*arguments, f"--coordinator={address}", "--num_processes=2", "--process_id=1", program=program)
    _, error = process.communicate(timeout=PATIENCE)
    waiting, line = error.splitlines()
    assert process.returncode == 1 and waiting == f"waiting for process 0 at {address}, up to 2 s"
    assert line.startswith(f"train: cannot join the other processes: process 0 does not answer at {address} (")
    assert line.endswith("); it has to run, and its port has to be open to this machine")


CLUSTERS = {
    "SLURM": {
        "SLURM_JOB_ID": "4096000",  # from which JAX takes the port
        "SLURM_STEP_NODELIST": "localhost,node[1-3]",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": "1",
        "SLURM_LOCALID": "0",
    },
    "Open MPI": {
        "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": "1",
        "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    },
}


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_process_0_of_a_cluster_out_of_reach(cluster, monkeypatch):
    for name, value in CLUSTERS[cluster].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "CONNECT_TIMEOUT", 0.0)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: pytest.fail("JAX would abort"))
    with pytest.raises(
        ValueError, match=r"process 0 does not answer at (localhost|127\.0\.0\.1):6\d{4} \(.*\); it has"
    ):
        processes.start()


def test_a_cluster_is_asked_without_a_proxy(monkeypatch):
    """The metadata server of a TPU machine cannot be reached through one."""
    from jax._src.clusters import ClusterEnv

    def detect(*_):
        assert not [name for name in os.environ if name.lower().endswith("_proxy")]
        return "", 2, 0, None, None

    monkeypatch.setenv("http_proxy", "http://proxy:8080")
    monkeypatch.setattr(ClusterEnv, "auto_detect_unset_distributed_params", detect)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: None)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    processes.start()
    assert os.environ["http_proxy"] == "http://proxy:8080"


@pytest.mark.parametrize("address", ["", "node0"])
def test_an_address_without_a_port_is_left_to_jax(address, monkeypatch):
    began = []
    monkeypatch.setattr(processes, "_place_in_cluster", lambda: (address, 1))
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: began.append(options))
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    processes.start()
    assert len(began) == 1


def test_jax_that_does_not_tell_of_its_cluster(monkeypatch):
    """Its detection is private, and may be another one in any version: then JAX itself waits."""
    began = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: began.append(options))
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setitem(sys.modules, "jax._src.clusters", ModuleType("clusters"))
    processes.start()
    assert began == [{"heartbeat_timeout_seconds": processes.HEARTBEAT_TIMEOUT}]


@pytest.mark.filterwarnings("ignore:the load_module")  # ml_collections reads --config by it
def test_flags_that_belong_together():
    line = run_script("train", f"--config={tiny.__file__}", "--workdir=nowhere", "--num_processes=2")
    assert line == "train: --coordinator=HOST:PORT, --num_processes and --process_id go together"


@pytest.mark.parametrize("coordinator", ["localhost", ":1234", "localhost:", "localhost:http", "localhost:65536"])
def test_a_coordinator_without_a_port(coordinator):
    with pytest.raises(ValueError, match=f"^--coordinator={coordinator} is not HOST:PORT, as --coordinator=node0"):
        processes.start(coordinator, num_processes=2, process_id=0)


def test_shares_cover_all_rows_once(monkeypatch):
    for number, count in [(10, 4), (3, 4), (8, 2), (1, 1), (0, 3)]:
        monkeypatch.setattr(processes.jax, "process_count", lambda count=count: count)
        covered = []
        for index in range(count):
            monkeypatch.setattr(processes.jax, "process_index", lambda index=index: index)
            covered += list(range(number))[processes.share(number)]
        assert covered == list(range(number))


def test_processes_ask_each_other_at_every_tenth_step_only(monkeypatch):
    asked = []

    def gather(flag):
        asked.append(bool(flag))
        return np.array([flag, True])  # the other process was told to stop

    monkeypatch.setattr(processes.multihost_utils, "process_allgather", gather)
    assert processes.any_process(True, step=3) and not processes.any_process(False, step=10)  # alone
    monkeypatch.setattr(processes.jax, "process_count", lambda: 2)
    answers = [processes.any_process(step == 4, step) for step in range(1, 21)]
    assert [step for step, answer in enumerate(answers, 1) if answer] == [10, 20]
    assert asked == [False, False]
