"""A training step and an embedding, compiled for accelerators that are not at hand: memory, bytes moved, FLOP, bounds.

    pip install --no-deps --target=PLUGINS -r benchmarks/compilers.txt
    python benchmarks/accelerators.py --plugins=PLUGINS --chip=h100 [--devices=8] [--dtype=bfloat16] [--set remat=2,3]
    python benchmarks/accelerators.py --plugins=PLUGINS --chip=v5e --devices=8

The makers' own compilers make the programs, without their machines. Bytes moved are those of the optimised program:
of each instruction, its operands and its result. A bound is the slower of arithmetic and memory at the data sheet's
speed. Nothing here is a time that was measured.
"""

import argparse
import json
import os
import re
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import recipe
from chips import CHIPS, Chip, devices_of

NUM_CLASSES, STEPS_PER_EPOCH = 751, 46  # Market-1501
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4}
BYTES |= {"f64": 8, "s64": 8, "u64": 8, "c64": 8}
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}


class Program(NamedTuple):
    """Counts of a compiled program, of one device."""

    seconds_to_compile: float
    arguments: int  # bytes
    results: int
    temporaries: int
    donated: int  # of the results, bytes that lie where arguments did
    flops: float
    moved: int  # bytes that the instructions read and write
    convolutions: dict[str, int]  # "dtype layout" -> number
    loops: int  # whose bodies are counted once


def lower_step(config, devices: list):
    """Lowers the training step."""
    import jax
    import jax.numpy as jnp

    from mancs_jax.training.state import create_optimizer, create_train_state, learning_rate_schedule
    from mancs_jax.training.step import make_train_step

    schedule = learning_rate_schedule(config, STEPS_PER_EPOCH, STEPS_PER_EPOCH)
    optimizer = create_optimizer(config, schedule)
    state = jax.eval_shape(partial(create_train_state, config, NUM_CLASSES, optimizer))
    step = make_train_step(config, NUM_CLASSES, optimizer, schedule, STEPS_PER_EPOCH, devices)
    shape = (len(devices), config.data.p * config.data.k // len(devices))
    image = jax.ShapeDtypeStruct((*shape, *config.data.image_size, 3), jnp.uint8)
    return step.lower(state, image, jax.ShapeDtypeStruct(shape, jnp.int32))


def lower_embedding(config, devices: list):
    """Lowers the embedding of `eval_batch` images on each device."""
    import jax
    import jax.numpy as jnp

    from mancs_jax.inference.forward import create_forward
    from mancs_jax.models.mancs import create_model, init_variables

    variables = jax.eval_shape(lambda: init_variables(config, NUM_CLASSES))
    shape = (len(devices), config.eval_batch, *config.data.image_size, 3)
    forward = jax.pmap(create_forward(create_model(config, NUM_CLASSES)), in_axes=(None, 0), devices=devices)
    return forward.lower(variables, jax.ShapeDtypeStruct(shape, jnp.uint8))


def flops_of(lower, config) -> float:
    """FLOP of a program, by XLA's count of the one for this CPU without the paths that a CPU alone takes."""
    import jax

    from mancs_jax.kernels import convolution

    convolution._CHUNK_BYTES = 1 << 62  # XLA counts a loop's body once: no loop, then
    convolution._EXTRA_ROWS = 0
    return float(lower(config, jax.devices("cpu")[:1]).cost_analysis()["flops"])


def compiled(lowered, flops: float) -> Program:
    """Compiles, and counts the optimised program, of which a device makes `flops`."""
    start = time.perf_counter()
    program = lowered.compile()
    seconds = time.perf_counter() - start
    memory = program.memory_analysis()
    moved, convolutions, loops = count_text(program.as_text())
    # A TPU's program copies between its memories: there, the compiler's own count. A GPU's compiler has none.
    moved = int((program.cost_analysis() or {}).get("bytes accessed", moved))
    return Program(
        round(seconds, 1),
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.temp_size_in_bytes,
        memory.alias_size_in_bytes,
        flops,
        moved,
        convolutions,
        loops,
    )


def count_text(text: str) -> tuple[int, dict[str, int], int]:
    """Reads the text of an optimised program.

    Returns:
      (bytes that the instructions outside of fusions read and write, "dtype layout" -> convolutions, loops).
    """
    called = set(re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", text))
    moved, loops, convolutions, computation, sizes = 0, 0, {}, "", {}
    for line in text.splitlines():
        if head := re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line):
            computation, sizes = head[1], {}
            continue
        found = re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)", line)
        if not found:
            continue
        name, shape, operation, rest = found.groups()
        sizes[name] = _size(shape)
        is_convolution = operation == "convolution" or '"__cudnn$conv' in rest
        if is_convolution:
            dtype = re.search(r"(\w+)\[", shape)
            labels = re.search(r"dim_labels=(\S+?)[,\s]", rest + " ")
            key = f"{dtype[1] if dtype else '?'} {labels[1] if labels else '?'}"
            convolutions[key] = convolutions.get(key, 0) + 1
        if computation in called or operation in FREE:
            continue
        loops += operation == "while"
        operands = re.findall(r"%([\w.\-]+)", rest.partition("), ")[0])
        if operation == "slice" or name.startswith("wrapped_slice"):
            operands = [name]  # of its operand it reads as much as it writes
        moved += sizes[name] + sum(sizes.get(operand, 0) for operand in operands)
    return moved, convolutions, loops


