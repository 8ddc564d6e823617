"""Images to embeddings: `f_rank` of the trained network (paper section 3.7), in batches of one compiled size."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from mancs_jax.data.augment import normalize
from mancs_jax.models.mancs import create_model

Embed = Callable[[dict[str, Any], np.ndarray], np.ndarray]


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
      A function of ({"params", "batch_stats"}, images uint8 [N, H, W, 3]) that gives float32 [N, D].
    """
    model = create_model(config, num_classes)
    per_device = -(-config.eval_batch // len(devices))
    batch = per_device * len(devices)

    def forward(variables, image):
        x = normalize(image)
        embedding = model.apply(variables, x, train=False)["f_rank"]
        if flip:
            embedding = (embedding + model.apply(variables, x[:, :, ::-1], train=False)["f_rank"]) / 2
        return embedding

    forward = jax.pmap(forward, in_axes=(None, 0), devices=devices)

    def embed(variables: dict[str, Any], image: np.ndarray) -> np.ndarray:
        embeddings, running = [], []
        for start in tqdm(
            range(0, len(image), batch), desc="embedding", unit="batch", mininterval=1.0, disable=not progress
        ):
            part = image[start : start + batch]
            # The last batch is filled up with black images, whose embeddings are cut off again.
            filled = np.zeros((batch, *image.shape[1:]), np.uint8)
            filled[: len(part)] = part
            running.append(forward(variables, filled.reshape(len(devices), per_device, *image.shape[1:])))
            if len(running) > 2:  # two batches in flight keep the device busy and the queue short
                embeddings.append(np.asarray(running.pop(0)))
        embeddings += [np.asarray(out) for out in running]
        if not embeddings:
            raise ValueError("no images to embed: the split is empty")
        return np.concatenate([out.reshape(batch, -1) for out in embeddings])[: len(image)]

    return embed
