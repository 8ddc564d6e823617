"""Checkpoints with orbax: atomic, asynchronous, readable on any number of devices."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from logging import LogRecord
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
import tensorstore
from absl import logging

from mancs_jax.common import processes
from mancs_jax.common.screen import tell
from mancs_jax.training.description import Description
from mancs_jax.training.echoes import leave_out_echoes, leave_out_notes
from mancs_jax.training.state import TrainState

Read = TypeVar("Read")

PATTERNS = "*?[]"  # orbax takes these in a path for patterns, and then does not find what it has just written
# In an error of the disk: the checkpoint may be whole.
NO_DAMAGE = ("PERMISSION_DENIED", "Permission denied", "Input/output error", "Stale file handle", "Too many open files")
REASON_LENGTH = 160  # characters of a library's message that a line quotes


def check_path(directory: Path) -> None:
    """Refuses a path in which checkpoints would be lost (ValueError, one line)."""
    if found := [character for character in PATTERNS if character in str(directory.absolute())]:
        raise ValueError(
            f"{directory}: no checkpoint can be kept below a path with {' '.join(found)}, which the library that "
            "writes them takes for a pattern; choose another --workdir"
        )


def open_checkpoints(directory: Path, keep: int) -> ocp.CheckpointManager:
    """Opens (and makes) a directory of checkpoints that keeps the latest `keep`; what a killed save left is removed.

    Raises:
      ValueError: see `check_path`.
    """
    check_path(directory)
    leave_out_echoes()
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
    with _naming_damage(directory):
        return ocp.CheckpointManager(directory.absolute(), options=options)


def save(manager: ocp.CheckpointManager, state: TrainState, description: Description) -> None:
    """Starts to write a checkpoint; it has its final name only once it is complete.

    Args:
      manager: from `open_checkpoints`.
      state: what to save, under `state.step`.
      description: JSON that goes with it.

    Raises:
      OSError: the checkpoint was not taken, or the one before cannot be written or read back.
    """
    step = int(state.step)
    finish(manager)
    if step in manager.all_steps():
        return
    args = ocp.args.Composite(
        state=ocp.args.StandardSave(processes.as_global(state)), about=ocp.args.JsonSave(description._asdict())
    )
    with _naming_what_is_left(manager):
        taken = manager.save(step, args=args)
    if not taken:
        raise OSError(f"{manager.directory} did not take the checkpoint of step {step}; it holds {manager.all_steps()}")


def finish(manager: ocp.CheckpointManager) -> None:
    """Waits for a save that is under way, and opens the latest checkpoint again: its JSON and one array.

    Raises:
      OSError: it cannot be written or read back.
    """
    with _naming_what_is_left(manager):
        manager.wait_until_finished()
    step = manager.latest_step()
    if step is None:
        return
    try:
        _description(manager, step)
        check_whole(Path(manager.directory), step, ("step",))
    except (ValueError, TypeError, OSError) as error:
        raise OSError(
            f"{manager.directory}: the checkpoint of step {step} was written, but cannot be read back "
            f"({_reason(error)}); check the disk"
        ) from error


@contextmanager
def _naming_what_is_left(manager: ocp.CheckpointManager) -> Iterator[None]:
    """Turns orbax's errors of a checkpoint that cannot be written into one line (OSError)."""
    try:
        yield
    except Exception as error:  # orbax, tensorstore and the disk have many kinds
        step = latest_on_disk(Path(manager.directory))
        left = "there is none before it" if step is None else f"that of step {step} is kept"
        full = "No space left on device"
        reason = full if full in str(error) else _reason(error)
        raise OSError(
            f"{manager.directory}: the checkpoint cannot be written ({reason}); {left}; free the disk, and the "
            "same command goes on"
        ) from error


def latest_on_disk(directory: Path) -> int | None:
    """The latest step that has its final name, from the names alone; None without one."""
    return max((int(path.name) for path in directory.glob("*") if path.name.isdecimal()), default=None)


def check_whole(directory: Path, step: int, parts: Sequence[str] = ("",)) -> None:
    """Reads the bytes of a checkpoint's arrays: orbax, which restores them all at once, fails with many tracebacks.

    Args:
      directory: of checkpoints.
      step: of the checkpoint.
      parts: with which the names of the arrays begin.

    Raises:
      ValueError: they are not there, or are damaged.
    """
    base = {"driver": "file", "path": f"{directory.absolute() / str(step) / 'state'}/"}
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    names = [name for name in store.list().result() if name.decode().startswith(tuple(parts))]
    if not names:
        raise ValueError("no arrays in it")
    for read in [store.read(name) for name in names]:
        read.result()


