"""Batches of images from device memory where all training images fit, and otherwise from host memory."""

from collections.abc import Callable

import jax
import numpy as np

# Share of a device's memory that the training images may take.
MEMORY_SHARE = 0.05

Batches = Callable[[np.ndarray], jax.Array | np.ndarray]


def make_batches(image: np.ndarray, devices: list[jax.Device]) -> Batches:
    """Makes a function of rows of `image`, int [local devices, B/devices], that returns uint8 [..., H, W, 3].

    Gathering on the host overlaps the previous step. `image` is uint8 [N, H, W, 3].
    """
    return resident_batches(image, devices) if is_resident(image, devices) else lambda rows: image[rows]


def is_resident(image: np.ndarray, devices: list[jax.Device]) -> bool:
    """Returns whether the images fit into device memory in addition to the training.

    They stay on the host where the device is a CPU, which shares its memory, and with several processes, because each
    would hold all images for its share of a batch.
    """
    stats = [device.memory_stats() or {} for device in devices if device.process_index == jax.process_index()]
    least_memory = min(stat.get("bytes_limit", 0) for stat in stats)
    return jax.process_count() == 1 and devices[0].platform != "cpu" and image.nbytes <= MEMORY_SHARE * least_memory


def resident_batches(image: np.ndarray, devices: list[jax.Device]) -> Batches:
    """`make_batches` with the images copied to each device once; a step then transfers only row numbers."""
    mesh = jax.sharding.Mesh(np.array(devices), "devices")
    resident_image = jax.device_put(image, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    take_rows = jax.pmap(lambda image, rows: image[rows], in_axes=(None, 0), devices=devices)
    return lambda rows: take_rows(resident_image, rows)
