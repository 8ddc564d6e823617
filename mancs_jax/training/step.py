"""The compiled training step: augment, run, gather embeddings over devices, sample triplets, three losses, update."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from mancs_jax.config.names import num_of_each_source, sources
from mancs_jax.data.augment import ERASE_FILLS, Augmentation, JitterStrength, augment, halve
from mancs_jax.losses.identity import attention_loss, focal_loss
from mancs_jax.losses.sampling import Curriculum, Triplets, batch_hard, curriculum, uniform
from mancs_jax.losses.triplet import euclidean_distances, triplet_gap, triplet_loss
from mancs_jax.models.mancs import create_model
from mancs_jax.training.state import TrainState

# Name of the pmap axis.
DEVICES = "devices"
# What an example's key is folded with for each use; a new use takes a new number, so that old runs stay what they were.
AUGMENT, DROPOUT, TRIPLETS = range(3)

TrainStep = Callable[
    [TrainState, jax.Array | np.ndarray, jax.Array | np.ndarray], tuple[TrainState, dict[str, jax.Array]]
]


def make_train_step(
    config: ConfigDict,
    num_classes: int,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    steps_per_epoch: int,
    devices: list[jax.Device],
    half_size: bool = False,
) -> TrainStep:
    """Compiles one update over all devices.

    Everything random comes from (seed, step, index of the example in the whole batch). Triplets come from the whole
    batch. So the result does not depend on the number of devices, up to the order of sums, unless each device has
    BatchNorm statistics of its own (`batch_norm_groups` = 0).

    With `half_size` the network sees the augmented images at half their height and width.

    Returns:
      A function of (state, images uint8 [devices, B/devices, H, W, 3], labels int32 [devices, B/devices]) that gives
      the new state and float32 scalars: loss, rank_loss, cls_loss, att_loss, accuracy, triplets_in_order, grad_norm,
      param_norm (after the update), learning_rate.
    """
    model = create_model(config, num_classes, DEVICES, len(devices))
    sample, source_of = make_sampler(config), sources_in_batch(config)
    augmentation = make_augmentation(config.augment)

    def train_step(state: TrainState, image: jax.Array, label: jax.Array):
        epoch = state.step // steps_per_epoch
        index = jax.lax.axis_index(DEVICES) * label.shape[0] + jnp.arange(label.shape[0])
        step_key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        keys = jax.vmap(partial(jax.random.fold_in, step_key))(index)
        keys_for = lambda use: jax.vmap(lambda key: jax.random.fold_in(key, use))(keys)  # noqa: E731
        x = augment(keys_for(AUGMENT), image, augmentation)
        if half_size:
            x = halve(x)
        all_labels = jax.lax.all_gather(label, DEVICES, tiled=True)
        same = label[:, None] == all_labels[None, :]
        is_self = index[:, None] == jnp.arange(all_labels.shape[0])[None, :]
        is_negative = ~same
        if config.loss.negatives == "source":
            is_negative &= source_of[index][:, None] == source_of[None, :]

        def apply(params, x, keys):
            variables = {"params": params, "batch_stats": state.batch_stats}
            out, updates = model.apply(variables, x, train=True, keys=keys, mutable=["batch_stats"])
            return out, updates["batch_stats"]

        def ranking_loss(f_rank):
            candidates = jax.lax.all_gather(f_rank, DEVICES, tiled=True)
            distances = euclidean_distances(f_rank, candidates)
            triplets = sample(keys_for(TRIPLETS), jax.lax.stop_gradient(distances), same, is_self, is_negative, epoch)
            loss = triplet_loss(distances, triplets, config.loss.margin)
            in_order = jnp.mean(triplets.weight * (triplet_gap(distances, triplets) < 0))
            return config.loss.rank_weight * loss, {"rank_loss": loss, "triplets_in_order": in_order}

        def identity_losses(out, label):
            cls_loss = focal_loss(
                out.cls_logits,
                label,
                gamma=config.loss.gamma,
                probability=config.loss.probability,
                detach_weight=config.loss.detach_focal,
                label_smoothing=config.loss.label_smoothing,
            )
            accuracy = jnp.mean(jnp.argmax(out.cls_logits, -1) == label, dtype=jnp.float32)
            loss, metrics = config.loss.cls_weight * cls_loss, {"cls_loss": cls_loss, "accuracy": accuracy}
            if out.att_logits is not None:
                att_loss = attention_loss(out.att_logits, label, kind=config.loss.attention)
                loss, metrics = loss + config.loss.att_weight * att_loss, metrics | {"att_loss": att_loss}
            return loss, metrics

        def loss_fn(params):
            out, batch_stats = apply(params, x, keys_for(DROPOUT))
            rank_loss, of_ranking = ranking_loss(out.f_rank)
            identity_loss, of_identities = identity_losses(out, label)
            loss = rank_loss + identity_loss
            return loss, (batch_stats, {"loss": loss} | of_ranking | of_identities)

        if config.accumulate == 1:
            grads, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(state.params)
        else:
            shares = _split((x, keys_for(DROPOUT), label), config.accumulate)
            grads, batch_stats, metrics = accumulated(apply, ranking_loss, identity_losses, state.params, shares)
        # Each device's gradient holds what the gathered embeddings contributed to the others' losses; their mean is
        # the gradient of the mean loss. Statistics differ between devices only where BatchNorm is not synchronised.
        grads, batch_stats, metrics = jax.lax.pmean((grads, batch_stats, metrics), DEVICES)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        norms = {"grad_norm": optax.tree.norm(grads), "param_norm": optax.tree.norm(params)}
        metrics |= norms | {"learning_rate": schedule(state.step)}
        return TrainState(state.step + 1, params, batch_stats, opt_state), metrics

    return jax.pmap(
        train_step,
        axis_name=DEVICES,
        in_axes=(None, 0, 0),
        out_axes=(None, None),
        devices=devices,
        donate_argnums=donated_arguments(devices),
    )


def replicated(state: TrainState, devices: list[jax.Device]) -> TrainState:
    """Puts a state on all devices, as a step gives it back: else the step is compiled again for its own output."""
    mesh = jax.make_mesh((len(devices),), (DEVICES,), axis_types=(AxisType.Auto,), devices=devices)
    return jax.device_put(state, NamedSharding(mesh, PartitionSpec()))


def donated_arguments(devices: list[jax.Device]) -> tuple[int, ...]:
    """The arguments of a step whose memory its results take: the state, which would be held twice.

    Not on CPU, where Orbax writes a checkpoint from the memory of the state itself.
    """
    return () if devices[0].platform == "cpu" else (0,)


def accumulated(
    apply: Callable, ranking_loss: Callable, identity_losses: Callable, params: Any, shares: tuple
) -> tuple[Any, Any, dict[str, jax.Array]]:
    """The gradient of a device's whole batch, computed a share at a time, so that one share's activations are alive.

    First the embeddings of all shares, which give the gradient of the ranking loss with respect to each of them: its
    triplets need the whole batch. Then each share once more, with that gradient and its own other losses. BatchNorm
    takes its statistics over a share: the result is that of as many devices, each with its own statistics.

    Args:
      apply: of (params, x, keys), gives the network's outputs and the new batch_stats.
      ranking_loss: of f_rank [B, D], gives a scalar and metrics.
      identity_losses: of a share's outputs and labels, gives a scalar and metrics, all of them means over examples.
      params: of the network.
      shares: (x [M, B/M, H, W, 3], keys [M, B/M], label [M, B/M]).

    Returns:
      The gradient, batch_stats and metrics, means over the shares.
    """
    x, keys, label = shares
    number = len(label)
    f_rank = jax.lax.map(lambda share: apply(params, *share)[0].f_rank, (x, keys))
    of_embeddings = jax.value_and_grad(lambda f: ranking_loss(f.reshape(-1, f.shape[-1])), has_aux=True)
    (rank_loss, of_ranking), slope = of_embeddings(f_rank)

    def of_share(x, keys, label, slope):
        def loss_fn(params):
            out, batch_stats = apply(params, x, keys)
            loss, metrics = identity_losses(out, label)
            # `slope` is of the whole batch's loss, and what is summed here is divided by M at the end.
            return loss + number * jnp.vdot(slope, out.f_rank), (batch_stats, {"loss": loss} | metrics)

        return jax.grad(loss_fn, has_aux=True)(params)

    total = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(of_share, x[0], keys[0], label[0], slope[0])
    )
    total, _ = jax.lax.scan(
        lambda total, share: (jax.tree.map(jnp.add, total, of_share(*share)), None), total, (x, keys, label, slope)
    )
    grads, (batch_stats, metrics) = jax.tree.map(lambda leaf: leaf / number, total)
    return grads, batch_stats, metrics | of_ranking | {"loss": metrics["loss"] + rank_loss}


def _split(tree, number):
    return jax.tree.map(lambda leaf: leaf.reshape(number, -1, *leaf.shape[1:]), tree)


def sources_in_batch(config: ConfigDict) -> jax.Array:
    """Index of the data set that each image of a balanced batch comes from, int32 [P*K], see `pk.balanced_batch`."""
    shares = num_of_each_source(config.data.p, len(sources(config.data.name)))
    return jnp.asarray(np.repeat(np.arange(len(shares)), np.array(shares) * config.data.k), jnp.int32)


def make_sampler(config: ConfigDict) -> Callable[..., Triplets]:
    """Makes the sampler that `config.loss` names, with its own options."""
    loss, k = config.loss, config.data.k
    num_sources = len(sources(config.data.name)) if loss.negatives == "source" else 1
    sizes = {"num_positives": k - 1, "num_negatives": config.data.p * k // num_sources - k}
    if loss.sampling != "curriculum":
        return partial({"batch_hard": batch_hard, "uniform": uniform}[loss.sampling], **sizes)
    options = {name: loss[name] for name in Curriculum._fields} | {"mu_step": loss.mu_step or None}
    return partial(curriculum, options=Curriculum(**options), **sizes)


def make_augmentation(options: ConfigDict) -> Augmentation:
    """Reads `config.augment` for `augment`."""
    own = {name: options[name] for name in Augmentation._fields if name != "jitter_strength"}
    strength = JitterStrength(*(options[f"jitter_{name}"] for name in JitterStrength._fields))
    disabled = {name: options[name] or None for name in ("erase", "jitter")}
    fill = ERASE_FILLS[options.erase_fill]
    return Augmentation(**{**own, **disabled, "erase_fill": fill, "jitter_strength": strength})