def _size(shape: str) -> int:
    total = 0
    for dtype, sides in re.findall(r"(\w+)\[([\d,]*)\]", shape):
        count = BYTES.get(dtype, 0)
        for side in filter(None, sides.split(",")):
            count *= int(side)
        total += count
    return total


def lines_of(what: str, images: int, chip: Chip, dtype: str, program: Program) -> list[str]:
    """The counts as lines for people."""
    held = program.arguments + program.results - program.donated + program.temporaries
    seconds = {"memory": program.moved / chip.bandwidth, "arithmetic": program.flops / chip.flops[dtype]}
    slower = max(seconds, key=lambda name: seconds[name])
    fits = "fits" if held < 0.92 * chip.memory else "DOES NOT FIT"
    convolutions = ", ".join(f"{number} x {kind}" for kind, number in sorted(program.convolutions.items()))
    return [
        f"{what} of {images} images a device, {dtype}, on {chip.name}, compiled in {program.seconds_to_compile:.0f} s:",
        f"  holds {held / 1e9:.2f} GB: arguments {program.arguments / 1e9:.2f}, results {program.results / 1e9:.2f} "
        f"({program.donated / 1e9:.2f} in their place), temporaries {program.temporaries / 1e9:.2f}; {fits}",
        f"  {program.flops / 1e12:.2f} TFLOP, moves {program.moved / 1e9:.1f} GB; bound by {slower}: "
        f"{1e3 * seconds[slower]:.1f} ms, {images / seconds[slower]:,.0f} images/s a device at most",
        f"  convolutions: {convolutions or 'none'}; loops: {program.loops}",
    ]


def apply(config, settings: list[str]) -> None:
    """Sets fields: `remat=2,3`, `accumulate=4`, `data.p=8`."""
    for setting in settings:
        name, _, value = setting.partition("=")
        *groups, field = name.split(".")
        node = config
        for group in groups:
            node = node[group]
        before = node[field]
        numbers = tuple(int(number) for number in filter(None, value.split(",")))
        node[field] = numbers if isinstance(before, tuple) else type(before)(value)


def main(arguments=None) -> None:
    """Compiles and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chip", choices=CHIPS, default="h100")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--config", default="configs/market.py", help="file, with :VARIANT where it has one")
    parser.add_argument("--plugins", type=Path, help="folder that the compilers were installed in")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="fields of the configuration")
    parser.add_argument("--only", choices=("step", "embedding"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    chip = CHIPS[options.chip]
    if options.dtype not in chip.flops:
        parser.error(f"{chip.name} has no {options.dtype}: give --dtype={next(iter(chip.flops))}")
    if options.plugins:
        sys.path.append(str(options.plugins.resolve()))
    os.environ["JAX_PLATFORMS"] = "cpu"  # whatever runs, runs here
    if chip.target:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0"
    config = recipe.load_config(options.config)
    config.dtype, config.remat = options.dtype, ()
    apply(config, options.set)
    devices = devices_of(chip, options.devices)
    found = {}
    batch = config.data.p * config.data.k // options.devices
    for what, images, lower in (("step", batch, lower_step), ("embedding", config.eval_batch, lower_embedding)):
        if options.only not in (None, what):
            continue
        share = options.devices if what == "step" else 1  # each device embeds a batch of its own
        found[what] = compiled(lower(config, devices), flops_of(lower, config) / share)
        print("\n".join(lines_of(what, images, chip, options.dtype, found[what])), flush=True)
    if options.json:
        about = {"chip": chip.name, "devices": options.devices, "dtype": options.dtype, "set": options.set}
        about |= {"memory": chip.memory, "bandwidth": chip.bandwidth, "peak_flops": chip.flops[options.dtype]}
        counts = {what: program._asdict() for what, program in found.items()}
        options.json.write_text(json.dumps(about | counts, indent=2) + "\n")


if __name__ == "__main__":
    main()
