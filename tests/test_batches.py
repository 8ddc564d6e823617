"""The images of a batch, from the host or held by the devices."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mancs_jax.training import batches

pytestmark = pytest.mark.quick

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 4, 2, 3), dtype=np.uint8)
ROWS = np.array([[3, 19, 3], [0, 7, 1]])


@pytest.mark.parametrize("make", [batches.make_batches, batches.resident_batches])
def test_gives_the_images_of_the_rows_to_each_device(make):
    devices = jax.devices()[:2]
    batch = make(IMAGE, devices)(ROWS)
    np.testing.assert_array_equal(batch, IMAGE[ROWS])
    seen = jax.pmap(lambda image: image.astype(int).sum(), devices=devices)(batch)
    np.testing.assert_array_equal(seen, IMAGE[ROWS].astype(int).sum((1, 2, 3, 4)))


def test_held_images_stay_on_the_devices():
    devices = jax.devices()[:2]
    batch = batches.resident_batches(IMAGE, devices)(ROWS)
    assert {shard.device for shard in batch.addressable_shards} == set(devices)


@pytest.mark.parametrize(
    ("platform", "limits", "expected"),
    [("gpu", [20 * 480, 20 * 480], True), ("gpu", [20 * 480, 20 * 480 - 1], False), ("cpu", [1e9], False)],
)
def test_a_twentieth_of_the_smallest_memory_may_be_taken(platform, limits, expected):
    devices = [
        SimpleNamespace(platform=platform, process_index=0, memory_stats=lambda limit=limit: {"bytes_limit": limit})
        for limit in limits
    ]
    assert IMAGE.nbytes == 480 and batches.is_resident(IMAGE, devices) == expected


def test_a_device_that_does_not_tell_its_memory_holds_nothing():
    device = SimpleNamespace(platform="gpu", process_index=0, memory_stats=lambda: None)
    assert not batches.is_resident(IMAGE, [device])
