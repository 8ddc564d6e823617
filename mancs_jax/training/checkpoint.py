"""Checkpoints with orbax: atomic, asynchronous, readable on any number of devices."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from absl import logging

from mancs_jax.training import multihost
from mancs_jax.training.state import TrainState


class Description(NamedTuple):
    """The JSON of a checkpoint, beside its arrays."""

    config: dict[str, Any]  # of the run, as `config.to_dict()`
    num_classes: int
    data_fingerprint: str  # of the training images and their labels; "" where nobody knows it
    best: float | None = None  # the best score on the validation identities so far


def open_checkpoints(directory: Path, keep: int) -> ocp.CheckpointManager:
    """Opens (and makes) a directory of checkpoints that keeps the latest `keep`; what a killed save left is removed."""
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
    return ocp.CheckpointManager(directory.absolute(), options=options)


def save(manager: ocp.CheckpointManager, state: TrainState, description: Description) -> None:
    """Starts to write a checkpoint; it has its final name only once it is complete.

    Args:
      manager: from `open_checkpoints`.
      state: what to save, under `state.step`.
      description: JSON that goes with it.

    Raises:
      OSError: the checkpoint was not taken.
    """
    step = int(state.step)
    manager.wait_until_finished()
    if step in manager.all_steps():
        return
    args = ocp.args.Composite(
        state=ocp.args.StandardSave(multihost.of_all(state)), about=ocp.args.JsonSave(description._asdict())
    )
    if not manager.save(step, args=args):
        raise OSError(f"{manager.directory} did not take the checkpoint of step {step}; it holds {manager.all_steps()}")


def drop_after(directory: Path, step: int) -> None:
    """Deletes the checkpoints of later steps: of a run that was begun again, or went on from an earlier step."""
    if directory.is_dir():
        with open_checkpoints(directory, keep=1) as manager:
            for later in [saved for saved in manager.all_steps() if saved > step]:
                manager.delete(later)


def peek(directory: Path) -> tuple[int, Description] | None:
    """Reads (step, JSON) of the latest checkpoint in a directory; None without one. Nothing on the disk changes."""
    if not directory.is_dir():
        return None
    with _open_to_read(directory) as manager:
        step = manager.latest_step()
        if step is None:
            return None
        about = manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"]
        return step, Description(**about)


def restore(manager: ocp.CheckpointManager, like: TrainState) -> TrainState:
    """Reads the latest checkpoint, placed on devices as `like` is."""
    args = ocp.args.Composite(state=ocp.args.StandardRestore(like))
    return manager.restore(manager.latest_step(), args=args)["state"]


def restore_variables(directory: Path, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """Reads parameters and statistics alone, without the optimizer's state, onto the first local device.

    Args:
      directory: of checkpoints.
      step: of the checkpoint.
      like: {"params", "batch_stats"}, trees of shapes.
    """
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like)
    args = ocp.args.PyTreeRestore(
        item=like, restore_args=ocp.checkpoint_utils.construct_restore_args(like), partial_restore=True
    )
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        return checkpointer.restore(directory.absolute() / str(step) / "state", args=args)


def _open_to_read(directory: Path) -> ocp.CheckpointManager:
    # Neither makes the directory nor clears away a save that a running training has under way.
    with _without_warnings():
        return ocp.CheckpointManager(directory.absolute(), options=ocp.CheckpointManagerOptions(read_only=True))


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keeps orbax, which logs through absl, from a warning for each directory that is opened to read."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)
