"""The compiled training step: augment, run, gather embeddings over devices, sample triplets, three losses, update."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from mancs_jax.data.augment import Augmentation, augment
from mancs_jax.losses.curriculum import SAMPLERS
from mancs_jax.losses.identity import attention_loss, focal_loss
from mancs_jax.losses.triplet import euclidean_distances, triplet_gap, triplet_loss
from mancs_jax.models.mancs import create_model
from mancs_jax.training.state import TrainState

# Name of the pmap axis.
DEVICES = "devices"
# What an example's key is folded with for each use; a new use takes a new number, so that old runs stay what they were.
AUGMENT, DROPOUT, TRIPLETS = range(3)

TrainStep = Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(
    config: ConfigDict,
    num_classes: int,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    steps_per_epoch: int,
    devices: list[jax.Device],
) -> TrainStep:
    """Compiles one update over all devices.

    Everything random comes from (seed, step, index of the example in the whole batch), and triplets are drawn from the
    whole batch, so that the result does not depend on the number of devices (up to the order of sums; with
    `batch_norm_sync`).

    Returns:
      A function of (state, images uint8 [devices, B/devices, H, W, 3], labels int32 [devices, B/devices]) that gives
      the new state and float32 scalars: loss, rank_loss, cls_loss, att_loss, accuracy, triplets_in_order, grad_norm,
      param_norm (after the update), learning_rate.
    """
    model = create_model(config, num_classes, DEVICES)
    sample = make_sampler(config.loss)
    augmentation = make_augmentation(config.augment)

    def train_step(state: TrainState, image: jax.Array, label: jax.Array):
        epoch = state.step // steps_per_epoch
        index = jax.lax.axis_index(DEVICES) * label.shape[0] + jnp.arange(label.shape[0])
        step_key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        keys = jax.vmap(partial(jax.random.fold_in, step_key))(index)
        keys_for = lambda use: jax.vmap(lambda key: jax.random.fold_in(key, use))(keys)  # noqa: E731
        x = augment(keys_for(AUGMENT), image, augmentation)
        all_labels = jax.lax.all_gather(label, DEVICES, tiled=True)
        same = label[:, None] == all_labels[None, :]
        is_self = index[:, None] == jnp.arange(all_labels.shape[0])[None, :]

        def loss_fn(params):
            out, updates = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                x,
                train=True,
                keys=keys_for(DROPOUT),
                mutable=["batch_stats"],
            )
            candidates = jax.lax.all_gather(out["f_rank"], DEVICES, tiled=True)
            distances = euclidean_distances(out["f_rank"], candidates)
            triplets = sample(
                keys_for(TRIPLETS), jax.lax.stop_gradient(distances), same, is_self, epoch, config.data.k - 1
            )
            losses = {
                "rank_loss": triplet_loss(distances, triplets, config.loss.margin),
                "cls_loss": focal_loss(
                    out["cls_logits"],
                    label,
                    gamma=config.loss.gamma,
                    probability=config.loss.probability,
                    detach_weight=config.loss.detach_focal,
                ),
            }
            if "att_logits" in out:
                losses["att_loss"] = attention_loss(out["att_logits"], label, kind=config.loss.attention)
            loss = sum(config.loss[name.replace("_loss", "_weight")] * value for name, value in losses.items())
            metrics = {
                "loss": loss,
                **losses,
                "accuracy": jnp.mean(jnp.argmax(out["cls_logits"], -1) == label, dtype=jnp.float32),
                "triplets_in_order": jnp.mean(triplets.weight * (triplet_gap(distances, triplets) < 0)),
            }
            return loss, (updates["batch_stats"], metrics)

        grads, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(state.params)
        # Each device's gradient holds what the gathered embeddings contributed to the others' losses; their mean is
        # the gradient of the mean loss. Statistics differ between devices only where BatchNorm is not synchronised.
        grads, batch_stats, metrics = jax.lax.pmean((grads, batch_stats, metrics), DEVICES)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        norms = {"grad_norm": optax.tree.norm(grads), "param_norm": optax.tree.norm(params)}
        metrics |= norms | {"learning_rate": schedule(state.step)}
        return TrainState(state.step + 1, params, batch_stats, opt_state), metrics

    return jax.pmap(train_step, axis_name=DEVICES, in_axes=(None, 0, 0), out_axes=(None, None), devices=devices)


def make_sampler(loss: ConfigDict):
    """The sampler that `config.loss` names, its own options filled in."""
    if loss.sampling != "curriculum":
        return SAMPLERS[loss.sampling]
    return partial(
        SAMPLERS["curriculum"],
        t0=loss.t0,
        t1=loss.t1,
        a=loss.a,
        b=loss.b,
        num_nearest=loss.num_nearest,
        mu_step=loss.mu_step or None,
        density_floor=loss.density_floor,
        positives=loss.positives,
    )


def make_augmentation(options: ConfigDict) -> Augmentation:
    """`config.augment` as the pure function wants it."""
    fill = {"random": None, "constant": (0.4914, 0.4822, 0.4465)}[options.erase_fill]
    return Augmentation(**{**options.to_dict(), "erase_fill": fill})
