"""The six cameras, and what each does to light, colour, detail and file size of a picture."""

import math
from typing import NamedTuple

import cv2
import numpy as np

from mancs_jax.data.walkers import difficulty
from mancs_jax.data.walkers.colours import Colour

IMAGE_SIZE = (128, 64)  # height, width of every picture


class Camera(NamedTuple):
    """The effects of a camera on every picture it takes."""

    cast: tuple[float, float, float]  # gain of R, G, B
    gain: float  # light
    gamma: float  # above 1 darkens the middle tones
    lift: float  # haze: share of white mixed in
    saturation: float  # 1 keeps the colours, 0 is grey
    path: float  # radians, the direction most people walk in: 0 towards the camera, pi/2 across it
    detail: float  # resolution that is left: people far away are small
    blur: float  # pixels, sd
    noise: float  # sd in grey levels
    quality: int  # JPEG
    ground: Colour
    wall: Colour
    style: str  # tiles, crossing, shop, bricks, park, subway


CAMERAS = (
    Camera(
        (1.02, 1.00, 0.98), 1.05, 0.95, 0.00, 1.00, 0.2, 1.00, 0.3, 4, 88, (150, 146, 140), (120, 140, 105), "tiles"
    ),
    Camera(
        (1.28, 0.98, 0.62), 0.95, 1.05, 0.02, 0.95, 1.4, 0.75, 0.4, 6, 80, (105, 103, 104), (150, 150, 155), "crossing"
    ),
    Camera((0.68, 0.92, 1.30), 0.72, 1.15, 0.00, 0.90, 2.9, 0.90, 0.4, 8, 80, (140, 130, 120), (70, 70, 80), "shop"),
    Camera((0.85, 1.15, 0.80), 0.85, 0.90, 0.08, 0.75, 1.8, 0.65, 0.5, 6, 72, (150, 140, 130), (150, 85, 65), "bricks"),
    Camera((1.12, 1.05, 0.95), 1.30, 0.75, 0.16, 0.70, 0.6, 0.80, 0.6, 5, 78, (175, 165, 140), (85, 120, 60), "park"),
    Camera((1.05, 0.80, 1.10), 0.60, 1.25, 0.03, 0.80, 2.3, 0.60, 0.5, 11, 70, (95, 92, 98), (170, 175, 170), "subway"),
)


def expose(
    image: np.ndarray, camera: Camera, rng: np.random.Generator, noise: np.random.Generator | None = None
) -> bytes:
    """Light, cast, optics, sensor and compression: float32 [H, W, 3] in 0..255 to JPEG bytes.

    `rng` decides light and optics, `noise` the noise of the sensor; by default it is `rng`.
    """
    height, width = image.shape[:2]
    gain = camera.gain**difficulty.LIGHT_STRENGTH * math.exp(rng.normal(0, difficulty.LIGHT_JITTER))
    tint = np.array(camera.cast) ** difficulty.CAST_STRENGTH * np.exp(rng.normal(0, difficulty.TINT_JITTER, 3))
    slope = np.linspace(-0.18, 0.18, width) * rng.uniform(-1, 1)  # light falls off to one side
    detail = np.clip(camera.detail**difficulty.DETAIL_STRENGTH * rng.uniform(0.85, 1.1), 0.3, 1.0)
    x = np.clip(image, 0, 255) / np.float32(255)
    grey = x @ np.array([0.3, 0.59, 0.11], np.float32)
    x = grey[..., None] + camera.saturation**difficulty.CAST_STRENGTH * (x - grey[..., None])
    light = (gain * tint * (1 + slope)[:, None]).astype(np.float32)
    x = cv2.pow(np.clip(x * light, 0, 1), camera.gamma**difficulty.LIGHT_STRENGTH)
    lift = difficulty.LIGHT_STRENGTH * camera.lift
    x = lift + (1 - lift) * x
    small = cv2.resize(x, (int(width * detail), int(height * detail)), interpolation=cv2.INTER_AREA)
    x = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    x = cv2.GaussianBlur(x, (0, 0), camera.blur + rng.uniform(0, 0.4))
    x = x * 255 + (noise or rng).standard_normal((height, width, 3), np.float32) * (
        difficulty.NOISE_STRENGTH * camera.noise
    )
    bgr = np.clip(x, 0, 255).astype(np.uint8)[..., ::-1]
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, camera.quality])
    if not done:
        raise RuntimeError("OpenCV could not encode a picture as JPEG; is it built with libjpeg?")
    return data.tobytes()
