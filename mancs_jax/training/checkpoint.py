"""Checkpoints with orbax: atomic, asynchronous, readable on any number of devices."""

import logging
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from ml_collections import ConfigDict

from mancs_jax.config.checks import from_json
from mancs_jax.training import multihost
from mancs_jax.training.state import TrainState, create_optimizer, create_train_state

# Directories of a workdir: the newest checkpoints, and the one with the best score on the validation identities.
LATEST, BEST = "checkpoints", "best"

# orbax writes some 45 lines a save at the level of information, and warns of every directory that is opened to read.
absl_logging.set_verbosity(absl_logging.ERROR)
logging.getLogger("orbax").setLevel(logging.ERROR)


def open_checkpoints(directory: Path, keep: int) -> ocp.CheckpointManager:
    """Opens (and makes) a directory of checkpoints that keeps the latest `keep`; what a killed save left is removed."""
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
    return ocp.CheckpointManager(directory.absolute(), options=options)


def save(manager: ocp.CheckpointManager, state: TrainState, about: dict[str, Any]) -> None:
    """Starts to write a checkpoint; it has its final name only once it is complete.

    Args:
      manager: from `open_checkpoints`.
      state: what to save, under `state.step`.
      about: JSON that goes with it: config, num_classes, fingerprint, and the best validation score so far.

    Raises:
      OSError: the checkpoint was not taken.
    """
    step = int(state.step)
    manager.wait_until_finished()
    if step in manager.all_steps():
        return
    args = ocp.args.Composite(state=ocp.args.StandardSave(multihost.of_all(state)), about=ocp.args.JsonSave(about))
    if not manager.save(step, args=args):
        raise OSError(f"{manager.directory} did not take the checkpoint of step {step}; it holds {manager.all_steps()}")


def drop_after(directory: Path, step: int) -> None:
    """Deletes the checkpoints of later steps: of a run that was begun again, or went on from an earlier step."""
    if directory.is_dir():
        with open_checkpoints(directory, keep=1) as manager:
            for later in [saved for saved in manager.all_steps() if saved > step]:
                manager.delete(later)


def peek(directory: Path) -> dict[str, Any] | None:
    """The JSON of the latest checkpoint in a directory, None where there is none; nothing on the disk changes."""
    if not directory.is_dir():
        return None
    with _open_to_read(directory) as manager:
        step = manager.latest_step()
        if step is None:
            return None
        return manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))["about"]


def restore(manager: ocp.CheckpointManager, like: TrainState) -> TrainState:
    """The latest checkpoint, placed on devices as `like` is."""
    args = ocp.args.Composite(state=ocp.args.StandardRestore(like))
    return manager.restore(manager.latest_step(), args=args)["state"]


def load_trained(workdir: str | Path) -> tuple[ConfigDict, dict[str, Any], dict[str, Any]]:
    """Reads what training left behind, to use the network.

    Args:
      workdir: of `scripts/train.py`. The best checkpoint is taken where validation chose one, else the latest.

    Returns:
      (config, about, variables): the run's config, the checkpoint's JSON with `step` added, and `{"params",
      "batch_stats"}` on the first device.

    Raises:
      FileNotFoundError: no checkpoint there.
    """
    for directory in (Path(workdir) / BEST, Path(workdir) / LATEST):
        about = peek(directory)
        if about is not None:
            config = from_json(about["config"])
            with _open_to_read(directory) as manager:
                state = restore(manager, _abstract_state(config, about["num_classes"]))
            variables = {"params": state.params, "batch_stats": state.batch_stats}
            return config, about | {"step": int(state.step)}, variables
    raise FileNotFoundError(f"{workdir}: no checkpoint there; it has to be the --workdir of a run of scripts/train.py")


def _open_to_read(directory: Path) -> ocp.CheckpointManager:
    # Neither makes the directory nor clears away a save that a running training has under way.
    return ocp.CheckpointManager(directory.absolute(), options=ocp.CheckpointManagerOptions(read_only=True))


def _abstract_state(config: ConfigDict, num_classes: int) -> TrainState:
    optimizer = create_optimizer(config, lambda step: 0.0)
    shapes = jax.eval_shape(lambda: create_train_state(config, num_classes, optimizer))
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)
