"""Costs of a step and a search on machines that are not at hand: counts, divided by the machines' data sheets.

python benchmarks/scaling.py [--config=configs/market.py] [--json=FILE]

XLA counts operations and bytes in the programs of the training step and of the embedding. They are compiled for the
machine at hand. Its bytes, after fusion, stand in for those of the others. Nothing here is a measurement, except the
peak of this machine, which is a matrix product's.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import recipe

from mancs_jax.inference.forward import create_forward
from mancs_jax.models import convolution
from mancs_jax.training.state import create_optimizer, create_train_state, learning_rate_schedule
from mancs_jax.training.step import make_train_step

NUM_CLASSES, STEPS_PER_EPOCH, WIDTH = 751, 46, 2048  # Market-1501; width of an embedding
GALLERIES = (10**6, 10**8, 10**10)
CODE_BYTES = 64  # of a product quantizer, a crop


class Machine(NamedTuple):
    """Of the makers' data sheets: dense bfloat16 FLOP/s and memory bytes/s of a device, memory, and bytes/s that it
    sends to the others."""

    name: str
    devices: int
    flops: float
    bandwidth: float
    memory: float
    link: float


MACHINES = (
    Machine("H200", 1, 989e12, 4.8e12, 141e9, 450e9),
    Machine("8 x H200", 8, 989e12, 4.8e12, 141e9, 450e9),
    Machine("TPU v5e-8", 8, 197e12, 819e9, 16e9, 200e9),
)
# A convolutional network in training reaches neither peak. Of both: what the prediction takes beside the bound.
REACHED = 0.4


class Cost(NamedTuple):
    """Of one step: operations, bytes that the fused program reads and writes, and bytes that leave a device."""

    flops: float
    bytes: float
    sent: float


def count(config, batch: int) -> tuple[Cost, Cost]:
    """The cost of a training step, and of embedding as many images, in float32."""
    schedule = learning_rate_schedule(config, STEPS_PER_EPOCH, STEPS_PER_EPOCH)
    optimizer = create_optimizer(config, schedule)
    state = jax.eval_shape(partial(create_train_state, config, NUM_CLASSES, optimizer))
    step = make_train_step(config, NUM_CLASSES, optimizer, schedule, STEPS_PER_EPOCH, jax.devices()[:1])
    image = jax.ShapeDtypeStruct((1, batch, *config.data.image_size, 3), jnp.uint8)
    label = jax.ShapeDtypeStruct((1, batch), jnp.int32)
    compiled = step.lower(state, image, label).compile().cost_analysis()
    size = lambda tree: sum(np.prod(leaf.shape) * 4.0 for leaf in jax.tree.leaves(tree))  # noqa: E731
    # A ring sends the gradient twice; embeddings are gathered once, their gradient is summed once.
    sent = 2 * size(state.params) + 2 * batch * WIDTH * 4.0
    embeddings_of = create_forward(config, NUM_CLASSES)
    forward = jax.jit(lambda variables, image: embeddings_of(variables, image)[0])
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    embedding = forward.lower(variables, jax.ShapeDtypeStruct(image.shape[1:], jnp.uint8)).compile().cost_analysis()
    return (
        Cost(compiled["flops"], compiled["bytes accessed"], sent),
        Cost(embedding["flops"], embedding["bytes accessed"], 0.0),
    )


def seconds(cost: Cost, machine: Machine, reached: float) -> float:
    """Of a step whose images are split over the machine's devices: the slower of arithmetic and memory (in bfloat16,
    half of float32's bytes), and what is sent, which overlaps with neither in the worst case."""
    busy = max(cost.flops / machine.flops, cost.bytes / 2 / machine.bandwidth) / machine.devices / reached
    return busy + (cost.sent / machine.link if machine.devices > 1 else 0.0)


def peak_flops(size: int = 2048) -> float:
    """FLOP/s of a matrix product on the device at hand."""
    a = jnp.ones((size, size))
    product = jax.jit(lambda a: a @ a)
    jax.block_until_ready(product(a))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(product(a))
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def step_table(config) -> tuple[list[str], dict]:
    batch = config.data.p * config.data.k
    training, embedding = count(config, batch)
    lines = [
        f"A step of {batch} images: {training.flops / 1e12:.2f} TFLOP, {training.bytes / 1e9:.0f} GB read and written "
        f"(float32), {training.sent / 1e6:.0f} MB sent by each device. Embedding an image: "
        f"{embedding.flops / batch / 1e9:.2f} GFLOP, {embedding.bytes / batch / 1e6:.0f} MB.",
        "",
        "| machine | step, bound | step, predicted | images/s, predicted | of it sending | embeddings/s, predicted |",
        "|---" * 6 + "|",
    ]
    rows = []
    for machine in MACHINES:
        bound, predicted = seconds(training, machine, 1.0), seconds(training, machine, REACHED)
        sending = training.sent / machine.link if machine.devices > 1 else 0.0
        embedded = batch / seconds(embedding, machine, REACHED)
        lines.append(
            f"| {machine.name} | {1e3 * bound:.1f} ms | {1e3 * predicted:.1f} ms | {batch / predicted:,.0f} "
            f"| {100 * sending / predicted:.0f} % | {embedded:,.0f} |"
        )
        rows.append({"machine": machine.name, "bound_s": bound, "predicted_s": predicted, "embeddings_per_s": embedded})
    return lines, {"training": training._asdict(), "embedding": embedding._asdict(), "steps": rows}


def gallery_table() -> list[str]:
    lines = [
        f"| crops | float32 | float16 | H200s that hold float16 | exact query on those | {CODE_BYTES}-byte codes |",
        "|---" * 6 + "|",
    ]
    card = MACHINES[0]
    for crops in GALLERIES:
        half = crops * WIDTH * 2
        cards = -(-half // int(0.8 * card.memory))
        scan = half / cards / card.bandwidth  # a query alone is bound by reading the gallery
        lines.append(
            f"| {crops:.0e} | {_size(2 * half)} | {_size(half)} | {cards:,} | {1e3 * scan:.1f} ms "
            f"| {_size(crops * CODE_BYTES)} |"
        )
    return lines


def _size(number: float) -> str:
    unit, name = next((u, n) for u, n in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")) if number >= u or n == "MB")
    return f"{number / unit:.3g} {name}"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/market.py", help="file, with :VARIANT where it has one")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    config = recipe.load_config(options.config)
    config.remat = ()
    convolution._CHUNK_BYTES = 1 << 62  # XLA counts a loop's body once: no loop, then
    convolution._EXTRA_ROWS = 0  # of this CPU alone
    lines, counted = step_table(config)
    print("\n".join(lines))
    small = config.copy_and_resolve_references()
    small.data.p, small.data.k = 4, 4
    training, embedding = count(small, 16)
    peak = peak_flops()
    print(
        f"\nThis machine ({jax.devices()[0].device_kind}): a matrix product reaches {peak / 1e9:.0f} GFLOP/s, so that "
        f"a step of 16 images takes {training.flops / peak:.2f} s at least, embedding 16 images "
        f"{embedding.flops / peak:.3f} s.\n"
    )
    print("\n".join(gallery_table()))
    if options.json:
        about = {"config": options.config, "jax": jax.__version__, "peak_flops": peak, **counted}
        options.json.write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
