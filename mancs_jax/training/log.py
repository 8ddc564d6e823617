"""The records of a run: metrics.jsonl, TensorBoard, run.json, and one progress bar."""

import json
import math
import os
import sys
import time
from functools import partial
from pathlib import Path

import jax

from mancs_jax.common.atomic_write import naming_full_disk, read_list, write_json, write_text
from mancs_jax.common.environment import environment
from mancs_jax.common.screen import Steady, bar
from mancs_jax.training.board import add_scalar, open_board
from mancs_jax.training.description import Description
from mancs_jax.workdir import Workdir


def keep_rows(path: Path, last_step: int) -> None:
    """Drops from a metrics file what lies after `last_step`, and a row that a kill cut short: those steps run again."""
    if not path.exists():
        return
    kept = [json.dumps(row) + "\n" for row in read_rows(path) if row["step"] <= last_step]
    write_text(path, "".join(kept))


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics file, without those that a kill or a disk damaged."""
    rows = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def record_start(workdir: Workdir, description: Description, devices: list[jax.Device], step: int) -> None:
    """Writes config.json, and adds this start to the list in run.json.

    Args:
      workdir: of the run.
      description: of its checkpoints.
      devices: that it trains on.
      step: that it starts from.
    """
    write_json(workdir.config, description.config)
    starts = read_list(workdir.starts, "starts")
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    made_with = {"step": step, "command": command, "config": description.config}
    starts.append(environment(devices) | made_with | {"data_fingerprint": description.data_fingerprint})
    write_json(workdir.starts, {"starts": starts})


class Diverged(ArithmeticError):
    """A loss or the gradient is not finite; the message is one line with its name and the step."""


class MetricsLog:
    """Rows of numbers, by step, into `metrics.jsonl` and TensorBoard, and a progress bar beside them.

    Rows hold nothing that depends on the clock: a run that was killed and resumed writes the file of one that was not.
    """

    def __init__(self, workdir: Workdir, step: int, num_steps: int, batch: int, log_every: int, writes: bool = True):
        """Opens the log of a run of `num_steps` steps of `batch` images that stands at `step`.

        Where it does not write, as in all processes but one, it still checks that numbers are finite.
        """
        path = workdir.metrics if writes else Path(os.devnull)
        if writes:
            keep_rows(path, step)
        self._naming_full_disk = partial(naming_full_disk, path)
        with self._naming_full_disk():
            self._file = path.open("a")
        self._naming_full_board = partial(naming_full_disk, workdir.tensorboard)
        with self._naming_full_board():
            self._board = open_board(workdir.tensorboard, step) if writes else None
        self._bar = bar(
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
        if self._board:
            with self._naming_full_board():
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
        self._show("images_per_second", rate, step)
        self._bar.set_postfix_str(f"loss {row['loss']:.4f}, {rate:.0f} images/s", refresh=False)
        self._bar.update(step - self._bar.n)

    def write(self, step: int, row: dict[str, float]) -> None:
        """Adds a row."""
        with self._naming_full_disk():
            self._file.write(json.dumps({"step": step, **row}) + "\n")
            self._file.flush()
        for name, value in row.items():
            self._show(name, value, step)

    def _show(self, name: str, value: float, step: int) -> None:
        if self._board:
            with self._naming_full_board():
                add_scalar(self._board, name, value, step)

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        if not self._bar.disable:
            self._bar.write(text, file=Steady(sys.stderr))

    def close(self) -> None:
        """Ends the bar and writes out what is buffered."""
        self._bar.close()
        try:
            with self._naming_full_disk():  # a row that a full disk did not take is tried once more
                self._file.close()
        finally:
            if self._board:
                with self._naming_full_board():
                    self._board.close()
