"""The surroundings of people: the place each camera looks at, and things that stand in it or in front of a person."""

import functools

import cv2
import numpy as np

from mancs_jax.data.walkers.cameras import CAMERAS, IMAGE_SIZE, Camera
from mancs_jax.data.walkers.chance import SCENE, pick
from mancs_jax.data.walkers.colours import GARMENTS, dye, shade

SCENE_SIZE = (176, 720)  # height, width in pixels of the strip behind one camera's pictures
HORIZON = 66  # pixel row where the ground begins


@functools.lru_cache(maxsize=32)
def scene(seed: int, camid: int) -> np.ndarray:
    """The place one camera looks at: float32 [H, W, 3], 0..255, before the camera's own light and cast."""
    camera, rng = CAMERAS[camid - 1], np.random.default_rng([seed, SCENE, camid])
    height, width = SCENE_SIZE
    image = np.empty((height, width, 3), np.uint8)
    image[:HORIZON], image[HORIZON:] = camera.wall, camera.ground
    _paint_ground(image, camera)
    _paint_wall(image, camera, rng)
    for x in rng.integers(0, width, 9):
        paint_object(image, int(x), int(rng.integers(HORIZON + 2, HORIZON + 26)), rng)
    grain = cv2.resize(
        rng.normal(0, 1, (height // 8, width // 8)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    depth = np.interp(np.arange(height), (0, HORIZON, HORIZON + 1, height), (0.9, 0.78, 0.86, 1.08))
    fine = rng.normal(0, 4, (height, width, 1))
    # Stretches of other ground and other light along the strip, so that no single colour stands for a camera.
    knots = np.linspace(0, width, 13)
    tone = np.exp(rng.normal(0, 0.22, (13, 1)) + rng.normal(0, 0.10, (13, 3)))
    tones = np.stack([np.interp(np.arange(width), knots, tone[:, channel]) for channel in range(3)], axis=1)
    scene = image * tones * depth[:, None, None] * (1 + 0.07 * grain[..., None]) + fine
    return np.clip(scene, 0, 255).astype(np.float32)


def _paint_ground(image: np.ndarray, camera: Camera) -> None:
    height, width = SCENE_SIZE
    line = shade(camera.ground, 0.82)
    rows = HORIZON + (np.linspace(0, 1, 11) ** 1.7 * (height - HORIZON)).astype(int)
    if camera.style == "park":
        cv2.rectangle(image, (0, HORIZON), (width, HORIZON + 22), (110, 140, 72), -1)
    elif camera.style == "crossing":
        for x in range(0, width, 52):
            corners = np.array([(x, HORIZON + 34), (x + 24, HORIZON + 34), (x + 18, height), (x - 12, height)])
            cv2.fillPoly(image, [corners], (205, 205, 200))
        cv2.rectangle(image, (0, HORIZON), (width, HORIZON + 9), (165, 162, 158), -1)
    else:
        for y in rows:
            cv2.line(image, (0, int(y)), (width, int(y)), line, 1, cv2.LINE_AA)
        for x in range(-width, 2 * width, 34):
            cv2.line(image, (x, HORIZON), (x + (x - width // 2) // 2, height), line, 1, cv2.LINE_AA)


def _paint_wall(image: np.ndarray, camera: Camera, rng: np.random.Generator) -> None:
    width, wall, style = SCENE_SIZE[1], camera.wall, camera.style
    if style in ("tiles", "park"):
        cv2.rectangle(image, (0, 0), (width, 26), (205, 218, 228), -1)
        for _ in range(130):
            centre = (int(rng.integers(width)), int(rng.integers(18, HORIZON - 4)))
            leaf = shade(wall, float(rng.uniform(0.6, 1.25)))
            cv2.ellipse(
                image, centre, (int(rng.integers(8, 22)), int(rng.integers(6, 16))), 0, 0, 360, leaf, -1, cv2.LINE_AA
            )
        if style == "tiles":
            cv2.rectangle(image, (0, HORIZON - 12), (width, HORIZON), (120, 112, 100), -1)
    elif style == "bricks":
        for row, y in enumerate(range(0, HORIZON, 6)):
            for x in range(-8 * (row % 2), width, 16):
                brick = shade(wall, float(rng.uniform(0.8, 1.2)))
                cv2.rectangle(image, (x, y), (x + 14, y + 4), brick, -1)
    elif style == "subway":
        for y in range(0, HORIZON, 11):
            cv2.line(image, (0, y), (width, y), shade(wall, 0.85), 1)
        for x in range(0, width, 15):
            cv2.line(image, (x, 0), (x, HORIZON), shade(wall, 0.85), 1)
        cv2.rectangle(image, (0, 40), (width, 48), (40, 90, 130), -1)
        for x in range(30, width, 140):
            cv2.rectangle(image, (x, 4), (x + 50, 9), (255, 255, 245), -1)
    else:
        for x in range(0, width, 60):
            front = shade(wall, float(rng.uniform(0.8, 1.25)))
            cv2.rectangle(image, (x, 0), (x + 58, HORIZON), front, -1)
            glass = (40, 48, 56) if style == "shop" else (110, 130, 150)
            cv2.rectangle(image, (x + 6, 12), (x + 50, HORIZON - (6 if style == "shop" else 26)), glass, -1)
            if style == "shop":
                sign = pick(rng, GARMENTS)
                cv2.rectangle(image, (x + 2, 0), (x + 55, 9), sign, -1)
                cv2.line(image, (x + 28, 12), (x + 28, HORIZON - 6), (90, 90, 96), 1)


def paint_object(image: np.ndarray, x: int, y: int, rng: np.random.Generator, size: float = 1.0) -> None:
    """A bin, bicycle, lamp post or bench that stands at pixel (x, y)."""
    colour, s = dye(rng, pick(rng, GARMENTS)), size
    kind = pick(rng, ("bin", "bicycle", "post", "bench"))

    def at(dx: float, dy: float) -> tuple[int, int]:
        return int(x + s * dx), int(y + s * dy)

    if kind == "bin":
        cv2.rectangle(image, at(-9, -26), at(9, 0), colour, -1)
        cv2.rectangle(image, at(-10, -29), at(10, -25), shade(colour, 0.6), -1)
    elif kind == "bicycle":
        for wheel in (-15, 15):
            cv2.circle(image, at(wheel, -11), int(11 * s), (45, 45, 45), max(1, int(1.6 * s)), cv2.LINE_AA)
        frame = [at(-15, -11), at(-6, -26), at(10, -26), at(0, -11), at(-6, -26)]
        cv2.polylines(image, [np.array(frame)], False, colour, max(1, int(2 * s)), cv2.LINE_AA)
        cv2.line(image, at(15, -11), at(9, -32), colour, max(1, int(2 * s)), cv2.LINE_AA)
    elif kind == "post":
        cv2.rectangle(image, at(-2, -150), at(2, 0), (96, 98, 100), -1)
    else:
        for plank in (-22, -16, -10):
            cv2.rectangle(image, at(-24, plank - 2), at(24, plank + 1), (130, 92, 58), -1)
        for leg in (-20, 20):
            cv2.rectangle(image, at(leg - 1, -10), at(leg + 1, 0), (60, 60, 60), -1)


def backdrop(seed: int, camid: int, rng: np.random.Generator) -> np.ndarray:
    """A part of the camera's scene, float32 [H, W, 3]."""
    height, width = IMAGE_SIZE
    zoom = rng.uniform(0.95, 1.25)
    h, w = int(height * zoom), int(width * zoom)
    y, x = rng.integers(0, SCENE_SIZE[0] - h + 1), rng.integers(0, SCENE_SIZE[1] - w + 1)
    return cv2.resize(scene(seed, camid)[y : y + h, x : x + w], (width, height), interpolation=cv2.INTER_AREA)


def occlude(image: np.ndarray, rng: np.random.Generator) -> None:
    """Something stands between the camera and the person; paints into the picture."""
    height, width = IMAGE_SIZE
    kind = pick(rng, ("pole", "object", "wall"), (0.4, 0.4, 0.2))
    if kind == "pole":
        x, thick = int(rng.integers(4, width - 8)), int(rng.integers(3, 8))
        cv2.rectangle(image, (x, 0), (x + thick, height), dye(rng, (110, 110, 112)), -1)
        cv2.line(image, (x + 1, 0), (x + 1, height), (170, 170, 172), 1)
    elif kind == "object":
        paint_object(image, int(rng.integers(8, width - 8)), int(rng.integers(height - 6, height + 10)), rng, 1.5)
    else:
        top = int(rng.integers(int(0.7 * height), int(0.86 * height)))
        colour = dye(rng, pick(rng, GARMENTS))
        cv2.rectangle(image, (0, top), (width, height), colour, -1)
        cv2.line(image, (0, top), (width, top), shade(colour, 1.3), 2)
