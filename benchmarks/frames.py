"""False positive rates that thresholds from people in one frame give elsewhere: under one camera, and between cameras.

    python benchmarks/frames.py --network=market1501 --dataset=market1501 --root=data
    python benchmarks/frames.py --network=market1501 --scenes scene2 scene3 scene4

A data set is read by its file names (0002_c1s1_000451_03.jpg: person, camera, sequence, frame), its split gt_bbox and
the people of its split query alone. A scene is a folder of render_scene.py, one camera. `--weight` adapts the network
to the cameras first.
"""

import argparse
import re
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from adaptation import adapted_to
from measure import report

from mancs_jax.cli.command_line import keep_compiled_programs
from mancs_jax.data import arrays
from mancs_jax.data.boxes import cut, to_pixels
from mancs_jax.data.images import resize
from mancs_jax.evaluation.distances import all_distances
from mancs_jax.evaluation.frames import frame_distances, frame_thresholds
from mancs_jax.inference.forward import embed
from mancs_jax.inference.trained import load_trained

NAME = re.compile(r"\d{4}_c(\d)s(\d)_(\d{6})_")
RATES = (1e-2, 1e-3)
BLOCK = 512  # images whose distances to all others exist at a time


class People(NamedTuple):
    """N images of known people in known frames."""

    image: np.ndarray  # uint8 [N, H, W, 3]
    pid: np.ndarray  # int [N]
    camid: np.ndarray  # int [N]
    frame: np.ndarray  # int [N], of all cameras


def main(arguments: list[str] | None = None) -> None:
    """Prints a row for each distance and rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="market1501", help="as of mancs evaluate")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--dataset", help="prepared data set whose names tell frames")
    source.add_argument("--scenes", type=Path, nargs="+", help="folders of render_scene.py")
    parser.add_argument("--root", default="data", help="directory of the data sets")
    parser.add_argument("--every", type=int, default=10, help="of a scene, the frames from one to the next")
    parser.add_argument("--weight", type=float, default=0.0, help="of the cameras' statistics, see mancs adapt")
    parser.add_argument("--json", type=Path, help="file for the figures")
    flags = parser.parse_args(arguments)

    keep_compiled_programs()
    network = load_trained(flags.network).network
    size = tuple(network.config.data.image_size)
    people = of_scenes(flags.scenes, size, flags.every) if flags.scenes else of_names(flags.dataset, flags.root, size)
    if flags.weight:
        network = adapted_to(network, people.image, people.camid, flags.weight, number=0, seed=0)
    embedding = embed(network, people.image, people.camid, progress=True)
    rows = []
    for distance in ("euclidean", "cosine"):
        points = frame_thresholds(frame_distances(embedding, people.frame, distance), RATES)
        reached = rates_elsewhere(embedding, people, [point["max_distance"] for point in points], distance)
        rows += [
            {
                "distance": distance,
                "pairs in frames": point["pairs"],
                "rate in frames %": percent(point["fpr"]),
                "threshold": point["max_distance"],
                "rate under one camera %": percent(one),
                "rate between cameras %": percent(between),
                "of the right pairs between cameras %": percent(right),
            }
            for point, (one, between, right) in zip(points, reached, strict=True)
        ]
    report(rows, flags.json, images=len(people.pid), identities=len(np.unique(people.pid)))


def percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 3)


def of_names(dataset: str, root: str, size: tuple[int, int]) -> People:
    """The people of query in gt_bbox, with the frames that names like Market-1501's tell."""
    split = arrays.load_split(dataset, root, "gt_bbox", size)
    rows = np.flatnonzero(np.isin(split.pid, arrays.open_split(dataset, root, "query").pid))
    frames = [NAME.match(name).groups() for name in split.name[rows]]
    _, frame = np.unique(frames, axis=0, return_inverse=True)
    return People(split.image[rows], split.pid[rows], split.camid[rows], frame)


def of_scenes(folders: list[Path], size: tuple[int, int], every: int) -> People:
    """The true boxes of some frames of each scene; people of two scenes are different."""
    parts = []
    for camid, folder in enumerate(folders):
        truth = np.loadtxt(folder / "gt.txt", delimiter=",", ndmin=2)
        truth = truth[truth[:, 6] > 0]  # the others are hidden
        for number in np.unique(truth[:, 0]).astype(int)[::every]:
            [file] = [file for file in (folder / "frames").iterdir() if file.stem == f"{number:06d}"]
            pixels = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
            here = truth[truth[:, 0] == number]
            corners, faults = to_pixels(np.column_stack([here[:, 2:4], here[:, 2:4] + here[:, 4:6]]), pixels.shape[:2])
            is_good = np.array([not fault for fault in faults], bool)
            crops = [resize(crop, size) for crop in cut(pixels, corners[is_good])]
            parts += [
                (crop, camid * 10_000 + int(pid), camid, camid * 1_000_000 + number)
                for crop, pid in zip(crops, here[is_good, 1], strict=True)
            ]
    image, pid, camid, frame = zip(*parts, strict=True)
    return People(np.stack(image), np.array(pid), np.array(camid), np.array(frame))


def rates_elsewhere(
    embedding: np.ndarray, people: People, thresholds: list[float | None], distance: str
) -> list[tuple[float | None, float | None, float | None]]:
    """Shares of accepted pairs for each threshold, None without one.

    Returns:
      The pairs of two people under one camera but not in one frame, those under two cameras, and the pairs of one
      person under two cameras.
    """
    limits = np.array([-1.0 if limit is None else limit for limit in thresholds])
    accepted, number = np.zeros((3, len(limits)), np.int64), np.zeros(3, np.int64)
    for start in range(0, len(embedding), BLOCK):
        rows = slice(start, start + BLOCK)
        distances = all_distances(embedding[rows], embedding, distance)
        is_same, is_one_camera, is_one_frame = (
            field[rows, None] == field[None] for field in (people.pid, people.camid, people.frame)
        )
        kinds = (~is_same & is_one_camera & ~is_one_frame, ~is_same & ~is_one_camera, is_same & ~is_one_camera)
        for kind, is_kind in enumerate(kinds):
            found = np.sort(distances[is_kind])
            number[kind] += len(found)
            accepted[kind] += np.searchsorted(found, limits, side="right")
    share = accepted / np.maximum(number, 1)[:, None]
    return [
        (None, None, None)
        if limit is None
        else tuple(float(share[kind, i]) if number[kind] else None for kind in range(3))
        for i, limit in enumerate(thresholds)
    ]


if __name__ == "__main__":
    main()
