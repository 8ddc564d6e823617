"""Images to embeddings and masks: the trained network (paper section 3.7), in batches of one compiled size."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float32, Shaped, UInt8

from mancs_jax.common.one_process import check_not_forked
from mancs_jax.common.pipelined import pipelined
from mancs_jax.common.processes import gathered, share
from mancs_jax.common.screen import bar
from mancs_jax.data.augment import normalize
from mancs_jax.inference.network import Network, camera_groups, network_of_camera
from mancs_jax.models.mancs import Mancs, create_model

AHEAD = 2  # batches that run while one is fetched: enough to keep the device busy, and few enough for little memory

Images = UInt8[np.ndarray, "B H W 3"]  # RGB
Masks = dict[int, Float32[np.ndarray, "B _ _"]]  # by stage
# of {"params", "batch_stats"} and images
Forward = Callable[
    [dict[str, Any], UInt8[jax.Array, "B H W 3"]],
    tuple[Float32[jax.Array, "B D"], dict[int, Float32[jax.Array, "B _ _"]]],
]


def embed(
    network: Network,
    image: Images,
    camera: Shaped[np.ndarray, " B"] | None = None,
    *,
    devices: Sequence[jax.Device] | None = None,
    flip: bool = False,
    progress: bool = False,
) -> Float32[np.ndarray, "B D"]:
    """Embeds images; of several processes each embeds a share, and all get the whole.

    Args:
      network: `config.eval_batch` images go through all devices together.
      image: of the network's size; none at all is a ValueError.
      camera: of each image, a name or an integer, whose statistics an adapted network uses; None: the network's own
        for all.
      devices: local devices; all of them by default.
      flip: average the embeddings of an image and of its mirror image, which takes twice as long.
      progress: show a bar.
    """
    if not len(image):
        raise ValueError("no images to embed: the split is empty")
    if camera is not None and network.cameras:
        options: dict[str, Any] = {"devices": devices, "flip": flip, "progress": progress}
        groups = list(camera_groups(list(network.cameras), camera))
        parts_by_camera = [embed(network_of_camera(network, name), image[rows], **options) for name, rows in groups]
        return np.concatenate(parts_by_camera)[np.argsort(np.concatenate([rows for _, rows in groups]))]
    own_images = image[share(len(image))]
    # A process without a share embeds one image all the same, for the width of an embedding.
    own_images = own_images if len(own_images) else image[:1]
    batches = _batches(network, own_images, devices, progress)
    parts = [embedding for embedding, _ in run_batches(network, batches, devices=devices, flip=flip)]
    return gathered(np.concatenate(parts), len(image))


def attention_masks(
    network: Network, image: Images, *, devices: Sequence[jax.Device] | None = None, flip: bool = False
) -> Masks:
    """Computes the mask of each FAB (equation 1), a mean over the channels, by its stage; arguments as `embed`.

    `flip` changes no mask, but the call shares the compiled program of `embed` with the same `flip`.
    """
    stages: dict[int, list[np.ndarray]] = {}
    batches = _batches(network, image, devices, progress=False)
    for _, masks in run_batches(network, batches, devices=devices, flip=flip, masks=True):
        for stage, mask in masks.items():
            stages.setdefault(stage, []).append(mask)
    return {stage: np.concatenate(parts) for stage, parts in stages.items()}


def run_batches(
    network: Network,
    batches: Iterable[np.ndarray],
    *,
    batch: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    flip: bool = False,
    masks: bool = False,
) -> Iterator[tuple[Float32[np.ndarray, "B D"], Masks]]:
    """Yields (embeddings, masks) of images that come at most `batch` (by default `config.eval_batch`) at a time.

    The network is compiled once for one form, batch, `flip` and choice of devices. While a batch is on the devices, the
    next one is read. Without `masks`, none are fetched from the devices. Other arguments as `embed`.
    """
    check_not_forked()
    devices = tuple(jax.local_devices() if devices is None else devices)
    per_device = batch_size(batch or network.config.eval_batch, devices) // len(devices)
    forward = _compiled(create_model(network.config, network.num_classes), flip, devices)

    # Placed once: each batch would copy them to all devices, and arrays of another placement compile anew.
    everywhere = NamedSharding(Mesh(np.array(devices), ("devices",)), PartitionSpec())
    variables = jax.device_put(network.variables, everywhere)

    started = ((len(image), *forward(variables, _filled(image, len(devices), per_device))) for image in batches)
    for number, embedding, stages in pipelined(started, AHEAD):
        fetched = {stage: _rows(number, mask) for stage, mask in stages.items()} if masks else {}
        yield _rows(number, embedding), fetched


def create_forward(model: Mancs, flip: bool = False) -> Forward:
    """Creates the inference function of a network, not compiled: pixels to embeddings and channel-mean masks."""

    def forward(
        variables: dict[str, Any], image: UInt8[jax.Array, "B H W 3"]
    ) -> tuple[Float32[jax.Array, "B D"], dict[int, Float32[jax.Array, "B _ _"]]]:
        x = normalize(image)
        out: Any = model.apply(variables, x, train=False)
        embedding = out.f_rank
        if flip:
            mirrored: Any = model.apply(variables, x[:, :, ::-1], train=False)
            embedding = (embedding + mirrored.f_rank) / 2
        return embedding, {stage: jnp.mean(mask, axis=-1, dtype=jnp.float32) for stage, mask in out.masks.items()}

    return forward


def batch_size(batch: int, devices: Sequence[jax.Device]) -> int:
    """Returns `batch`, made a multiple of the number of devices."""
    return -(-batch // len(devices)) * len(devices)


@lru_cache(maxsize=8)
def _compiled(model: Mancs, flip: bool, devices: tuple[jax.Device, ...]) -> Callable:
    """Makes the function once for all networks of one form: for validation, evaluation, masks and ablations."""
    return jax.pmap(create_forward(model, flip), in_axes=(None, 0), devices=devices)


def _batches(network: Network, image: Images, devices: Sequence[jax.Device] | None, progress: bool) -> Iterator[Images]:
    batch = batch_size(network.config.eval_batch, jax.local_devices() if devices is None else devices)
    starts = range(0, len(image), batch)
    for start in bar(starts, desc="embedding", unit="batch", mininterval=1.0, disable=not progress):
        yield image[start : start + batch]


def _filled(image: Images, num_devices: int, per_device: int) -> UInt8[np.ndarray, "{num_devices} {per_device} H W 3"]:
    """The images of each device, filled up with black ones, which are cut off again."""
    filled = np.zeros((num_devices * per_device, *image.shape[1:]), np.uint8)
    filled[: len(image)] = image
    return filled.reshape(num_devices, per_device, *image.shape[1:])


def _rows(number: int, on_devices: Float32[jax.Array, "devices images ..."]) -> Float32[np.ndarray, "{number} ..."]:
    return np.asarray(on_devices).reshape(-1, *on_devices.shape[2:])[:number]
