"""Images to embeddings: `f_rank` of the trained network (paper section 3.7), in batches of one compiled size."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from mancs_jax.data.augment import normalize
from mancs_jax.models.mancs import create_model
from mancs_jax.training.multihost import gathered, share

Embed = Callable[[dict[str, Any], np.ndarray], np.ndarray]
Masks = Callable[[dict[str, Any], np.ndarray], dict[int, np.ndarray]]
EmbedBatches = Callable[[dict[str, Any], Iterable[np.ndarray]], Iterator[np.ndarray]]


def make_embed(
    config: ConfigDict, num_classes: int, devices: list[jax.Device], progress: bool = True, flip: bool = False
) -> Embed:
    """Compiles the inference network, once for all sizes of input.

    Args:
      config: of the run; `eval_batch` images go through all devices together.
      num_classes: of the trained network.
      devices: local devices.
      progress: whether a bar is shown.
      flip: average the embeddings of an image and of its mirror image, which takes twice as long.

    Returns:
      A function of ({"params", "batch_stats"}, images uint8 [N, H, W, 3]) that gives float32 [N, D]. Of several
      processes each embeds a share, and all get the whole.
    """
    batch = batch_size(config, devices)
    embed_batches = make_embed_batches(config, num_classes, devices, flip)

    def embed(variables: dict[str, Any], image: np.ndarray) -> np.ndarray:
        if not len(image):
            raise ValueError("no images to embed: the split is empty")
        mine = image[share(len(image))]
        # A process without a share embeds one image all the same, for the width of an embedding.
        mine = mine if len(mine) else image[:1]
        starts = tqdm(range(0, len(mine), batch), desc="embedding", unit="batch", mininterval=1.0, disable=not progress)
        embeddings = np.concatenate(list(embed_batches(variables, (mine[start : start + batch] for start in starts))))
        return gathered(embeddings, len(image))

    return embed


def make_embed_batches(
    config: ConfigDict, num_classes: int, devices: list[jax.Device], flip: bool = False
) -> EmbedBatches:
    """Compiles the inference network for images that come a batch at a time.

    Args: as `make_embed`.

    Returns:
      A function of ({"params", "batch_stats"}, batches of at most `batch_size` images, uint8 [B, H, W, 3]) that yields
      float32 [B, D] for each. While a batch is on the devices, the next one is asked for.
    """
    per_device = batch_size(config, devices) // len(devices)
    forward = jax.pmap(create_forward(config, num_classes, flip), in_axes=(None, 0), devices=devices)

    def embed_batches(variables: dict[str, Any], batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        running: deque = deque()
        for image in batches:
            running.append((len(image), forward(variables, _filled(image, len(devices), per_device))))
            if len(running) > 2:  # two batches in flight keep the device busy and the queue short
                yield _rows(*running.popleft())
        while running:
            yield _rows(*running.popleft())

    return embed_batches


def create_forward(config: ConfigDict, num_classes: int, flip: bool = False) -> Callable:
    """The inference network: ({"params", "batch_stats"}, uint8 [B, H, W, 3]) -> float32 [B, D], not compiled."""
    model = create_model(config, num_classes)

    def forward(variables: dict[str, Any], image: jax.Array) -> jax.Array:
        x = normalize(image)
        embedding = model.apply(variables, x, train=False)["f_rank"]
        if flip:
            embedding = (embedding + model.apply(variables, x[:, :, ::-1], train=False)["f_rank"]) / 2
        return embedding

    return forward


def batch_size(config: ConfigDict, devices: list[jax.Device]) -> int:
    """Images that go through all devices together: `eval_batch`, made a multiple of the number of devices."""
    return -(-config.eval_batch // len(devices)) * len(devices)


def make_masks(config: ConfigDict, num_classes: int, devices: list[jax.Device]) -> Masks:
    """Compiles what shows where the network looks.

    Args: as `make_embed`.

    Returns:
      A function of ({"params", "batch_stats"}, images uint8 [N, H, W, 3]) that gives the mask of each stage with a FAB
      (equation 1), a mean over the channels: stage -> float32 [N, h, w].
    """
    model = create_model(config, num_classes)
    batch = batch_size(config, devices)

    def forward(variables, image):
        masks = model.apply(variables, normalize(image), train=False)["masks"]
        return {stage: jnp.mean(mask, axis=-1, dtype=jnp.float32) for stage, mask in masks.items()}

    forward = jax.pmap(forward, in_axes=(None, 0), devices=devices)

    def masks(variables: dict[str, Any], image: np.ndarray) -> dict[int, np.ndarray]:
        found: dict[int, list[np.ndarray]] = {}
        for start in range(0, len(image), batch):
            part = image[start : start + batch]
            of_part = forward(variables, _filled(part, len(devices), batch // len(devices)))
            for stage, mask in of_part.items():
                found.setdefault(stage, []).append(_rows(len(part), mask))
        return {stage: np.concatenate(parts) for stage, parts in found.items()}

    return masks


def _filled(image, num_devices, per_device):
    """[B, H, W, 3] -> [devices, images a device, H, W, 3], filled up with black images, which are cut off again."""
    filled = np.zeros((num_devices * per_device, *image.shape[1:]), np.uint8)
    filled[: len(image)] = image
    return filled.reshape(num_devices, per_device, *image.shape[1:])


def _rows(number, on_devices):
    """[devices, images a device, ...] -> [number, ...]."""
    return np.asarray(on_devices).reshape(-1, *on_devices.shape[2:])[:number]
