"""No refusal comes after the work, and no result is lost to a disk that does not take it."""

import errno
import json
import os
import re
import stat

import pytest
import tiny
from programs import run_python
from tiny_runs import write_data
from tiny_sources import REPOSITORY, jpeg, run_script
from tiny_workdir import write_untrained

from mancs_jax import run
from mancs_jax.cli import evaluate
from mancs_jax.cli.command_line import run as run_command
from mancs_jax.common import atomic_write
from mancs_jax.common.atomic_write import check_writable
from mancs_jax.data import build
from mancs_jax.data.sources import folder
from mancs_jax.data.sources.items import About, Contents, Item
from mancs_jax.workdir import Workdir


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    source = tiny.write_folder(tmp_path_factory.mktemp("source"))
    write_data(root, source)
    rows = [
        f"{path.relative_to(source)},{int(path.name[:4])},{path.name[6]},train"
        for path in sorted((source / "bounding_box_train").glob("*.jpg"))
    ]
    (source / "labels.csv").write_text("\n".join(["path,pid,camid,split", *rows]))
    with folder.open_own("trainonly", source, source / "labels.csv") as contents:
        build.build(contents, root)
    return root


def fill_disk(monkeypatch, folder):
    """Lets no file in a folder reach the disk any more."""
    flush = atomic_write._flush

    def full(path):
        if path.parent.name == folder:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(path)

    monkeypatch.setattr(atomic_write, "_flush", full)


FREE_IT = r"cannot be written \(No space left on device\); free disk space, and run the same command again"


@pytest.mark.usefixtures("one_device")
def test_a_data_set_without_a_test_set_is_refused_before_the_first_step(root, tmp_path):
    config = tiny.get_config("bare").unlock()
    config.data.root, config.data.name = str(root), "trainonly"
    message = r"^trainonly under .* has no split query and gallery, only train: .* --config\.data\.validation_ids=20$"
    with pytest.raises(ValueError, match=message):
        run.train_and_evaluate(config, tmp_path / "w")
    assert not (tmp_path / "w").exists()
    config.data.validation_ids, config.max_steps = 4, 1
    results = run.train_and_evaluate(config, tmp_path / "w", report=False)
    assert results["Mancs"]["split"] == "held-out training identities"


def only_images(train, query, gallery):
    """Splits of people, an image each, as a source could not have them: it would be refused."""
    pids = {"train": train, "query": query, "gallery": gallery}
    return {
        split: [Item(f"{split}{i}.jpg", pid, i % 2, f"{pid}.jpg") for i, pid in enumerate(of)]
        for split, of in pids.items()
    }


NO_PERSON = r"query 0 has pid 0, which is no person: .* add 1 to every pid .*, and prepare the data set again"
NO_MATCH = "no person of query is in gallery under another camera, so that the trained model could not be evaluated"


