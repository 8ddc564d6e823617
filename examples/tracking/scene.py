"""A scene under one camera: walkers who cross and hide each other, their true tracks, and the boxes of a detector.

Nobody in a scene is in the data set, whatever the seed of either.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from mot import Tracks, overlaps, write_mot
from walks import WALK, Walk, body_height, walks

from mancs_jax.common.atomic_write import write_bytes
from mancs_jax.data.walkers.cameras import CAMERAS, expose
from mancs_jax.data.walkers.colours import GARMENTS, Colour, dye, shade
from mancs_jax.data.walkers.figure import Pose, draw_figure
from mancs_jax.data.walkers.people import Person, sample_person
from mancs_jax.data.walkers.pictures import blend
from mancs_jax.data.walkers.scenery import HORIZON, SCENE_SIZE, scene

FRAME_SIZE = (288, 960)  # height, width in pixels
WINDOW = (256, 192)  # height, width of the part of a frame that one walker is drawn in
COLUMN_COLOURS = (GARMENTS[3], GARMENTS[5])  # of the things to walk behind
COLUMN_WIDTH, COLUMN_DEPTH = 0.2, 0.6  # as in `walks`
MIN_INSIDE = 0.3  # share of a walker inside the frame, from which he or she has a true box

# The detector.
MISS_RATE = 0.04  # of a walker in full view
MIN_SEEN = 0.25  # share in view, up to which nobody is detected; from FULL_VIEW on only MISS_RATE counts
FULL_VIEW = 0.6
SHIFT, SCALE = 0.02, 0.04  # sd of a box's place, in its sides, and of the log of its sides
FALSE_RATE = 0.1  # boxes a frame with nobody in them


class Column(NamedTuple):
    """A thing to walk behind."""

    x: float  # of its middle, in frame heights
    colour: Colour


class Frame(NamedTuple):
    """One picture of a scene."""

    jpeg: bytes
    number: np.ndarray  # int64 [N], of the walkers in it, from 1
    box: np.ndarray  # float64 [N, 4], x1, y1, x2, y2 in pixels of each walker's whole body, hidden or not
    seen: np.ndarray  # float64 [N], share of the body in view


def render_scene(seed: int = 0, num_frames: int = 150, num_people: int = 10) -> Iterator[Frame]:
    """Renders a scene, one frame at a time, ten a second.

    Args:
      seed: decides everything; equal seeds give equal bytes (with equal versions of NumPy and OpenCV).
      num_frames: frames, at least 1.
      num_people: walkers, at least 1.

    Raises:
      ValueError: a number is below 1.
    """
    for name, count in (("num_frames", num_frames), ("num_people", num_people)):
        if count < 1:
            raise ValueError(f"scene: {name} is {count}; it has to be at least 1")
    # NumPy pads a seed with zeros, so these are the numbers of person 0 below, too. The scored scenes have them.
    rng = np.random.default_rng([seed, WALK])
    camid = int(rng.integers(1, len(CAMERAS) + 1))
    height, width = FRAME_SIZE
    across = SCENE_SIZE[0] * width // height
    left = int(rng.integers(0, SCENE_SIZE[1] - across + 1))
    ground = cv2.resize(scene(seed, camid)[:, left : left + across], (width, height), interpolation=cv2.INTER_LINEAR)
    columns = [Column(rng.uniform(0.15, 0.85) * width / height, dye(rng, colour)) for colour in COLUMN_COLOURS]
    people = [sample_person(np.random.default_rng([seed, WALK, 0, number])) for number in range(num_people)]
    ways = walks(seed, num_people, num_frames, width / height)
    for frame in range(num_frames):
        image, number, box, seen = _compose(ground, columns, people, ways, frame, seed)
        # The same light in every frame, and noise of its own.
        light, noise = np.random.default_rng([seed, WALK, 2]), np.random.default_rng([seed, WALK, 3, frame])
        yield Frame(expose(image, CAMERAS[camid - 1], light, noise), number, box, seen)


def write_scene(folder: str | Path, seed: int = 0, num_frames: int = 150, num_people: int = 10) -> None:
    """Writes frames/000001.jpg ..., det.txt and gt.txt below `folder`; arguments and errors as for `render_scene`."""
    folder, truth, detected = Path(folder), [], []
    for frame, picture in enumerate(render_scene(seed, num_frames, num_people), start=1):
        write_bytes(folder / "frames" / f"{frame:06d}.jpg", picture.jpeg)
        frames = np.full(len(picture.number), frame)
        truth.append(Tracks(frames, picture.number, picture.box, np.ones(len(frames))))
        detected.append(detect(picture, frame, np.random.default_rng([seed, WALK, 4, frame])))
    write_mot(folder / "gt.txt", _joined(truth))
    write_mot(folder / "det.txt", _joined(detected))


def detect(picture: Frame, frame: int, rng: np.random.Generator) -> Tracks:
    """Returns boxes as a detector gives them: shifted, missed where somebody is hidden, sometimes of nobody."""
    share = np.clip((picture.seen - MIN_SEEN) / (FULL_VIEW - MIN_SEEN), 0, 1)
    is_found = rng.random(len(share)) < (1 - MISS_RATE) * share
    box = picture.box + rng.normal(0, SHIFT, picture.box.shape) * np.tile(_sides(picture.box), 2)
    middle, sides = (box[:, :2] + box[:, 2:]) / 2, _sides(box) * np.exp(rng.normal(0, SCALE, (len(box), 2)))
    box = np.concatenate([middle - sides / 2, middle + sides / 2], axis=1)[is_found]
    confidence = np.clip(0.4 + 0.6 * share + rng.normal(0, 0.05, len(share)), 0.05, 1)[is_found]
    height, width = FRAME_SIZE
    for _ in range(rng.poisson(FALSE_RATE)):
        tall = rng.uniform(0.4, 0.6) * height
        x, y = rng.uniform(0, width - 0.4 * tall), rng.uniform(0, height - tall)
        false = np.array([[x, y, x + 0.4 * tall, y + tall]])
        if overlaps(false, picture.box).max(initial=0) < 0.3:
            box, confidence = np.concatenate([box, false]), np.append(confidence, rng.uniform(0.3, 0.6))
    return Tracks(np.full(len(box), frame), np.full(len(box), -1), box, confidence)


def _compose(
    ground: np.ndarray, columns: Sequence[Column], people: Sequence[Person], ways: Sequence[Walk], frame: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(float32 [H, W, 3], number, box, seen) of one frame; from far to near, so that the near hide the far."""
    tall, wide = WINDOW
    image = cv2.copyMakeBorder(ground, tall, tall, wide, wide, cv2.BORDER_REPLICATE)  # room for all windows
    owner = np.zeros(image.shape[:2], np.int64)  # whose pixel it is: 0 nobody, -1 a column, else a walker
    there = [number for number, way in enumerate(ways, 1) if way.there[frame]]
    depths = [(float(ways[number - 1].depth[frame]), number) for number in there]
    depths += [(COLUMN_DEPTH, -1 - place) for place in range(len(columns))]
    sizes, boxes = {}, {}
    for _, number in sorted(depths):
        if number < 0:
            _paint_column(image, owner, columns[-1 - number])
        else:
            way, person = ways[number - 1], people[number - 1]
            boxes[number], sizes[number] = _paint_walker(image, owner, person, way, frame, number, seed)
    inside = owner[tall:-tall, wide:-wide]
    shown = [number for number in there if _inside(boxes[number]) >= MIN_INSIDE]
    box = np.array([boxes[number] for number in shown], np.float64).reshape(-1, 4)
    seen = np.array([np.sum(inside == number) / sizes[number] for number in shown], np.float64)
    return np.ascontiguousarray(image[tall:-tall, wide:-wide]), np.array(shown, np.int64), box, seen


