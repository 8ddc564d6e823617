"""A training step that compiles in seconds, and steps of it."""

from pathlib import Path

import jax
import numpy as np
import tiny
from ml_collections import ConfigDict

from mancs_jax.models.mancs import Mancs
from mancs_jax.training.checkpoint import Description
from mancs_jax.training.loop import train
from mancs_jax.training.state import create_optimizer, create_train_state, learning_rate_schedule
from mancs_jax.training.step import make_train_step, replicated
from mancs_jax.workdir import Workdir

NUM_CLASSES, STEPS_PER_EPOCH = 12, tiny.STEPS_PER_EPOCH
SPAN = tiny.EPOCHS * STEPS_PER_EPOCH  # of the schedule, as in runs of tests/tiny.py: one compiled step serves both


def tiny_config() -> ConfigDict:
    """The configuration of tests/tiny.py, to be changed."""
    return tiny.get_config().unlock()


def batches(num: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """PK batches of noisy pictures, a base colour an identity."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 200, (NUM_CLASSES, 1, 1, 3))
    made = []
    for _ in range(num):
        labels = np.repeat(rng.permutation(NUM_CLASSES)[:4], 4).astype(np.int32)
        made.append(((colours[labels] + rng.integers(0, 56, (16, 64, 32, 3))).astype(np.uint8), labels))
    return made


def run(config: ConfigDict, num_devices: int, steps: int = 5, span: int = SPAN) -> list[dict[str, float]]:
    devices = jax.devices()[:num_devices]
    schedule = learning_rate_schedule(config, STEPS_PER_EPOCH, span)
    optimizer = create_optimizer(config, schedule)
    state = replicated(create_train_state(config, NUM_CLASSES, optimizer), devices)
    step = make_train_step(config, NUM_CLASSES, optimizer, schedule, STEPS_PER_EPOCH, devices)
    rows = []
    for image, label in batches(steps):
        shape = (num_devices, 16 // num_devices)
        state, metrics = step(state, image.reshape(*shape, *image.shape[1:]), label.reshape(shape))
        rows.append({name: float(value) for name, value in jax.device_get(metrics).items()})
    return rows


def losses(rows):
    return np.array([[row[name] for name in ("loss", "rank_loss", "cls_loss", "att_loss")] for row in rows])


def record_sizes(monkeypatch) -> set[tuple[int, int]]:
    """Height and width of the images that any network sees in training from now on."""
    seen, call = set(), Mancs.__call__

    def record(self, x, train, keys=None):
        if train:
            seen.add(x.shape[1:3])
        return call(self, x, train, keys)

    monkeypatch.setattr(Mancs, "__call__", record)
    return seen


def train_drawn(config: ConfigDict, workdir: Path, num_devices: int = 1) -> list[str]:
    """Trains on drawn images; returns the rows of metrics.jsonl."""
    labels = np.repeat(np.arange(NUM_CLASSES), 4).astype(np.int32)
    image = np.random.default_rng(0).integers(0, 256, (len(labels), 64, 32, 3), dtype=np.uint8)
    description = Description(config.to_dict(), NUM_CLASSES, data_fingerprint="x")
    assert train(config, Workdir(workdir), image, labels, (NUM_CLASSES,), description, jax.devices()[:num_devices])
    return (workdir / "metrics.jsonl").read_text().splitlines()
