"""A colour-histogram embedding, without training: a baseline for trained networks."""

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

STRIPES = 6  # horizontal stripes: head, chest, belly, thighs, shins, feet, as in Gray and Tao (ECCV 2008)
BINS = (8, 8, 4)  # of hue, saturation and value, counted jointly
CENTRE_WIDTH = (
    0.25  # sd of the weight of a column around the middle, as a share of the width: most background lies outside
)
BLOCK = 256  # images that are counted at once


def embed(image: np.ndarray) -> Float32[np.ndarray, "N D"]:
    """Joint HSV histograms of horizontal stripes, square-rooted, of images uint8 [N, H, W, 3], RGB.

    Pixels are weighted by a Gaussian of their column, and every stripe's histogram sums to the same. The square root
    makes the inner product of two embeddings the mean Bhattacharyya coefficient of their stripes (1 for equal
    pictures), so the Euclidean distance is sqrt(2) times the root mean square of the stripes' Hellinger distances.
    Returns [N, STRIPES * prod(BINS)], every row of length 1. Raises ValueError for another array, or fewer rows than
    stripes.
    """
    if image.dtype != np.uint8 or image.ndim != 4 or image.shape[-1] != 3 or image.shape[1] < STRIPES:
        raise ValueError(
            f"histogram.embed: got {image.dtype} {list(image.shape)}; pass uint8 [N, H, W, 3] with H >= {STRIPES}"
        )
    blocks = [_embed_block(image[start : start + BLOCK]) for start in range(0, len(image), BLOCK)]
    return np.concatenate([np.zeros((0, STRIPES * int(np.prod(BINS))), np.float32), *blocks])


def _embed_block(image: UInt8[np.ndarray, "N H W 3"]) -> Float32[np.ndarray, "N D"]:
    count, height, width, _ = image.shape
    # H, S and V in 0..255 each; one call for all images, stacked one below the other.
    hsv = cv2.cvtColor(np.ascontiguousarray(image).reshape(count * height, width, 3), cv2.COLOR_RGB2HSV_FULL)
    hue, saturation, value = (hsv[..., channel].astype(np.int32) * BINS[channel] // 256 for channel in range(3))
    colour = (hue * BINS[1] + saturation) * BINS[2] + value
    stripe = np.arange(height) * STRIPES // height
    cell = np.arange(count)[:, None] * STRIPES + stripe[None]
    colours = int(np.prod(BINS))
    slot = cell.reshape(-1, 1) * colours + colour
    column = (np.arange(width) + 0.5) / width - 0.5
    weight = np.broadcast_to(np.exp(-0.5 * (column / CENTRE_WIDTH) ** 2), slot.shape)
    counts = np.bincount(slot.ravel(), weight.ravel(), count * STRIPES * colours).reshape(count, STRIPES, colours)
    shares = counts / counts.sum(axis=2, keepdims=True) / STRIPES
    return np.sqrt(shares).reshape(count, -1).astype(np.float32)
