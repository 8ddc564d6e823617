"""Tests of the augmentation: crops against OpenCV, boxes and chances against their distributions."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare, ks_1samp

from mancs_jax.data.augment import (
    Augmentation,
    JitterStrength,
    augment,
    crop_and_resize,
    draw_box,
    jitter,
    jitter_matrix,
    normalize,
)

HEIGHT, WIDTH = 64, 32
# Images a call and boxes a call: always as many, so that little is compiled.
BATCH, BOXES = 64, 4500
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

# The numbers of the options are traced: one compilation for all of them, another for random filling.
augment_batch = jax.jit(augment)


@jax.jit
def draw_boxes(key: jax.Array, height, width, area, aspect) -> jax.Array:
    """int32 [BOXES, 4]: top, left, height, width."""
    boxes = jax.vmap(lambda one: jnp.stack(draw_box(one, height, width, area, aspect)))
    return boxes(jax.random.split(key, BOXES))


def run(image: np.ndarray, options: Augmentation, seed: int = 0) -> np.ndarray:
    """`augment` of any number of images in batches of BATCH, each image with its own key."""
    keys = jax.random.split(jax.random.key(seed), len(image))
    starts = range(0, len(image), BATCH)
    return np.concatenate([augment_batch(keys[i : i + BATCH], image[i : i + BATCH], options) for i in starts])


def random_images(num: int = BATCH) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, HEIGHT, WIDTH, 3), np.uint8)


def normalized(image: np.ndarray) -> np.ndarray:
    """To mean 0 and deviation 1, float64."""
    return (image / 255 - MEAN) / STD


def pixels(x: np.ndarray) -> np.ndarray:
    """Back from normalised to 0..255, float64."""
    return (x.astype(np.float64) * STD + MEAN) * 255


def resize(image: np.ndarray, box: tuple[int, ...], flip: bool) -> np.ndarray:
    """The cut box stretched to the image's size by OpenCV, float."""
    top, left, height, width = box
    cut = image[top : top + height, left : left + width].astype(np.float32)
    whole = cv2.resize(cut, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
    return whole[:, ::-1] if flip else whole


def erased_boxes(x: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Top, left, height, width of where each image differs from its reference, all 0 where nowhere: int [B, 4].

    Fails unless every differing pixel differs in every channel and they fill one rectangle.
    """
    boxes = []
    for differs in x != reference:
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


def assert_boxes_are_legal(boxes: np.ndarray, height: int, width: int, area, aspect):
    """Inside the image; before its sides were rounded, its area and aspect may have been in their ranges."""
    top, left, h, w = np.asarray(boxes).T
    assert min(top.min(), left.min()) >= 0 and min(h.min(), w.min()) >= 1
    assert np.all(top + h <= height) and np.all(left + w <= width)
    part = (h < height) | (w < width)
    h, w, slack = h[part], w[part], 1e-4
    assert np.all((h + 0.5) * (w + 0.5) >= area[0] * height * width * (1 - slack))
    assert np.all((h - 0.5) * (w - 0.5) <= area[1] * height * width * (1 + slack))
    assert np.all((h + 0.5) / (w - 0.5) >= aspect[0] * (1 - slack))
    assert np.all((h - 0.5) / (w + 0.5) <= aspect[1] * (1 + slack))


def test_normalize_by_hand():
    """(0/255 - 0.485) / 0.229, (255/255 - 0.456) / 0.224, (51/255 - 0.406) / 0.225."""
    actual = normalize(jnp.array([0, 255, 51], jnp.uint8))
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, [-2.1179039, 2.4285714, -0.9155556], rtol=1e-6)


def test_with_nothing_to_do_it_normalizes():
    image = random_images()
    actual = run(image, NOTHING)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, normalized(image), atol=1e-5)


def test_flip_is_an_exact_mirror():
    image = random_images()
    mirrored = run(image, PAPER_CROP._replace(flip=1.0))
    np.testing.assert_allclose(mirrored[:, :, ::-1], run(image, PAPER_CROP), rtol=0, atol=1e-6)


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
    options = PAPER_CROP._replace(flip=0.5)
    image = random_images()
    ramp = np.zeros_like(image)
    ramp[..., 0] = 4 * np.arange(HEIGHT)[:, None]
    ramp[..., 1] = 8 * np.arange(WIDTH)
    ramps, actual = pixels(run(ramp, options)), pixels(run(image, options))
    # Away from the clamped borders, output row i shows row top + (i + 1/2) * height / 64 - 1/2 of the image.
    middle_rows, middle_columns = ramps[:, 30:34, 16, 0] / 4, ramps[:, 32, 14:18, 1] / 8
    heights = np.rint((middle_rows[:, 3] - middle_rows[:, 0]) / 3 * HEIGHT).astype(int)
    widths = np.rint((middle_columns[:, 3] - middle_columns[:, 0]) / 3 * WIDTH).astype(int)
    flips, widths = widths < 0, np.abs(widths)
    tops = np.rint(middle_rows.mean(axis=1) + 0.5 - heights / 2).astype(int)
    lefts = np.rint(middle_columns.mean(axis=1) + 0.5 - widths / 2).astype(int)
    boxes = np.stack([tops, lefts, heights, widths], axis=1)
    assert_boxes_are_legal(boxes, HEIGHT, WIDTH, options.crop_area, options.crop_aspect)
    assert 0 < flips.sum() < BATCH
    assert len(np.unique(boxes, axis=0)) > BATCH / 2
    expected = [resize(*one) for one in zip(image, boxes, flips, strict=True)]
    np.testing.assert_allclose(actual, expected, atol=1e-3 * 255)


@settings(max_examples=50)
@given(
    seed=st.integers(0, 2**31 - 1),
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    area=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted).map(tuple),
    aspect=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(sorted).map(tuple),
)
def test_boxes_are_inside_the_image_and_in_their_ranges(seed, height, width, area, aspect):
    boxes = draw_boxes(jax.random.key(seed), height, width, area, aspect)
    assert_boxes_are_legal(boxes, height, width, area, aspect)


def test_area_and_aspect_are_uniform_and_independent_where_every_box_fits():
    boxes = np.asarray(draw_boxes(jax.random.key(0), 2560, 1280, (0.05, 0.2), (0.5, 2.0)), np.float64)
    area, aspect = boxes[:, 2] * boxes[:, 3] / (2560 * 1280), boxes[:, 2] / boxes[:, 3]
    assert ks_1samp(area, lambda a: np.clip((a - 0.05) / 0.15, 0, 1)).pvalue > LEAST_P_VALUE
    assert ks_1samp(aspect, lambda r: np.clip((r - 0.5) / 1.5, 0, 1)).pvalue > LEAST_P_VALUE
    free = boxes[:, :2] / np.array([2560 - boxes[:, 2], 1280 - boxes[:, 3]]).T
    correlation = np.corrcoef([area, aspect, *free.T])[~np.eye(4, dtype=bool)]
    assert np.abs(correlation).max() < 5 / np.sqrt(BOXES)


def test_a_box_that_does_not_fit_is_drawn_again():
    """The paper's crop of a 2:1 image: area * aspect <= 2 fits, and what fits is uniform."""
    boxes = np.asarray(draw_boxes(jax.random.key(0), 2560, 1280, (0.64, 1.0), (2.0, 3.0)), np.float64)
    whole = (boxes[:, 2] == 2560) & (boxes[:, 3] == 1280)

    def fitting_share(aspect):
        """Integral over the aspects from 2 of the areas that fit, 0.64 to 2 / aspect."""
        return 2 * np.log(aspect / 2) - 0.64 * (aspect - 2)

    # Ten draws miss in one image of 600.
    missing = (1 - fitting_share(3) / 0.36) ** 10
    assert binomtest(int(whole.sum()), BOXES, missing).pvalue > LEAST_P_VALUE
    aspect = boxes[~whole, 2] / boxes[~whole, 3]
    share = ks_1samp(aspect, lambda r: fitting_share(np.clip(r, 2, 3)) / fitting_share(3))
    assert share.pvalue > LEAST_P_VALUE


def test_places_are_uniform_to_the_last_row_and_column():
    """8 x 4 boxes in 16 x 8: 9 tops and 5 lefts."""
    boxes = np.asarray(draw_boxes(jax.random.key(0), 16, 8, (0.25, 0.25), (2.0, 2.0)))
    np.testing.assert_array_equal(boxes[:, 2:], np.broadcast_to([8, 4], (BOXES, 2)))
    counts = np.bincount(boxes[:, 0] * 5 + boxes[:, 1], minlength=45)
    assert chisquare(counts).pvalue > LEAST_P_VALUE


def test_where_no_box_fits_all_is_kept_and_nothing_erased():
    impossible = {"area": (0.9, 1.0), "aspect": (50.0, 60.0)}
    crop = {f"crop_{name}": value for name, value in impossible.items()}
    erase = {f"erase_{name}": value for name, value in impossible.items()}
    image = random_images()
    x = run(image, NOTHING._replace(erase=1.0, **crop, **erase))
    np.testing.assert_allclose(x, normalized(image), atol=1e-5)


def test_constant_erasing_fills_one_rectangle_after_normalizing():
    image = random_images()
    x = run(image, NOTHING._replace(erase=1.0))
    boxes = erased_boxes(x, run(image, NOTHING))
    assert_boxes_are_legal(boxes, HEIGHT, WIDTH, NOTHING.erase_area, NOTHING.erase_aspect)
    for one, (top, left, height, width) in zip(x, boxes, strict=True):
        inside = one[top : top + height, left : left + width]
        np.testing.assert_array_equal(inside, np.broadcast_to(np.float32(FILL), inside.shape))


def test_random_erasing_fills_with_pixels_of_the_whole_range():
    image = np.full((BATCH, HEIGHT, WIDTH, 3), 255, np.uint8)
    x = run(image, NOTHING._replace(erase=1.0, erase_fill=None))
    boxes = erased_boxes(x, run(image, NOTHING))
    assert_boxes_are_legal(boxes, HEIGHT, WIDTH, NOTHING.erase_area, NOTHING.erase_aspect)
    filled = [
        one[top : top + height, left : left + width].reshape(-1, 3)
        for one, (top, left, height, width) in zip(pixels(x), boxes, strict=True)
    ]
    values = np.concatenate(filled)
    assert values.min() > -1e-3 and values.max() < 255 + 1e-3
    for channel in values.T:
        assert ks_1samp(channel, lambda v: np.clip(v / 255, 0, 1)).pvalue > LEAST_P_VALUE
    # Every pixel, channel and example has a draw of its own.
    assert len(np.unique(np.round(values, 3))) > 0.5 * values.size
    assert np.abs(np.corrcoef(values.T)[~np.eye(3, dtype=bool)]).max() < 5 / np.sqrt(len(values))


def test_chances_of_flip_and_erasing_are_right_and_independent():
    num = 31 * BATCH
    image = np.zeros((num, HEIGHT, WIDTH, 3), np.uint8)
    image[:, :, WIDTH // 2 :] = 200
    fill = 9.0
    options = NOTHING._replace(flip=0.3, erase=0.6, erase_area=(0.02, 0.1), erase_fill=(fill,) * 3)
    x = run(image, options)[..., 0]
    erased = (x == fill).any(axis=(1, 2))
    # A box of a tenth of the image never covers more than half of the column beside the border.
    flipped = np.median(x[:, :, 0], axis=1) > 0
    assert binomtest(int(flipped.sum()), num, 0.3).pvalue > LEAST_P_VALUE
    assert binomtest(int(erased.sum()), num, 0.6).pvalue > LEAST_P_VALUE
    assert abs(np.corrcoef(flipped, erased)[0, 1]) < 5 / np.sqrt(num)


def test_crop_and_erased_box_are_independent():
    """Both out of the same ranges: if they shared a key they would be the same box."""
    num = 8 * BATCH
    area, aspect = (0.1, 0.4), (1.0, 3.0)
    options = NOTHING._replace(crop_area=area, crop_aspect=aspect, erase=1.0, erase_area=area, erase_aspect=aspect)
    ramp = np.zeros((num, HEIGHT, WIDTH, 3), np.uint8)
    ramp[..., 0] = 4 * np.arange(HEIGHT)[:, None]
    cropped = run(ramp, options._replace(erase=0.0))
    erased = erased_boxes(run(ramp, options), cropped)
    rows = pixels(cropped)[:, :, 0, 0]
    tops, heights = rows[:, 0], rows[:, 33] - rows[:, 30]
    correlation = np.corrcoef([tops, heights, erased[:, 0], erased[:, 2]])[:2, 2:]
    assert np.abs(correlation).max() < 5 / np.sqrt(num)


@pytest.mark.parametrize("fill", [FILL, None])
def test_an_example_does_not_depend_on_the_batch_around_it(fill):
    options = PAPER_CROP._replace(flip=0.5, erase=0.5, erase_fill=fill)
    keys, image = jax.random.split(jax.random.key(0), BATCH), random_images()
    whole = np.asarray(augment_batch(keys, image, options))
    order = np.random.default_rng(1).permutation(BATCH)
    np.testing.assert_allclose(augment_batch(keys[order], image[order], options), whole[order], atol=1e-5)
    others = np.where(np.arange(BATCH)[:, None, None, None] == 5, image, 255 - image)
    np.testing.assert_allclose(augment_batch(keys, others, options)[5], whole[5], atol=1e-5)


def test_other_keys_give_another_result():
    options = PAPER_CROP._replace(flip=0.5, erase=0.5)
    image = np.broadcast_to(random_images(1), (BATCH, HEIGHT, WIDTH, 3))
    x = np.concatenate([run(image, options), run(image, options, seed=1)])
    # Not quite all: one image in 600 stays whole, and half of these are not erased.
    assert len(np.unique(x.reshape(2 * BATCH, -1), axis=0)) > 0.95 * 2 * BATCH


def test_what_never_erases_is_what_erases_with_chance_0():
    image = np.random.default_rng(0).integers(0, 256, (BATCH, HEIGHT, WIDTH, 3), dtype=np.uint8)
    never, chance_0 = (run(image, PAPER_CROP._replace(flip=0.5, erase=erase)) for erase in (None, 0.0))
    np.testing.assert_array_equal(never, chance_0)


JITTER = JitterStrength(brightness=0.3, contrast=0.4, saturation=0.5, hue=0.2)
jitter_image = jax.jit(jitter)


def sampled_factors(key: jax.Array) -> list[float]:
    """Brightness, contrast and saturation as factors, and hue in turns, that `jitter` samples for a key."""
    _, *keys = jax.random.split(key, 5)
    drawn = [float(jax.random.uniform(key, (), minval=-s, maxval=s)) for key, s in zip(keys, JITTER)]
    return [1 + drawn[0], 1 + drawn[1], 1 + drawn[2], drawn[3]]


def test_jitter_is_brightness_contrast_saturation_and_hue_in_this_order():
    """Step by step in float64, by torchvision's formulas; grey levels in the middle, so that nothing is clipped."""
    image = np.random.default_rng(0).uniform(100, 130, (6, 4, 3))
    luma = np.array([0.299, 0.587, 0.114])
    yiq = np.array([luma, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    for seed in range(5):
        key = jax.random.key(seed)
        brightness, contrast, saturation, hue = sampled_factors(key)
        x = image * brightness
        x = contrast * x + (1 - contrast) * (x @ luma).mean()
        x = saturation * x + (1 - saturation) * (x @ luma)[..., None]
        cos, sin = np.cos(2 * np.pi * hue), np.sin(2 * np.pi * hue)
        turned = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ yiq
        x = x @ (np.linalg.inv(yiq) @ turned).T
        np.testing.assert_allclose(jitter_image(key, jnp.float32(image), 1.0, JITTER), x, rtol=1e-4)


def test_hue_keeps_luma_and_grey_and_turns_back():
    image = np.float32(np.random.default_rng(1).uniform(0, 255, (5, 3)))
    for hue in (0.1, 1 / 3, -0.4):
        turned = image @ np.asarray(jitter_matrix(1.0, hue)).T
        np.testing.assert_allclose(turned @ [0.299, 0.587, 0.114], image @ [0.299, 0.587, 0.114], rtol=1e-4)
        np.testing.assert_allclose(turned @ np.asarray(jitter_matrix(1.0, -hue)).T, image, atol=1e-2)
    np.testing.assert_allclose(np.asarray(jitter_matrix(0.3, 0.2)) @ np.full(3, 77.0), np.full(3, 77.0), rtol=1e-5)
    # A third of a turn makes red blue, and the same the other way makes it green.
    for hue, channel in ((1 / 3, 2), (-1 / 3, 1)):
        assert np.argmax(np.asarray(jitter_matrix(1.0, hue)) @ np.float32([255, 0, 0])) == channel


def test_jitter_changes_a_share_of_the_images_and_no_others():
    image = random_images(BATCH)
    plain, options = run(image, NOTHING), NOTHING._replace(jitter=0.4, jitter_strength=JITTER)
    changed = np.abs(run(image, options) - plain).max((1, 2, 3)) > 1e-3
    assert binomtest(int(changed.sum()), BATCH, 0.4).pvalue > LEAST_P_VALUE
    np.testing.assert_allclose(run(image, options)[~changed], plain[~changed], atol=1e-4)
    brightest = run(np.full((BATCH, HEIGHT, WIDTH, 3), 255, np.uint8), options)
    assert brightest.max() < (1 - MEAN.min()) / STD.min()  # clipped at 255
