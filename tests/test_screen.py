"""A screen that fails ends no work; names that it cannot show are escaped."""

import ast
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from mancs_jax.common import screen
from mancs_jax.common.screen import Steady, bar, encodable, escaped, keep_going, show, tell
from mancs_jax.training.log import MetricsLog
from mancs_jax.workdir import Workdir

NO_UTF8 = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


def broken(how):
    """A text stream that fails: the disk is full, the reader has gone, it is closed."""
    if how == "full":
        return open("/dev/full", "w")  # noqa: PTH123, SIM115
    if how == "closed":
        stream = io.StringIO()
        stream.close()
        return stream
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


@needs_full
@pytest.mark.filterwarnings("ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", ["full", "reader gone", "closed"])
def test_a_training_goes_on_without_a_screen(how, tmp_path, monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, broken(how))
    log = MetricsLog(Workdir(tmp_path), step=0, num_steps=3, batch=2, log_every=1)
    for step in (1, 2, 3):
        log.add(step, {"loss": jnp.float32(step)})
        log.say("a line " * 5000)
        show("a result " * 5000)
        tell("a warning " * 5000)
    log.close()
    for _ in bar(range(3), mininterval=0):
        pass
    keep_going()
    print("of a library " * 5000)
    print("of a library " * 5000, file=sys.stderr)
    sys.stdout.flush()
    assert [json.loads(row)["step"] for row in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2]


@pytest.fixture
def features(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((6, 4)).astype(np.float32)
    labels = {"pid": np.array([1, 1, 2]), "camid": np.array([1, 2, 1])}
    parts = {
        f"{part}_{name}": value[::step]
        for part, step in (("query", 1), ("gallery", -1))
        for name, value in labels.items()
    }
    parts["gallery_camid"] = np.array([3, 4, 5])
    np.savez(tmp_path / "f.npz", query=rows[:3], gallery=rows[3:], **parts)
    return tmp_path / "f.npz"


def evaluate(features, stream, **environment):
    command = [sys.executable, "-m", "mancs_jax.cli", "evaluate", f"--features={features}", f"--json={features}.json"]
    return subprocess.run(command, stdout=stream, stderr=stream, env=os.environ | environment).returncode


@needs_full
@pytest.mark.parametrize("how", ["full", "reader gone"])
def test_results_are_written_whatever_happens_to_the_screen(features, how):
    with broken(how) as stream:
        assert evaluate(features, stream, PYTHONUNBUFFERED="1" if how == "full" else "") == 0
    assert json.loads(features.with_name("f.npz.json").read_text())["mAP"] > 0


@pytest.mark.parametrize(
    ("name", "encoding", "shown"),
    [
        ("plain.jpg", "ascii", "plain.jpg"),
        ("caf\u00e9.jpg", "utf-8", "caf\u00e9.jpg"),
        ("caf\u00e9 \u738b.jpg", "ascii", r"caf\xe9 \u738b.jpg"),
        ("\u738b.jpg", "latin-1", r"\u738b.jpg"),
        (NO_UTF8, "utf-8", r"caf\xe9.jpg"),
        ("\ud800.jpg", "utf-8", r"\ud800.jpg"),
    ],
)
def test_names_that_cannot_be_shown(name, encoding, shown, monkeypatch):
    assert encodable(name, encoding) == shown
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    show(name)
    assert stream.buffer.getvalue().decode(encoding) == f"{shown}\n"


def test_names_that_would_move_the_cursor(capsys):
    assert escaped("a\x1b[2J\r\n\tb") == r"a\x1b[2J\x0d\n\tb"
    show("a\x1b[2J\rb\nc\td")
    assert capsys.readouterr().out == "a\\x1b[2J\\x0db\nc\td\n"


def test_a_steady_stream_is_like_its_stream():
    stream = io.StringIO()
    steady = Steady(stream)
    steady.writelines(["a", "b"])
    assert steady.getvalue() == "ab" and steady.write("cd") == 2 and not steady.closed


def test_all_lines_and_bars_of_the_package_go_this_way():
    for file in Path(screen.__file__).parents[1].rglob("*.py"):
        names = {node.func.id for node in ast.walk(ast.parse(file.read_text())) if _is_named(node)}
        assert not names & {"print", "tqdm"} or file.stem == "screen", file


def _is_named(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
