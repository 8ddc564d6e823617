"""A network adapted to the cameras of a site without labels: BatchNorm statistics of its own for each camera.

AdaBN (Li et al., arXiv 1603.04779), camera by camera (Zhuang et al., ECCV 2020), with statistics between those of the
training and those of the camera (Schneider et al., NeurIPS 2020).
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Shaped, UInt8
from tqdm import tqdm

from mancs_jax.common.atomic_write import check_writable
from mancs_jax.common.local_path import local_path
from mancs_jax.common.one_process import check_not_forked
from mancs_jax.common.screen import bar
from mancs_jax.config.names import DISTANCES
from mancs_jax.data.augment import normalize
from mancs_jax.data.images import decode_image
from mancs_jax.data.sources.csv_table import is_integer
from mancs_jax.data.sources.site import Site, open_site
from mancs_jax.data.sources.source import name_some
from mancs_jax.evaluation.frames import frame_distances, frame_thresholds
from mancs_jax.evaluation.results import significant
from mancs_jax.inference.forward import run_batches
from mancs_jax.inference.network import Network, embedding_width, network_of_camera
from mancs_jax.inference.network_file import card_of, read_network, write_network
from mancs_jax.inference.trained import load_trained
from mancs_jax.kernels.conv_norm import BatchNorm
from mancs_jax.models.mancs import Mancs, create_model
from mancs_jax.weights.shared import CARD, NAME, WEIGHTS

ALARMS, ALARMS_IN = "alarms", 10_000  # column of expected false alarms per query, and the images they are counted in
WEIGHT = 0.5  # of the camera's statistics, selected on other data sets; see docs/adapt.md
BATCH = 64  # images whose statistics are computed together
LEAST_IMAGES = 32  # per camera; fewer were not measured, see docs/adapt.md


def adapt(
    network: str | Path,
    source: str | Path,
    csv: str | Path,
    output: str | Path,
    *,
    weight: float = WEIGHT,
    progress: bool = True,
) -> tuple[Path, dict[str, Any]]:
    """Adapts a network to the cameras of a site, and writes it as a folder with two files.

    Each camera gets BatchNorm statistics between the network's own and those of the camera's images. InstanceNorm has
    no statistics and stays as it is. Where frames are known, the distances of people in one frame give thresholds,
    see `evaluation.frames`.

    Args:
      network: see `mancs_jax.load`; no file of `mancs export`. An adapted network is adapted anew.
      source: folder or zip of images, each of which shows one person.
      csv: the images with their cameras and, where known, frames, see `data.sources.site`.
      output: folder of the two files, and their name: site/site.safetensors and site/site.json.
      weight: of the camera's statistics, from 0 to 1; the rest is that of the network's own.
      progress: whether bars are shown.

    Returns:
      The path of the card, and the card. Its `adapted` has `network` (the fingerprint of the one that was adapted),
      `weight` and `cameras` (camera -> number of images). Its `thresholds` has `set_on` and, for each distance, the
      points of `frame_thresholds`; it is None where no two people are in one frame.

    Raises:
      FileNotFoundError: no network, images or CSV there.
      OSError: the files cannot be written.
      RuntimeError: one line: this process was forked from one that has computed.
      ValueError: one line: an argument or the CSV is wrong, images are damaged, or a camera has too few.
    """
    check_not_forked()
    folder = local_path(output)
    if not NAME.fullmatch(folder.name):
        raise ValueError(f"--output={output}: the folder's name may have letters, digits, _, - and ., as site")
    for suffix in (WEIGHTS, CARD):
        check_writable(folder / f"{folder.name}{suffix}")
    if not 0 <= weight <= 1:
        raise ValueError(f"weight is {weight}: it has to be from 0 (the model's own statistics) to 1 (the camera's)")
    trained = load_trained(network)
    with open_site(source, csv) as site, ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = _rows_by_camera(site.camera, csv)
        own = network_of_camera(trained.network, None)
        adapted = own._replace(cameras=_statistics(own, site, rows, weight, pool, progress))
        thresholds = _thresholds(adapted, site, pool, progress)
    base = {"network": trained.card["network"], "weight": weight}
    dtype = trained.card.get("dtype", "float32")
    card = trained.card | {"name": folder.name, "dtype": dtype}
    card |= card_of(adapted, trained.step, trained.description)
    card["adapted"] = base | {"cameras": {camera: len(images) for camera, images in rows.items()}}
    card["thresholds"] = thresholds
    path = write_network(folder, folder.name, adapted, card, dtype)
    read_network(path)  # which refuses what a reader would refuse
    return path, card


def described(card: dict[str, Any]) -> str:
    """Returns the cameras and thresholds of an adapted network's card as text."""
    cameras = card["adapted"]["cameras"]
    lines = [f"{len(cameras)} cameras, weight {card['adapted']['weight']}"]
    lines += [f"  camera {camera}: {number:,} images" for camera, number in cameras.items()]
    if card["thresholds"] is None:
        return "\n".join([*lines, "no thresholds: no two people are known to be in one frame"])
    pairs = card["thresholds"]["euclidean"][0]["pairs"]
    lines.append(f"thresholds from {pairs:,} {card['thresholds']['set_on']}; between cameras the rates are others")
    head = "".join(f"{name:>12}" for name in (*DISTANCES, ALARMS))
    lines.append(f"  false positive rate{head}")
    for points in zip(*(card["thresholds"][distance] for distance in DISTANCES), strict=True):
        limits = ["-" if point["max_distance"] is None else f"{point['max_distance']:.4g}" for point in points]
        limits.append(significant(points[0]["max_fpr"] * ALARMS_IN, 3))
        lines.append(f"  {points[0]['max_fpr']:>19g}" + "".join(f"{limit:>12}" for limit in limits))
    lines.append(
        f"  alarms: false alarms per query in a gallery of {ALARMS_IN:,} images of other people, if the rate within "
        "frames held between cameras"
    )
    return "\n".join(lines)


