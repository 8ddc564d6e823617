"""Which flags the installed XLA knows: asked once in a child process, whatever version of JAX is installed."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from programs import printed_by

from mancs_jax.common import local_path, xla_flags
from mancs_jax.common.processor import EIGEN, LEVEL
from mancs_jax.common.xla_flags import is_known

UNKNOWN = "--xla_cpu_no_such_flag=true"


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "mancs_jax" / "xla_flags"


@pytest.fixture
def starts(monkeypatch):
    """Replaces the child process: `status` is what it ends with, `flags` are those that were tried."""
    starts = SimpleNamespace(status=0, flags=[])

    def run(command, env, **_):
        starts.flags.append(env["XLA_FLAGS"])
        if isinstance(starts.status, Exception):
            raise starts.status
        return SimpleNamespace(returncode=starts.status)

    monkeypatch.setattr(xla_flags.subprocess, "run", run)
    return starts


def test_the_installed_xla(cache):
    """It knows what every command gives it, or steps are a quarter slower without a word."""
    assert is_known(LEVEL) and is_known(EIGEN)
    assert not is_known(UNKNOWN)
    assert not is_known("--xla_backend_optimization_level=high")
    assert not is_known(EIGEN.partition("=")[0] + "=NO_SUCH_TYPE")
    assert len(list(cache.iterdir())) == 5


@pytest.mark.parametrize("status", [0, 1])
def test_one_process_for_each_flag_and_version(cache, starts, monkeypatch, status):
    starts.status = status
    for flag in (LEVEL, EIGEN, LEVEL, EIGEN):
        assert is_known(flag) == (status == 0)
    assert starts.flags == [LEVEL, EIGEN]
    starts.status = 1 - status
    monkeypatch.setattr(xla_flags.metadata, "version", lambda _: "99.0")
    assert is_known(LEVEL) == (status == 1)
    assert starts.flags == [LEVEL, EIGEN, LEVEL]


@pytest.mark.parametrize("status", [-9, 2, OSError("no process left")])
def test_a_killed_process_says_nothing(cache, starts, status):
    starts.status = status
    assert not is_known(LEVEL)
    starts.status = 0
    assert is_known(LEVEL)


def test_an_error_of_python_is_no_refusal(cache, monkeypatch):
    monkeypatch.setattr(xla_flags, "PROGRAM", xla_flags.PROGRAM.replace("_jax", "_no_such_module"))
    assert not is_known(LEVEL) and not cache.exists()


def test_a_file_that_is_cut_off_is_no_answer(cache, starts):
    assert is_known(LEVEL)
    [answer] = cache.iterdir()
    answer.write_text("")
    assert is_known(LEVEL)
    assert len(starts.flags) == 2 and answer.read_text() == "known"


def test_without_a_place_for_the_answer(cache, starts, monkeypatch):
    cache.parent.write_text("a file where the folder would be")
    assert is_known(LEVEL)

    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(local_path.Path, "home", home)
    assert is_known(LEVEL) and len(starts.flags) == 2


@pytest.mark.parametrize("unknown", ["", "--xla_cpu_use_fusion_emitters"])
def test_the_tests_themselves_give_xla_no_flag_that_it_does_not_know(unknown):
    program = f"""
import os
from mancs_jax.common import xla_flags
xla_flags.is_known = lambda flag: flag.partition("=")[0] != {unknown!r}
import conftest
print(os.environ["XLA_FLAGS"])
"""
    folders = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    printed = printed_by(program, XLA_FLAGS="", PYTHONPATH=folders)
    assert "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0" in printed
    assert ("--xla_cpu_use_fusion_emitters=false" in printed) == (not unknown)
