"""Augmentation on the device (paper section 4.3): crop, flip, normalise, erase, with a key per example."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Of ImageNet's training set, as torchvision's weights expect; pixels in [0, 1], RGB.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# Normalised values of erased pixels; None: random pixels. The constant is the release's.
ERASE_FILLS = {"random": None, "constant": (0.4914, 0.4822, 0.4465)}
# Attempts to sample a rectangle that fits, as in the release for the crop; all fail with a probability of about 1e-3.
ATTEMPTS = 10


# From RGB to YIQ, with the luma of ITU-R BT.601 (the grey of torchvision and OpenCV); grey has no chroma (I and Q).
YIQ = np.array([(0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
_RGB = np.linalg.inv(YIQ)
# Of an RGB colour: its luma as grey, its chroma, and its chroma turned by a right angle.
LUMA_PART, CHROMA_PART, TURNED_PART = (
    np.float32(part)
    for part in (_RGB[:, :1] @ YIQ[:1], _RGB[:, 1:] @ YIQ[1:], _RGB[:, 1:] @ [[0, -1], [1, 0]] @ YIQ[1:])
)


class JitterStrength(NamedTuple):
    """The largest changes of `jitter_matrix`: the first three are shares, hue is a share of a full turn."""

    brightness: float
    contrast: float
    saturation: float
    hue: float


class Augmentation(NamedTuple):
    """The `augment` fields of a configuration.

    `erase=None` disables erasing, and `jitter=None` colour jitter, without sampling random numbers.
    """

    crop_area: tuple[float, float]
    crop_aspect: tuple[float, float]
    flip: float
    erase: float | None
    erase_area: tuple[float, float]
    erase_aspect: tuple[float, float]
    erase_fill: tuple[float, float, float] | None
    jitter: float | None = None
    jitter_strength: JitterStrength = JitterStrength(0.0, 0.0, 0.0, 0.0)


def normalize(image: jax.Array) -> jax.Array:
    """Converts uint8 [..., 3] (or float in 0..255) to float32 with mean 0 and deviation 1 on ImageNet."""
    mean, std = jnp.asarray(MEAN, jnp.float32), jnp.asarray(STD, jnp.float32)
    scale, shift = 1 / (255 * std), -mean / std
    leading = (1,) * (image.ndim - 1)
    return image.astype(jnp.float32) * scale.reshape(*leading, 3) + shift.reshape(*leading, 3)


def augment(keys: jax.Array, image: jax.Array, options: Augmentation) -> jax.Array:
    """Augments and normalises a batch, uint8 [B, H, W, 3] -> float32, with `keys` [B]."""
    return jax.vmap(lambda key, x: augment_one(key, x, options))(keys, image)


def augment_one(key: jax.Array, image: jax.Array, options: Augmentation) -> jax.Array:
    """Augments one image, uint8 [H, W, 3]."""
    crop_key, flip_key, erase_key, box_key, fill_key = jax.random.split(key, 5)
    height, width, _ = image.shape
    box = draw_box(crop_key, height, width, options.crop_area, options.crop_aspect)
    flip = jax.random.bernoulli(flip_key, options.flip)
    x = crop_and_resize(image.astype(jnp.float32), box, flip)
    if options.jitter is not None:
        # A sixth key, so that the five above are those of runs from before the jitter.
        x = jitter(jax.random.fold_in(key, 5), x, options.jitter, options.jitter_strength)
    x = normalize(x)
    if options.erase is None:
        return x

    top, left, box_height, box_width = draw_box(box_key, height, width, options.erase_area, options.erase_aspect)
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    inside = (rows >= top) & (rows < top + box_height) & (columns >= left) & (columns < left + box_width)
    # Without a rectangle that fits, the box is the whole image, which must not be erased.
    whole = (box_height == height) & (box_width == width)
    erase = jax.random.bernoulli(erase_key, options.erase) & ~whole
    if options.erase_fill is None:
        fill = normalize(jax.random.uniform(fill_key, image.shape, maxval=255.0))
    else:
        fill = jnp.broadcast_to(jnp.asarray(options.erase_fill, jnp.float32)[None, None, :], image.shape)
    return jnp.where((inside & erase)[:, :, None], fill, x)


def jitter(key: jax.Array, x: jax.Array, probability: float, strength: JitterStrength) -> jax.Array:
    """Changes brightness, contrast, saturation and hue of an image, float32 [H, W, 3] in 0..255, with a probability.

    Each is sampled as by torchvision's ColorJitter: factors uniformly within 1 +- their strength, the hue within +- its
    strength. They are applied in this order, and values are clipped once, at the end. The hue rotates around the grey
    axis in YIQ, which keeps the luma (torchvision: in HSV), so that all four are one matrix and one shift.
    """
    apply_key, *keys = jax.random.split(key, 5)
    brightness, contrast, saturation, hue = (
        jax.random.uniform(key, (), minval=-bound, maxval=bound) for key, bound in zip(keys, strength, strict=True)
    )
    apply = jax.random.bernoulli(apply_key, probability)
    brightness, contrast, saturation = (1 + jnp.where(apply, each, 0) for each in (brightness, contrast, saturation))
    matrix = jitter_matrix(saturation, jnp.where(apply, hue, 0))
    highest = jax.lax.Precision.HIGHEST
    luma = jnp.einsum("c,c->", jnp.asarray(YIQ[0], jnp.float32), x.mean((0, 1)), precision=highest)
    # Contrast mixes with the mean luma after the change of brightness; the matrix keeps grey.
    x = brightness * (contrast * x + (1 - contrast) * luma)
    return jnp.clip(jnp.einsum("hwc,dc->hwd", x, matrix, precision=highest), 0, 255)


def jitter_matrix(saturation: jax.Array, hue: jax.Array) -> jax.Array:
    """Returns a matrix [3, 3] that scales the chroma of an RGB colour by `saturation` and rotates it by `hue` turns.

    It keeps the luma (ITU-R BT.601), and grey.
    """
    angle = 2 * jnp.pi * hue
    return LUMA_PART + saturation * (jnp.cos(angle) * CHROMA_PART + jnp.sin(angle) * TURNED_PART)


def draw_box(
    key: jax.Array, height: int, width: int, area: tuple[float, float], aspect: tuple[float, float]
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Samples a rectangle inside an image: (top, left, height, width), int32 pixels.

    Its share of the image's area and its height/width are uniform in `area` and `aspect`. It is sampled again while it
    does not fit; after ATTEMPTS attempts it is the whole image.
    """
    area_key, aspect_key, top_key, left_key = jax.random.split(key, 4)
    areas = jax.random.uniform(area_key, (ATTEMPTS,), minval=area[0], maxval=area[1]) * (height * width)
    aspects = jax.random.uniform(aspect_key, (ATTEMPTS,), minval=aspect[0], maxval=aspect[1])
    heights, widths = jnp.round(jnp.sqrt(areas * aspects)), jnp.round(jnp.sqrt(areas / aspects))
    fits = (heights <= height) & (widths <= width) & (heights >= 1) & (widths >= 1)
    first, any_fits = jnp.argmax(fits), jnp.any(fits)
    box_height = jnp.where(any_fits, heights[first], height).astype(jnp.int32)
    box_width = jnp.where(any_fits, widths[first], width).astype(jnp.int32)
    top = jax.random.randint(top_key, (), 0, height - box_height + 1)
    left = jax.random.randint(left_key, (), 0, width - box_width + 1)
    return top, left, box_height, box_width


