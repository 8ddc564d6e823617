"""Every end of a command is one line and the right status."""

import types
from pathlib import Path

import pytest
from programs import run_python

from mancs_jax.cli import command_line
from mancs_jax.cli.main import main

REPOSITORY = Path(__file__).parents[1]
EMBED = ("embed", "docs/people", "--network=market1501")
# A command that fails while JAX still computes: the process may not crash at its end.
STILL_COMPUTING = """
import sys, types
from mancs_jax.cli import command_line
def main(values, arguments):
    import mancs_jax
    command_line.keep_compiled_programs()
    embed = mancs_jax.load("market1501")
    embed(["docs/people/a.jpg"] * 160 + ["nowhere.jpg"], progress=False)
command = types.ModuleType("command", "A command.")
command.define, command.ARGUMENTS, command.main = (lambda values, argv: None), (), main
command_line.run(command, ["command"])
"""


def ends(raised: BaseException):
    """(status or line, of a command that raises)."""

    def main(values, arguments):
        raise raised

    command = types.ModuleType("mancs_jax.cli.command", "A command.")
    command.define, command.ARGUMENTS, command.main = (lambda values, argv: None), (), main
    with pytest.raises(SystemExit) as stop:
        command_line.run(command, ["command"])
    return stop.value.code


def test_ctrl_c(capsys):
    assert ends(KeyboardInterrupt()) == 130
    assert ends(KeyboardInterrupt("stopped; all is gone")) == 130
    assert capsys.readouterr().err == "command: interrupted\ncommand: stopped; all is gone\n"


def test_what_users_can_mend():
    assert ends(ValueError("a\nb")) == "command: a b"
    assert ends(MemoryError("Unable to allocate 3 GiB")) == (
        "command: the machine has too little memory (Unable to allocate 3 GiB)"
    )
    assert ends(ValueError("\x1b[2J.jpg: no image")) == r"command: \x1b[2J.jpg: no image"


def test_a_line_begins_with_the_command_as_it_is_typed():
    with pytest.raises(SystemExit, match="^import-weights: nowhere.pth"):
        main(["mancs", "import-weights", "--source=nowhere.pth", "--names"])


@pytest.mark.parametrize(
    ("error", "start", "end"),
    [
        (KeyError("pid"), "command: KeyError: pid; this is a fault of mancs_jax, please report it with ", ""),
        (AssertionError(), "command: AssertionError: AssertionError; this is a fault of mancs_jax, please", ""),
        (RuntimeError("XLA: a page\nof text"), "command: XLA: a page of text (traceback: ", ")"),
    ],
)
def test_other_errors_are_one_line_and_keep_their_traceback(error, start, end, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    line = ends(error)
    [file] = tmp_path.iterdir()
    assert line.startswith(start) and line.endswith(f"{file}{end}") and "\n" not in line
    assert "Traceback" in file.read_text() and type(error).__name__ in file.read_text()
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("MANCS_TRACEBACK", "1")
    ends(ValueError("shown on request"))
    assert "ValueError: shown on request" in capsys.readouterr().err


@pytest.mark.parametrize(("platforms", "extra"), [("cuda", "cuda12"), ("tpu", "tpu"), ("nonsense", "cuda12")])
def test_devices_that_are_not_there(platforms, extra, tmp_path):
    code = "import jax; from mancs_jax.cli.main import main; main()"
    ended = run_python(code, *EMBED, f"--output={tmp_path}/o.npz", cwd=REPOSITORY, JAX_PLATFORMS=platforms)
    line = f"embed: JAX cannot use JAX_PLATFORMS={platforms} on this machine: unset it, or install JAX for this device"
    line += f", as pip install 'mancs_jax[{extra}]'"
    assert ended.returncode == 1 and ended.stderr.startswith(line) and ended.stderr.count("\n") == 1


def test_no_crash_while_jax_computes():
    for _ in range(2):
        ended = run_python(STILL_COMPUTING, cwd=REPOSITORY)
        assert (ended.returncode, ended.stderr) == (1, "command: nowhere.jpg: no such file\n")


def test_a_user_whom_nobody_knows(tmp_path):
    """As in a container with the user id of another machine: no home directory and no entry in the list of users."""
    code = """
import os, pwd, sys
def getpwuid(number): raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = getpwuid
for name in ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR", "USER", "LOGNAME"): os.environ.pop(name, None)
from mancs_jax.cli.main import main
main()
"""
    ended = run_python(code, *EMBED, f"--output={tmp_path}/o.npz", cwd=REPOSITORY)
    assert (ended.returncode, ended.stderr) == (0, "") and ended.stdout.endswith("o.npz: 3 embeddings, 320 wide\n")
