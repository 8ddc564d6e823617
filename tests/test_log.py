"""The files a run leaves: rows that survive kills, and the board of their numbers."""

import json
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

import mancs_jax
from mancs_jax.common.environment import environment
from mancs_jax.training.log import Diverged, MetricsLog, keep_rows
from mancs_jax.workdir import Workdir

pytestmark = pytest.mark.quick


def new_log(workdir, step=0, num_steps=3, log_every=1):
    return MetricsLog(Workdir(workdir), step=step, num_steps=num_steps, batch=2, log_every=log_every)


def test_rows_after_the_restored_step_and_half_rows_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n{"step": 3, "loss": 1.0}\n{"step": 4, "lo')
    keep_rows(path, last_step=2)
    assert path.read_text() == '{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n'


def test_a_row_is_written_when_the_next_comes_and_at_the_end(tmp_path):
    log = new_log(tmp_path, num_steps=4, log_every=2)
    for step in range(1, 5):
        log.add(step, {"loss": np.float32(step)})
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
        assert len(lines) == (step - 1) // 2
    log.flush()
    log.close()
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert written == [{"step": 2, "loss": 2.0}, {"step": 4, "loss": 4.0}]


def test_rows_that_a_disk_damaged_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n\x00\x00\n[]\n3\n{"loss": 1.0}\n{"step": "2"}\n\xff{"step": 2}\n{"step": 3}\n')
    keep_rows(path, last_step=3)
    assert path.read_text() == '{"step": 1}\n{"step": 3}\n'


def test_a_full_disk_is_named(tmp_path):
    log = new_log(tmp_path)
    log._file.close()
    log._file = Path("/dev/full").open("a")  # noqa: SIM115  (a device that takes nothing)
    line = r"/metrics\.jsonl cannot be written \(No space left on device\); free disk space, and run the same"
    for call in (lambda: log.write(1, {"loss": 1.0}), log.close):
        with pytest.raises(OSError, match=line):
            call()


def test_the_board_has_the_numbers(tmp_path):
    log = new_log(tmp_path, step=7, num_steps=9)
    log.write(8, {"loss": 0.5, "accuracy": 0.25})
    log.close()
    [file] = (tmp_path / "tensorboard").iterdir()
    content, events = file.read_bytes(), []
    while content:  # length, its checksum, the event, its checksum
        length = int.from_bytes(content[:8], "little")
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    version, start, *numbers = events
    assert version.file_version == "brain.Event:2"
    # The start hides what an earlier file has from step 8 on.
    assert (start.step, start.session_log.status) == (8, SessionLog.START)
    shown = [(event.step, value.tag, value.simple_value) for event in numbers for value in event.summary.value]
    assert shown == [(8, "loss", 0.5), (8, "accuracy", 0.25)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_term_that_is_not_finite_is_named_with_its_step(tmp_path, value):
    log = new_log(tmp_path)
    log.add(1, {"loss": np.float32(1.0), "rank_loss": np.float32(0.5), "cls_loss": np.float32(0.5)})
    log.add(2, {"loss": np.float32(value), "rank_loss": np.float32(value), "cls_loss": np.float32(0.5)})
    with pytest.raises(Diverged, match=rf"^step 2: rank_loss is {value}$"):
        log.flush()
    log.close()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_environment_names_versions_and_devices():
    made_with = environment(jax.devices()[:2])
    assert made_with["versions"]["jax"] == jax.__version__
    assert len(made_with["devices"]) == 2


def test_a_package_without_metadata_has_no_version_and_ends_nothing(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    versions = environment(jax.devices()[:1])["versions"]
    assert versions["mancs_jax"] == mancs_jax.__version__ and versions["jax"] == ""
