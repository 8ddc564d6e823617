"""The compiled training step: the same run on any number of devices."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from ml_collections import ConfigDict
from tiny_step import NUM_CLASSES, STEPS_PER_EPOCH, batches, losses, record_sizes, run, tiny_config, train_drawn

from mancs_jax.training.log import MetricsLog
from mancs_jax.training.state import create_optimizer, create_train_state, learning_rate_schedule
from mancs_jax.training.step import accumulated_gradient, make_train_step


class SimpleOutputs(NamedTuple):
    """The part of the model's outputs that a linear network has."""

    f_rank: jax.Array


@pytest.fixture(scope="module")
def one_device():
    return run(tiny_config(), 1)


@pytest.mark.parametrize("num_devices", [2, 8])  # on four: the other recipe, below
def test_any_number_of_devices_gives_the_same_losses(one_device, num_devices):
    many = run(tiny_config(), num_devices)
    np.testing.assert_allclose(losses(many), losses(one_device), rtol=1e-5, atol=1e-6)
    # Adam would hide a gradient that is a multiple of the right one.
    np.testing.assert_allclose(*([row["grad_norm"] for row in rows] for rows in (many, one_device)), rtol=1e-4)


def test_the_loss_is_equation_11(one_device):
    for total, rank, cls, att in losses(one_device):
        assert min(rank, cls, att) > 0
        np.testing.assert_allclose(total, 1.0 * rank + 1.0 * cls + 0.2 * att, rtol=1e-6)


def other_config() -> ConfigDict:
    """All that `tiny_config` does not have: heads, dropout, pairs, momentum, two data sets, IBN-a, MixStyle, jitter."""
    config = tiny_config()
    config.model.rank_head, config.model.cls_head, config.model.att_head = "pool", "bn_prelu", "bn_prelu"
    config.model.attention_pool, config.model.last_activation = "mask_times_map", "prelu_shared"
    config.model.dropout, config.model.head_init = 0.3, 0.1
    config.loss.positives, config.loss.num_nearest = "later", 3
    config.data.name, config.loss.negatives = "a,b", "source"
    config.model.ibn_stages, config.model.stem_norm, config.model.mixstyle_stages = (2,), "instance", (2,)
    config.augment.jitter = 0.5
    config.loss.label_smoothing = 0.1
    config.optim.name, config.optim.learning_rate = "sgd", 0.01
    return config


@pytest.fixture(scope="module")
def others_on_one_device():
    return run(other_config(), 1, steps=3)


def test_the_others_do_not_depend_on_the_devices_either(others_on_one_device):
    one, four = others_on_one_device, run(other_config(), 4, steps=3)
    np.testing.assert_allclose(losses(four), losses(one), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(*([row["grad_norm"] for row in rows] for rows in (four, one)), rtol=1e-4)


def test_loss_falls():
    config = tiny_config()
    config.optim.learning_rate, config.model.head_init = 3e-3, 0.1
    rows = run(config, 1, steps=30, span=30)
    assert np.mean([row["cls_loss"] for row in rows[-5:]]) < 0.9 * rows[0]["cls_loss"]


def grouped_config() -> ConfigDict:
    """With BatchNorm statistics of four groups. Without MixStyle, which would see only the images of a micro-batch."""
    config = other_config()
    config.batch_norm_groups, config.model.mixstyle_stages = 4, ()
    return config


@pytest.fixture(scope="module")
def four_groups():
    """Each of four devices has a group, as in the authors' code."""
    return run(grouped_config(), 4, steps=3)


def test_batch_norm_of_groups_is_another_run(others_on_one_device, four_groups):
    assert np.isfinite(losses(four_groups)).all()
    assert np.abs(losses(four_groups[:1]) - losses(others_on_one_device[:1])).max() > 1e-4


@pytest.mark.parametrize(("num_devices", "accumulate"), [(1, 1), (8, 1), (1, 4), (2, 2)])
def test_groups_are_the_same_on_any_number_of_devices_and_micro_batches(four_groups, num_devices, accumulate):
    config = grouped_config()
    config.accumulate = accumulate
    rows = run(config, num_devices, steps=3)
    np.testing.assert_allclose(losses(rows), losses(four_groups), rtol=1e-5, atol=1e-6)
    for name in ("grad_norm", "param_norm", "accuracy", "triplets_in_order"):
        np.testing.assert_allclose(*([row[name] for row in each] for each in (rows, four_groups)), rtol=1e-4)


def test_the_accumulated_gradient_is_that_of_the_whole_batch():
    """Against autodiff of the whole, on a network y = x @ w without statistics: a ranking loss that needs all pairs."""
    rng = np.random.default_rng(0)
    x, w = jnp.asarray(rng.normal(size=(6, 3)), jnp.float32), jnp.asarray(rng.normal(size=(3, 2)), jnp.float32)
    label = jnp.arange(6.0)

    def apply(params, x, keys):
        return SimpleOutputs(x @ params), {"mean": x.mean(0)}

    def ranking_loss(f_rank):
        pairs = jnp.sum((f_rank[:, None] - f_rank[None]) ** 2, -1)
        return pairs.mean(), {"rank_loss": pairs.mean()}

    def identity_losses(out, label):
        cls, att = jnp.mean(label[:, None] * out.f_rank**2), jnp.mean(jnp.abs(out.f_rank))
        return (cls, att), {"cls_loss": cls}

    def total(rank, cls, att):
        return 3.0 * rank + 2.0 * cls + 0.5 * att

    def whole(params):
        out, _ = apply(params, x, None)
        return total(ranking_loss(out.f_rank)[0], *identity_losses(out, label)[0])

    micro_batches = (x.reshape(3, 2, 3), jnp.zeros((3, 2)), label.reshape(3, 2))
    grads, batch_stats, metrics = accumulated_gradient(apply, ranking_loss, identity_losses, total, w, micro_batches)
    loss, expected = jax.value_and_grad(whole)(w)
    np.testing.assert_allclose(grads, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(batch_stats["mean"], x.mean(0), rtol=1e-5)


def first_step(config: ConfigDict) -> tuple[np.ndarray, ...]:
    """The gradient, all parameters side by side, the running statistics after it, likewise, and the loss; float64."""
    keep = optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda grads, _, params: (jax.tree.map(jnp.zeros_like, params), grads),
    )
    state = create_train_state(config, NUM_CLASSES, keep)
    step = make_train_step(config, NUM_CLASSES, keep, lambda step: 0.0, STEPS_PER_EPOCH, jax.devices()[:1])
    ((image, label),) = batches(1)
    state, metrics = step(state, image[None], label[None])
    return tuple(
        np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])
        for tree in (state.opt_state, state.batch_stats, metrics["loss"])
    )