def camera_statistics(
    network: Network, batches: Iterable[UInt8[np.ndarray, "_ H W 3"]], weight: float = WEIGHT
) -> dict[str, Any]:
    """Computes the BatchNorm statistics that a network uses for images of one camera.

    In each batch, every layer is normalised by `(1 - weight) * own + weight * batch`, own being the network's
    statistics and batch those of the batch. So a layer meets its inputs as it will in use. The statistics that are
    returned are `(1 - weight) * own + weight * camera`, camera being the mean and variance over the positions of all
    batches. With all images in one batch they are exact.

    Args:
      network: its own statistics are interpolated with.
      batches: images of the network's size. A batch that is smaller than the first one is filled up with images of the
        first, which do not count: it is normalised with them, and one program is compiled.
      weight: from 0 to 1.

    Returns:
      float32, as `network.variables["batch_stats"]`. Layers that the embedding does not pass stay as they are.
    """
    model = create_model(network.config, network.num_classes)
    own = flatten_dict(network.variables["batch_stats"])
    layers = sorted({path[:-1] for path in own})
    mean, square, number = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, 0.0), 0
    first = None
    for image in batches:
        first = image if first is None else first
        filled = np.concatenate([image, first[: max(0, len(first) - len(image))]])
        batch_statistics = flatten_dict(_batch_statistics(model, network.variables, filled, len(image), weight))
        batch_statistics = {path: np.float64(leaf) for path, leaf in batch_statistics.items()}
        number += len(image)
        for layer in layers:
            layer_mean, var = batch_statistics[*layer, "mean"], batch_statistics[*layer, "var"]
            mean[layer] += (layer_mean - mean[layer]) * len(image) / number
            square[layer] += (var + layer_mean**2 - square[layer]) * len(image) / number
    pooled = {(*layer, "mean"): mean[layer] for layer in layers}
    pooled |= {(*layer, "var"): square[layer] - mean[layer] ** 2 for layer in layers}
    return unflatten_dict(
        {path: np.float32((1 - weight) * np.float64(leaf) + weight * pooled[path]) for path, leaf in own.items()}
    )