def drop_after(directory: Path, step: int) -> None:
    """Deletes the checkpoints of later steps: of a run that was begun again, or went on from an earlier step."""
    if directory.is_dir():
        with open_checkpoints(directory, keep=1) as manager:
            drop_later(manager, step)


def drop_later(manager: ocp.CheckpointManager, step: int) -> None:
    """As `drop_after`, of checkpoints that are open."""
    for later in [saved for saved in manager.all_steps() if saved > step]:
        manager.delete(later)


def peek(directory: Path) -> tuple[int, Description] | None:
    """Reads (step, JSON) of the latest checkpoint whose JSON is whole; None without one. Nothing on the disk changes.

    Raises:
      ValueError: as `newest_whole`.
    """
    return newest_whole(directory, lambda step, description: description)


def newest_whole(directory: Path, read: Callable[[int, Description], Read]) -> tuple[int, Read] | None:
    """Reads the latest checkpoint that can be read; a line on stderr names each that is damaged.

    Args:
      directory: of checkpoints. Nothing in it changes.
      read: of a step and its JSON, reads what is wanted of it.

    Returns:
      (step, what was read); None without a checkpoint.

    Raises:
      ValueError: one line: every checkpoint is damaged.
    """
    if not directory.is_dir():
        return None
    with _open_to_read(directory) as manager:
        return _newest_whole(manager, read)


def restore(manager: ocp.CheckpointManager, like: TrainState) -> tuple[TrainState, Description] | None:
    """Reads the latest checkpoint that is whole, placed on devices as `like` is; later, damaged ones are deleted.

    Returns:
      The state and its JSON; None without a checkpoint.

    Raises:
      ValueError: as `newest_whole`.
    """

    def read(step: int, description: Description) -> tuple[TrainState, Description]:
        check_whole(Path(manager.directory), step)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(like))
        return manager.restore(step, args=args)["state"], description

    found = _newest_whole(manager, read)
    if found is None:
        return None
    drop_later(manager, found[0])
    return found[1]


def _newest_whole(manager: ocp.CheckpointManager, read: Callable[[int, Description], Read]) -> tuple[int, Read] | None:
    damaged = []
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            return step, read(step, _description(manager, step))
        except Exception as error:  # orbax, tensorstore and json have many kinds
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                raise
            if isinstance(error, OSError) or any(reason in str(error) for reason in NO_DAMAGE):
                raise OSError(f"{manager.directory}: step {step} cannot be read now ({_reason(error)})") from error
            damaged.append(f"step {step} ({_reason(error)})")
            line = f"{manager.directory}: the checkpoint of {damaged[-1]} is damaged; looking for one before"
            tell(line)
    if damaged:
        raise ValueError(
            f"{manager.directory}: no checkpoint is whole: {'; '.join(damaged)}; move the directory away to go on "
            "without it"
        )
    return None


def _description(manager: ocp.CheckpointManager, step: int) -> Description:
    return Description(**manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"])


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:REASON_LENGTH] or type(error).__name__


def restore_variables(directory: Path, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """Reads parameters and statistics alone, without the optimizer's state, onto the first local device.

    Args:
      directory: of checkpoints.
      step: of the checkpoint.
      like: {"params", "batch_stats"}, trees of shapes.

    Raises:
      ValueError: they are not there, or are damaged.
    """
    check_whole(directory, step, [f"{name}." for name in like])
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like)
    restore_args = ocp.checkpoint_utils.construct_restore_args(like)
    args = ocp.args.PyTreeRestore(item=like, restore_args=restore_args, partial_restore=True)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        return checkpointer.restore(directory.absolute() / str(step) / "state", args=args)


def _open_to_read(directory: Path) -> ocp.CheckpointManager:
    leave_out_notes()
    # Neither makes the directory nor clears away a save that a running training has under way.
    with _without_notes_on_reading(), _naming_damage(directory):
        return ocp.CheckpointManager(directory.absolute(), options=ocp.CheckpointManagerOptions(read_only=True))


@contextmanager
def _naming_damage(directory: Path) -> Iterator[None]:
    """Turns orbax's errors of a file that belongs to no array into one line (ValueError)."""
    try:
        yield
    except (ArithmeticError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{directory}: a _CHECKPOINT_METADATA in it is damaged ({_reason(error)}); delete that file, which holds "
            "nothing that is needed"
        ) from error


@contextmanager
def _without_notes_on_reading() -> Iterator[None]:
    """Keeps orbax from three warnings that a directory is opened to read, as it is meant to be; all others pass."""
    logger = logging.get_absl_logger()

    def is_other(record: LogRecord) -> bool:
        on_reading = ("CheckpointManagerOptions.read_only=True", "Given directory is read")
        return not record.getMessage().startswith(on_reading)

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)
