"""Tests of the augmentation: crops against OpenCV, boxes and chances against their distributions."""

from functools import partial

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare, ks_1samp

from mancs_jax.data.augment import Augmentation, augment, crop_and_resize, draw_box, normalize

HEIGHT, WIDTH = 64, 32
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
FILL = (0.4914, 0.4822, 0.4465)
NOTHING = Augmentation(
    crop_area=(1.0, 1.0),
    crop_aspect=(2.0, 2.0),
    flip=0.0,
    erase=0.0,
    erase_area=(0.02, 0.4),
    erase_aspect=(0.3, 1 / 0.3),
    erase_fill=FILL,
)
PAPER_CROP = NOTHING._replace(crop_area=(0.64, 1.0), crop_aspect=(2.0, 3.0))
# With a fixed key a chance test passes always or never; one key in ten thousand fails right code.
LEAST_P_VALUE = 1e-4

run = jax.jit(augment, static_argnums=2)


@partial(jax.jit, static_argnums=1)
def draw_boxes(key: jax.Array, num: int, height, width, area, aspect) -> jax.Array:
    """`num` boxes, int32 [num, 4]: top, left, height, width."""
    boxes = jax.vmap(lambda one: jnp.stack(draw_box(one, height, width, area, aspect)))
    return boxes(jax.random.split(key, num))


def random_images(num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, HEIGHT, WIDTH, 3), np.uint8)


def keys_of(num: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), num)


def normalized(image: np.ndarray) -> np.ndarray:
    """To mean 0 and deviation 1, float64."""
    return (image / 255 - MEAN) / STD


def pixels(x: jax.Array) -> np.ndarray:
    """Back from normalised to 0..255, float64."""
    return (np.asarray(x, np.float64) * STD + MEAN) * 255


def resize(image: np.ndarray, box: tuple[int, ...], flip: bool) -> np.ndarray:
    """The cut box stretched to the image's size by OpenCV, float."""
    top, left, height, width = box
    cut = image[top : top + height, left : left + width].astype(np.float32)
    whole = cv2.resize(cut, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    return whole[:, ::-1] if flip else whole


def erased_boxes(x: jax.Array, reference: jax.Array) -> np.ndarray:
    """Top, left, height, width of where each x differs from its reference, all 0 where nowhere: int [B, 4].

    Fails unless every differing pixel differs in every channel and they fill one rectangle.
    """
    boxes = []
    for differs in np.asarray(x) != np.asarray(reference):
        inside = differs.any(axis=-1)
        np.testing.assert_array_equal(differs, np.broadcast_to(inside[:, :, None], differs.shape))
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if len(rows) == 0:
            boxes.append((0, 0, 0, 0))
            continue
        box = rows[0], columns[0], rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert inside.sum() == box[2] * box[3]
        boxes.append(box)
    return np.array(boxes)


def assert_box_is_legal(box, height: int, width: int, area, aspect):
    """Inside the image; before its sides were rounded, its area and aspect may have been in their ranges."""
    top, left, h, w = (int(side) for side in box)
    assert 0 <= top <= top + h <= height
    assert 0 <= left <= left + w <= width
    assert h >= 1
    assert w >= 1
    if (h, w) == (height, width):
        return
    slack = 1e-4
    assert (h + 0.5) * (w + 0.5) >= area[0] * height * width * (1 - slack)
    assert (h - 0.5) * (w - 0.5) <= area[1] * height * width * (1 + slack)
    assert (h + 0.5) / (w - 0.5) >= aspect[0] * (1 - slack)
    assert (h - 0.5) / (w + 0.5) <= aspect[1] * (1 + slack)


def test_normalize_by_hand():
    """(0/255 - 0.485) / 0.229, (255/255 - 0.456) / 0.224, (51/255 - 0.406) / 0.225."""
    actual = normalize(jnp.array([0, 255, 51], jnp.uint8))
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, [-2.1179039, 2.4285714, -0.9155556], rtol=1e-6)


def test_with_nothing_to_do_it_normalizes():
    image = random_images(4)
    actual = run(keys_of(4), image, NOTHING)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, normalized(image), atol=1e-5)


def test_flip_is_an_exact_mirror():
    image = random_images(8)
    straight = run(keys_of(8), image, PAPER_CROP)
    mirrored = run(keys_of(8), image, PAPER_CROP._replace(flip=1.0))
    np.testing.assert_allclose(np.asarray(mirrored)[:, :, ::-1], straight, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "box", [(0, 0, 64, 32), (0, 0, 40, 20), (24, 12, 40, 20), (7, 3, 51, 22), (63, 31, 1, 1), (5, 0, 1, 32)]
)
@pytest.mark.parametrize("flip", [False, True])
def test_crop_and_resize_against_opencv(box, flip):
    image = random_images(1)[0]
    actual = jax.jit(crop_and_resize)(image.astype(np.float32), box, flip)
    np.testing.assert_allclose(actual, resize(image, box, flip), atol=1e-3 * 255)


