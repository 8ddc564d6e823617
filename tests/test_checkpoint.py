"""Checkpoints that are damaged, cannot be read back, or lie where they would be lost."""

import gc
import json
import logging
import os
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import tiny
from programs import run_python
from tiny_runs import write_data
from tiny_workdir import NUM_CLASSES, write_workdir

import mancs_jax
from mancs_jax import convert, run
from mancs_jax.training import checkpoint, echoes
from mancs_jax.training.loop import restore_or_create
from mancs_jax.training.state import create_optimizer, create_train_state

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def state():
    config = tiny.get_config()
    optimizer = create_optimizer(config, optax.constant_schedule(0.0))
    return config, optimizer, create_train_state(config, NUM_CLASSES, optimizer)


def description(config, best=None):
    return checkpoint.Description(config.to_dict(), NUM_CLASSES, "f", best)


@pytest.fixture(scope="module")
def written(state, tmp_path_factory):
    config, _, first = state
    directory = tmp_path_factory.mktemp("written")
    with checkpoint.open_checkpoints(directory, keep=3) as manager:
        for step in (3, 6, 9):
            params = jax.tree.map(lambda leaf, step=step: leaf + step, first.params)
            of_step = first.replace(step=np.int32(step), params=params)
            checkpoint.save(manager, of_step, description(config, step / 10))
        checkpoint.finish(manager)
    return directory


@pytest.fixture
def directory(written, tmp_path):
    """Checkpoints of the steps 3, 6 and 9; each has a best score and parameters of its own."""
    return Path(shutil.copytree(written, tmp_path / "checkpoints"))


def empty_all(step):
    for file in (path for path in step.rglob("*") if path.is_file()):
        file.write_bytes(b"")


def without_state(step):
    (step / "state").rename(step.parent.parent / "state")


def cut_data(step):
    for file in (path for path in step.rglob("d/*") if path.is_file()):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def no_json(step):
    (step / "about" / "metadata").write_text("{")


def other_json(step):
    (step / "about" / "metadata").write_text(json.dumps({"of": "somebody else"}))


def without_json(step):
    (step / "about" / "metadata").unlink()


DAMAGES = (empty_all, without_state, cut_data, no_json, other_json, without_json)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_one_before_a_damaged_one_is_taken(directory, state, damage, capsys):
    config, optimizer, first = state
    damage(directory / "9")
    trained = mancs_jax.inference.trained.load_trained(directory.parent)
    assert (trained.step, trained.description.best) == (6, 0.6)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{directory}: the checkpoint of step 9 (") and line.endswith(
        "is damaged; trying the previous one"
    )
    assert len(line) < 350 and (directory / "9").exists()  # whoever reads changes nothing
    with checkpoint.open_checkpoints(directory, keep=3) as manager:
        found, best = restore_or_create(manager, config, description(config), optimizer, jax.devices()[:1])
        assert (int(found.step), best) == (6, 0.6)
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b + 6), found.params, first.params)
        assert manager.all_steps() == [3, 6]  # training makes step 9 again
        checkpoint.save(manager, found.replace(step=np.int32(9)), description(config))
        checkpoint.finish(manager)
    assert checkpoint.peek(directory)[0] == 9


# Orbax leaves the coroutines of the other arrays behind, which tell of their end when they are collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_checkpoint_without_any_of_its_files_is_whole_or_damaged(directory, state, tmp_path):
    """Never an error of the disk, which no later start would get over."""
    config, optimizer, _ = state
    files = sorted(file.relative_to(directory / "9") for file in (directory / "9").rglob("*") if file.is_file())
    assert len(files) > 5
    for number, file in enumerate(files):
        copy = Path(shutil.copytree(directory, tmp_path / str(number) / "checkpoints"))
        (copy / "9" / file).unlink()
        with checkpoint.open_checkpoints(copy, keep=3) as manager:
            found, best = restore_or_create(manager, config, description(config), optimizer, jax.devices()[:1])
        assert (int(found.step), best) in ((9, 0.9), (6, 0.6)), file
    gc.collect()  # in this test, not in a later one


