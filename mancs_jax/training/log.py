"""What a run leaves to read: metrics.jsonl, TensorBoard, run.json, and one progress bar."""

import json
import math
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import tensorboardX
from tqdm import tqdm

PACKAGES = ("mancs_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy", "scipy")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that the file is either the old one or the new one, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    temporary.replace(path)


def keep_rows(path: Path, last_step: int) -> None:
    """Drops from a metrics file what lies after `last_step`, and a row that a kill cut short: those steps run again."""
    if not path.exists():
        return
    kept = [json.dumps(row) + "\n" for row in read_rows(path) if row["step"] <= last_step]
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(kept))
    temporary.replace(path)


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics file, without one that a kill cut short."""
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def environment(devices: list[jax.Device]) -> dict[str, Any]:
    """What a run was made with: time, versions, devices, git revision."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES},
        "devices": [device.device_kind for device in devices],
        "git": git_revision(),
    }


def git_revision() -> str:
    """The commit of this package's checkout, with "+changes" where files differ from it; "" without one."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments):
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # A package installed inside some other project's checkout is not that project.
        if Path(git("rev-parse", "--show-toplevel")) != root:
            return ""
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def record_start(workdir: Path, about: dict[str, Any], devices: list[jax.Device], step: int) -> None:
    """Writes config.json, and adds this start to the list in run.json.

    Args:
      workdir: of the run.
      about: as in its checkpoints.
      devices: that it trains on.
      step: that it starts from.
    """
    write_json(workdir / "config.json", about["config"])
    path = workdir / "run.json"
    starts = json.loads(path.read_text())["starts"] if path.exists() else []
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    made_with = {"step": step, "command": command, "config": about["config"]}
    starts.append(environment(devices) | made_with | {"data_fingerprint": about["data_fingerprint"]})
    write_json(path, {"starts": starts})


class Diverged(Exception):
    """A loss or the gradient is not finite; the message is one line that names it and the step."""


class MetricsLog:
    """Rows of numbers, by step, into `metrics.jsonl` and TensorBoard, and a progress bar beside them.

    Rows hold nothing that depends on the clock: a run that was killed and resumed writes the file of one that was not.
    """

    def __init__(self, workdir: Path, step: int, num_steps: int, batch: int, log_every: int, writes: bool = True):
        """Opens the log of a run of `num_steps` steps of `batch` images that stands at `step`.

        Where it does not write, as in all processes but one, it still checks that numbers are finite.
        """
        path = workdir / "metrics.jsonl" if writes else Path(os.devnull)
        if writes:
            keep_rows(path, step)
        self._file = path.open("a")
        board = str(workdir / "tensorboard")
        self._board = tensorboardX.SummaryWriter(board, purge_step=step + 1, write_to_disk=writes)
        self._bar = tqdm(
            total=num_steps, initial=step, unit="step", dynamic_ncols=True, mininterval=1.0, disable=not writes
        )
        self._batch, self._log_every = batch, log_every
        self._then = time.monotonic()
        self._pending: tuple[int, dict[str, jax.Array]] | None = None

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Takes a step's metrics; they are read when the next come, so that the device never waits for the host.

        Raises:
          Diverged: a value of the step *before* is not finite.
        """
        self._settle()
        self._pending = step, metrics

    def flush(self) -> None:
        """Waits for the newest metrics, checks them, and writes all there is to the disk.

        Raises:
          Diverged: a value is not finite.
        """
        self._settle()
        self._board.flush()

    def _settle(self) -> None:
        if self._pending is None:
            return
        step, metrics = self._pending
        self._pending = None
        row = {name: float(value) for name, value in jax.device_get(metrics).items()}
        broken = [name for name, value in row.items() if not math.isfinite(value)]
        if broken:
            terms = [name for name in broken if name.endswith("_loss")] or broken
            values = ", ".join(f"{name} is {row[name]}" for name in terms)
            raise Diverged(f"step {step}: {values}")
        if step % self._log_every == 0:
            self.write(step, row)
        rate = self._batch / max(time.monotonic() - self._then, 1e-9)
        self._then = time.monotonic()
        self._board.add_scalar("images_per_second", rate, step)
        self._bar.set_postfix_str(f"loss {row['loss']:.4f}, {rate:.0f} images/s", refresh=False)
        self._bar.update(step - self._bar.n)

    def write(self, step: int, row: dict[str, float]) -> None:
        """Adds a row."""
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        self._file.flush()
        for name, value in row.items():
            self._board.add_scalar(name, value, step)

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        if not self._bar.disable:
            self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Ends the bar and writes out what is buffered."""
        self._bar.close()
        self._file.close()
        self._board.close()
