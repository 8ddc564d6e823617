"""Milliseconds of the curriculum loss with its gradient, beside a loop over anchors as in the authors' release.

    python benchmarks/curriculum_loss.py
    python benchmarks/curriculum_loss.py --no_step

Embeddings are drawn at random. The batch is 16 x 16, and their width 2,048. Sampling is that of the `authors` recipe
(80 nearest negatives, 1,920 triplets). The loop does the release's work in today's PyTorch. For each anchor it sorts
the negatives. For each positive of an anchor it draws one negative and takes two distances out of the matrix. The
gradient goes through that matrix. A vectorised PyTorch, as in `torch_peer.py`, has a row of its own. Each side runs
alone in a process of its own, and they take turns.

The share of a step is the loss's time over the time of a training step on as many images, with ResNet-50 at 256x128.
The same run times a step of --step_batch images and multiplies it up to the batch.
"""

import argparse
import math
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import recipe
import training_step
from measure import report, taking_turns

from mancs_jax.losses.sampling import Pairs
from mancs_jax.losses.triplet import euclidean_distances, triplet_loss
from mancs_jax.training.step import make_sampler

OURS, LOOP, VECTORISED = "mancs_jax", "loop over anchors, as released", "PyTorch, vectorised"


def batch_config(flags: argparse.Namespace):
    """The `authors` recipe with P x K images a batch."""
    return recipe.create_config(argparse.Namespace(**vars(flags) | {"arch": "resnet50"}), flags.p * flags.k)


def drawn(flags: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings float32 [P*K, D] around a centre for each identity, and labels int32 [P*K]."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(flags.p, dtype=np.int32), flags.k)
    centres = rng.standard_normal((flags.p, flags.dim), dtype=np.float32)
    noise = rng.standard_normal((len(labels), flags.dim), dtype=np.float32)
    return (centres[labels] + 2 * noise) / np.float32(math.sqrt(flags.dim)), labels


def timed(once, repeats: int) -> tuple[float, float]:
    """(seconds a call, mean of what the calls returned)."""
    start = time.perf_counter()
    losses = [once() for _ in range(repeats)]
    return (time.perf_counter() - start) / repeats, statistics.mean(map(float, losses))


def our_turns(flags: argparse.Namespace):
    """A function that returns (seconds a loss with its gradient, the mean loss)."""
    config = batch_config(flags)
    embedding, labels = drawn(flags)
    sample, count = make_sampler(config), iter(range(10**9))
    num = len(labels)

    @jax.jit
    @jax.value_and_grad
    def loss_and_gradient(embedding, labels, step):
        distances = euclidean_distances(embedding, embedding)
        same = labels[:, None] == labels[None]
        pairs = Pairs(same, jnp.eye(num, dtype=bool), ~same)
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), step), num)
        triplets = sample(keys, jax.lax.stop_gradient(distances), pairs, flags.epoch)
        return triplet_loss(distances, triplets, config.loss.margin)

    embedding, labels = jax.device_put((embedding, labels))
    once = lambda: jax.block_until_ready(loss_and_gradient(embedding, labels, next(count)))[0]  # noqa: E731
    return partial(timed, once, flags.repeats)


def peer_turns(flags: argparse.Namespace, way: str):
    """As `our_turns`, of the losses below."""
    import torch
    import torch_peer

    config = batch_config(flags)
    embedding, labels = (torch.from_numpy(array).to(torch_peer.device()) for array in drawn(flags))
    embedding.requires_grad_()
    torch.manual_seed(0)
    loss_of = {LOOP: loss_by_loop, VECTORISED: loss_vectorised}[way]

    def once():
        embedding.grad = None
        loss = loss_of(embedding, labels, flags.epoch, config)
        loss.backward()
        return loss.item()

    return partial(timed, once, flags.repeats)


def loss_by_loop(embedding, labels, epoch: int, config):
    """Triplet loss with a draw at a time, as the release samples it (docs/paper.md); PyTorch."""
    import torch
    from torch.nn.functional import margin_ranking_loss

    loss, k = config.loss, config.data.k
    lengths = (embedding**2).sum(1)
    squared = lengths[:, None] + lengths[None] - 2 * embedding @ embedding.T
    distances = squared.clamp(min=1e-12).sqrt()
    rank = np.arange(min(loss.num_nearest, len(labels) - k))
    mean = max(len(rank) - loss.mu_step * epoch, 0.0)
    deviation = loss.a * loss.b ** max((epoch - loss.t0) / (loss.t1 - loss.t0), 0.0)
    density = np.exp(-0.5 * ((rank - mean) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))
    density = torch.from_numpy(np.maximum(density, loss.density_floor))
    to_positive, to_negative = [], []
    for anchor, row in enumerate(distances):
        nearest = row[labels != labels[anchor]].topk(len(rank), largest=False).values
        for positive in range(anchor + 1, k * (anchor // k + 1)):
            to_positive.append(row[positive])
            to_negative.append(nearest[torch.multinomial(density, 1).item()])
    to_positive, to_negative = torch.stack(to_positive), torch.stack(to_negative)
    return margin_ranking_loss(to_negative, to_positive, torch.ones_like(to_positive), margin=loss.margin)


def loss_vectorised(embedding, labels, epoch: int, config):
    """The same with all draws at once, and no more distances than one matrix; PyTorch."""
    import torch
    import torch_peer

    anchor, positive = torch_peer.later_pairs(config.data.p, config.data.k)
    negative = torch_peer.drawn_negatives(embedding, labels, anchor, epoch, config)
    distances = torch.cdist(embedding, embedding)
    return torch.relu(config.loss.margin + distances[anchor, positive] - distances[anchor, negative]).mean()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    recipe.add_network_flags(parser)
    parser.set_defaults(k=16)
    parser.add_argument("--p", type=int, default=16, help="identities of a batch")
    parser.add_argument("--dim", type=int, default=2048, help="of the embeddings")
    parser.add_argument("--epoch", type=int, default=10, help="of the curriculum")
    parser.add_argument("--repeats", type=int, default=5, help="losses in a turn")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side, after one that compiles")
    parser.add_argument("--step_batch", type=int, default=32, help="images of the training step, K a multiple")
    parser.add_argument("--no_step", action="store_true", help="leave the training step out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    flags = parser.parse_args(arguments)
    flags.steps = 2
    sides = {
        OURS: (our_turns, flags),
        LOOP: (peer_turns, flags, LOOP),
        VECTORISED: (peer_turns, flags, VECTORISED),
    }
    try:
        batch_config(flags)
        if not flags.no_step:
            recipe.create_config(flags, flags.step_batch)
            sides["step"] = (training_step.our_turns, flags, flags.step_batch)
    except ValueError as error:
        sys.exit(f"curriculum_loss: {error}")

    turns = taking_turns(sides, flags.rounds)
    seconds = {name: statistics.median(second for second, _ in rounds) for name, rounds in turns.items()}
    step = seconds.pop("step", None)
    in_batch = flags.p * flags.k / flags.step_batch  # steps of --step_batch images
    rows = [
        {
            "side": name,
            "ms": 1e3 * seconds[name],
            "ours / it": seconds[name] / seconds[OURS],
            "% of our training step": 100 * seconds[name] / (step * in_batch) if step else None,
            "mean loss": statistics.mean(loss for _, loss in turns[name]),
        }
        for name in seconds
    ]
    figures = {"ms_a_step_of_as_many_images": 1e3 * step * in_batch} if step else {}
    report(rows, flags.json, batch=f"{flags.p} x {flags.k}", dim=flags.dim, arch=flags.arch, **figures)


if __name__ == "__main__":
    main()
