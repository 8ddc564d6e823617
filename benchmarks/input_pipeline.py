"""Images a second of the input alone, beside a DataLoader, and the time that training waits for it.

    python benchmarks/input_pipeline.py --arch=resnet18 --batch=128
    python benchmarks/input_pipeline.py --arch=resnet50 --batch=32

Alone, our side makes PK batches out of uint8 arrays in memory (`mancs_jax.data.pk` and one gather). PyTorch's
DataLoader makes the same batches with two workers. Each worker makes whole batches by the same gather. Both sides have
a process of their own.

Inside training, two steps take turns in one process: the step of the training loop, and the same step with one batch on
the device. The difference is the time for input: drawing, gathering, the way to the device. The loop's own clock gives
the waiting: the time of making a batch while the device had nothing left to do.
"""

import argparse
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import ours
import recipe
from jax.sharding import PartitionSpec
from measure import report, taking_turns

from mancs_jax.cli.command_line import keep_freed_memory
from mancs_jax.data import pk
from mancs_jax.training.step import DEVICES

OURS, PEER, TRAINING = "mancs_jax", "PyTorch's DataLoader", "training"


def our_turns(flags: argparse.Namespace):
    """A function that makes --alone_batches batches and returns images a second."""
    config = recipe.create_config(flags, flags.batch)
    batches = ours.create_batches(config, flags.num_classes)

    def turn() -> float:
        start = time.perf_counter()
        for _ in range(flags.alone_batches):
            batches()
        return flags.alone_batches * flags.batch / (time.perf_counter() - start)

    return turn


class Gather:
    """A data set in PyTorch's sense, whose items are whole batches."""

    def __init__(self, image: np.ndarray, labels: np.ndarray):
        self.image, self.labels = image, labels

    def __getitem__(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.image[rows], self.labels[rows]


def peer_turns(flags: argparse.Namespace):
    """As `our_turns`, by a DataLoader that goes on between turns."""
    from torch.utils.data import DataLoader

    config = recipe.create_config(flags, flags.batch)
    image, labels = recipe.drawn_data(config, flags.num_classes)
    draw = partial(pk.pk_batch, pk.images_by_identity(labels), config.data.p, config.data.k, config.seed)
    num = (flags.rounds + 1) * flags.alone_batches
    rows = [draw(step) for step in range(num)]
    batches = iter(DataLoader(Gather(image, labels), sampler=rows, batch_size=None, num_workers=flags.workers))

    def turn() -> float:
        start = time.perf_counter()
        for _ in range(flags.alone_batches):
            next(batches)
        return flags.alone_batches * flags.batch / (time.perf_counter() - start)

    return turn


def training_turns(flags: argparse.Namespace):
    """A function that returns seconds of a step: by the loop, with a batch on the device, and waited for input."""
    keep_freed_memory()
    config = recipe.create_config(flags, flags.batch)
    train_step, state = ours.create_training(config, flags.num_classes)
    batches = ours.create_batches(config, flags.num_classes)
    on_device = jax.device_put(batches(), ours.on_devices(PartitionSpec(DEVICES)))

    def seconds(batches) -> float:
        nonlocal state
        start = time.perf_counter()
        state, _ = ours.steps(train_step, state, batches, flags.steps)
        return (time.perf_counter() - start) / flags.steps

    def seconds_waited() -> float:
        nonlocal state
        waited = 0.0
        for number in range(flags.steps + 1):
            start = time.perf_counter()
            made = batches()
            if number and state.step.is_ready():
                waited += time.perf_counter() - start
            before, (state, _) = state, train_step(state, *made)
            jax.block_until_ready(before)
        jax.block_until_ready(state)
        return waited / flags.steps

    return lambda: (seconds(batches), seconds(lambda: on_device), seconds_waited())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    recipe.add_network_flags(parser)
    parser.add_argument("--batch", type=int, default=32, help="images")
    parser.add_argument("--alone_batches", type=int, default=50, help="in a turn of the input alone")
    parser.add_argument("--workers", type=int, default=2, help="of the DataLoader")
    parser.add_argument("--steps", type=int, default=3, help="in a turn of training")
    parser.add_argument("--rounds", type=int, default=7, help="turns, after one that compiles")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    flags = parser.parse_args(arguments)
    try:
        recipe.create_config(flags, flags.batch)
    except ValueError as error:
        sys.exit(f"input_pipeline: {error}")

    sides = {OURS: (our_turns, flags), PEER: (peer_turns, flags), TRAINING: (training_turns, flags)}
    turns = taking_turns(sides, flags.rounds)
    alone = {name: statistics.median(turns[name]) for name in (OURS, PEER)}
    loop, constant, waited = map(statistics.median, zip(*turns[TRAINING]))
    training = flags.batch / loop
    rows = [
        {"": f"input alone, {name}", "images/s": rate, "ours / it": alone[OURS] / rate, "of training": rate / training}
        for name, rate in alone.items()
    ]
    for name, second in (("training, the loop", loop), ("training, batch on the device", constant)):
        rate = flags.batch / second
        rows.append({"": name, "images/s": rate, "ours / it": None, "of training": rate / training})
    figures = {
        "ms_a_step": 1e3 * loop,
        "percent_of_a_step_for_input": 100 * (1 - constant / loop),
        "percent_of_a_step_waited": 100 * waited / loop,
    }
    report(rows, flags.json, arch=flags.arch, batch=flags.batch, **figures)


if __name__ == "__main__":
    main()
