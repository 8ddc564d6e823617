"""The logs of a run: metrics.jsonl, TensorBoard, run.json, and one progress bar."""

import json
import math
import os
import sys
import time
from functools import partial
from pathlib import Path

import jax
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from mancs_jax.common.atomic_write import naming_full_disk, read_list, write_json, write_text
from mancs_jax.common.environment import environment
from mancs_jax.common.screen import Steady, bar
from mancs_jax.training.description import Description
from mancs_jax.workdir import Workdir


def keep_rows(path: Path, last_step: int) -> None:
    """Removes rows after `last_step`, and rows that a kill cut short, from a metrics file: those steps run again."""
    if not path.exists():
        return
    write_text(path, "".join(json.dumps(row) + "\n" for row in read_rows(path) if row["step"] <= last_step))


def read_rows(path: Path) -> list[dict[str, float]]:
    """Returns the rows of a metrics file, except damaged ones."""
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
    """Writes config.json, and adds this start, from `step` and on `devices`, to the list in run.json."""
    write_json(workdir.config, description.config)
    starts = read_list(workdir.starts, "starts")
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    made_with = {"step": step, "command": command, "config": description.config}
    starts.append(environment(devices) | made_with | {"data_fingerprint": description.data_fingerprint})
    write_json(workdir.starts, {"starts": starts})


class Diverged(ArithmeticError):
    """A loss or the gradient is not finite; the message is one line with its name and the step."""


class MetricsLog:
    """Writes metrics by step to `metrics.jsonl` and TensorBoard, and shows a progress bar.

    Rows do not depend on the clock, so that a killed and resumed run writes the same file as an undisturbed one.
    TensorBoard's events are written by the thread that trains, so that a full disk is an error there, in one line:
    tensorboardX's own writer has a thread and an exit hook, which end in pages of traceback.
    """

    def __init__(self, workdir: Workdir, step: int, num_steps: int, batch: int, log_every: int, writes: bool = True):
        """Opens the log of a run of `num_steps` steps with batch size `batch`, of which `step` are done.

        With `writes=False`, as in all processes but one, it only checks that metrics are finite.
        """
        path = workdir.metrics if writes else Path(os.devnull)
        if writes:
            keep_rows(path, step)
        self._naming_full_disk = partial(naming_full_disk, path)
        with self._naming_full_disk():
            self._file = path.open("a")
        self._naming_full_board = partial(naming_full_disk, workdir.tensorboard)
        with self._naming_full_board():
            self._board = _open_board(workdir.tensorboard, step) if writes else None
        self._bar = bar(
            total=num_steps, initial=step, unit="step", dynamic_ncols=True, mininterval=1.0, disable=not writes
        )
        self._batch, self._log_every = batch, log_every
        self._last_time = time.monotonic()
        self._pending: tuple[int, dict[str, jax.Array]] | None = None

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Takes the metrics of a step. They are read at the next call, so that the device never waits for the host.

        Raises Diverged where a metric of the *previous* step is not finite.
        """
        self._write_pending()
        self._pending = step, metrics

    def flush(self) -> None:
        """Waits for the newest metrics, checks them (`Diverged`), and writes everything to the disk."""
        self._write_pending()
        if self._board:
            with self._naming_full_board():
                self._board.flush()

    def _write_pending(self) -> None:
        if self._pending is None:
            return
        step, metrics = self._pending
        self._pending = None
        row = {name: float(value) for name, value in jax.device_get(metrics).items()}
        not_finite = [name for name, value in row.items() if not math.isfinite(value)]
        if not_finite:
            # One loss that is not finite makes the sum, the gradient and the parameters so: only it is named.
            causes = [name for name in not_finite if name.endswith("_loss")] or not_finite
            values = ", ".join(f"{name} is {row[name]}" for name in causes)
            raise Diverged(f"step {step}: {values}")
        if step % self._log_every == 0:
            self.write(step, row)
        rate = self._batch / max(time.monotonic() - self._last_time, 1e-9)
        self._last_time = time.monotonic()
        self._write_scalar("images_per_second", rate, step)
        self._bar.set_postfix_str(f"loss {row['loss']:.4f}, {rate:.0f} images/s", refresh=False)
        self._bar.update(step - self._bar.n)

    def write(self, step: int, row: dict[str, float]) -> None:
        with self._naming_full_disk():
            self._file.write(json.dumps({"step": step, **row}) + "\n")
            self._file.flush()
        for name, value in row.items():
            self._write_scalar(name, value, step)

    def _write_scalar(self, name: str, value: float, step: int) -> None:
        if self._board:
            with self._naming_full_board():
                self._board.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))

    def say(self, text: str) -> None:
        """Prints a line above the progress bar."""
        if not self._bar.disable:
            self._bar.write(text, file=Steady(sys.stderr))

    def close(self) -> None:
        """Ends the progress bar and writes buffered rows."""
        self._bar.close()
        try:
            with self._naming_full_disk():  # tries a row that a full disk did not accept once more
                self._file.close()
        finally:
            if self._board:
                with self._naming_full_board():
                    self._board.close()


def _open_board(folder: Path, step: int) -> EventsWriter:
    """Opens an event file of a run that continues at `step`; TensorBoard hides later steps of earlier files."""
    folder.mkdir(parents=True, exist_ok=True)
    board = EventsWriter(str(folder / "events"))
    start = SessionLog(status=SessionLog.START)
    board.write_event(Event(wall_time=time.time(), step=step + 1, session_log=start))
    return board
