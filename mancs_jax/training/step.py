"""The compiled training step: augment, run the network, sample triplets from the whole batch, three losses, update.

The loss is `total_loss` (equation 11) of `ranking_loss` (equations 3 to 6) and `identity_losses` (equations 7 to 10).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from mancs_jax.config.names import ids_of_each_source, sources
from mancs_jax.data.augment import ERASE_FILLS, Augmentation, JitterStrength, augment, halve
from mancs_jax.losses.identity import attention_loss, focal_loss
from mancs_jax.losses.sampling import Curriculum, Pairs, Triplets, batch_hard, curriculum, uniform
from mancs_jax.losses.triplet import euclidean_distances, triplet_gap, triplet_loss
from mancs_jax.models.mancs import Outputs, create_model
from mancs_jax.training.state import TrainState

# Name of the pmap axis: the devices that share a batch.
DEVICES = "devices"
# Uses of an example's random key, which is folded with their number. A new use takes a new number, because renumbering
# would change the random numbers of runs that are resumed.
AUGMENT, DROPOUT, TRIPLETS = range(3)

Sampler = Callable[..., Triplets]  # a function of losses/sampling.py, with its options
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

    Random numbers depend on (seed, step, index of the example in the whole batch), and triplets come from the whole
    batch. Therefore the result does not depend on the number of devices, up to the order of sums, unless each device
    has its own BatchNorm statistics (`batch_norm_groups` = 0). With `half_size` the network gets the augmented images
    at half their height and width.

    Returns:
      A function of (state, images uint8 [devices, B/devices, H, W, 3], labels int32 [devices, B/devices]) that returns
      the new state and float32 scalars: loss, rank_loss, cls_loss, att_loss, accuracy, triplets_in_order, grad_norm,
      param_norm (after the update), learning_rate.
    """
    model = create_model(config, num_classes, DEVICES, len(devices))
    sample_triplets, augmentation = make_sampler(config), make_augmentation(config.augment)

    def train_step(state: TrainState, image: jax.Array, label: jax.Array):
        epoch = state.step // steps_per_epoch
        batch_index = jax.lax.axis_index(DEVICES) * label.shape[0] + jnp.arange(label.shape[0])
        keys = example_keys(config.seed, state.step, batch_index)
        x = augment(keys[AUGMENT], image, augmentation)
        x = halve(x) if half_size else x
        pairs = compare_labels(label, batch_index, config)

        def apply(params, x, keys):
            variables = {"params": params, "batch_stats": state.batch_stats}
            out, updates = model.apply(variables, x, train=True, keys=keys, mutable=["batch_stats"])
            return out, updates["batch_stats"]

        ranking_loss_fn = partial(
            ranking_loss,
            keys=keys[TRIPLETS],
            pairs=pairs,
            epoch=epoch,
            sample_triplets=sample_triplets,
            options=config.loss,
        )
        identity_losses_fn = partial(identity_losses, options=config.loss)
        total_loss_fn = partial(total_loss, options=config.loss)

        def loss_fn(params):
            out, batch_stats = apply(params, x, keys[DROPOUT])
            rank, ranking_metrics = ranking_loss_fn(out.f_rank)
            (cls, att), identity_metrics = identity_losses_fn(out, label)
            loss = total_loss_fn(rank, cls, att)
            return loss, (batch_stats, {"loss": loss} | ranking_metrics | identity_metrics)

        if config.accumulate == 1:
            grads, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(state.params)
        else:
            micro_batches = jax.tree.map(
                lambda leaf: leaf.reshape(config.accumulate, -1, *leaf.shape[1:]), (x, keys[DROPOUT], label)
            )
            grads, batch_stats, metrics = accumulated_gradient(
                apply, ranking_loss_fn, identity_losses_fn, total_loss_fn, state.params, micro_batches
            )
        # Embeddings of this device are candidates in the triplets of all devices. The gradient of `all_gather` returns
        # those contributions to it, so that the mean over devices is the gradient of the mean loss. Statistics differ
        # between devices only where BatchNorm is not synchronised.
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