@partial(jax.jit, static_argnums=0)
def _batch_statistics(
    model: Mancs, variables: dict[str, Any], image: jax.Array, number: jax.Array, weight: jax.Array
) -> dict[str, Any]:
    """The mean and variance that each BatchNorm layer meets in a batch, as "batch_stats", see `camera_statistics`.

    Those of the first `number` images; the others are normalised with them, and do not count.
    """

    def interpolate(call, arguments, options, context):
        if isinstance(context.module, BatchNorm) and context.method_name == "convolve_and_normalize":
            return context.module.interpolated(*arguments, weight, number)
        return call(*arguments, **options)

    with nn.intercept_methods(interpolate):
        _, updated = model.apply(variables, normalize(image), train=False, mutable=["batch_stats"])
    return updated["batch_stats"]


def _rows_by_camera(camera: Shaped[np.ndarray, " N"], csv: str | Path) -> dict[str, np.ndarray]:
    """camera -> rows of its images, in random order: neighbours in a list often show one person."""
    names = sorted(set(camera.tolist()), key=lambda name: (len(name), name))
    rows = {name: np.flatnonzero(camera == name) for name in names}
    if few := [f"{name} ({len(of)} images)" for name, of in rows.items() if len(of) < LEAST_IMAGES]:
        raise ValueError(
            f"{csv}: statistics of a camera need {LEAST_IMAGES} images, and these have fewer: {name_some(few)}; add "
            "images, or leave such cameras out, which then use the model's own statistics"
        )
    return {name: np.random.default_rng(_seed_of(name)).permutation(of) for name, of in rows.items()}


def _seed_of(camera: str) -> int | list[int]:
    return int(camera) if is_integer(camera, 0) else list(camera.encode())


def _statistics(
    network: Network, site: Site, rows: dict[str, np.ndarray], weight: float, pool: Executor, progress: bool
) -> dict[str, dict[str, Any]]:
    cameras = {}
    with bar(desc="statistics", unit="image", total=len(site.file), delay=2, disable=not progress) as progress_bar:
        for camera, of in rows.items():
            cameras[camera] = camera_statistics(network, _decoded(network, site, of, pool, progress_bar), weight)
    return cameras


def _thresholds(network: Network, site: Site, pool: Executor, progress: bool) -> dict[str, Any] | None:
    """Thresholds from people in one frame, as the card has them; None where there are no two people in one frame."""
    frames, number = np.unique(site.frame[site.frame >= 0], return_counts=True)
    rows = np.flatnonzero(np.isin(site.frame, frames[number > 1]))
    if not len(rows):
        return None
    embedding = np.empty((len(rows), embedding_width(network)), np.float32)
    with bar(desc="distances", unit="image", total=len(rows), delay=2, disable=not progress) as progress_bar:
        for camera in network.cameras:
            is_own = site.camera[rows] == camera
            batches = _decoded(network, site, rows[is_own], pool, progress_bar)
            embeddings = [rows for rows, _ in run_batches(network_of_camera(network, camera), batches, batch=BATCH)]
            embedding[is_own] = np.concatenate([embedding[:0], *embeddings])
    return {"set_on": f"pairs of people in one frame, {np.count_nonzero(number > 1):,} frames of the site"} | {
        distance: frame_thresholds(frame_distances(embedding, site.frame[rows], distance)) for distance in DISTANCES
    }


def _decoded(
    network: Network, site: Site, rows: np.ndarray, pool: Executor, progress_bar: tqdm
) -> Iterator[UInt8[np.ndarray, "B H W 3"]]:
    """Yields images, decoded and resized, a batch at a time."""
    image_size = tuple(network.config.data.image_size)
    for start in range(0, len(rows), BATCH):
        files = [site.file[row] for row in rows[start : start + BATCH]]
        progress_bar.update(len(files))
        yield np.stack(list(pool.map(lambda file: decode_image(site.read(file), image_size, file), files)))
