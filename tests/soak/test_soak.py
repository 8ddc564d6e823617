"""The soak test itself: it ends where a training gets nowhere, and damages whatever it finds."""

import numpy as np
import pytest
import soak

FINISHED, KILLED = soak.End(True, 90, "", False), soak.End(False, 9, "", False)
REFUSED = soak.End(False, 9, "train: some wrong line", True)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs it with the ends of its starts given, the last one for ever; the undisturbed training finishes."""

    def run(*ends, kills=3):
        left = [FINISHED, FINISHED, *ends]
        monkeypatch.setattr(soak.Soak, "disturb", lambda *_: left.pop(0) if len(left) > 1 else left[0])
        monkeypatch.setattr(soak.build, "build", lambda *_: None)
        monkeypatch.setattr(soak, "_said", lambda _: "")
        monkeypatch.setattr(soak.shutil, "rmtree", lambda _: None)
        monkeypatch.setattr(soak, "differences", lambda *_: [])
        return soak.run(kills, 0, tmp_path, has_disk=False)

    return run


def test_kills_are_no_faults(run):
    ways, _, faults = run(KILLED, KILLED, FINISHED, KILLED, FINISHED)
    assert ways.total() == 3 and faults == []


def test_a_refusal_is_a_fault_and_the_end(run):
    ways, _, faults = run(KILLED, REFUSED)
    assert ways.total() == 1 and len(faults) == 1 and faults[0].endswith(": train: some wrong line")


def test_an_undisturbed_start_that_does_not_finish_is_a_fault_and_the_end(run):
    ways, _, faults = run(KILLED)
    assert ways.total() == 3 and faults == ["undisturbed: "]


def test_a_full_disk_may_refuse():
    assert not soak._is_stuck("full disk", REFUSED) and soak._is_stuck("damage", REFUSED)


def test_files_that_are_empty_already(tmp_path):
    for step in ("3", "6"):
        (tmp_path / "w" / "checkpoints" / step).mkdir(parents=True)
        (tmp_path / "w" / "checkpoints" / step / "file").write_bytes(b"")
    soak.Soak(tmp_path, tmp_path, np.random.default_rng(0)).damage()
    assert len(list(tmp_path.rglob("file"))) == 2