def compare_labels(label: jax.Array, batch_index: jax.Array, config: ConfigDict) -> Pairs:
    """Compares the labels of a device's images, int32 [A], with those of the whole batch, int32 [B].

    `batch_index`, int32 [A], has the position of each of the device's images in the whole batch.
    """
    all_labels = jax.lax.all_gather(label, DEVICES, tiled=True)
    same = label[:, None] == all_labels[None, :]
    is_negative = ~same
    if config.loss.negatives == "source":
        source = sources_in_batch(config)
        is_negative &= source[batch_index][:, None] == source[None, :]
    return Pairs(same, batch_index[:, None] == jnp.arange(all_labels.shape[0])[None, :], is_negative)


def sources_in_batch(config: ConfigDict) -> jax.Array:
    """Returns the index of the data set of each image in a batch of `pk.balanced_batch`, int32 [P*K]."""
    num_ids = ids_of_each_source(config.data.p, len(sources(config.data.name)))
    return jnp.asarray(np.repeat(np.arange(len(num_ids)), np.array(num_ids) * config.data.k), jnp.int32)


def example_keys(seed: int, step: jax.Array, batch_index: jax.Array) -> list[jax.Array]:
    """Makes keys [A] for each use (AUGMENT, DROPOUT, TRIPLETS) from the positions of examples in the whole batch."""
    step_key = jax.random.fold_in(jax.random.key(seed), step)
    keys = jax.vmap(partial(jax.random.fold_in, step_key))(batch_index)
    return [jax.vmap(lambda key, use=use: jax.random.fold_in(key, use))(keys) for use in (AUGMENT, DROPOUT, TRIPLETS)]


