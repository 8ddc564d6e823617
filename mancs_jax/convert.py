"""Imports and exports weights of a backbone, or of a complete model under the release's names."""

from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from mancs_jax.common.atomic_write import check_writable
from mancs_jax.common.local_path import local_path
from mancs_jax.config import checks as configuration
from mancs_jax.data import arrays
from mancs_jax.data.sources.labels import Camera
from mancs_jax.inference.network import network_for_file
from mancs_jax.inference.trained import load_trained
from mancs_jax.training import checkpoint
from mancs_jax.training.description import Description
from mancs_jax.training.log import record_start
from mancs_jax.training.state import TrainState, create_optimizer
from mancs_jax.weights import authors, imagenet
from mancs_jax.weights.safetensors_file import write_safetensors
from mancs_jax.workdir import Workdir


def import_backbone(source: str | Path, arch: str, output: str | Path) -> str:
    """Writes the weights of a backbone as .safetensors with torchvision's names, float32, and returns a line about it.

    `source` has ImageNet weights or a complete model. Raises ValueError or OSError where it is missing or wrong, or
    `output` cannot be written.
    """
    source, output = local_path(source), local_path(output)
    _check_output(output)
    tensors = imagenet.read_backbone(source, arch)
    write_safetensors(tensors, output)
    return f"{output}: {len(tensors)} tensors of {arch}, {sum(array.size for array in tensors.values()):,} numbers"


def import_network(source: str | Path, config: ConfigDict, workdir: str | Path) -> str:
    """Makes a workdir of a complete model, at step 0, and returns a line about it.

    Its configuration has the source as `pretrained`, run.json has the command, and the fingerprint of the training
    images, which is unknown, is empty. Raises ValueError or OSError where the source (see `authors.load_released`) is
    missing or does not fit the configuration, or the workdir has a model.
    """
    configuration.validate(config, num_devices=1)
    paths = Workdir(local_path(workdir))
    checkpoint.check_path(paths.latest)
    check_writable(paths.config)
    arrays.check_dataset(config.data.name, config.data.root)
    if checkpoint.peek(paths.latest) is not None:
        raise ValueError(f"--workdir={workdir}: has a model already; choose another directory")
    variables, num_classes = authors.load_released(local_path(source), config)
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.pretrained = str(local_path(source))
    params, batch_stats = jax.tree.map(jnp.asarray, (variables["params"], variables["batch_stats"]))
    opt_state = create_optimizer(config, optax.constant_schedule(0.0)).init(params)
    state = TrainState(jnp.zeros((), jnp.int32), params, batch_stats, opt_state)
    description = Description(config.to_dict(), num_classes, data_fingerprint="")
    with checkpoint.open_checkpoints(paths.latest, keep=1) as manager:
        checkpoint.save(manager, state, description)
    record_start(paths, description, jax.local_devices(), step=0)
    return f"{workdir}: {config.model.arch}, {num_classes} identities"


def export_weights(source: str | Path, output: str | Path, camera: Camera | None = None) -> str:
    """Writes a model as float32 .safetensors for PyTorch, with the names of `weights/authors.py`, and returns a line.

    `source`: see `mancs_jax.load`; `camera`: of an adapted model, the camera whose statistics are written. Raises
    ValueError or OSError where there is no model, or the output cannot be written.
    """
    output = local_path(output)
    _check_output(output)
    trained = load_trained(source)
    network, step = network_for_file(trained.network, camera), trained.step
    tensors = authors.to_released(network.variables)
    write_safetensors(tensors, output)
    config = network.config
    made_by = f"recipe {config.recipe}, {config.model.arch}, {network.num_classes} identities, step {step}"
    return f"{output}: {len(tensors)} tensors; {made_by}"


def _check_output(output: str | Path) -> None:
    if Path(output).suffix != ".safetensors":
        raise ValueError(f"--output={output}: must end in .safetensors")
    check_writable(output)
