"""The training state: parameters, BatchNorm statistics, optimizer state and step."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from ml_collections import ConfigDict

from mancs_jax.models.mancs import init_variables


@struct.dataclass
class TrainState:
    """All arrays of a checkpoint. `step`, int32 scalar, counts the updates."""

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any


def learning_rate_schedule(config: ConfigDict, steps_per_epoch: int, num_steps: int) -> optax.Schedule:
    """Makes the function from a step to the learning rate of the backbone.

    "exponential" is the release's: constant to `decay_start`, then times
    `decay_rate ** ((epoch - decay_start) / decay_epochs)`, the epoch being a whole number. "cosine" ends at 0 after
    `num_steps`.
    """
    optim = config.optim
    warmup = round(optim.warmup_epochs * steps_per_epoch)

    def schedule(step):
        if optim.schedule == "cosine":
            progress = jnp.clip((step - warmup) / max(num_steps - warmup, 1), 0, 1)
            factor = 0.5 * (1 + jnp.cos(jnp.pi * progress))
        elif optim.schedule == "exponential":
            epochs_of_decay = jnp.maximum(step // steps_per_epoch - optim.decay_start, 0)
            factor = optim.decay_rate ** (epochs_of_decay / optim.decay_epochs)
        else:
            factor = 1.0
        return optim.learning_rate * factor * (jnp.minimum(1.0, (step + 1) / warmup) if warmup else 1.0)

    return schedule


def create_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Chains clipping, coupled weight decay, Adam or SGD, schedule, and the heads' multiple of the learning rate."""
    optim = config.optim
    optimizers = {"adam": optax.scale_by_adam, "sgd": lambda: optax.trace(optim.momentum, nesterov=True)}

    def outside_backbone(params):
        """Returns a mask of the parameters: True for FABs and heads, which no pretrained backbone has."""
        return {
            name: jax.tree.map(lambda _, is_outside=name != "backbone": is_outside, tree)
            for name, tree in params.items()
        }

    return optax.chain(
        optax.clip_by_global_norm(optim.clip_norm) if optim.clip_norm else optax.identity(),
        optax.add_decayed_weights(optim.weight_decay) if optim.weight_decay else optax.identity(),
        optimizers[optim.name](),
        optax.scale_by_learning_rate(schedule),
        optax.masked(optax.scale(optim.head_multiplier), outside_backbone),
    )


def create_train_state(config: ConfigDict, num_classes: int, optimizer: optax.GradientTransformation) -> TrainState:
    """Creates a state whose parameters are initialised from `config.seed`."""
    variables = init_variables(config, num_classes)
    params = variables["params"]
    opt_state = jax.jit(optimizer.init)(params)
    return TrainState(jnp.zeros((), jnp.int32), params, variables["batch_stats"], opt_state)
