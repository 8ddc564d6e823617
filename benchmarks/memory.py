"""Bytes of a training step of the paper's batch, for each way to save memory, from the compiled program.

python benchmarks/memory.py [--config=configs/market.py] [--json=FILE]

Only a GPU runs the step; its row then also has the most memory in use during a step. The analysis counts all that the
program holds at once: state, images, activations. The state counts twice, before and after. On CPU, XLA computes
bfloat16 in float32. Its rows then say little and take long.
"""

import argparse
import itertools
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import recipe
from measure import report

from mancs_jax.training.state import create_optimizer, create_train_state, learning_rate_schedule
from mancs_jax.training.step import make_train_step

NUM_CLASSES, STEPS_PER_EPOCH = 751, 46  # Market-1501
REMAT = ((), (2, 3), (2, 3, 4, 5))
SIZES_GB = (8, 16, 24)


def step_bytes(config, measure: bool) -> tuple[int, int | None]:
    """(bytes by the analysis, bytes measured on a GPU) of one training step on one device."""
    schedule = learning_rate_schedule(config, STEPS_PER_EPOCH, STEPS_PER_EPOCH)
    optimizer = create_optimizer(config, schedule)
    device = jax.devices()[0]
    train_step = make_train_step(config, NUM_CLASSES, optimizer, schedule, STEPS_PER_EPOCH, [device])
    create = partial(create_train_state, config, NUM_CLASSES, optimizer)
    batch = config.data.p * config.data.k
    image = jax.ShapeDtypeStruct((1, batch, *config.data.image_size, 3), jnp.uint8)
    label = jax.ShapeDtypeStruct((1, batch), jnp.int32)
    compiled = train_step.lower(jax.eval_shape(create), image, label).compile()
    analysis = compiled.memory_analysis()
    total = analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes
    if not measure:
        return total, None
    # The allocator remembers its peak: so the ways are tried from small to large.
    labels = np.repeat(np.arange(config.data.p), config.data.k).astype(np.int32)[None]
    jax.block_until_ready(train_step(create(), np.zeros(image.shape, np.uint8), labels))
    return total, device.memory_stats()["peak_bytes_in_use"]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/market.py", help="file, with :VARIANT where it has one")
    parser.add_argument("--accumulate", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--dtypes", nargs="+", default=["float32"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    config = recipe.load_config(options.config)
    measure = jax.default_backend() == "gpu"
    rows = []
    ways = list(itertools.product(options.dtypes, REMAT, options.accumulate))
    try:
        for dtype, remat, accumulate in sorted(ways, key=lambda way: (way[0] == "float32", -way[2], -len(way[1]))):
            config.dtype, config.remat, config.accumulate = dtype, remat, accumulate
            compiled, measured = step_bytes(config, measure)
            rows.append(
                {
                    "dtype": dtype,
                    "remat": str(remat),
                    "accumulate": accumulate,
                    "GB, compiled": compiled / 1e9,
                    "GB, measured": measured / 1e9 if measured else None,
                    "fits": next((f"{size} GB" for size in SIZES_GB if (measured or compiled) < size * 1e9), "-"),
                }
            )
    finally:  # the last ways may not fit
        if rows:
            report(rows, options.json, config=options.config, backend=jax.default_backend())


if __name__ == "__main__":
    main()
