"""One line for a mistake, where compiled programs are kept, and the programs that no other test runs."""

import json
import platform
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from programs import printed_by, run_python
from tiny_sources import run_script, write_cuhk03

from mancs_jax import ablation, scoring
from mancs_jax.cli.command_line import COLLECTED_AFTER, one_line
from mancs_jax.data import build
from mancs_jax.data.sources import cuhk03

REPOSITORY = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one"), "one"),
        (ValueError("a\n\n  b \n"), "a b"),
        (ValueError("Error whilst parsing config file:\n\n trace \nValueError: wrong: x"), "wrong: x"),
        (KeyError("config.x is not there"), "config.x is not there"),
        (OSError(), "OSError"),
        (ValueError(f"{'a' * 5000}.jpg: no such file"), f"{'a' * 60}...{'a' * 25}.jpg: no such file"),
    ],
)
def test_one_line(error, line):
    assert one_line(error) == line


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"XDG_CACHE_HOME": "/x"}, "/x/mancs_jax 0.1"),
        ({"HOME": "/h"}, "/h/.cache/mancs_jax 0.1"),
        ({"HOME": "/h", "JAX_COMPILATION_CACHE_DIR": "/own"}, "/own 0.1"),
        ({"HOME": "/h", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "5"}, "/h/.cache/mancs_jax 5.0"),
    ],
)
def test_compiled_programs_are_kept_where_users_keep_caches(environment, expected):
    """And those of a tenth of a second, too, unless the user says something else."""
    code = (
        "import jax; from mancs_jax.cli.command_line import keep_compiled_programs; keep_compiled_programs();"
        "print(jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs)"
    )
    mine = ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    assert printed_by(code, without=mine, **environment).strip() == expected


def test_a_user_without_a_home_directory_keeps_no_compiled_programs():
    """As in a container whose user is in no list, where `Path.home` raises."""
    code = (
        "import jax, os, pathlib\n"
        "def home(): raise RuntimeError('Could not determine home directory.')\n"
        "pathlib.Path.home = home\n"
        "from mancs_jax.cli.command_line import keep_compiled_programs\n"
        "from mancs_jax.common.processor import set_cpu_flags\n"
        "set_cpu_flags(); keep_compiled_programs()\n"
        "print(jax.config.jax_compilation_cache_dir, '--xla_backend_optimization_level=2' in os.environ['XLA_FLAGS'])"
    )
    mine = ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS")
    assert printed_by(code, without=mine).strip() == "None True"


def test_figure3(tmp_path):
    """The picture in the documents is the one that its command draws."""
    command = [sys.executable, "docs/tools/figure3.py", f"--output={tmp_path / 'figure3.svg'}"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, f"{tmp_path / 'figure3.svg'}\n"), result.stderr
    drawn, shown = ((folder / "figure3.svg").read_text() for folder in (tmp_path, REPOSITORY / "docs"))
    number = r"-?\d+\.?\d*(?:e-?\d+)?"
    assert re.sub(number, "", drawn) == re.sub(number, "", shown)
    numbers = [np.array(re.findall(number, text), float) for text in (drawn, shown)]
    np.testing.assert_allclose(*numbers, rtol=0, atol=0.11)  # pixels; it is written with one digit


def test_ablation(monkeypatch, tmp_path, capsys):
    """In this process, without its trainings, which are those of `mancs train`."""

    def train_and_evaluate(config, workdir, report):
        about = dict.fromkeys(("step", "split", "dataset", "train_fingerprint", "versions", "git", "devices"), "x")
        scores = {"mAP": 0.5, "mAP_plain": 0.51, "mINP": 0.1, "cmc": [0.7 + config.data.p / 100] * 50}
        return {scoring.NETWORK: about | scores}

    monkeypatch.setattr(ablation, "train_and_evaluate", train_and_evaluate)
    arguments = ["--base=walkers", "--rows=cls", "--seeds=0,1", f"--workdir={tmp_path}", "--set=data.p=8"]
    assert in_this_process("ablation", arguments, monkeypatch) == ""
    assert "| `cls` | f_cls, cross-entropy | 2 | 50.0 ± 0.0 | 78.0 ± 0.0 |" in capsys.readouterr().out
    summary = json.loads((tmp_path / "results" / "ablation.json").read_text())
    assert summary["rows"]["cls"]["seeds"] == [0, 1]
    refused = in_this_process("ablation", [*arguments, "--set=data.q=3"], monkeypatch)
    assert refused.startswith("ablation: config.data.q: no such field.")


def in_this_process(name, arguments, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    module = import_module(f"mancs_jax.cli.{name}")
    monkeypatch.setattr(module, "keep_freed_memory", lambda: None)  # of the whole process
    return run_script(name, *arguments)


@pytest.mark.filterwarnings("ignore:the load_module")  # ml_collections reads --config by it
@pytest.mark.usefixtures("one_device")
def test_cuhk03_classic(monkeypatch, tmp_path, capsys):
    """In this process, for one test set instead of twenty."""
    mat = write_cuhk03(tmp_path / "cuhk-03.mat", testsets=[[(1, 1)]])
    with cuhk03.open_source(mat, "labeled") as contents:
        build.build(contents, tmp_path / "data")
    monkeypatch.setattr("mancs_jax.config.names.NUM_TESTSETS", 1)
    fields = {"data.root": tmp_path / "data", "data.name": "cuhk03_labeled", "max_steps": 1, "model.fab_stages": "()"}
    arguments = ["--config=tests/tiny.py", *(f"--config.{name}={value}" for name, value in fields.items())]
    arguments.append(f"--workdir={tmp_path / 'run'}")
    assert in_this_process("cuhk03_classic", arguments, monkeypatch) == ""
    out = capsys.readouterr().out
    assert "| test set 1 |" in out and "rank-1 100.00 +- 0.00" in out
    summary = json.loads((tmp_path / "run" / "results" / "cuhk03_classic.json").read_text())
    assert summary["num_splits"] == 1 and summary["mean"]["rank-1"] == 1  # of one person


@pytest.mark.parametrize("fails", [False, True])
def test_a_command_looks_for_cycles_of_objects_seldom(fails):
    """And not at its end; but after an error, when JAX may still compute, it ends as Python does."""
    program = """
import atexit, gc, sys, types
atexit.register(lambda: print(*gc.get_threshold(), gc.get_freeze_count() > 0))  # called last
from mancs_jax.cli import command_line
command = types.ModuleType("command", "A command.")
command.define, command.ARGUMENTS = (lambda values, argv: None), ()
command.main = lambda values, arguments: 1 // int(sys.argv[1])
command_line.run(command, ["command"])
"""
    ended = run_python(program, int(not fails))
    assert ended.stdout.split() == [*map(str, COLLECTED_AFTER), str(not fails)]
    assert (ended.returncode, ended.stderr) == (
        (1, "command: integer division or modulo by zero\n") if fails else (0, "")
    )


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_memory_that_was_used_once_is_not_asked_for_again():
    """A block of 64 MB that is made, freed and made again: the second time the kernel gives no new page."""
    program = """
import ctypes, resource
from mancs_jax.cli.command_line import keep_freed_memory
keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes, libc.memset.argtypes = (
    ctypes.c_void_p, [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t])
for turn in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(64 << 20)
    libc.memset(block, 1, 64 << 20)
    libc.free(block)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    first, second = map(int, printed_by(program).split())
    assert second < 10 < first
