"""Checkpoints with orbax: atomic, asynchronous, readable on any number of devices."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
import tensorstore

from mancs_jax.common import processes
from mancs_jax.common.quoted import reason_of
from mancs_jax.common.screen import tell
from mancs_jax.training.description import Description
from mancs_jax.training.echoes import leave_out_echoes
from mancs_jax.training.state import TrainState

Read = TypeVar("Read")

PATTERNS = "*?[]"  # Orbax treats these in a path as wildcards, and then does not find what it has just written
# Of errors of the disk, after which the checkpoint may be whole.
NO_DAMAGE = ("PERMISSION_DENIED", "Permission denied", "Input/output error", "Stale file handle", "Too many open files")


def check_path(directory: Path) -> None:
    """Refuses a path in which checkpoints would be lost (ValueError, one line)."""
    if wildcards := [character for character in PATTERNS if character in str(directory.absolute())]:
        raise ValueError(
            f"{directory}: no checkpoint can be kept below a path with {' '.join(wildcards)}, which the library that "
            "writes them treats as wildcards; choose another --workdir"
        )


@contextmanager
def open_checkpoints(directory: Path, keep: int) -> Iterator[ocp.CheckpointManager]:
    """Opens or makes a directory that keeps the latest `keep` checkpoints, and removes what a killed save left.

    Leaving the context waits for a running save, and raises OSError, one line, where it failed.
    """
    check_path(directory)
    leave_out_echoes()
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
    with _naming_damage(directory):
        manager = ocp.CheckpointManager(directory.absolute(), options=options)
    try:
        yield manager
    finally:
        with _naming_kept_step(manager):
            manager.close()


def save(manager: ocp.CheckpointManager, state: TrainState, description: Description) -> None:
    """Starts to write the checkpoint of `state.step`; it gets its final name only once it is complete.

    Raises OSError where Orbax did not accept it, or the previous one cannot be written or read back.
    """
    step = int(state.step)
    finish(manager)
    if step in manager.all_steps():
        return
    args = ocp.args.Composite(
        state=ocp.args.StandardSave(processes.as_global(state)), about=ocp.args.JsonSave(description._asdict())
    )
    with _naming_kept_step(manager):
        is_accepted = manager.save(step, args=args)
    if not is_accepted:
        raise OSError(f"{manager.directory} did not take the checkpoint of step {step}; it holds {manager.all_steps()}")


def finish(manager: ocp.CheckpointManager) -> None:
    """Waits for a running save, then reads the JSON and one array of the latest checkpoint back (else OSError)."""
    with _naming_kept_step(manager):
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
            f"({reason_of(error)}); check the disk"
        ) from error


@contextmanager
def _naming_kept_step(manager: ocp.CheckpointManager) -> Iterator[None]:
    """Turns Orbax's errors about a checkpoint that cannot be written into one line (OSError)."""
    try:
        yield
    except Exception as error:  # of many classes: Orbax's, tensorstore's, the disk's
        step = latest_on_disk(Path(manager.directory))
        kept = "there is none before it" if step is None else f"that of step {step} is kept"
        disk_full = "No space left on device"
        reason = disk_full if disk_full in str(error) else reason_of(error)
        raise OSError(
            f"{manager.directory}: the checkpoint cannot be written ({reason}); {kept}; free disk space, and run the "
            "same command again to resume"
        ) from error


def latest_on_disk(directory: Path) -> int | None:
    """Returns the latest step whose directory has its final name; None without one."""
    return max((int(path.name) for path in directory.glob("*") if path.name.isdecimal()), default=None)


def check_whole(directory: Path, step: int, parts: Sequence[str] = ("",)) -> None:
    """Reads the bytes of those arrays of a checkpoint whose names begin with one of `parts` (ValueError: damaged).

    Orbax, which restores all arrays at once, would fail with many tracebacks.
    """
    base = {"driver": "file", "path": f"{directory.absolute() / str(step) / 'state'}/"}
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    names = [name for name in store.list().result() if name.decode().startswith(tuple(parts))]
    if not names:
        raise ValueError("no arrays in it")
    for read in [store.read(name) for name in names]:
        read.result()


