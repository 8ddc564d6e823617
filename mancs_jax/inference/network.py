"""A trained network: its configuration, its size and its numbers."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from mancs_jax.config.checks import from_json
from mancs_jax.models.mancs import init_variables
from mancs_jax.training.checkpoint import Description, peek, restore_variables
from mancs_jax.workdir import Workdir


class Network(NamedTuple):
    """A network that can be used."""

    config: ConfigDict  # of the run that made it
    num_classes: int  # identities of its classifiers
    variables: dict[str, Any]  # "params" and "batch_stats"


class Trained(NamedTuple):
    """A network out of a workdir, and the checkpoint that it comes from."""

    network: Network
    step: int
    description: Description


def load_trained(workdir: str | Path) -> Trained:
    """Reads the network of a workdir: the best where validation chose one, else the latest.

    Only parameters and statistics are read, onto the first local device.

    Raises:
      FileNotFoundError: no checkpoint there.
    """
    paths = Workdir(Path(workdir))
    for directory in (paths.best, paths.latest):
        found = peek(directory)
        if found is not None:
            step, description = found
            config = from_json(description.config)
            shapes = jax.eval_shape(lambda config=config, n=description.num_classes: init_variables(config, n))
            variables = restore_variables(directory, step, shapes)
            return Trained(Network(config, description.num_classes, variables), step, description)
    raise FileNotFoundError(f"{workdir}: no checkpoint there; it has to be the --workdir of a run of scripts/train.py")
