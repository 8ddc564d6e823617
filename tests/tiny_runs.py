"""The data set of `tiny`, prepared, and training runs in processes of their own."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import tiny

from mancs_jax.data import build
from mancs_jax.data.sources import market1501

REPOSITORY = Path(__file__).parents[1]
PATIENCE = 1800  # seconds: it ends a script that hangs, and times nothing


def write_data(root: Path, source: Path | None = None) -> Path:
    """Prepares a folder, or one of `tiny` next to `root`, as market1501 under `root`, which is returned."""
    with market1501.open_source(source or tiny.write_folder(root.with_name(f"{root.name}_source"))) as contents:
        build.build(contents, root)
    return root


def start(*arguments: str, devices: int = 1, program: Sequence[str] = ("scripts/train.py",), **variables: str):
    """Starts a program of the repository with so many devices, and with variables of the environment."""
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ["XLA_FLAGS"])
    variables["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *program, *arguments], cwd=REPOSITORY, env=os.environ | variables, **pipes)


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """Waits for the end: exit status, stdout, stderr."""
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def rows(workdir: Path) -> list[dict]:
    """The rows of metrics.jsonl."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