def _paint_walker(
    image: np.ndarray, owner: np.ndarray, person: Person, way: Walk, frame: int, number: int, seed: int
) -> tuple[np.ndarray, int]:
    """Paints a walker; returns (the box of the whole body in the frame, the number of its pixels)."""
    height, (tall, wide) = FRAME_SIZE[0], WINDOW
    depth = float(way.depth[frame])
    x, y = wide + way.x[frame] * height, tall + _row(depth)
    left, top = math.floor(x) - wide // 2, math.floor(y) - tall + 40
    window = slice(top, top + tall), slice(left, left + wide)
    feet = (x - left, y - top)
    drawn = draw_figure(person, _pose(way, frame, number, seed), WINDOW, feet, float(body_height(depth)) * height)
    image[window] = blend(image[window], drawn, feet, np.random.default_rng([seed, WALK, 5, number]))
    cover = drawn[..., 3] > 127
    owner[window][cover] = number
    rows, columns = np.nonzero(cover)
    corners = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return corners + np.array([left - wide, top - tall] * 2), len(rows)


def _row(depth: float) -> float:
    """Row of the frame in which the ground is at a depth."""
    horizon = HORIZON / SCENE_SIZE[0]
    return FRAME_SIZE[0] * (horizon + depth * (1 - horizon))


def _pose(way: Walk, frame: int, number: int, seed: int) -> Pose:
    """One moment of a walk; the gait is the walker's own."""
    rng = np.random.default_rng([seed, WALK, 6, number])
    stride, swing, lean = rng.uniform(0.25, 0.5), rng.uniform(0.2, 0.6), rng.uniform(0, 0.09)
    walks_now = bool(way.moves[frame])
    return Pose(way.heading[frame], way.phase[frame], stride if walks_now else 0.04, swing if walks_now else 0.04, lean)


def _paint_column(image: np.ndarray, owner: np.ndarray, column: Column) -> None:
    height, (tall, wide) = FRAME_SIZE[0], WINDOW
    left, right = (int(wide + (column.x + side * COLUMN_WIDTH / 2) * height) for side in (-1, 1))
    foot = tall + int(_row(COLUMN_DEPTH))
    image[tall:foot, left:right], owner[tall:foot, left:right] = column.colour, -1
    image[tall:foot, left : left + 4] = shade(column.colour, 1.25)
    image[foot - 8 : foot, left:right] = shade(column.colour, 0.6)


def _inside(box: np.ndarray) -> float:
    """Share of a box that lies inside the frame."""
    height, width = FRAME_SIZE
    low, high = np.maximum(box[:2], 0), np.minimum(box[2:], (width, height))
    return float(np.clip(high - low, 0, None).prod() / (box[2:] - box[:2]).prod())


def _sides(box: np.ndarray) -> np.ndarray:
    """Widths and heights of boxes, [N, 2]."""
    return box[:, 2:] - box[:, :2]


def _joined(parts: list[Tracks]) -> Tracks:
    return Tracks(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))
