"""Training on one data set against training on several: images a second of the same step, in turns.

    python benchmarks/several_data_sets.py --arch=resnet18 --batch=128

The identities are the same. They belong to one data set, or to two whose batches are balanced and whose negatives come
from the data set of their anchor.
"""

import argparse
import statistics
import time
from itertools import count
from pathlib import Path

import ours
import recipe
from measure import report, taking_turns

from mancs_jax.cli.command_line import keep_freed_memory
from mancs_jax.data import pk


def training_turns(flags: argparse.Namespace, names: str):
    """A function that returns seconds of a step on the data sets `names`."""
    keep_freed_memory()
    config = recipe.create_config(flags, flags.batch).unlock()
    config.data.name, config.loss.negatives = names, "source"
    train_step, state = ours.create_training(config.lock(), flags.num_classes)
    image, labels = recipe.drawn_data(config, flags.num_classes)
    number, steps = len(names.split(",")), count()
    num_ids = [flags.num_classes // number] * (number - 1)
    by_source = pk.split_by_source(pk.images_by_identity(labels), [*num_ids, flags.num_classes - sum(num_ids)])

    def batches():
        rows = pk.balanced_batch(by_source, config.data.p, config.data.k, config.seed, next(steps))[None]
        return image[rows], labels[rows]

    def seconds() -> float:
        nonlocal state
        start = time.perf_counter()
        state, _ = ours.steps(train_step, state, batches, flags.steps)
        return (time.perf_counter() - start) / flags.steps

    return seconds


def main(arguments: list[str] | None = None) -> None:
    """Prints a row for one data set and one for two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    recipe.add_network_flags(parser)
    parser.add_argument("--batch", type=int, default=128, help="images")
    parser.add_argument("--steps", type=int, default=3, help="in a turn")
    parser.add_argument("--rounds", type=int, default=7, help="turns, after one that compiles")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    flags = parser.parse_args(arguments)
    sides = {names: (training_turns, flags, names) for names in ("one", "one,two")}
    rates = {
        names: flags.batch / statistics.median(seconds) for names, seconds in taking_turns(sides, flags.rounds).items()
    }
    rows = [
        {"data sets": len(names.split(",")), "images/s": rate, "of one data set": rate / rates["one"]}
        for names, rate in rates.items()
    ]
    report(rows, flags.json, arch=flags.arch, batch=flags.batch)


if __name__ == "__main__":
    main()