def crop_and_resize(x: jax.Array, box: tuple[jax.Array, ...], flip: jax.Array) -> jax.Array:
    """Crops float [H, W, 3] to `box`, resizes it to H x W (bilinear, half-pixel centres), and mirrors it if `flip`.

    Computed as two small matrix products, because gathers are slow on every accelerator. A crop is never larger than
    the image, so that bilinear weights need no low-pass filter.
    """
    top, left, box_height, box_width = box
    height, width, _ = x.shape
    rows = bilinear_weights(top, box_height, height)
    columns = bilinear_weights(left, box_width, width)
    columns = jnp.where(flip, columns[::-1], columns)
    highest = jax.lax.Precision.HIGHEST
    x = jnp.einsum("ah,hwc->awc", rows, x, precision=highest)
    return jnp.einsum("bw,awc->abc", columns, x, precision=highest)


def bilinear_weights(start: jax.Array, length: jax.Array, size: int) -> jax.Array:
    """Returns weights [size, size] that stretch the pixels start .. start+length-1 over `size` pixels."""
    position = (jnp.arange(size) + 0.5) * length / size - 0.5
    position = start + jnp.clip(position, 0, length - 1)
    return jnp.maximum(0.0, 1.0 - jnp.abs(position[:, None] - jnp.arange(size)[None, :]))


def halve(x: jax.Array) -> jax.Array:
    """Averages 2 x 2 pixels: float [B, H, W, 3] -> [B, H/2, W/2, 3]."""
    batch, height, width, channels = x.shape
    return jnp.mean(x.reshape(batch, height // 2, 2, width // 2, 2, channels), axis=(2, 4))