@pytest.mark.parametrize(
    ("query", "gallery", "words"),
    [([0, 1], [0, 1], NO_PERSON), ([1, 2], [-1, -1], NO_MATCH), ([1, 2], [3, 0], NO_MATCH)],
)
def test_pids_that_cannot_be_scored_are_refused_before_the_first_step(query, gallery, words, tmp_path):
    splits = only_images([1, 1, 2, 2, 3, 3, 4, 4], query, gallery)
    build.build(Contents("odd", About("odd", "odd"), splits, lambda file: jpeg(int(file[:-4]) + 1)), tmp_path / "data")
    config = tiny.get_config().unlock()
    config.data.root, config.data.name = str(tmp_path / "data"), "odd"
    with pytest.raises(ValueError, match=rf"^odd under .*: {words}"):
        run.train_and_evaluate(config, tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_scores_reach_the_screen_before_the_disk(root, tmp_path, monkeypatch, capsys):
    write_untrained(tmp_path / "w", root)
    fill_disk(monkeypatch, "results")
    with pytest.raises(SystemExit, match=rf"^evaluate: .*/w/results/single_query\.json {FREE_IT}: a training "):
        run_command(evaluate, ["evaluate", f"--workdir={tmp_path / 'w'}", f"--json={tmp_path / 'out.json'}"])
    printed = capsys.readouterr().out
    assert "| Mancs " in printed and "same person or not" in printed
    assert json.loads((tmp_path / "out.json").read_text())["Mancs"]["mAP"] > 0


@pytest.mark.usefixtures("one_device")
def test_a_trained_network_tells_its_scores_on_a_full_disk(root, tmp_path, monkeypatch, capsys):
    config = tiny.get_config("bare").unlock()
    config.data.root, config.max_steps = str(root), 1
    config.data.unused_ids = 4  # as many identities as above, so that one compiled step serves both
    fill_disk(monkeypatch, "results")
    with pytest.raises(OSError, match=rf"^.*/w/results/single_query\.json {FREE_IT}: a training "):
        run.train_and_evaluate(config, tmp_path / "w", report=False)
    assert "| Mancs " in capsys.readouterr().out
    monkeypatch.undo()
    assert run.train_and_evaluate(config, tmp_path / "w", report=False)["Mancs"]["step"] == 1


def test_a_full_disk_takes_no_board_and_leaves_no_traceback(tmp_path):
    """In a process of its own: threads and hooks at its end would print theirs."""
    code = """
import sys
from pathlib import Path
from tensorboardX import record_writer
from mancs_jax.training.log import MetricsLog
from mancs_jax.workdir import Workdir
record_writer.open_file = lambda path: open("/dev/full", "wb")
log = MetricsLog(Workdir(Path(sys.argv[1])), step=0, num_steps=3, batch=2, log_every=1)
log.write(1, {"loss": 1.0})
try:
    log.flush()
except OSError as error:
    sys.exit(str(error))
"""
    ended = run_python(code, tmp_path)
    line = f"{tmp_path}/tensorboard cannot be written (No space left on device); free disk space, and run the same"
    assert ended.returncode == 1 and line in ended.stderr and "Traceback" not in ended.stderr


# Command, its output, and the file in that output where it is a folder. No source is there: it would be missed if the
# place was not looked at first.
OUTPUTS = [
    ("embed nowhere --workdir=nowhere --output={}", "x.npz", ""),
    ("evaluate --workdir=nowhere --json={}", "x.json", ""),
    ("export --workdir=nowhere --output={}", "x.onnx", ""),
    ("export --workdir=nowhere --output={}", "x.jax", ""),
    ("export --workdir=nowhere --format=weights --output={}", "n.safetensors", ""),
    ("export --workdir=nowhere --format=torch --output={}", "x.safetensors", ""),
    ("import_weights --source=nowhere.pth --output={}", "x.safetensors", ""),
    ("import_weights --source=nowhere.pth --config=tests/tiny.py --workdir={}", "x", "config.json"),
]


@pytest.mark.filterwarnings("ignore:the load_module")
@pytest.mark.parametrize(("command", "output", "file"), OUTPUTS)
def test_a_place_is_looked_at_before_the_work(command, output, file, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    line = run_script(*command.format(f"/proc/nowhere/{output}").split())
    assert re.search(r": /proc/nowhere/\S+ cannot be written \(.*\): choose another place$", line), line
    (tmp_path / output / file).mkdir(parents=True)
    line = run_script(*command.format(tmp_path / output).split())
    assert line.endswith(f"{tmp_path / output / file} cannot be written (it is a folder): choose another place"), line


def test_a_report_that_cannot_be_is_refused_before_the_work(tmp_path):
    (tmp_path / "report.html").mkdir()
    line = run_script("visualize", f"--workdir={tmp_path}")
    assert line.endswith(f"{tmp_path / 'report.html'} cannot be written (it is a folder): choose another place")
    assert "no model there" in run_script("visualize", "--workdir=/proc/nowhere/x")


def test_a_root_is_looked_at_before_the_images(monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the handlers of the tests stay
    line = run_script("prepare_data", "--dataset=market1501", "--source=nowhere.zip", "--root=/proc/nowhere/x")
    assert re.search(r": /proc/nowhere/x cannot be written \(.*\): choose another place$", line), line


def test_places_that_can_be_written(tmp_path):
    check_writable(tmp_path / "new" / "folders" / "result.json")
    check_writable(tmp_path / "result.json")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match=r"^/proc/nowhere/result\.json cannot be written \(.*\): choose another place$"):
        check_writable("/proc/nowhere/result.json")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_flushes_no_folders(tmp_path, monkeypatch, code):
    fsync = os.fsync

    def of_files(file):
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(file)

    monkeypatch.setattr(os, "fsync", of_files)
    atomic_write.write_text(tmp_path / "a.txt", "text")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["text"]
    code = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        atomic_write.write_text(tmp_path / "a.txt", "more")


def fail_to_lock(monkeypatch, code):
    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)


def test_a_file_system_without_locks_trains_all_the_same(tmp_path, monkeypatch, capsys):
    fail_to_lock(monkeypatch, errno.ENOSYS)
    with run.locked(Workdir(tmp_path / "w")):
        (tmp_path / "w" / "config.json").write_text("{}")
    line = "its file system has no locks (Function not implemented), so that nothing prevents a second run"
    assert line in capsys.readouterr().err and (tmp_path / "w" / "config.json").exists()


def test_other_errors_of_a_lock_are_errors(tmp_path, monkeypatch):
    fail_to_lock(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"), run.locked(Workdir(tmp_path / "w")):
        pass
    assert not (tmp_path / "w").exists()
