"""Images a second of the training step, beside the same network, losses and optimizer in PyTorch.

    python benchmarks/training_step.py --arch=resnet50 --batch 16 32
    python benchmarks/training_step.py --arch=resnet18 --batch 128
    python benchmarks/training_step.py --arch=resnet18 --batch 128 --convolutions eigen:1.5 eigen:12 ynnpack:1.5
    python benchmarks/training_step.py --arch=resnet50 --batch 256 --k=16 --dtype=bfloat16 --compile --peak_tflops=989

The third compares XLA's libraries for CPU (docs/benchmarks.md). The last is for a GPU (989: an H200's dense bfloat16).
Each side has a process of its own and all cores or the whole GPU. They take turns, and the median turn counts. Ours is
the step of a training: it starts from uint8 images in the host's memory, in PK batches, and augments on the device.
PyTorch gets one finished batch of float tensors on its device, which is in its favour. Neither side computes
activations twice (`remat` is off). On CPU both keep freed memory, as `mancs train` does; PyTorch gains by it, too.

FLOP are those of convolutions and matrix products, forward and backward, by PyTorch's count for its own network; with
--alone there is no PyTorch, and no count.
"""

import argparse
import math
import statistics
import sys
import time
from pathlib import Path

import ours
import recipe
from measure import report, taking_turns

from mancs_jax.cli.command_line import keep_freed_memory

OURS, PEER, COMPILED = "mancs_jax", "PyTorch", "PyTorch, torch.compile"
PLAIN = ", malloc as it is"


def our_turns(flags: argparse.Namespace, batch: int, keeps_memory: bool = True, convolutions: str = ""):
    """A function that makes --steps steps and returns (seconds a step, loss)."""
    if keeps_memory:
        keep_freed_memory()
    if convolutions:
        ours.convolve_by(convolutions)
    config = recipe.create_config(flags, batch)
    train_step, state = ours.create_training(config, flags.num_classes)
    batches = ours.create_batches(config, flags.num_classes)

    def turn() -> tuple[float, float]:
        nonlocal state
        start = time.perf_counter()
        state, metrics = ours.steps(train_step, state, batches, flags.steps)
        return (time.perf_counter() - start) / flags.steps, float(metrics["loss"])

    return turn


def peer_turns(flags: argparse.Namespace, batch: int, compiled: bool, keeps_memory: bool = True):
    """As `our_turns`, in PyTorch."""
    if keeps_memory:
        keep_freed_memory()
    import torch
    import torch_peer

    config = recipe.create_config(flags, batch)
    torch.manual_seed(0)
    step = torch_peer.create_step(config, flags.num_classes, compiled=compiled)
    images = torch_peer.as_input(torch.randn(batch, *config.data.image_size, 3))
    labels = torch.arange(config.data.p, device=images.device).repeat_interleave(config.data.k)

    def turn() -> tuple[float, float]:
        start = time.perf_counter()
        for _ in range(flags.steps):
            loss = step(images, labels)
        loss = loss.item()  # waits for the GPU
        return (time.perf_counter() - start) / flags.steps, loss

    return turn


def count_flops(flags: argparse.Namespace, batch: int) -> int:
    import torch_peer

    return torch_peer.flops_of_step(recipe.create_config(flags, batch), flags.num_classes)


def table(flags: argparse.Namespace, batch: int) -> list[dict]:
    """The rows of one size of batch, ours first."""
    sides = {OURS: (our_turns, flags, batch)}
    if not flags.alone:
        sides[PEER] = (peer_turns, flags, batch, False)
    if flags.plain_malloc:
        sides[OURS + PLAIN] = (our_turns, flags, batch, False)
    if flags.plain_malloc and not flags.alone:
        sides[PEER + PLAIN] = (peer_turns, flags, batch, False, False)
    for choice in flags.convolutions:
        sides[f"{OURS}, {choice}"] = (our_turns, flags, batch, True, choice)
    if flags.compile and not flags.alone:
        sides[COMPILED] = (peer_turns, flags, batch, True)
    turns = taking_turns(sides, flags.rounds)
    if broken := [name for name, rounds in turns.items() if not math.isfinite(rounds[-1][1])]:
        sys.exit(f"training_step: the loss of {broken[0]} is not finite: its time says nothing")
    teraflops = None if flags.alone else count_flops(flags, batch) / 1e12
    seconds = {name: statistics.median(second for second, _ in rounds) for name, rounds in turns.items()}
    return [
        {
            "side": name,
            "batch": batch,
            "ms a step": 1e3 * seconds[name],
            "images/s": batch / seconds[name],
            "ours / it": seconds[name] / seconds[OURS],
            "TFLOP/s": teraflops and teraflops / seconds[name],
            "of the peak": teraflops and flags.peak_tflops and teraflops / seconds[name] / flags.peak_tflops,
        }
        for name in sides
    ]


def library_and_megabytes(choice: str) -> str:
    """A value of --convolutions; ValueError where it is none."""
    library, _, megabytes = choice.partition(":")
    if library not in ("eigen", "ynnpack") or not 0 < float(megabytes) < math.inf:
        raise ValueError
    return choice


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    recipe.add_network_flags(parser)
    parser.add_argument("--batch", type=int, nargs="+", default=[32], help="images")
    parser.add_argument("--alone", action="store_true", help="ours alone: where PyTorch is not installed")
    parser.add_argument("--compile", action="store_true", help="also the peer through torch.compile")
    parser.add_argument("--plain_malloc", action="store_true", help="also both without `keep_freed_memory`")
    parser.add_argument(
        "--convolutions",
        nargs="+",
        type=library_and_megabytes,
        default=[],
        metavar="LIBRARY:MB",
        help="also ours with eigen or ynnpack (CPU), kernel gradients in chunks of so many MB, as eigen:12 ynnpack:1.5",
    )
    parser.add_argument("--steps", type=int, default=3, help="in a turn")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side, after one that compiles")
    parser.add_argument("--peak_tflops", type=float, help="of the device in --dtype, dense; 989 for an H200's bfloat16")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    flags = parser.parse_args(arguments)
    try:
        for batch in flags.batch:
            recipe.create_config(flags, batch)
    except ValueError as error:
        sys.exit(f"training_step: {error}")
    rows = [row for batch in flags.batch for row in table(flags, batch)]
    report(rows, flags.json, arch=flags.arch, dtype=flags.dtype)


if __name__ == "__main__":
    main()
