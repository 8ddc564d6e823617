"""Our side of the benchmarks: the training step and its first state, made as training makes them."""

import os
from collections.abc import Callable
from itertools import count

import jax
import numpy as np
import recipe
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from mancs_jax.common.processor import EIGEN
from mancs_jax.data import pk
from mancs_jax.kernels import convolution
from mancs_jax.training.state import TrainState, create_optimizer, create_train_state, learning_rate_schedule
from mancs_jax.training.step import DEVICES, TrainStep, make_train_step

STEPS_PER_EPOCH = 46  # of Market-1501 at 16 identities a batch


def convolve_by(choice: str) -> None:
    """Lets one of XLA's libraries for CPU convolve. Call it before JAX computes anything.

    Args:
      choice: "ynnpack:1.5" or "eigen:12", the library and the MB of a chunk of a kernel's gradient.
    """
    library, _, megabytes = choice.partition(":")
    others = os.environ.get("XLA_FLAGS", "").replace(EIGEN, "")
    os.environ["XLA_FLAGS"] = f"{others} {EIGEN}" if library == "eigen" else others
    convolution._EXTRA_ROWS = 0 if library == "eigen" else 1
    convolution._CHUNK_BYTES = int(float(megabytes) * 2**20)


def create_training(config: ConfigDict, num_classes: int) -> tuple[TrainStep, TrainState]:
    """The compiled step on one device, and the state it starts from, as `mancs_jax.training.loop.train` has them."""
    devices = jax.local_devices()[:1]
    schedule = learning_rate_schedule(config, STEPS_PER_EPOCH, round(config.epochs * STEPS_PER_EPOCH))
    optimizer = create_optimizer(config, schedule)
    state = jax.device_put(create_train_state(config, num_classes, optimizer), on_devices(PartitionSpec()))
    return make_train_step(config, num_classes, optimizer, schedule, STEPS_PER_EPOCH, devices), state


def on_devices(spec: PartitionSpec) -> NamedSharding:
    """Where an array lies on the one device: `PartitionSpec()` for a state, `PartitionSpec(DEVICES)` for a batch."""
    mesh = jax.make_mesh((1,), (DEVICES,), axis_types=(AxisType.Auto,), devices=jax.local_devices()[:1])
    return NamedSharding(mesh, spec)


def create_batches(config: ConfigDict, num_classes: int) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """A function that gives the next batch of drawn images, as the training loop makes it.

    That is uint8 [1, P*K, H, W, 3] and labels int32 [1, P*K], for one device.
    """
    image, labels = recipe.drawn_data(config, num_classes)
    by_identity, step = pk.images_by_identity(labels), count()

    def next_batch() -> tuple[np.ndarray, np.ndarray]:
        rows = pk.pk_batch(by_identity, config.data.p, config.data.k, config.seed, next(step))[None]
        return image[rows], labels[rows]

    return next_batch


def steps(train_step: TrainStep, state: TrainState, batches: Callable, num: int) -> tuple[TrainState, dict]:
    """Makes `num` steps as the training loop does: the metrics of a step are read when the next one runs.

    Args:
      train_step: of `create_training`.
      state: before.
      batches: of `create_batches`, or another that gives (images, labels).
      num: at least 1.

    Returns:
      The state after, and the last step's metrics.
    """
    pending = None
    for _ in range(num):
        state, metrics = train_step(state, *batches())
        if pending is not None:
            jax.device_get(pending)
        pending = metrics
    return jax.block_until_ready(state), jax.device_get(pending)
