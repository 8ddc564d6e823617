"""The compiled training step: the same run on any number of devices."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import default
from mancs_jax.training.state import create_optimizer, create_train_state, learning_rate_schedule
from mancs_jax.training.step import make_train_step

NUM_CLASSES, STEPS_PER_EPOCH = 12, 3


def tiny_config() -> ConfigDict:
    """The paper recipe with a network that compiles in seconds."""
    config = default.get_config()
    config.data.image_size = (64, 32)
    config.data.p, config.data.k = 4, 4
    config.model.arch, config.model.width = "resnet10", 8
    config.model.rank_dim = config.model.cls_dim = 32
    config.loss.t0, config.loss.t1, config.loss.a = 1.0, 2.0, 3.0
    return config


def batches(num: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """PK batches of noisy pictures, a base colour an identity."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 200, (NUM_CLASSES, 1, 1, 3))
    made = []
    for _ in range(num):
        labels = np.repeat(rng.permutation(NUM_CLASSES)[:4], 4).astype(np.int32)
        made.append(((colours[labels] + rng.integers(0, 56, (16, 64, 32, 3))).astype(np.uint8), labels))
    return made


def run(config: ConfigDict, num_devices: int, steps: int = 5) -> list[dict[str, float]]:
    devices = jax.devices()[:num_devices]
    schedule = learning_rate_schedule(config, STEPS_PER_EPOCH, 30)
    optimizer = create_optimizer(config, schedule)
    state = create_train_state(config, NUM_CLASSES, optimizer)
    step = make_train_step(config, NUM_CLASSES, optimizer, schedule, STEPS_PER_EPOCH, devices)
    rows = []
    for image, label in batches(steps):
        shape = (num_devices, 16 // num_devices)
        state, metrics = step(state, image.reshape(*shape, *image.shape[1:]), label.reshape(shape))
        rows.append({name: float(value) for name, value in jax.device_get(metrics).items()})
    return rows


def losses(rows):
    return np.array([[row[name] for name in ("loss", "rank_loss", "cls_loss", "att_loss")] for row in rows])


@pytest.fixture(scope="module")
def one_device():
    return run(tiny_config(), 1)


@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_any_number_of_devices_gives_the_same_losses(one_device, num_devices):
    np.testing.assert_allclose(losses(run(tiny_config(), num_devices)), losses(one_device), rtol=1e-5, atol=1e-6)


def test_loss_falls():
    config = tiny_config()
    config.optim.learning_rate, config.model.head_init = 3e-3, 0.1
    rows = run(config, 1, steps=30)
    assert np.mean([row["cls_loss"] for row in rows[-5:]]) < 0.9 * rows[0]["cls_loss"]
