"""Single-shot scores of a network that is adapted to the cameras of a data set, by weight and by number of images.

    python benchmarks/adaptation.py --network=market1501 --dataset=cuhk01 --identities=486 --images 32 64 0
    python benchmarks/adaptation.py --network=market1501 --dataset=walkers --weights 0 0.25 0.5 0.75 1

Statistics come from the images of each camera, without labels: from all (0 of --images), or from a random subset.
"""

import argparse
from pathlib import Path

import numpy as np
from measure import report

from mancs_jax.cli.command_line import keep_compiled_programs
from mancs_jax.data import arrays
from mancs_jax.evaluation import single_shot
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.protocols import Options
from mancs_jax.evaluation.single_shot import SingleShot
from mancs_jax.inference.adaptation import BATCH, WEIGHT, camera_statistics
from mancs_jax.inference.forward import embed
from mancs_jax.inference.network import Network
from mancs_jax.inference.trained import load_trained
from mancs_jax.scoring import single_shot_parts


def main(arguments: list[str] | None = None) -> None:
    """Prints a row for each weight and number of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="market1501", help="as of mancs evaluate")
    parser.add_argument("--dataset", required=True, help="prepared data set")
    parser.add_argument("--root", default="data", help="directory of the data sets")
    parser.add_argument("--identities", type=int, default=0, help="of each split; 0: all")
    parser.add_argument("--weights", type=float, nargs="+", default=[WEIGHT], help="of the cameras' statistics")
    parser.add_argument("--images", type=int, nargs="+", default=[0], help="of each camera, 0: all")
    parser.add_argument("--subsets", type=int, default=3, help="random subsets for each number of --images")
    parser.add_argument("--views", type=int, default=0, help="images scored of a person under a camera, 0: all")
    parser.add_argument("--json", type=Path, help="file for the figures")
    flags = parser.parse_args(arguments)

    keep_compiled_programs()
    network = load_trained(flags.network).network
    parts = single_shot_parts(arrays.split_names(flags.dataset, flags.root), flags.dataset, flags.root)
    splits = [arrays.load_split(flags.dataset, flags.root, part, network.config.data.image_size) for part in parts]
    image, pid, camid = (
        np.concatenate([getattr(split, name) for split in splits]) for name in ("image", "pid", "camid")
    )
    scored = first_views(pid, camid, flags.views)

    rows = []
    for weight in flags.weights:
        for number in flags.images:
            scores = []
            for seed in range(flags.subsets if number else 1):
                adapted = adapted_to(network, image, camid, weight, number, seed) if weight else network
                embedding = embed(adapted, image[scored], camid[scored], progress=True)
                images = Labelled(embedding, pid[scored], camid[scored])
                protocol = SingleShot(identities=flags.identities)
                mean = single_shot.evaluate(images, protocol, Options(distance="cosine")).result["mean"]
                scores.append((100 * mean["rank-1"], 100 * mean["mAP_plain"]))
            rank1, plain = np.transpose(scores)
            rows.append(
                {
                    "weight": weight,
                    "images of a camera": number or "all",
                    "subsets": len(scores),
                    "rank-1": round(float(rank1.mean()), 1),
                    "lowest rank-1": round(float(rank1.min()), 1),
                    "plain mAP": round(float(plain.mean()), 1),
                }
            )
    report(rows, flags.json)


def adapted_to(
    network: Network, image: np.ndarray, camid: np.ndarray, weight: float, number: int, seed: int
) -> Network:
    """Adapts a network to each camera, by `number` of its images drawn at random, 0 for all."""
    cameras = {}
    for camera in np.unique(camid).tolist():
        rows = np.random.default_rng([seed, camera]).permutation(np.flatnonzero(camid == camera))
        rows = rows[:number] if number else rows
        batches = np.split(rows, range(BATCH, len(rows), BATCH))
        cameras[str(camera)] = camera_statistics(network, (image[batch] for batch in batches), weight)
    return network._replace(cameras=cameras)


def first_views(pid: np.ndarray, camid: np.ndarray, number: int) -> np.ndarray:
    """Rows of the first images of each person under each camera, `number` of them, 0 for all; int [N]."""
    if not number:
        return np.arange(len(pid))
    views = np.stack([pid, camid], axis=1)
    return np.sort(
        np.concatenate([np.flatnonzero((views == view).all(axis=1))[:number] for view in np.unique(views, axis=0)])
    )


if __name__ == "__main__":
    main()