def test_whole_augmentation_against_opencv():
    """The boxes are read off a ramp image with the same keys; a second image is then cut by OpenCV."""
    num = 64
    options = PAPER_CROP._replace(flip=0.5)
    ramp = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    ramp[:, :, 0] = 4 * np.arange(HEIGHT)[:, None]
    ramp[:, :, 1] = 8 * np.arange(WIDTH)
    image = random_images(num)
    ramps = pixels(run(keys_of(num), np.broadcast_to(ramp, image.shape), options))
    actual = pixels(run(keys_of(num), image, options))
    # Away from the clamped borders, output pixel i shows row top + (i + 1/2) * height / 64 - 1/2 of the image.
    middle_row, middle_column = ramps[:, 30:34, 16, 0] / 4, ramps[:, 32, 14:18, 1] / 8
    heights = np.rint((middle_row[:, 3] - middle_row[:, 0]) / 3 * HEIGHT).astype(int)
    widths = np.rint((middle_column[:, 3] - middle_column[:, 0]) / 3 * WIDTH).astype(int)
    flips, widths = widths < 0, np.abs(widths)
    tops = np.rint(middle_row.mean(axis=1) + 0.5 - heights / 2).astype(int)
    lefts = np.rint(middle_column.mean(axis=1) + 0.5 - widths / 2).astype(int)
    for i, box in enumerate(zip(tops, lefts, heights, widths, strict=True)):
        assert_box_is_legal(box, HEIGHT, WIDTH, options.crop_area, options.crop_aspect)
        np.testing.assert_allclose(actual[i], resize(image[i], box, flips[i]), atol=1e-3 * 255)
    assert 0 < flips.sum() < num
    assert len({*zip(tops, lefts, heights, widths, strict=True)}) > num / 2


@given(
    seed=st.integers(0, 2**31 - 1),
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    area=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted).map(tuple),
    aspect=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(sorted).map(tuple),
)
def test_boxes_are_inside_the_image_and_in_their_ranges(seed, height, width, area, aspect):
    for box in np.asarray(draw_boxes(jax.random.key(seed), 16, height, width, area, aspect)):
        assert_box_is_legal(box, height, width, area, aspect)


def test_area_and_aspect_are_uniform_and_independent_where_every_box_fits():
    boxes = np.asarray(draw_boxes(jax.random.key(0), 4000, 2560, 1280, (0.05, 0.2), (0.5, 2.0)), np.float64)
    area, aspect = boxes[:, 2] * boxes[:, 3] / (2560 * 1280), boxes[:, 2] / boxes[:, 3]
    assert ks_1samp(area, lambda a: np.clip((a - 0.05) / 0.15, 0, 1)).pvalue > LEAST_P_VALUE
    assert ks_1samp(aspect, lambda r: np.clip((r - 0.5) / 1.5, 0, 1)).pvalue > LEAST_P_VALUE
    free = boxes[:, :2] / np.array([2560 - boxes[:, 2], 1280 - boxes[:, 3]]).T
    correlation = np.corrcoef([area, aspect, *free.T])[~np.eye(4, dtype=bool)]
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


def test_a_box_that_does_not_fit_is_drawn_again():
    """The paper's crop: pairs of (area, aspect) with area * aspect <= 2 fit, uniform among these."""
    boxes = np.asarray(draw_boxes(jax.random.key(0), 8000, 2560, 1280, (0.64, 1.0), (2.0, 3.0)), np.float64)
    boxes = boxes[(boxes[:, 2] < 2560) | (boxes[:, 3] < 1280)]
    # About 0.525^10 = 0.0016 of the images find no box and stay whole.
    assert len(boxes) > 7900
    aspect = boxes[:, 2] / boxes[:, 3]

    def fitting_share(r):  # integral over the aspects up to r of the fitting areas, 0.64 to 2 / aspect
        return 2 * np.log(r / 2) - 0.64 * (r - 2)

    assert ks_1samp(aspect, lambda r: fitting_share(np.clip(r, 2, 3)) / fitting_share(3)).pvalue > LEAST_P_VALUE


def test_places_are_uniform_to_the_last_row_and_column():
    """8 x 4 boxes in 16 x 8: 9 tops and 5 lefts."""
    boxes = np.asarray(draw_boxes(jax.random.key(0), 4500, 16, 8, (0.25, 0.25), (2.0, 2.0)))
    np.testing.assert_array_equal(boxes[:, 2:], np.broadcast_to([8, 4], (4500, 2)))
    counts = np.bincount(boxes[:, 0] * 5 + boxes[:, 1], minlength=45)
    assert chisquare(counts).pvalue > LEAST_P_VALUE


def test_without_a_fitting_box_nothing_is_erased_and_all_is_kept():
    options = NOTHING._replace(
        crop_area=(1.0, 1.0),
        crop_aspect=(50.0, 60.0),
        erase=1.0,
        erase_area=(0.9, 1.0),
        erase_aspect=(50.0, 60.0),
    )
    image = random_images(4)
    np.testing.assert_allclose(run(keys_of(4), image, options), normalized(image), atol=1e-5)


