"""Batches for the step: from the device's own memory where all training images fit, else from the host's."""

from collections.abc import Callable

import jax
import numpy as np

# Share of a device's memory that the training images may take.
SHARE = 0.05

Batches = Callable[[np.ndarray], jax.Array | np.ndarray]


def make_batches(image: np.ndarray, devices: list[jax.Device]) -> Batches:
    """Where batches come from.

    Args:
      image: uint8 [N, H, W, 3], the training images.
      devices: that a batch is split over, of all processes.

    Returns:
      A function of rows, int [local devices, B/devices], that gives their images, uint8 [local devices, B/devices, H,
      W, 3]. Host gathering overlaps the previous step.
    """
    return resident_batches(image, devices) if is_resident(image, devices) else lambda rows: image[rows]


def is_resident(image: np.ndarray, devices: list[jax.Device]) -> bool:
    """Tells if the images fit into the device's memory beside the training.

    They stay on the host where the device is a CPU, which shares its memory, and with many processes, since each would
    hold all images to give out its share.
    """
    stats = [device.memory_stats() or {} for device in devices if device.process_index == jax.process_index()]
    least = min(stat.get("bytes_limit", 0) for stat in stats)
    return jax.process_count() == 1 and devices[0].platform != "cpu" and image.nbytes <= SHARE * least


def resident_batches(image: np.ndarray, devices: list[jax.Device]) -> Batches:
    """`make_batches` with the images copied to each device once; a step then moves their numbers alone."""
    mesh = jax.sharding.Mesh(np.array(devices), "devices")
    held = jax.device_put(image, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    take = jax.pmap(lambda image, rows: image[rows], in_axes=(None, 0), devices=devices)
    return lambda rows: take(held, rows)
