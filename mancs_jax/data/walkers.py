"""Synthetic pedestrians in the layout and file names of Market-1501: the data set that every clone carries with it.

People (build, clothes, patterns, hair, bags) are drawn by `figure`; here is who they are, what the six cameras do to
them and which pictures a data set holds. A picture depends only on (seed, identity, camera, index): asking for more
identities changes no other picture.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mancs_jax.data.figure import Cloth, Colour, Person, Pose, draw_figure, shade

IMAGE_SIZE = (128, 64)  # height, width of every picture

# How many pictures.
TRAIN_IMAGES = 8  # pictures of a training identity, over all the cameras it visits
CAMERAS_VISITED = (3, 5)  # fewest and most cameras that see one identity
GALLERY_IMAGES = (2, 4)  # fewest and most gallery pictures of a test identity in one camera, beside its query
JUNK_PER_TEST_ID = 2  # badly cut boxes, named -1

# How hard it is: 0 switches a difficulty off. Only PATTERN_RATE works the other way: it makes people easier to tell.
CAST_STRENGTH = 0.25  # exponent on every camera's cast and saturation; at 1, as in CAMERAS, histograms fail
LIGHT_STRENGTH = 0.25  # exponent on every camera's gain and gamma, factor on its haze
LIGHT_JITTER = 0.10  # sd of the log gain from picture to picture
TINT_JITTER = 0.03  # sd of the log gain of each colour channel from picture to picture
HEADING_JITTER = 0.45  # radians, sd of the walking direction around a camera's path
BOX_SHIFT = 0.045  # sd of a detected box's offset, as a share of its size
BOX_SCALE = 0.07  # sd of the log size of a detected box
CUT_RATE = 0.10  # share of detected boxes that lose the feet or the head
OCCLUSION_RATE = 0.16  # share of pictures with a pole, bench, bicycle or wall in front of the person
COMPANY_RATE = 0.12  # share of pictures with a part of somebody else in the box
NOISE_STRENGTH = 0.7  # factor on every camera's sensor noise
DETAIL_STRENGTH = 1.0  # exponent on every camera's loss of resolution
PATTERN_RATE = 0.62  # share of tops that carry a pattern: what tells people apart where colour fails

# First entry of the seed sequence of each kind of random choice, so that no two kinds share numbers.
_PERSON, _VISIT, _PICTURE, _BOX, _SCENE, _JUNK, _DISTRACTOR = range(7)


class Camera(NamedTuple):
    """What a camera does to every picture it takes."""

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

SKINS = ((241, 205, 180), (228, 184, 150), (205, 155, 118), (168, 118, 84), (118, 80, 58), (84, 58, 44))
HAIRS = ((28, 24, 24), (48, 34, 28), (86, 58, 38), (128, 84, 48), (196, 160, 96), (150, 148, 146), (150, 66, 36))
GARMENTS = (
    (236, 236, 232), (176, 178, 180), (112, 114, 118), (38, 38, 42), (30, 40, 84), (44, 84, 168), (120, 172, 222),
    (28, 132, 134), (44, 140, 66), (116, 122, 62), (232, 208, 60), (232, 132, 40), (206, 40, 44), (116, 30, 48),
    (236, 146, 172), (122, 66, 148), (112, 76, 48), (208, 186, 148),
)  # fmt: skip
PATTERNS = ("hoops", "pinstripes", "checks", "dots", "two_tone", "band", "logo")


def _pick(rng: np.random.Generator, choices: Sequence, weights: Sequence[float] | None = None):
    """One of the choices, by weight."""
    if weights is None:
        return choices[rng.integers(len(choices))]
    return choices[np.searchsorted(np.cumsum(weights) / np.sum(weights), rng.random(), side="right")]


def _dye(rng: np.random.Generator, colour: Colour, spread: float = 12) -> Colour:
    return tuple(int(c) for c in np.clip(np.array(colour) + rng.normal(0, spread, 3), 12, 246))


def _cloth(rng: np.random.Generator, patterns: Sequence[str], rate: float, period: tuple[float, float]) -> Cloth:
    base = _pick(rng, GARMENTS)
    others = [c for c in GARMENTS if abs(np.dot(np.subtract(c, base), (0.3, 0.59, 0.11))) > 70]
    pattern = _pick(rng, patterns) if rng.random() < rate else "plain"
    return Cloth(pattern, _dye(rng, base), _dye(rng, _pick(rng, others)), float(rng.uniform(*period)))


def sample_person(rng: np.random.Generator) -> Person:
    """Draws an identity: build, clothes, hair and what is carried."""
    top = _pick(rng, ("tank", "tshirt", "pullover", "coat", "dress"), (0.1, 0.35, 0.25, 0.16, 0.14))
    bottom = _pick(rng, ("trousers", "shorts", "skirt", "long_skirt"), (0.5, 0.25, 0.17, 0.08))
    woven = ("pinstripes", "two_tone") if bottom == "trousers" else ("checks", "dots", "pinstripes")
    return Person(
        height=float(np.clip(rng.normal(0.98, 0.05), 0.86, 1.08)),
        girth=float(np.clip(rng.normal(1.04, 0.14), 0.82, 1.4)),
        shoulders=float(rng.uniform(0.88, 1.12)),
        legs=float(rng.uniform(0.475, 0.525)),
        skin=_dye(rng, _pick(rng, SKINS), 5),
        hair=_pick(rng, ("bald", "short", "bob", "long", "ponytail", "bun"), (0.06, 0.38, 0.16, 0.2, 0.12, 0.08)),
        hair_colour=_dye(rng, _pick(rng, HAIRS, (5, 4, 3, 2, 2, 1, 1)), 6),
        top=top,
        top_cloth=_cloth(rng, PATTERNS, PATTERN_RATE, (0.05, 0.10)),
        inner=_dye(rng, _pick(rng, GARMENTS)),
        bottom=bottom,
        bottom_cloth=_cloth(rng, woven, 0.3, (0.04, 0.07)),
        fit=float(rng.uniform(0.85, 1.35)),
        shoes=_dye(rng, _pick(rng, ((40, 38, 38), (232, 232, 230), (180, 40, 40), (110, 74, 48), (60, 90, 160)))),
        hat=_pick(rng, ("", "cap", "beanie", "sunhat"), (0.76, 0.1, 0.07, 0.07)),
        hat_colour=_dye(rng, _pick(rng, GARMENTS)),
        bag=_pick(rng, ("", "backpack", "satchel", "handbag"), (0.42, 0.24, 0.18, 0.16)),
        bag_colour=_dye(rng, _pick(rng, GARMENTS)),
        side=int(_pick(rng, (-1, 1))),
    )


@functools.lru_cache(maxsize=64)
def _identity(seed: int, passer_by: bool, number: int) -> Person:
    return sample_person(np.random.default_rng([seed, _PERSON, passer_by, number]))


# ---------------------------------------------------------------------------------------------------------- scenes
_SCENE_SIZE = (176, 720)  # height, width in pixels of the strip behind one camera's pictures
_HORIZON = 66  # pixel row where the ground begins


@functools.lru_cache(maxsize=32)
def _scene(seed: int, camid: int) -> np.ndarray:
    """The place one camera looks at: float32 [H, W, 3], 0..255, before the camera's own light and cast."""
    camera, rng = CAMERAS[camid - 1], np.random.default_rng([seed, _SCENE, camid])
    height, width = _SCENE_SIZE
    image = np.empty((height, width, 3), np.uint8)
    image[:_HORIZON], image[_HORIZON:] = camera.wall, camera.ground
    _paint_ground(image, camera)
    _paint_wall(image, camera, rng)
    for x in rng.integers(0, width, 9):
        _paint_object(image, int(x), int(rng.integers(_HORIZON + 2, _HORIZON + 26)), rng)
    grain = cv2.resize(
        rng.normal(0, 1, (height // 8, width // 8)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    depth = np.interp(np.arange(height), (0, _HORIZON, _HORIZON + 1, height), (0.9, 0.78, 0.86, 1.08))
    fine = rng.normal(0, 4, (height, width, 1))
    # Stretches of other ground and other light along the strip, so that no single colour stands for a camera.
    knots = np.linspace(0, width, 13)
    tone = np.exp(rng.normal(0, 0.22, (13, 1)) + rng.normal(0, 0.10, (13, 3)))
    tones = np.stack([np.interp(np.arange(width), knots, tone[:, channel]) for channel in range(3)], axis=1)
    scene = image * tones * depth[:, None, None] * (1 + 0.07 * grain[..., None]) + fine
    return np.clip(scene, 0, 255).astype(np.float32)


def _paint_ground(image: np.ndarray, camera: Camera) -> None:
    height, width = _SCENE_SIZE
    line = shade(camera.ground, 0.82)
    rows = _HORIZON + (np.linspace(0, 1, 11) ** 1.7 * (height - _HORIZON)).astype(int)
    if camera.style == "park":
        cv2.rectangle(image, (0, _HORIZON), (width, _HORIZON + 22), (110, 140, 72), -1)
    elif camera.style == "crossing":
        for x in range(0, width, 52):
            corners = np.array([(x, _HORIZON + 34), (x + 24, _HORIZON + 34), (x + 18, height), (x - 12, height)])
            cv2.fillPoly(image, [corners], (205, 205, 200))
        cv2.rectangle(image, (0, _HORIZON), (width, _HORIZON + 9), (165, 162, 158), -1)
    else:
        for y in rows:
            cv2.line(image, (0, int(y)), (width, int(y)), line, 1, cv2.LINE_AA)
        for x in range(-width, 2 * width, 34):
            cv2.line(image, (x, _HORIZON), (x + (x - width // 2) // 2, height), line, 1, cv2.LINE_AA)


def _paint_wall(image: np.ndarray, camera: Camera, rng: np.random.Generator) -> None:
    width, wall, style = _SCENE_SIZE[1], camera.wall, camera.style
    if style in ("tiles", "park"):
        cv2.rectangle(image, (0, 0), (width, 26), (205, 218, 228), -1)
        for _ in range(130):
            centre = (int(rng.integers(width)), int(rng.integers(18, _HORIZON - 4)))
            leaf = shade(wall, float(rng.uniform(0.6, 1.25)))
            cv2.ellipse(
                image, centre, (int(rng.integers(8, 22)), int(rng.integers(6, 16))), 0, 0, 360, leaf, -1, cv2.LINE_AA
            )
        if style == "tiles":
            cv2.rectangle(image, (0, _HORIZON - 12), (width, _HORIZON), (120, 112, 100), -1)
    elif style == "bricks":
        for row, y in enumerate(range(0, _HORIZON, 6)):
            for x in range(-8 * (row % 2), width, 16):
                brick = shade(wall, float(rng.uniform(0.8, 1.2)))
                cv2.rectangle(image, (x, y), (x + 14, y + 4), brick, -1)
    elif style == "subway":
        for y in range(0, _HORIZON, 11):
            cv2.line(image, (0, y), (width, y), shade(wall, 0.85), 1)
        for x in range(0, width, 15):
            cv2.line(image, (x, 0), (x, _HORIZON), shade(wall, 0.85), 1)
        cv2.rectangle(image, (0, 40), (width, 48), (40, 90, 130), -1)
        for x in range(30, width, 140):
            cv2.rectangle(image, (x, 4), (x + 50, 9), (255, 255, 245), -1)
    else:
        for x in range(0, width, 60):
            front = shade(wall, float(rng.uniform(0.8, 1.25)))
            cv2.rectangle(image, (x, 0), (x + 58, _HORIZON), front, -1)
            glass = (40, 48, 56) if style == "shop" else (110, 130, 150)
            cv2.rectangle(image, (x + 6, 12), (x + 50, _HORIZON - (6 if style == "shop" else 26)), glass, -1)
            if style == "shop":
                sign = _pick(rng, GARMENTS)
                cv2.rectangle(image, (x + 2, 0), (x + 55, 9), sign, -1)
                cv2.line(image, (x + 28, 12), (x + 28, _HORIZON - 6), (90, 90, 96), 1)


def _paint_object(image: np.ndarray, x: int, y: int, rng: np.random.Generator, size: float = 1.0) -> None:
    """A bin, bicycle, lamp post or bench that stands at pixel (x, y)."""
    colour, s = _dye(rng, _pick(rng, GARMENTS)), size
    kind = _pick(rng, ("bin", "bicycle", "post", "bench"))

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


# -------------------------------------------------------------------------------------------------------- pictures
def _backdrop(seed: int, camid: int, rng: np.random.Generator) -> np.ndarray:
    """A part of the camera's scene, float32 [H, W, 3]."""
    height, width = IMAGE_SIZE
    zoom = rng.uniform(0.95, 1.25)
    h, w = int(height * zoom), int(width * zoom)
    y, x = rng.integers(0, _SCENE_SIZE[0] - h + 1), rng.integers(0, _SCENE_SIZE[1] - w + 1)
    return cv2.resize(_scene(seed, camid)[y : y + h, x : x + w], (width, height), interpolation=cv2.INTER_AREA)


def _pose(rng: np.random.Generator, path: float) -> Pose:
    return Pose(
        heading=path + math.pi * rng.integers(2) + rng.normal(0, HEADING_JITTER),
        phase=rng.uniform(0, 2 * math.pi),
        stride=rng.uniform(0.25, 0.5),
        swing=rng.uniform(0.2, 0.6),
        lean=rng.uniform(0.0, 0.09),
    )


def _place(
    image: np.ndarray, person: Person, pose: Pose, feet: tuple[float, float], unit: float, rng: np.random.Generator
) -> np.ndarray:
    """Puts a person and the shadow on the ground into a picture, float32 [H, W, 3]."""
    height, width = IMAGE_SIZE
    drawn = draw_figure(person, pose, IMAGE_SIZE, feet, unit)
    cover = drawn[..., 3:] / 255
    flatten = np.array([[1, -0.45, 0.45 * feet[1]], [0, 0.16, 0.84 * feet[1]]], np.float32)
    shadow = cv2.GaussianBlur(cv2.warpAffine(drawn[..., 3], flatten, (width, height)), (0, 0), 1.5)[..., None] / 255
    # Light from the left rounds the body: brighter where the coverage rises from left to right, darker where it falls.
    soft = cv2.GaussianBlur(drawn[..., 3], (0, 0), 2.5) / 255
    relief = 1 - 0.9 * cv2.Sobel(soft, cv2.CV_32F, 1, 0, ksize=1, scale=-1)
    folds = cv2.resize(rng.normal(1, 0.08, (16, 8)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return image * (1 - 0.45 * shadow) * (1 - cover) + drawn[..., :3] * (relief * folds)[..., None]


def _occlude(image: np.ndarray, rng: np.random.Generator) -> None:
    """Something stands between the camera and the person; paints into the picture."""
    height, width = IMAGE_SIZE
    kind = _pick(rng, ("pole", "object", "wall"), (0.4, 0.4, 0.2))
    if kind == "pole":
        x, thick = int(rng.integers(4, width - 8)), int(rng.integers(3, 8))
        cv2.rectangle(image, (x, 0), (x + thick, height), _dye(rng, (110, 110, 112)), -1)
        cv2.line(image, (x + 1, 0), (x + 1, height), (170, 170, 172), 1)
    elif kind == "object":
        _paint_object(image, int(rng.integers(8, width - 8)), int(rng.integers(height - 6, height + 10)), rng, 1.5)
    else:
        top = int(rng.integers(int(0.7 * height), int(0.86 * height)))
        colour = _dye(rng, _pick(rng, GARMENTS))
        cv2.rectangle(image, (0, top), (width, height), colour, -1)
        cv2.line(image, (0, top), (width, top), shade(colour, 1.3), 2)


def _expose(image: np.ndarray, camera: Camera, rng: np.random.Generator) -> bytes:
    """Light, cast, optics, sensor and compression: float32 [H, W, 3] in 0..255 to JPEG bytes."""
    height, width = IMAGE_SIZE
    gain = camera.gain**LIGHT_STRENGTH * math.exp(rng.normal(0, LIGHT_JITTER))
    tint = np.array(camera.cast) ** CAST_STRENGTH * np.exp(rng.normal(0, TINT_JITTER, 3))
    slope = np.linspace(-0.18, 0.18, width) * rng.uniform(-1, 1)  # light falls off to one side
    detail = np.clip(camera.detail**DETAIL_STRENGTH * rng.uniform(0.85, 1.1), 0.3, 1.0)
    x = np.clip(image, 0, 255) / np.float32(255)
    grey = x @ np.array([0.3, 0.59, 0.11], np.float32)
    x = grey[..., None] + camera.saturation**CAST_STRENGTH * (x - grey[..., None])
    light = (gain * tint * (1 + slope)[:, None]).astype(np.float32)
    x = cv2.pow(np.clip(x * light, 0, 1), camera.gamma**LIGHT_STRENGTH)
    lift = LIGHT_STRENGTH * camera.lift
    x = lift + (1 - lift) * x
    small = cv2.resize(x, (int(width * detail), int(height * detail)), interpolation=cv2.INTER_AREA)
    x = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    x = cv2.GaussianBlur(x, (0, 0), camera.blur + rng.uniform(0, 0.4))
    x = x * 255 + rng.standard_normal((height, width, 3), np.float32) * (NOISE_STRENGTH * camera.noise)
    bgr = np.clip(x, 0, 255).astype(np.uint8)[..., ::-1]
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, camera.quality])
    if not done:
        raise RuntimeError("OpenCV could not encode a picture as JPEG; is it built with libjpeg?")
    return data.tobytes()


class Shot(NamedTuple):
    """One picture to be taken; `kind`, `pid`, `camid` and `index` decide all of it."""

    folder: str
    name: str
    kind: str  # person, junk, distractor
    pid: int  # identity; for a distractor its number
    camid: int
    index: int
    aligned: bool  # a hand-drawn box, not a detected one


def take(seed: int, shot: Shot) -> bytes:
    """Takes one picture and returns it as JPEG bytes."""
    stream = {"person": _PICTURE, "junk": _JUNK, "distractor": _DISTRACTOR}[shot.kind]
    rng = np.random.default_rng([seed, stream, shot.pid, shot.camid, shot.index])
    box = np.random.default_rng([seed, _BOX, stream, shot.pid, shot.camid, shot.index])
    camera = CAMERAS[shot.camid - 1]
    image = _backdrop(seed, shot.camid, rng)
    pose = _pose(rng, camera.path)
    height, width = IMAGE_SIZE
    unit, feet = 0.9 * height, np.array([0.5 * width, 0.955 * height])
    if not shot.aligned:
        unit *= math.exp(box.normal(0, BOX_SCALE))
        feet += box.normal(0, BOX_SHIFT, 2) * (width, height)
        if box.random() < CUT_RATE:
            unit *= 1.25
            feet[1] += height * box.choice((0.02, 0.22))
    person = _identity(seed, shot.kind == "distractor", shot.pid)
    if shot.kind == "junk":
        zoom = box.uniform(1.6, 2.6)
        unit *= zoom
        feet = np.array([width * box.uniform(0.0, 1.0), height * box.uniform(0.5, zoom)])
    empty = shot.kind == "distractor" and box.random() < 0.4
    if rng.random() < COMPANY_RATE:
        beside = (feet[0] + _pick(rng, (-1, 1)) * rng.uniform(20, 34), feet[1] - rng.uniform(-3, 14))
        image = _place(image, sample_person(rng), _pose(rng, camera.path), beside, unit * 0.95, rng)
    if empty:
        _paint_object(
            image, int(box.integers(10, width - 10)), int(box.integers(80, height + 8)), box, box.uniform(1, 2.2)
        )
    else:
        image = np.ascontiguousarray(_place(image, person, pose, tuple(feet), unit, rng))
    if rng.random() < OCCLUSION_RATE:
        _occlude(image, rng)
    return _expose(image, camera, rng)


# -------------------------------------------------------------------------------------------------------- data set
FOLDERS = ("bounding_box_train", "query", "bounding_box_test", "gt_bbox")


def _visits(seed: int, pid: int) -> list[int]:
    """The cameras that see an identity, in order of its walk."""
    rng = np.random.default_rng([seed, _VISIT, pid])
    count = rng.integers(CAMERAS_VISITED[0], CAMERAS_VISITED[1] + 1)
    return [int(camid) for camid in rng.permutation(len(CAMERAS))[:count] + 1]


def _name(seed: int, pid: int, camid: int, index: int, box: int) -> str:
    """Market-1501's file name: pid, camera and sequence, frame, number of the box (0: drawn by hand)."""
    rng = np.random.default_rng([seed, _VISIT, pid, camid])
    sequence, start = rng.integers(1, 7), rng.integers(0, 3000)
    return f"{pid:04d}_c{camid}s{sequence}_{25 * (start + 3 * index) + 1:06d}_{box:02d}.jpg"


def shots(seed: int, train_ids: int, test_ids: int, distractors: int, folder: str) -> Iterator[Shot]:
    """Lists the pictures of one folder. Training identities have even numbers, test identities odd ones."""
    if folder == "bounding_box_train":
        for pid in range(2, 2 * train_ids + 1, 2):
            cameras = _visits(seed, pid)
            for index in range(TRAIN_IMAGES):
                camid = cameras[index % len(cameras)]
                yield Shot(folder, _name(seed, pid, camid, index, 1), "person", pid, camid, index, False)
        return
    for pid in range(1, 2 * test_ids, 2):
        for camid in _visits(seed, pid):
            count = np.random.default_rng([seed, _VISIT, pid, camid, 1]).integers(
                GALLERY_IMAGES[0], GALLERY_IMAGES[1] + 1
            )
            # Index 0 is the query; a query and everything in gt_bbox has a box drawn by hand.
            indices = {"query": range(1), "bounding_box_test": range(1, count + 1), "gt_bbox": range(count + 1)}[folder]
            by_hand = folder != "bounding_box_test"
            for index in indices:
                name = _name(seed, pid, camid, index, 0 if by_hand else 1)
                yield Shot(folder, name, "person", pid, camid, index, by_hand)
        if folder == "bounding_box_test":
            for index in range(JUNK_PER_TEST_ID):
                camid = _visits(seed, pid)[index % CAMERAS_VISITED[0]]
                name = f"-1_c{camid}s1_{25 * (JUNK_PER_TEST_ID * pid + index) + 1:06d}_02.jpg"
                yield Shot(folder, name, "junk", pid, camid, index, False)
    if folder == "bounding_box_test":
        for number in range(distractors):
            camid = 1 + number % len(CAMERAS)
            yield Shot(folder, f"0000_c{camid}s1_{25 * number + 1:06d}_01.jpg", "distractor", number, camid, 0, False)


def render(
    seed: int = 0, train_ids: int = 300, test_ids: int = 100, distractors: int = 200, folders: Sequence[str] = FOLDERS
) -> Iterator[tuple[str, str, bytes]]:
    """Renders the data set, one picture at a time.

    Args:
      seed: decides everything; equal seeds give equal bytes (with equal versions of NumPy and OpenCV).
      train_ids: training identities, at most 4999; each has TRAIN_IMAGES pictures.
      test_ids: test identities, at most 4999; each has one query and some gallery pictures in each camera it visits.
      distractors: pictures of passers-by and false detections, pid 0, in the gallery.
      folders: which of FOLDERS to render.
    Yields:
      (folder, file name, JPEG bytes of a picture of IMAGE_SIZE).
    Raises:
      ValueError: a count is out of range or a folder has another name.
    """
    for name, count, limit in (
        ("train_ids", train_ids, 4999),
        ("test_ids", test_ids, 4999),
        ("distractors", distractors, 39999),
    ):
        if not 0 <= count <= limit:
            raise ValueError(f"walkers: {name}={count} is outside 0..{limit}; file names have no room for more")
    unknown = [folder for folder in folders if folder not in FOLDERS]
    if unknown:
        raise ValueError(f"walkers: no folder {unknown[0]!r}; choose from {', '.join(FOLDERS)}")
    for folder in folders:
        for shot in shots(seed, train_ids, test_ids, distractors, folder):
            yield folder, shot.name, take(seed, shot)


def write_folder(
    root: str | Path, seed: int = 0, train_ids: int = 300, test_ids: int = 100, distractors: int = 200
) -> None:
    """Writes the data set below `root` in Market-1501's layout; arguments as for `render`."""
    for folder in FOLDERS:
        (Path(root) / folder).mkdir(parents=True, exist_ok=True)
    for folder, name, data in render(seed, train_ids, test_ids, distractors):
        (Path(root) / folder / name).write_bytes(data)