def test_constant_erasing_fills_one_rectangle_after_normalizing():
    image = random_images(64)
    x = run(keys_of(64), image, NOTHING._replace(erase=1.0))
    boxes = erased_boxes(x, run(keys_of(64), image, NOTHING))
    for one, box in zip(np.asarray(x), boxes, strict=True):
        assert_box_is_legal(box, HEIGHT, WIDTH, NOTHING.erase_area, NOTHING.erase_aspect)
        top, left, height, width = box
        inside = one[top : top + height, left : left + width]
        np.testing.assert_array_equal(inside, np.broadcast_to(np.float32(FILL), inside.shape))


def test_random_erasing_fills_with_pixels_of_the_whole_range():
    image = np.full((64, HEIGHT, WIDTH, 3), 255, np.uint8)
    x = run(keys_of(64), image, NOTHING._replace(erase=1.0, erase_fill=None))
    boxes = erased_boxes(x, run(keys_of(64), image, NOTHING))
    filled = [
        one[top : top + height, left : left + width].reshape(-1, 3)
        for one, (top, left, height, width) in zip(pixels(x), boxes, strict=True)
    ]
    values = np.concatenate(filled)
    assert values.min() > -1e-3
    assert values.max() < 255 + 1e-3
    for channel in values.T:
        assert ks_1samp(channel, lambda v: np.clip(v / 255, 0, 1)).pvalue > LEAST_P_VALUE
    assert np.abs(np.corrcoef(values.T)[~np.eye(3, dtype=bool)]).max() < 5 / np.sqrt(len(values))
    # Every pixel and every example has a draw of its own.
    assert len(np.unique(np.round(values[:, 0], 3))) > 0.9 * min(len(values), 255_000)


def test_chances_of_flip_and_erasing_are_right_and_independent():
    num = 2000
    left_is_dark = np.zeros((num, HEIGHT // 4, WIDTH // 4, 3), np.uint8)
    left_is_dark[:, :, WIDTH // 8 :] = 200
    options = NOTHING._replace(flip=0.3, erase=0.6, erase_area=(0.02, 0.1), erase_fill=(9.0, 9.0, 9.0))
    x = np.asarray(run(keys_of(num), left_is_dark, options))
    erased = (x == 9).any(axis=(1, 2, 3))
    value = np.where(x == 9, np.nan, x)
    flipped = np.nanmedian(value[:, :, 0], axis=(1, 2)) > np.nanmedian(value[:, :, -1], axis=(1, 2))
    assert binomtest(int(flipped.sum()), num, 0.3).pvalue > LEAST_P_VALUE
    assert binomtest(int(erased.sum()), num, 0.6).pvalue > LEAST_P_VALUE
    assert abs(np.corrcoef(flipped, erased)[0, 1]) < 5 / np.sqrt(num)


def test_crop_and_erased_box_are_independent():
    """Both from the same ranges: with one key for both they would be one box."""
    num = 500
    options = NOTHING._replace(
        crop_area=(0.1, 0.4),
        crop_aspect=(1.0, 3.0),
        erase=1.0,
        erase_area=(0.1, 0.4),
        erase_aspect=(1.0, 3.0),
        erase_fill=(9.0, 9.0, 9.0),
    )
    ramp = np.zeros((num, 32, 16, 3), np.uint8)
    ramp[:, :, :, 0] = 8 * np.arange(32)[:, None]
    cropped = pixels(run(keys_of(num), ramp, options._replace(erase=0.0)))[:, :, 0, 0]
    crop_height = cropped[:, 17] - cropped[:, 14]
    crop_top = cropped.min(axis=1)
    x = np.asarray(run(keys_of(num), ramp, options))
    boxes = erased_boxes(x, np.where(x == 9, 0, x))
    correlation = np.corrcoef([crop_top, crop_height, boxes[:, 0], boxes[:, 2]])[:2, 2:]
    assert np.abs(correlation).max() < 5 / np.sqrt(num)


@pytest.mark.parametrize("fill", [FILL, None])
def test_an_example_does_not_depend_on_the_batch_around_it(fill):
    """Also what makes one device and eight the same run."""
    options = PAPER_CROP._replace(flip=0.5, erase=0.5, erase_fill=fill)
    image, keys = random_images(16), keys_of(16)
    whole = np.asarray(run(keys, image, options))
    order = np.random.default_rng(1).permutation(16)
    np.testing.assert_allclose(run(keys[order], image[order], options), whole[order], atol=1e-5)
    np.testing.assert_allclose(run(keys[5:7], image[5:7], options), whole[5:7], atol=1e-5)
    other_keys = run(keys_of(16, seed=1), image, options)
    assert not np.allclose(other_keys, whole, atol=1e-2)
