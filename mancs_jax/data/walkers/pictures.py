"""Takes one picture: who stands where and how, in whose company, before which camera.

A picture depends only on (seed, identity, camera, index): asking for more identities changes no other picture.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

from mancs_jax.data.walkers import difficulty
from mancs_jax.data.walkers.cameras import CAMERAS, IMAGE_SIZE, expose
from mancs_jax.data.walkers.chance import BOX, DISTRACTOR, JUNK, PICTURE, pick
from mancs_jax.data.walkers.figure import Pose, draw_figure
from mancs_jax.data.walkers.people import Person, identity, sample_person
from mancs_jax.data.walkers.scenery import backdrop, occlude, paint_object


class Shot(NamedTuple):
    """One picture to be taken; `kind`, `pid`, `camid` and `index` decide all of it."""

    folder: str
    name: str
    kind: str  # person, junk, distractor
    pid: int  # identity; for a distractor its number
    camid: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which is not needed here
    aligned: bool  # a hand-drawn box, not a detected one


def _pose(rng: np.random.Generator, path: float) -> Pose:
    return Pose(
        heading=path + math.pi * rng.integers(2) + rng.normal(0, difficulty.HEADING_JITTER),
        phase=rng.uniform(0, 2 * math.pi),
        stride=rng.uniform(0.25, 0.5),
        swing=rng.uniform(0.2, 0.6),
        lean=rng.uniform(0.0, 0.09),
    )


def _place(
    image: np.ndarray, person: Person, pose: Pose, feet: tuple[float, float], unit: float, rng: np.random.Generator
) -> np.ndarray:
    """Puts a person and the shadow on the ground into a picture, float32 [H, W, 3]."""
    return blend(image, draw_figure(person, pose, IMAGE_SIZE, feet, unit), feet, rng)


def blend(image: np.ndarray, drawn: np.ndarray, feet: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Lays a figure, float32 [H, W, 4] of `draw_figure`, and its shadow over a picture, float32 [H, W, 3]."""
    height, width = image.shape[:2]
    cover = drawn[..., 3:] / 255
    flatten = np.array([[1, -0.45, 0.45 * feet[1]], [0, 0.16, 0.84 * feet[1]]], np.float32)
    shadow = cv2.GaussianBlur(cv2.warpAffine(drawn[..., 3], flatten, (width, height)), (0, 0), 1.5)[..., None] / 255
    # Light from the left rounds the body: brighter where the coverage rises from left to right, darker where it falls.
    soft = cv2.GaussianBlur(drawn[..., 3], (0, 0), 2.5) / 255
    relief = 1 - 0.9 * cv2.Sobel(soft, cv2.CV_32F, 1, 0, ksize=1, scale=-1)
    folds = cv2.resize(rng.normal(1, 0.08, (16, 8)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return image * (1 - 0.45 * shadow) * (1 - cover) + drawn[..., :3] * (relief * folds)[..., None]


def take(seed: int, shot: Shot) -> bytes:
    """Takes one picture and returns it as JPEG bytes."""
    stream = {"person": PICTURE, "junk": JUNK, "distractor": DISTRACTOR}[shot.kind]
    rng = np.random.default_rng([seed, stream, shot.pid, shot.camid, shot.index])
    box = np.random.default_rng([seed, BOX, stream, shot.pid, shot.camid, shot.index])
    camera = CAMERAS[shot.camid - 1]
    image = backdrop(seed, shot.camid, rng)
    pose = _pose(rng, camera.path)
    height, width = IMAGE_SIZE
    unit, feet = 0.9 * height, np.array([0.5 * width, 0.955 * height])
    if not shot.aligned:
        unit *= math.exp(box.normal(0, difficulty.BOX_SCALE))
        feet += box.normal(0, difficulty.BOX_SHIFT, 2) * (width, height)
        if box.random() < difficulty.CUT_RATE:
            unit *= 1.25
            feet[1] += height * box.choice((0.02, 0.22))
    person = identity(seed, shot.kind == "distractor", shot.pid)
    if shot.kind == "junk":
        zoom = box.uniform(1.6, 2.6)
        unit *= zoom
        feet = np.array([width * box.uniform(0.0, 1.0), height * box.uniform(0.5, zoom)])
    empty = shot.kind == "distractor" and box.random() < 0.4
    if rng.random() < difficulty.COMPANY_RATE:
        neighbour = (feet[0] + pick(rng, (-1, 1)) * rng.uniform(20, 34), feet[1] - rng.uniform(-3, 14))
        image = _place(image, sample_person(rng), _pose(rng, camera.path), neighbour, unit * 0.95, rng)
    if empty:
        paint_object(
            image, int(box.integers(10, width - 10)), int(box.integers(80, height + 8)), box, box.uniform(1, 2.2)
        )
    else:
        image = np.ascontiguousarray(_place(image, person, pose, tuple(feet), unit, rng))
    if rng.random() < difficulty.OCCLUSION_RATE:
        occlude(image, rng)
    return expose(image, camera, rng)
