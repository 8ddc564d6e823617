"""Augmentation on the device (paper section 4.3): crop, flip, normalise, erase, each example with its own key."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Of ImageNet's training set, as torchvision's weights expect; pixels in [0, 1], RGB.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# Normalised values that erasing fills with; None draws random pixels. The constant is the release's.
ERASE_FILLS = {"random": None, "constant": (0.4914, 0.4822, 0.4465)}
# Draws of a rectangle before it is given up, as in the release for the crop; the chance that all miss is about 1e-3.
ATTEMPTS = 10


class Augmentation(NamedTuple):
    """The `augment` fields of a configuration. `erase=None` disables erasing; no random numbers are drawn for it."""

    crop_area: tuple[float, float]
    crop_aspect: tuple[float, float]
    flip: float
    erase: float | None
    erase_area: tuple[float, float]
    erase_aspect: tuple[float, float]
    erase_fill: tuple[float, float, float] | None


def normalize(image: jax.Array) -> jax.Array:
    """uint8 [..., 3] (or float in 0..255) -> float32, ImageNet's mean 0 and deviation 1."""
    mean, std = jnp.asarray(MEAN, jnp.float32), jnp.asarray(STD, jnp.float32)
    scale, shift = 1 / (255 * std), -mean / std
    leading = (1,) * (image.ndim - 1)
    return image.astype(jnp.float32) * scale.reshape(*leading, 3) + shift.reshape(*leading, 3)


def augment(keys: jax.Array, image: jax.Array, options: Augmentation) -> jax.Array:
    """Augments a batch.

    Args:
      keys: [B] one key an example.
      image: uint8 [B, H, W, 3].
      options: see `Augmentation`.

    Returns:
      float32 [B, H, W, 3], normalised.
    """
    return jax.vmap(lambda key, x: augment_one(key, x, options))(keys, image)


def augment_one(key: jax.Array, image: jax.Array, options: Augmentation) -> jax.Array:
    """`augment` of a single image, uint8 [H, W, 3]."""
    crop_key, flip_key, erase_key, box_key, fill_key = jax.random.split(key, 5)
    height, width, _ = image.shape
    box = draw_box(crop_key, height, width, options.crop_area, options.crop_aspect)
    flip = jax.random.bernoulli(flip_key, options.flip)
    x = normalize(crop_and_resize(image.astype(jnp.float32), box, flip))
    if options.erase is None:
        return x

    top, left, box_height, box_width = draw_box(box_key, height, width, options.erase_area, options.erase_aspect)
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    inside = (rows >= top) & (rows < top + box_height) & (columns >= left) & (columns < left + box_width)
    # No rectangle that fits means the whole image, which must not be erased.
    whole = (box_height == height) & (box_width == width)
    erase = jax.random.bernoulli(erase_key, options.erase) & ~whole
    if options.erase_fill is None:
        fill = normalize(jax.random.uniform(fill_key, image.shape, maxval=255.0))
    else:
        fill = jnp.broadcast_to(jnp.asarray(options.erase_fill, jnp.float32)[None, None, :], image.shape)
    return jnp.where((inside & erase)[:, :, None], fill, x)


def draw_box(
    key: jax.Array, height: int, width: int, area: tuple[float, float], aspect: tuple[float, float]
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """A random rectangle inside an image: (top, left, height, width), int32 pixels.

    Its share of the image's area and its height/width are uniform in `area` and `aspect`, drawn again while it does
    not fit; after ATTEMPTS draws it is the whole image.
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
    """Cuts `box` out of float [H, W, 3], resizes it to H x W (bilinear, half-pixel centres) and mirrors it if `flip`.

    Two small matrix products, since gathers are slow on every accelerator; a crop is never larger than the image, so
    plain bilinear weights need no low-pass filter.
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
    """Weights [size, size] that stretch the pixels start .. start+length-1 over `size` pixels."""
    position = (jnp.arange(size) + 0.5) * length / size - 0.5
    position = start + jnp.clip(position, 0, length - 1)
    return jnp.maximum(0.0, 1.0 - jnp.abs(position[:, None] - jnp.arange(size)[None, :]))


def halve(x: jax.Array) -> jax.Array:
    """Averages 2 x 2 pixels: float [B, H, W, 3] -> [B, H/2, W/2, 3]."""
    batch, height, width, channels = x.shape
    return jnp.mean(x.reshape(batch, height // 2, 2, width // 2, 2, channels), axis=(2, 4))