def drop_after(directory: Path, step: int) -> None:
    """Deletes the checkpoints of later steps, of a run that was started again or resumed from an earlier step."""
    if directory.is_dir():
        with open_checkpoints(directory, keep=1) as manager:
            drop_later(manager, step)


def drop_later(manager: ocp.CheckpointManager, step: int) -> None:
    """Deletes the checkpoints of later steps of an open directory."""
    for later in [saved for saved in manager.all_steps() if saved > step]:
        manager.delete(later)


def peek(directory: Path) -> tuple[int, Description] | None:
    """Reads the step and the description of the latest checkpoint that has a whole one; see `newest_whole`."""
    return newest_whole(directory, lambda step, description: description)


def newest_whole(directory: Path, read: Callable[[int, Description], Read]) -> tuple[int, Read] | None:
    """Reads the latest checkpoint that is whole; a line on stderr names each that is damaged. Nothing is written.

    Returns its step, and what `read` returned for that step and its description; None without a checkpoint. Raises
    ValueError, one line, where every checkpoint is damaged.
    """
    if not directory.is_dir():
        return None
    with _open_to_read(directory) as manager:
        return _newest_whole(manager, read)


def restore(manager: ocp.CheckpointManager, like: TrainState) -> tuple[TrainState, Description] | None:
    """Restores the latest checkpoint that is whole, on the devices of `like`; later, damaged ones are deleted.

    Returns and raises as `newest_whole`, without the step.
    """

    def read(step: int, description: Description) -> tuple[TrainState, Description]:
        check_whole(Path(manager.directory), step)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(like))
        return manager.restore(step, args=args)["state"], description

    if (newest := _newest_whole(manager, read)) is None:
        return None
    step, restored = newest
    drop_later(manager, step)
    return restored


def _newest_whole(manager: ocp.CheckpointManager, read: Callable[[int, Description], Read]) -> tuple[int, Read] | None:
    damaged = []
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            return step, read(step, _description(manager, step))
        except Exception as error:  # of many classes: Orbax's, tensorstore's, json's
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                raise
            is_missing = isinstance(error, FileNotFoundError)  # a file of a checkpoint, which no later try will find
            if not is_missing and (isinstance(error, OSError) or any(reason in str(error) for reason in NO_DAMAGE)):
                raise OSError(f"{manager.directory}: step {step} cannot be read now ({reason_of(error)})") from error
            damaged.append(f"step {step} ({reason_of(error)})")
            tell(f"{manager.directory}: the checkpoint of {damaged[-1]} is damaged; trying the previous one")
    if damaged:
        raise ValueError(
            f"{manager.directory}: no checkpoint is whole: {'; '.join(damaged)}; move the directory away to "
            "train without it"
        )
    return None


def _description(manager: ocp.CheckpointManager, step: int) -> Description:
    return Description(**manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"])


def restore_variables(directory: Path, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """Restores only parameters and statistics, without the optimizer state, on the first local device.

    `like` is {"params", "batch_stats"}, trees of shapes. Raises ValueError where arrays are missing or damaged.
    """
    check_whole(directory, step, [f"{name}." for name in like])
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like)
    restore_args = ocp.checkpoint_utils.construct_restore_args(like)
    args = ocp.args.PyTreeRestore(item=like, restore_args=restore_args, partial_restore=True)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        return checkpointer.restore(directory.absolute() / str(step) / "state", args=args)


def _open_to_read(directory: Path) -> ocp.CheckpointManager:
    leave_out_echoes()
    # Read-only, Orbax neither makes the directory nor removes the unfinished save of a run that trains now.
    with _naming_damage(directory):
        return ocp.CheckpointManager(directory.absolute(), options=ocp.CheckpointManagerOptions(read_only=True))


@contextmanager
def _naming_damage(directory: Path) -> Iterator[None]:
    """Turns Orbax's errors about a damaged _CHECKPOINT_METADATA into one line (ValueError)."""
    try:
        yield
    except (ArithmeticError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{directory}: a _CHECKPOINT_METADATA in it is damaged ({reason_of(error)}); delete that file, which is "
            "not needed"
        ) from error
