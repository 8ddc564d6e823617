"""Images a second of embedding, beside the same network with the same weights in PyTorch.

    python benchmarks/embedding.py --arch=resnet50 --batch=32 --plain_malloc
    python benchmarks/embedding.py --arch=resnet18 --batch=128 --plain_malloc
    python benchmarks/embedding.py --arch=resnet18 --batch=128 --onnx

Each side has a process of its own and all cores or the whole GPU. They take turns, and the median turn counts. Ours is
the work of scoring: uint8 images in the host's memory to embeddings in the host's memory. PyTorch runs in inference
mode and channels-last. It gets normalised float tensors on its device, which is in its favour, and leaves out the parts
for training alone. ONNX Runtime gets uint8 images, as ours, and the file of `mancs export`. All keep freed memory, as
`mancs train` does before it scores. PyTorch draws the weights, and `mancs_jax.weights.authors` reads them.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import recipe
from measure import report, taking_turns

from mancs_jax.cli.command_line import keep_freed_memory
from mancs_jax.inference.forward import embed
from mancs_jax.inference.network import Network
from mancs_jax.weights import authors

OURS, PEER, COMPILED, RUNTIME = "mancs_jax", "PyTorch", "PyTorch, torch.compile", "ONNX Runtime"
PLAIN = ", malloc as it is"
WEIGHTS = "network.pth"


def drawn_images(config, flags: argparse.Namespace) -> np.ndarray:
    """Noise, uint8 [--batches * --batch, H, W, 3]."""
    shape = (flags.batches * flags.batch, *config.data.image_size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def drawn_network(flags: argparse.Namespace, folder: str) -> Network:
    """The network whose weights PyTorch wrote into the folder."""
    config = recipe.create_config(flags, flags.batch).unlock()
    config.eval_batch = flags.batch
    variables, num_classes = authors.load_released(Path(folder) / WEIGHTS, config)
    return Network(config, num_classes, variables)


def our_turns(flags: argparse.Namespace, folder: str, keeps_memory: bool = True):
    """A function that embeds all images and returns (seconds, embeddings)."""
    if keeps_memory:
        keep_freed_memory()
    network = drawn_network(flags, folder)
    image = drawn_images(network.config, flags)
    network = network._replace(variables=jax.device_put(network.variables))

    def turn() -> tuple[float, np.ndarray]:
        start = time.perf_counter()
        embedding = embed(network, image, devices=jax.local_devices()[:1])
        return time.perf_counter() - start, embedding

    return turn


def peer_turns(flags: argparse.Namespace, folder: str, compiled: bool, keeps_memory: bool = True):
    """As `our_turns`, in PyTorch; draws the weights and writes them into the folder, if they are not there yet."""
    if keeps_memory:
        keep_freed_memory()
    import torch
    import torch_peer

    config = recipe.create_config(flags, flags.batch)
    network, weights = torch_peer.create_network(config, flags.num_classes), Path(folder) / WEIGHTS
    if not weights.exists():
        torch.save(torch_peer.torch_mancs.randomize(network.cpu(), seed=0).state_dict(), weights)
    network.load_state_dict(torch.load(weights))
    network.to(torch_peer.device()).eval()
    forward = torch.compile(torch_peer.embedding) if compiled else torch_peer.embedding
    batches = torch.from_numpy(drawn_images(config, flags)).split(flags.batch)
    batches = [torch_peer.normalized(batch) for batch in batches]

    def turn() -> tuple[float, np.ndarray]:
        start = time.perf_counter()
        with (
            torch.inference_mode(),
            torch.autocast(torch_peer.device(), torch.bfloat16, enabled=config.dtype == "bfloat16"),
        ):
            embedding = torch.cat([forward(network, batch) for batch in batches]).float().cpu().numpy()
        return time.perf_counter() - start, embedding

    return turn


def runtime_turns(flags: argparse.Namespace, folder: str):
    """As `our_turns`, by ONNX Runtime, of the same network as `mancs export` writes it."""
    keep_freed_memory()
    from mancs_jax.inference.contract import ONNX, exported_card
    from mancs_jax.inference.network_file import card_of
    from mancs_jax.inference.onnx_file import onnx_content, open_onnx
    from mancs_jax.training.description import Description

    network = drawn_network(flags, folder)
    description = Description(network.config.to_dict(), network.num_classes, "")
    options = {"input": "uint8", "flip": False, "dtype": "float32"}
    card = exported_card(card_of(network, 0, description), kind=ONNX, **options)
    run = open_onnx(onnx_content(network, card, **options), RUNTIME)
    image = drawn_images(network.config, flags)

    def turn() -> tuple[float, np.ndarray]:
        start = time.perf_counter()
        embedding = np.concatenate([run(batch) for batch in np.split(image, flags.batches)])
        return time.perf_counter() - start, embedding

    return turn


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    recipe.add_network_flags(parser)
    parser.add_argument("--batch", type=int, default=32, help="images")
    parser.add_argument("--batches", type=int, default=4, help="in a turn")
    parser.add_argument("--compile", action="store_true", help="also the peer through torch.compile")
    parser.add_argument("--onnx", action="store_true", help="also ONNX Runtime")
    parser.add_argument("--plain_malloc", action="store_true", help="also both without `keep_freed_memory`")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side, after one that compiles")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    flags = parser.parse_args(arguments)
    try:
        recipe.create_config(flags, flags.batch)
    except ValueError as error:
        sys.exit(f"embedding: {error}")

    with tempfile.TemporaryDirectory() as folder:
        sides = {PEER: (peer_turns, flags, folder, False)}  # first: it draws the weights
        if flags.compile:
            sides[COMPILED] = (peer_turns, flags, folder, True)
        sides[OURS] = (our_turns, flags, folder)
        if flags.onnx:
            sides[RUNTIME] = (runtime_turns, flags, folder)
        if flags.plain_malloc:
            sides[PEER + PLAIN] = (peer_turns, flags, folder, False, False)
            sides[OURS + PLAIN] = (our_turns, flags, folder, False)
        turns = taking_turns(sides, flags.rounds)
    seconds = {name: statistics.median(second for second, _ in rounds) for name, rounds in turns.items()}
    expected = turns[PEER][-1][1]
    off = {name: float(np.abs(rounds[-1][1] - expected).max()) for name, rounds in turns.items()}
    rows = [
        {
            "side": name,
            "batch": flags.batch,
            "ms a batch": 1e3 * seconds[name] / flags.batches,
            "images/s": flags.batch * flags.batches / seconds[name],
            "ours / it": seconds[name] / seconds[OURS],
            "largest difference / largest value": off[name] / float(np.abs(expected).max()),
        }
        for name in (OURS, *(name for name in sides if name != OURS))
    ]
    report(rows, flags.json, arch=flags.arch, dtype=flags.dtype)


if __name__ == "__main__":
    main()
