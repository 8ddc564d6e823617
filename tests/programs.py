"""Programs in processes of their own."""

import os
import subprocess
import sys
from collections.abc import Sequence


def run_python(code: str, *arguments: object, without: Sequence[str] = (), cwd: object = None, **variables: str):
    """Runs a program without some variables of the environment, and with others; returns the ended process."""
    environment = {name: value for name, value in os.environ.items() if name not in without} | variables
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=cwd)


def printed_by(code: str, *arguments: object, **options) -> str:
    """Returns what a program prints that has to end well."""
    ended = run_python(code, *arguments, **options)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