def ranking_loss(
    f_rank: jax.Array,
    *,
    keys: jax.Array,
    pairs: Pairs,
    epoch: jax.Array,
    sample_triplets: Sampler,
    options: ConfigDict,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Samples triplets from the whole batch for the anchors of this device (section 3.3), and computes their loss.

    `f_rank` is float32 [A, D] and `keys` [A], for A anchors; `options` are the `loss` fields of the configuration.
    Returns the loss, and the metrics rank_loss (the same) and triplets_in_order.
    """
    candidates = jax.lax.all_gather(f_rank, DEVICES, tiled=True)
    distances = euclidean_distances(f_rank, candidates)
    triplets = sample_triplets(keys, jax.lax.stop_gradient(distances), pairs, epoch)
    loss = triplet_loss(distances, triplets, options.margin)
    share_in_order = jnp.mean(triplets.weight * (triplet_gap(distances, triplets) < 0))
    return loss, {"rank_loss": loss, "triplets_in_order": share_in_order}


def identity_losses(
    out: Outputs, label: jax.Array, *, options: ConfigDict
) -> tuple[tuple[jax.Array, jax.Array], dict[str, jax.Array]]:
    """Computes the losses of both classifiers (sections 3.4 and 3.5) for labels int32 [A]; `options` as `ranking_loss`.

    Returns (identity loss, attention loss; 0 without FABs), and the metrics cls_loss, att_loss (with FABs), accuracy.
    """
    cls = focal_loss(
        out.cls_logits,
        label,
        gamma=options.gamma,
        probability=options.probability,
        detach_weight=options.detach_focal,
        label_smoothing=options.label_smoothing,
    )
    metrics = {"cls_loss": cls, "accuracy": jnp.mean(jnp.argmax(out.cls_logits, -1) == label, dtype=jnp.float32)}
    if out.att_logits is None:
        return (cls, jnp.zeros(())), metrics
    att = attention_loss(out.att_logits, label, kind=options.attention)
    return (cls, att), metrics | {"att_loss": att}


def total_loss(rank: jax.Array, cls: jax.Array, att: jax.Array, options: ConfigDict) -> jax.Array:
    """Sums the three losses (section 3.6, equation 11) with the weights in `options`, the `loss` fields."""
    # In this order of additions, as in `accumulated_gradient`, which adds the ranking loss of the whole batch last.
    return options.rank_weight * rank + (options.cls_weight * cls + options.att_weight * att)


def accumulated_gradient(
    apply: Callable,
    ranking_loss_fn: Callable,
    identity_losses_fn: Callable,
    total_loss_fn: Callable,
    params: Any,
    micro_batches: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[Any, Any, dict[str, jax.Array]]:
    """Computes the gradient of a device's batch by micro-batches, with the activations of only one in memory.

    The triplets need the embeddings of the whole batch. Therefore these are computed first, with the gradient of the
    loss with respect to each embedding. Then each micro-batch runs again, with that gradient as the cotangent of its
    embeddings and with its other losses (Gao et al. 2021, gradient cache). BatchNorm takes its statistics from a
    micro-batch, so that the result equals that of as many devices, each with its own statistics.

    Args:
      apply: (params, x, keys) -> the network's outputs and the new batch_stats.
      ranking_loss_fn: f_rank [A, D] of all micro-batches -> scalar and metrics.
      identity_losses_fn: outputs and labels of one micro-batch -> losses and metrics, all of them means.
      total_loss_fn: (rank, cls, att) -> their weighted sum.
      params: of the network.
      micro_batches: (x [M, A/M, H, W, 3], keys [M, A/M], label [M, A/M]).

    Returns:
      The gradient, batch_stats and metrics, as means over the micro-batches.
    """
    x, keys, label = micro_batches
    num_micro_batches, zero = len(label), jnp.zeros(())
    f_rank = jax.lax.map(lambda inputs: apply(params, *inputs)[0].f_rank, (x, keys))

    def weighted_ranking_loss(f_rank):
        rank, metrics = ranking_loss_fn(f_rank.reshape(-1, f_rank.shape[-1]))
        return total_loss_fn(rank, zero, zero), metrics

    (weighted_rank, ranking_metrics), cotangent = jax.value_and_grad(weighted_ranking_loss, has_aux=True)(f_rank)

    def micro_batch_gradient(x, keys, label, cotangent):
        def loss_fn(params):
            out, batch_stats = apply(params, x, keys)
            losses, metrics = identity_losses_fn(out, label)
            loss = total_loss_fn(zero, *losses)
            # The cotangent is of the whole batch's loss, and the sum over micro-batches is divided by M at the end.
            return loss + num_micro_batches * jnp.vdot(cotangent, out.f_rank), (batch_stats, {"loss": loss} | metrics)

        return jax.grad(loss_fn, has_aux=True)(params)

    shapes = jax.eval_shape(micro_batch_gradient, x[0], keys[0], label[0], cotangent[0])
    sums, _ = jax.lax.scan(
        lambda sums, inputs: (jax.tree.map(jnp.add, sums, micro_batch_gradient(*inputs)), None),
        jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes),
        (x, keys, label, cotangent),
    )
    grads, (batch_stats, metrics) = jax.tree.map(lambda leaf: leaf / num_micro_batches, sums)
    return grads, batch_stats, metrics | ranking_metrics | {"loss": metrics["loss"] + weighted_rank}


def make_sampler(config: ConfigDict) -> Sampler:
    """Makes the sampler that `config.loss` selects, with its options."""
    loss, k = config.loss, config.data.k
    num_sources = len(sources(config.data.name)) if loss.negatives == "source" else 1
    sizes = {"num_positives": k - 1, "num_negatives": config.data.p * k // num_sources - k}
    if loss.sampling != "curriculum":
        return partial({"batch_hard": batch_hard, "uniform": uniform}[loss.sampling], **sizes)
    options = {name: loss[name] for name in Curriculum._fields} | {"mu_step": loss.mu_step or None}
    return partial(curriculum, options=Curriculum(**options), **sizes)


def make_augmentation(options: ConfigDict) -> Augmentation:
    """Converts `config.augment` to the options of `augment`, where None, not 0, disables erasing and colour jitter."""
    fields = {name: options[name] for name in Augmentation._fields if name != "jitter_strength"}
    strength = JitterStrength(*(options[f"jitter_{name}"] for name in JitterStrength._fields))
    probabilities = {name: options[name] or None for name in ("erase", "jitter")}
    fill = ERASE_FILLS[options.erase_fill]
    return Augmentation(**{**fields, **probabilities, "erase_fill": fill, "jitter_strength": strength})


def replicated(state: TrainState, devices: list[jax.Device]) -> TrainState:
    """Puts a state on all devices as a step returns it; otherwise the step is compiled again for its own output."""
    mesh = jax.make_mesh((len(devices),), (DEVICES,), axis_types=(AxisType.Auto,), devices=devices)
    return jax.device_put(state, NamedSharding(mesh, PartitionSpec()))


def donated_arguments(devices: list[jax.Device]) -> tuple[int, ...]:
    """Returns the arguments of a step whose memory its results reuse: the state, which would be held twice.

    None on CPU, where Orbax writes a checkpoint from the memory of the state itself.
    """
    return () if devices[0].platform == "cpu" else (0,)
