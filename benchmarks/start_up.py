"""Seconds from the command to the first training step: cold, with compiled programs kept, and in PyTorch.

    python benchmarks/start_up.py --arch=resnet50 --batch=32

Each start is a Python process of its own with the imports of `mancs train`. It makes the network (from random
numbers) and the training step, and takes two steps on drawn images. All times count from the command. The first start
has an empty cache of compiled programs; the second finds the programs of the first. "step ready" is the beginning of
the first step: traced, and compiled or read from the cache. Neither side reads a data set.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import recipe

from mancs_jax.common.processor import set_cpu_flags

COLD, WARM = "mancs_jax, cold", "mancs_jax, again"
PEER, COMPILED = "PyTorch", "PyTorch, torch.compile"
PHASES = ("imports", "network", "step ready", "first step", "second step")


def our_start(flags: argparse.Namespace):
    """Yields at the end of each of PHASES."""
    set_cpu_flags()
    import jax
    import ours

    from mancs_jax.cli import command_line

    importlib.import_module("mancs_jax.run")  # as `mancs train`
    command_line.keep_freed_memory()
    command_line.keep_compiled_programs()
    yield
    config = recipe.create_config(flags, flags.batch)
    image, labels = (array[None] for array in recipe.drawn_data(config, config.data.p))
    train_step, state = ours.create_training(config, flags.num_classes)
    jax.block_until_ready(state)
    yield
    state, _ = train_step(state, image, labels)
    yield
    jax.block_until_ready(state)
    yield
    jax.block_until_ready(train_step(state, image, labels))
    yield


def peer_start(flags: argparse.Namespace):
    """As `our_start`; in PyTorch nothing is made ready before the step runs."""
    import torch
    import torch_peer

    yield
    config = recipe.create_config(flags, flags.batch)
    step = torch_peer.create_step(config, flags.num_classes, compiled=flags.side == COMPILED)
    images = torch_peer.as_input(torch.randn(flags.batch, *config.data.image_size, 3))
    labels = torch.arange(config.data.p, device=images.device).repeat_interleave(config.data.k)
    yield
    yield
    for _ in range(2):
        step(images, labels).item()
        yield


def seconds(side: str, arguments: list[str], cache: str) -> list[float]:
    """From the command to the end of each phase, in a new process."""
    command = [sys.executable, __file__, *arguments, f"--side={side}"]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache, "TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor"}
    begin = time.time()
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"start_up: {side}: {(run.stderr.strip().splitlines() or ['no message'])[-1]}")
    return [then - begin for then in json.loads(run.stdout.splitlines()[-1])]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    recipe.add_network_flags(parser)
    parser.add_argument("--batch", type=int, default=32, help="images")
    parser.add_argument("--compile", action="store_true", help="also the peer through torch.compile, cold")
    parser.add_argument("--starts", type=int, default=3, help="of each side but the cold ones; their median counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    parser.add_argument("--side", help=argparse.SUPPRESS)  # in the process that is measured
    flags = parser.parse_args(arguments)
    if flags.side:
        start = our_start if flags.side in (COLD, WARM) else peer_start
        print(json.dumps([time.time() for _ in start(flags)]))
        return
    from measure import report  # not at the top: it imports JAX, for which the peer must not wait

    try:
        recipe.create_config(flags, flags.batch)
    except ValueError as error:
        sys.exit(f"start_up: {error}")

    arguments = sys.argv[1:] if arguments is None else arguments
    starts = {COLD: 1, WARM: flags.starts, PEER: flags.starts} | ({COMPILED: 1} if flags.compile else {})
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        for side, times in starts.items():
            phases = zip(*(seconds(side, arguments, cache) for _ in range(times)))
            found[side] = dict(zip(PHASES, map(statistics.median, phases)))
    rows = [
        {
            "seconds from the command": side,
            **phases,
            "first step, x again": phases["first step"] / found[WARM]["first step"],
        }
        for side, phases in found.items()
    ]
    report(rows, flags.json, arch=flags.arch, batch=flags.batch, dtype=flags.dtype)


if __name__ == "__main__":
    main()