def test_all_damaged_is_one_line(directory, state):
    for step in ("3", "6", "9"):
        empty_all(directory / step)
    for read in (mancs_jax.load, lambda workdir: checkpoint.peek(workdir / "checkpoints")):
        with pytest.raises(ValueError, match=r"^.*checkpoints: no checkpoint is whole: step 9 \(") as error:
            read(directory.parent)
        assert "\n" not in str(error.value) and "step 3 (" in str(error.value)


def test_an_error_of_the_disk_is_no_damage(directory, monkeypatch):
    def fails(*_):
        raise ValueError("PERMISSION_DENIED: Error opening state [source locations=...]")

    monkeypatch.setattr(checkpoint, "check_whole", fails)
    with pytest.raises(OSError, match=rf"^{directory}: step 9 cannot be read now \(PERMISSION_DENIED: Error opening"):
        checkpoint.newest_whole(directory, lambda step, _: checkpoint.check_whole(directory, step))


def test_a_damaged_best_gives_way_to_the_latest(directory, capsys):
    best = Path(shutil.copytree(directory, directory.parent / "best"))
    for step in ("6", "9"):
        shutil.rmtree(best / step)
    cut_data(best / "3")
    with pytest.raises(ValueError, match="best: no checkpoint is whole"):  # others would not know which network it is
        mancs_jax.load(directory.parent)
    capsys.readouterr()
    assert mancs_jax.inference.trained.load_trained(directory.parent, take_latest=True).step == 9
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{best}: no checkpoint is whole: step 3 (")
    assert line.endswith(f"; until then step 9 of {directory} is taken")
    shutil.rmtree(directory)
    with pytest.raises(ValueError, match="best: no checkpoint is whole"):
        mancs_jax.load(directory.parent)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize("damage", [cut_data, shutil.rmtree])
def test_a_training_fills_a_damaged_best_anew(tmp_path, data, damage, monkeypatch, capsys):
    config = tiny.get_config().unlock()
    config.data.root, config.data.validation_ids, config.max_steps = str(data), 4, 1
    run.train_and_evaluate(config, tmp_path, report=False)
    # No later score is higher than this: with it remembered, best/ would stay as it is.
    monkeypatch.setattr(run, "_validate", lambda *_: {"mAP": 0.0})
    damage(tmp_path / "best" / "1")
    capsys.readouterr()
    config.max_steps = 2
    results = run.train_and_evaluate(config, tmp_path, allow_config_change=True, report=False)
    assert results["Mancs"]["step"] == 2 and checkpoint.peek(tmp_path / "best")[0] == 2
    said = "; otherwise the next validation fills it\n" in capsys.readouterr().err
    assert said == (damage is cut_data)  # a best/ that was moved away is no surprise


def test_memory_that_runs_out_is_no_damage(directory, state):
    def read(step, about):
        raise MemoryError

    with pytest.raises(MemoryError):
        checkpoint.newest_whole(directory, read)


def test_a_checkpoint_that_cannot_be_read_back_is_not_saved(directory):
    with checkpoint.open_checkpoints(directory, keep=3) as manager:
        checkpoint.finish(manager)
        cut_data(directory / "9")
        with pytest.raises(
            OSError, match=r"step 9 was written, but cannot be read back \(.*\); check the disk$"
        ) as error:
            checkpoint.finish(manager)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a[1]", "lr=[1e-3]", "what?", "all*"])
def test_paths_that_would_lose_checkpoints(tmp_path, name, state):
    workdir = tmp_path / name / "w"
    for refused in (
        checkpoint.open_checkpoints(workdir / "checkpoints", keep=1).__enter__,
        lambda: convert.import_network(tmp_path / "nothing.pth", state[0], workdir),
        lambda: run.train_and_evaluate(state[0], workdir),
    ):
        with pytest.raises(ValueError, match=r"w/checkpoints: no checkpoint can be kept below a path with [*?[]"):
            refused()
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe"])
def test_a_lost_file_of_times_is_not_told(directory, content):
    from absl import logging as absl_logging

    for step in ("6", "9"):
        (directory / step / "_CHECKPOINT_METADATA").unlink()
        if content is not None:
            (directory / step / "_CHECKPOINT_METADATA").write_bytes(content)
    records, handler = [], logging.Handler()
    handler.emit = records.append
    logger = absl_logging.get_absl_logger()
    logger.removeFilter(echoes.is_no_echo)  # of earlier tests in this process
    logger.addHandler(handler)
    try:
        assert checkpoint.peek(directory)[0] == 9
        with checkpoint.open_checkpoints(directory, keep=3) as manager:
            assert manager.latest_step() == 9
        absl_logging.warning("Given directory is read only=/w")
        absl_logging.warning("Metadata file does not exist: %s", "/w/best/3/_METADATA")
    finally:
        logger.removeHandler(handler)
    told = [record.getMessage() for record in records if record.levelno >= logging.WARNING]
    assert told == ["Metadata file does not exist: /w/best/3/_METADATA"]


def test_a_workdir_of_patterns_is_no_network(tmp_path):
    """Reading from such a path is no loss; there is nothing there."""
    write_workdir(tmp_path / "w")
    assert mancs_jax.load(tmp_path / "w").width
    with pytest.raises(FileNotFoundError, match="no model there"):
        mancs_jax.load(tmp_path / "w[1]")


FULL_DISK = """
import resource, sys
import numpy as np, optax, tiny
from mancs_jax.training import checkpoint, echoes
from mancs_jax.training.state import create_optimizer, create_train_state
config = tiny.get_config()
state = create_train_state(config, 12, create_optimizer(config, optax.constant_schedule(0.0)))
description = checkpoint.Description(config.to_dict(), 12, "f")
try:
    with checkpoint.open_checkpoints(__import__("pathlib").Path(sys.argv[1]), keep=3) as manager:
        checkpoint.save(manager, state.replace(step=np.int32(9)), description)
        checkpoint.finish(manager)
        # Files that may not grow stand for a full disk: the system refuses to write them, too.
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        checkpoint.save(manager, state.replace(step=np.int32(12)), description)
        if sys.argv[2] == "log":  # the disk is found full elsewhere, while the save is running
            raise OSError("log")
        checkpoint.finish(manager)
except OSError as error:
    sys.exit(f"train: {error}")
"""


@pytest.mark.parametrize("found_by", ["checkpoint", "log"])
def test_a_full_disk_is_one_line(tmp_path, found_by):
    # In a process of its own: Orbax leaves tasks behind where a save fails, which other tests would stumble over.
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    result = run_python(FULL_DISK, tmp_path / "checkpoints", found_by, PYTHONPATH=paths)
    words = r"train: .*: the checkpoint cannot be written \(.*\); that of step 9 is kept; free disk space, and r.*\n"
    assert result.returncode == 1 and re.fullmatch(words, result.stderr), result.stderr
    assert checkpoint.peek(tmp_path / "checkpoints")[0] == 9


def test_errors_that_orbax_left_to_asyncio_are_echoes():
    """asyncio's message may name no file of Orbax; the traceback does."""
    for file, is_told in (("/site-packages/orbax/checkpoint/path.py", False), ("/site-packages/mine/path.py", True)):
        try:
            exec(compile("raise OSError('disk full')", file, "exec"), {})
        except OSError as error:
            raised = (OSError, error, error.__traceback__)
        message = "Future exception was never retrieved"
        record = logging.LogRecord("asyncio", logging.ERROR, "/lib/asyncio/events.py", 1, message, (), raised)
        assert echoes.is_no_echo(record) is is_told
