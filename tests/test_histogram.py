"""The colour-histogram baseline, on images whose histograms can be written down by hand."""

import numpy as np
import pytest

from mancs_jax.inference import histogram

pytestmark = pytest.mark.quick

RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)


def flat(colour, count=1, size=(12, 6)):
    return np.full((count, *size, 3), colour, np.uint8)


def cell(stripe, hue, saturation, value):
    _, saturations, values = histogram.BINS
    return stripe * np.prod(histogram.BINS) + (hue * saturations + saturation) * values + value


def test_one_colour_fills_one_bin_of_every_stripe():
    embedding = histogram.embed(flat(RED))
    expected = np.zeros_like(embedding)
    for stripe in range(histogram.STRIPES):
        expected[0, cell(stripe, 0, histogram.BINS[1] - 1, histogram.BINS[2] - 1)] = np.sqrt(1 / histogram.STRIPES)
    np.testing.assert_allclose(embedding, expected, atol=1e-6)


def test_two_halves_differ_in_half_of_the_stripes():
    image = flat(WHITE)
    image[0, 6:] = BLACK
    mixed, white, black = histogram.embed(np.concatenate([image, flat(WHITE), flat(BLACK)]))
    assert mixed @ white == pytest.approx(0.5, abs=1e-6)
    assert mixed @ black == pytest.approx(0.5, abs=1e-6)
    assert white @ black == pytest.approx(0.0, abs=1e-6)


def test_columns_weigh_less_towards_the_sides():
    width = 6
    weight = np.exp(-0.5 * (((np.arange(width) + 0.5) / width - 0.5) / histogram.CENTRE_WIDTH) ** 2)
    image = flat(WHITE)
    image[0, :, 0] = BLACK
    striped, black = histogram.embed(np.concatenate([image, flat(BLACK)]))
    assert striped @ black == pytest.approx(np.sqrt(weight[0] / weight.sum()), rel=1e-5)
    assert weight[0] / weight.sum() < 1 / width


def test_rows_within_a_stripe_and_mirroring_do_not_matter():
    image = np.random.default_rng(0).integers(0, 256, (3, 24, 8, 3), dtype=np.uint8)
    rows = 24 // histogram.STRIPES
    swapped = image.reshape(3, histogram.STRIPES, rows, 8, 3)[:, :, ::-1].reshape(image.shape)
    np.testing.assert_allclose(histogram.embed(swapped), histogram.embed(image), atol=1e-6)
    np.testing.assert_allclose(histogram.embed(image[:, :, ::-1]), histogram.embed(image), atol=1e-6)
    assert np.abs(histogram.embed(image[:, ::-1]) - histogram.embed(image)).max() > 0.05


def test_blocks_agree_with_one_image_at_a_time(monkeypatch):
    image = np.random.default_rng(1).integers(0, 256, (7, 12, 6, 3), dtype=np.uint8)
    single = np.concatenate([histogram.embed(image[i : i + 1]) for i in range(7)])
    monkeypatch.setattr(histogram, "BLOCK", 3)
    blocks = histogram.embed(image)
    np.testing.assert_array_equal(blocks, single)
    assert blocks.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(blocks, axis=1), 1, rtol=1e-5)


def test_no_images():
    assert histogram.embed(np.zeros((0, 12, 6, 3), np.uint8)).shape == (0, histogram.STRIPES * np.prod(histogram.BINS))


@pytest.mark.parametrize(
    "image",
    [np.zeros((1, 12, 6, 3), np.float32), np.zeros((12, 6, 3), np.uint8), np.zeros((1, 12, 6, 1), np.uint8),
     np.zeros((1, histogram.STRIPES - 1, 6, 3), np.uint8)],
)  # fmt: skip
def test_other_arrays_are_refused(image):
    with pytest.raises(ValueError, match="histogram.embed"):
        histogram.embed(image)