@cache
def plain_first_step(rank_weight: float) -> tuple[np.ndarray, ...]:
    config = tiny_config()
    config.loss.rank_weight = rank_weight
    return first_step(config)


@pytest.mark.parametrize(
    ("option", "value", "rank_weight", "tolerance"),
    [
        ("remat", (2, 3, 4, 5), 1.0, 1e-5),  # of some stages alone: test_resnet.py
        # Embeddings of an untrained network are nearly equal: what bfloat16 keeps of their differences is a sixth off.
        ("dtype", "bfloat16", 0.0, 2e-2),
        ("dtype", "bfloat16", 1.0, 0.3),
    ],
)
def test_what_saves_memory_leaves_the_gradient_the_statistics_and_the_loss(option, value, rank_weight, tolerance):
    expected, config = plain_first_step(rank_weight), tiny_config()
    config.loss.rank_weight, config[option] = rank_weight, value
    for ours, plain in zip(first_step(config), expected, strict=True):
        assert np.linalg.norm(ours - plain) <= tolerance * np.linalg.norm(plain)


@pytest.mark.parametrize(
    ("schedule", "steps", "expected"),
    [
        ("constant", [0, 5, 99], [1.0, 1.0, 1.0]),
        ("cosine", [0, 50, 100], [1.0, 0.5, 0.0]),
        # 10 steps an epoch, constant to epoch 4, then 0.01 every 2 epochs, by whole epochs.
        ("exponential", [0, 49, 50, 59, 60, 80], [1.0, 1.0, 0.1, 0.1, 0.01, 0.0001]),
    ],
)
def test_schedules(schedule, steps, expected):
    config = tiny_config()
    config.optim.schedule, config.optim.learning_rate = schedule, 1.0
    config.optim.decay_start, config.optim.decay_rate, config.optim.decay_epochs = 4.0, 0.01, 2.0
    rate = learning_rate_schedule(config, 10, 100)
    np.testing.assert_allclose([float(rate(jnp.int32(step))) for step in steps], expected, rtol=1e-5, atol=1e-7)


def test_warm_up_is_linear():
    config = tiny_config()
    config.optim.learning_rate, config.optim.warmup_epochs = 1.0, 0.4
    rate = learning_rate_schedule(config, 10, 100)
    np.testing.assert_allclose([float(rate(jnp.int32(step))) for step in range(5)], [0.25, 0.5, 0.75, 1.0, 1.0])


def test_the_optimizer_is_adam_with_coupled_decay_clipping_and_a_multiple_for_new_layers():
    """One step from zero moments: Adam moves every parameter by lr * g / (|g| + eps), whatever the size of g."""
    config = tiny_config()
    config.optim.clip_norm, config.optim.weight_decay, config.optim.head_multiplier = 1.0, 0.5, 3.0
    optimizer = create_optimizer(config, lambda step: 0.1)
    params = {"backbone": {"kernel": jnp.float32([4.0, 2e-8])}, "fab2": {"kernel": jnp.float32([4.0])}}
    # Clipped from norm 5 to 1: 0.6 and -0.8; decay adds 0.5 * 4 and, to the tiny one, 1e-8, as much as Adam's epsilon.
    grads = {"backbone": {"kernel": jnp.float32([3.0, 0.0])}, "fab2": {"kernel": jnp.float32([-4.0])}}
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(updates["backbone"]["kernel"], [-0.1, -0.05], rtol=1e-4)
    np.testing.assert_allclose(updates["fab2"]["kernel"], [-0.3], rtol=1e-4)  # -0.8 + 2 > 0


def test_nothing_is_compiled_after_the_first_step(tmp_path, monkeypatch):
    config, seen = tiny_config(), record_sizes(monkeypatch)
    config.checkpoint_every, config.max_steps = float(tiny.EPOCHS), 4  # Orbax compiles as well
    compiled, at_step, add = [], {}, MetricsLog.add

    def count(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(duration)

    def add_and_count(log, step, metrics):
        add(log, step, metrics)
        at_step[step] = len(compiled)

    monkeypatch.setattr(MetricsLog, "add", add_and_count)
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        train_drawn(config, tmp_path, num_devices=2)
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert list(at_step) == [1, 2, 3, 4] and at_step[1] > 0
    assert at_step[1] == at_step[4], "a step was compiled again"
    assert seen == {(64, 32)}  # no epoch of half the size
