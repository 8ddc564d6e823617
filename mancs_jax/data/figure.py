"""Draws one walking person: a jointed, dressed body in three dimensions, seen from any side, painted as polygons.

Lengths are in units of a grown person's height (1.0): x points to the person's left, y up from the ground, z forward.
The picture is painted at three times its size and averaged down, which is what smooths every edge.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

SUPERSAMPLE = 3  # linear factor at which polygons are painted before they are averaged down
SUBPIXEL_BITS = 4  # fractional bits of the polygon corners handed to OpenCV
OUTLINE = 0.74  # brightness of a part's edge line against its own colour; separates limbs of one colour
TILT = 0.12  # how much lower a nearer point appears: the cameras look down a little
FAR_SIDE = 0.82  # brightness of the arm and the leg that are turned away from the camera

Colour = tuple[int, int, int]


class Cloth(NamedTuple):
    """A garment's surface: pattern name, two RGB colours, and the pattern's period as a share of body height."""

    pattern: str  # plain, hoops, pinstripes, checks, dots, two_tone, band, logo
    base: Colour
    accent: Colour
    period: float


class Person(NamedTuple):
    """Everything that stays the same wherever one identity is seen."""

    height: float  # relative to a grown person of 1.0
    girth: float  # widths of torso and limbs, 1.0 is slim
    shoulders: float  # shoulder width against hip width
    legs: float  # height of the hip joint as a share of the body
    skin: Colour
    hair: str  # bald, short, bob, long, ponytail, bun
    hair_colour: Colour
    top: str  # tank, tshirt, pullover, coat, dress
    top_cloth: Cloth
    inner: Colour  # what an open coat shows; also the collar
    bottom: str  # trousers, shorts, skirt, long_skirt
    bottom_cloth: Cloth
    fit: float  # width of the trousers' legs
    shoes: Colour
    hat: str  # "", cap, beanie, sunhat
    hat_colour: Colour
    bag: str  # "", backpack, satchel, handbag
    bag_colour: Colour
    side: int  # +1 or -1: the side the bag hangs on, and the logo's shape


class Pose(NamedTuple):
    """One moment of a walk. `heading` 0 faces the camera, pi/2 walks to the right of the picture; radians."""

    heading: float
    phase: float  # radians of the walking cycle
    stride: float  # amplitude of the legs' swing, radians
    swing: float  # amplitude of the arms' swing, radians
    lean: float  # forward lean of the torso, radians


class Sheet(NamedTuple):
    """The canvas and the map from body units to its pixels."""

    canvas: np.ndarray  # uint8 [H, W, 4], RGB and coverage
    origin: tuple[float, float]  # canvas x, y of the point on the ground below the hips
    unit: float  # canvas pixels per body unit
    cos: float
    sin: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Body coordinates [N, 3] to canvas coordinates [N, 2]."""
        across = points[:, 0] * self.cos + points[:, 2] * self.sin
        up = points[:, 1] - TILT * self.depth(points[:, 0], points[:, 2])
        return np.stack([self.origin[0] + across * self.unit, self.origin[1] - up * self.unit], axis=1)

    def depth(self, x, z):
        """How far a body point stands out towards the camera, in body units."""
        return z * self.cos - x * self.sin


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made darker (factor < 1) or brighter (> 1)."""
    return tuple(min(255, int(channel * factor)) for channel in colour)


def _trace(sheet: Sheet, corners: np.ndarray, colour: Colour, thickness: int = 3) -> None:
    """Draws the edge line of one polygon, in the darkened colour."""
    fixed = np.round(corners * (1 << SUBPIXEL_BITS)).astype(np.int32)
    cv2.polylines(sheet.canvas, [fixed], True, (*shade(colour, OUTLINE), 255), thickness, cv2.LINE_8, SUBPIXEL_BITS)


def _fill(sheet: Sheet, corners: np.ndarray, colour: Colour, texture: np.ndarray | None = None, outline=True) -> None:
    """Paints one polygon, corners [N, 2] in canvas pixels, with a colour or with a canvas-sized texture."""
    fixed = np.round(corners * (1 << SUBPIXEL_BITS)).astype(np.int32)
    if texture is None:
        cv2.fillPoly(sheet.canvas, [fixed], (*colour, 255), shift=SUBPIXEL_BITS)
    else:
        height, width = sheet.canvas.shape[:2]
        left, top = np.maximum(np.floor(corners.min(0)).astype(int), 0)
        right, bottom = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, (width, height))
        if right <= left or bottom <= top:
            return
        mask = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(mask, [fixed - np.array([left, top]) * (1 << SUBPIXEL_BITS)], 1, shift=SUBPIXEL_BITS)
        np.copyto(sheet.canvas[top:bottom, left:right], texture[top:bottom, left:right], where=mask[..., None] > 0)
    if outline:
        _trace(sheet, corners, colour, thickness=2)


_HALF_TURN = np.linspace(-math.pi / 2, math.pi / 2, 7)
_ARC = np.stack([np.cos(_HALF_TURN), np.sin(_HALF_TURN)], 1)
_TURN = np.linspace(0, 2 * math.pi, 20, endpoint=False)
_RING = np.stack([np.cos(_TURN), np.sin(_TURN)], 1)


def _capsule(start: np.ndarray, end: np.ndarray, radii: tuple[float, float]) -> np.ndarray:
    """Corners [14, 2] of the tapered, round-ended shape between two canvas points."""
    dx, dy = end - start
    length = math.hypot(dx, dy)
    if length < 1e-6:  # seen end on: any direction does
        dx, length = 1.0, 1.0
    arc = _ARC @ (np.array([[dx, dy], [-dy, dx]]) / length)
    return np.concatenate([start - radii[0] * arc, end + radii[1] * arc])


def _limb(sheet: Sheet, joints, radii, colour: Colour, texture: np.ndarray | None = None) -> None:
    """A round-ended limb through joints [J, 3] with a radius at each, in body units; no line where its bones meet."""
    points = sheet.project(np.asarray(joints, np.float64))
    reach = [radius * sheet.unit for radius in radii]
    bones = [_capsule(points[i], points[i + 1], (reach[i], reach[i + 1])) for i in range(len(points) - 1)]
    for bone in bones:
        _trace(sheet, bone, colour)
    for bone in bones:
        _fill(sheet, bone, colour, texture, outline=False)


def _oval(sheet: Sheet, centre, radii, colour: Colour, outline=True) -> None:
    """An upright ellipse about a body point, radii in body units."""
    middle = sheet.project(np.asarray([centre], np.float64))
    _fill(sheet, middle + _RING * radii * sheet.unit, colour, outline=outline)


def _wrap(sheet: Sheet, levels, colour: Colour, texture: np.ndarray | None = None) -> None:
    """A body of elliptical cross-sections; levels, top to bottom: (height y, half width, half depth, offset z)."""
    y, width, depth, forward = np.asarray(levels, np.float64).T
    reach = np.hypot(width * sheet.cos, depth * sheet.sin) * sheet.unit
    middle = sheet.project(np.stack([np.zeros_like(y), y, forward], 1))
    left, right = middle.copy(), middle.copy()
    left[:, 0] -= reach
    right[:, 0] += reach
    _fill(sheet, np.concatenate([left, right[::-1]]), colour, texture)


def _panel(sheet: Sheet, centre, half_width: float, half_height: float, colour: Colour) -> None:
    """A flat rectangle that lies across the body (in the x-y plane), so it narrows as the body turns."""
    x, y, z = centre
    corners = [(x + i * half_width, y + j * half_height, z) for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    _fill(sheet, sheet.project(np.array(corners)), colour)


def _texture(sheet: Sheet, cloth: Cloth, top: float, bottom: float) -> np.ndarray | None:
    """The cloth's pattern on the whole canvas [H, W, 4], hung from height `top`; None where one colour is enough."""
    if cloth.pattern in ("plain", "logo"):
        return None
    height, width = sheet.canvas.shape[:2]
    pixel = 1.0 / sheet.unit
    down = (np.arange(height, dtype=np.float32)[:, None] - (sheet.origin[1] - top * sheet.unit)) * pixel
    across = (np.arange(width, dtype=np.float32)[None] - sheet.origin[0]) * pixel
    row, column = down / cloth.period, across / cloth.period + 0.25
    if cloth.pattern == "hoops":
        chosen = row % 1 < 0.5
    elif cloth.pattern == "pinstripes":
        chosen = column % 1 < 0.42
    elif cloth.pattern == "checks":
        chosen = (row % 1 < 0.5) ^ (column % 1 < 0.5)
    elif cloth.pattern == "dots":
        stagger = column + 0.5 * (np.floor(row) % 2)
        chosen = (row % 1 - 0.5) ** 2 + (stagger % 1 - 0.5) ** 2 < 0.085
    elif cloth.pattern == "two_tone":
        chosen = down > 0.45 * (top - bottom)
    elif cloth.pattern == "band":
        chosen = np.abs(down - 0.38 * (top - bottom)) < 0.16 * (top - bottom)
    else:
        raise ValueError(f"unknown pattern {cloth.pattern!r} of a cloth; see figure.Cloth for the names")
    base, accent = np.array([(*cloth.base, 255), (*cloth.accent, 255)], np.uint8).view(np.uint32)[:, 0]
    chosen = np.broadcast_to(chosen, (height, width))
    return np.where(chosen, accent, base).view(np.uint8).reshape(height, width, 4)


def _swing(top, lengths, swings, outward: float) -> np.ndarray:
    """The three joints [3, 3] of a limb that hangs from `top`; swings: forward angle of its two bones, radians."""
    joints = [np.asarray(top, np.float64)]
    for length, angle in zip(lengths, swings, strict=True):
        joints.append(joints[-1] + length * np.array([outward, -math.cos(angle), math.sin(angle)]))
    return np.array(joints)


def _draw_leg(sheet: Sheet, person: Person, joints: np.ndarray, far: bool, texture) -> None:
    dark = FAR_SIDE if far else 1.0
    girth, (hip, knee, ankle) = person.girth, joints
    skin, cloth = shade(person.skin, dark), shade(person.bottom_cloth.base, dark)
    toe = ankle + np.array([0.0, -0.012, 0.062])
    heel = ankle + np.array([0.0, -0.012, -0.012])
    _limb(sheet, joints, (0.056 * girth, 0.037 * girth, 0.021), skin)
    _limb(sheet, (heel, toe), (0.024, 0.016), shade(person.shoes, dark))
    if person.top == "dress" or person.bottom in ("skirt", "long_skirt"):
        return
    worn = texture if not far or texture is None else _darken(texture, dark)
    wide = girth * person.fit
    if person.bottom == "shorts":
        _limb(sheet, (hip, hip + 0.86 * (knee - hip)), (0.06 * girth, 0.05 * wide), cloth, worn)
    else:
        cuff = ankle + np.array([0.0, 0.012, 0.0])
        _limb(sheet, (hip, knee, cuff), (0.06 * girth, 0.043 * wide, 0.033 * wide), cloth, worn)


def _draw_arm(sheet: Sheet, person: Person, joints: np.ndarray, far: bool, texture) -> None:
    dark = FAR_SIDE if far else 1.0
    girth, (shoulder, elbow, wrist) = person.girth, joints
    skin, cloth = shade(person.skin, dark), shade(person.top_cloth.base, dark)
    worn = texture if not far or texture is None else _darken(texture, dark)
    hand = wrist + (wrist - elbow) * 0.2
    _limb(sheet, (shoulder, elbow, wrist, hand), (0.031 * girth, 0.024 * girth, 0.018, 0.018), skin)
    thick = 1.2 if person.top == "coat" else 1.0
    if person.top in ("tshirt", "dress"):
        _limb(sheet, (shoulder, shoulder + 0.6 * (elbow - shoulder)), (0.034 * girth, 0.034 * girth), cloth, worn)
    elif person.top in ("pullover", "coat"):
        radii = [radius * girth * thick for radius in (0.034, 0.03, 0.024)]
        _limb(sheet, joints, radii, cloth, worn)


def _darken(texture: np.ndarray, factor: float) -> np.ndarray:
    dark = cv2.convertScaleAbs(texture, alpha=factor)
    dark[..., 3] = 255
    return dark


def _draw_torso(sheet: Sheet, person: Person, hip: float, lean: float, texture, bottom_texture) -> None:
    g, top = person.girth, hip + 0.335
    bend = math.tan(lean)

    def level(y, width, depth, flare=1.0):
        return (y, width * g * flare, depth * g * flare, max(0.0, y - hip) * bend)

    waist = level(hip + 0.09, 0.082, 0.066)
    if person.bottom in ("skirt", "long_skirt") and person.top != "dress":
        hem = hip - (0.16 if person.bottom == "skirt" else 0.36)
        skirt = [waist, level(hip, 0.102, 0.08), level(hem, 0.13, 0.115)]
        _wrap(sheet, skirt, person.bottom_cloth.base, bottom_texture)
    elif person.top != "dress":
        _wrap(
            sheet,
            [waist, level(hip, 0.095, 0.075), level(hip - 0.05, 0.09, 0.07)],
            person.bottom_cloth.base,
            bottom_texture,
        )
    wide = 0.118 * person.shoulders
    body = [
        level(top + 0.012, 0.045, 0.035),
        level(top - 0.012, wide * 0.88, 0.052),
        level(top - 0.045, wide, 0.066),
        level(top - 0.13, wide * 0.9, 0.074),
        waist,
    ]
    if person.top == "dress":
        body += [level(hip, 0.105, 0.085), level(hip - 0.2, 0.145, 0.13)]
    elif person.top == "coat":
        body += [level(hip, 0.108, 0.09), level(hip - 0.13, 0.118, 0.1)]
    else:
        body += [level(hip + 0.01, 0.097, 0.078)]
    colour = person.top_cloth.base
    _wrap(sheet, body, colour, texture)
    front = sheet.cos > 0.15
    if person.top == "coat" and front:
        bottom = body[-1][0]
        _panel(sheet, (0.0, (top + bottom) / 2, 0.06 * g), 0.026, (top - bottom) / 2 - 0.004, person.inner)
    elif person.top_cloth.pattern == "logo" and abs(sheet.cos) > 0.2:
        centre = (0.0, top - 0.11, 0.06 * g * math.copysign(1.0, sheet.cos))
        if person.side > 0:
            _panel(sheet, centre, 0.05 * g, 0.045, person.top_cloth.accent)
        else:
            _oval(sheet, centre, (0.055 * g * abs(sheet.cos), 0.055), person.top_cloth.accent)


def _draw_head(sheet: Sheet, person: Person, neck: np.ndarray) -> None:
    head = neck + np.array([0.0, 0.085, 0.012])
    ahead, hair = sheet.cos, person.hair_colour
    forward = np.array([0.0, 0.0, 1.0])
    tail = {"bob": 0.075, "long": 0.17, "ponytail": 0.15}.get(person.hair, 0.0)
    fall = [head - 0.03 * forward, head - 0.04 * forward - np.array([0.0, tail, 0.0])]
    loose = (0.05, 0.05) if person.hair != "ponytail" else (0.025, 0.014)
    if tail and ahead > 0:
        _limb(sheet, fall, loose, shade(hair, 0.85))
    _limb(sheet, (neck - np.array([0.0, 0.02, 0.0]), head), (0.027, 0.03), shade(person.skin, 0.85))
    _oval(sheet, head, (0.05, 0.066), person.skin)
    if person.hair != "bald":
        back = max(0.0, -ahead)
        _oval(sheet, head + np.array([0.0, 0.026 - 0.024 * back, -0.022]), (0.053, 0.05 + 0.016 * back), hair)
        if ahead > -0.35:
            _oval(sheet, head + np.array([0.0, -0.014, 0.018]), (0.02 + 0.022 * abs(ahead), 0.044), person.skin, False)
    if ahead > 0.2:
        for eye in (-0.018, 0.018):
            _oval(sheet, head + np.array([eye, 0.002, 0.04]), (0.007, 0.006), (50, 38, 34), False)
    if person.hair == "bun":
        _oval(sheet, head + np.array([0.0, 0.055, -0.035]), (0.03, 0.03), hair)
    if tail and ahead <= 0:
        _limb(sheet, fall, loose, hair)
    if person.hat:
        brim = {"cap": 0.075, "sunhat": 0.0}.get(person.hat)
        _oval(sheet, head + np.array([0.0, 0.038, -0.004]), (0.056, 0.042), person.hat_colour)
        if brim is not None:
            edge = (0.03 + 0.02 * abs(ahead), 0.011) if person.hat == "cap" else (0.1, 0.018)
            _oval(sheet, head + np.array([0.0, 0.018, brim]), edge, shade(person.hat_colour, 0.75))


def _draw_bag(sheet: Sheet, person: Person, hip: float, hand: np.ndarray) -> None:
    dark = shade(person.bag_colour, 0.6)
    if person.bag == "backpack":
        levels = [
            (hip + 0.33, 0.05, 0.02, -0.1),
            (hip + 0.3, 0.085, 0.05, -0.11),
            (hip + 0.1, 0.095, 0.06, -0.12),
            (hip + 0.07, 0.08, 0.05, -0.11),
        ]
        _wrap(sheet, levels, person.bag_colour)
        if sheet.cos < -0.3:
            _panel(sheet, (0.0, hip + 0.15, -0.15), 0.06, 0.035, dark)
    elif person.bag == "satchel":
        _limb(
            sheet,
            ((person.side * 0.12, hip + 0.05, -0.03), (person.side * 0.12, hip + 0.05, 0.06)),
            (0.06, 0.06),
            person.bag_colour,
        )
    else:
        _limb(sheet, (hand, hand - np.array([0.0, 0.05, 0.0])), (0.008, 0.008), dark)
        _limb(
            sheet,
            (hand - np.array([0.0, 0.085, 0.045]), hand - np.array([0.0, 0.085, -0.045])),
            (0.045, 0.045),
            person.bag_colour,
        )


def _draw_straps(sheet: Sheet, person: Person, hip: float) -> None:
    dark, front = shade(person.bag_colour, 0.7), 0.065 * person.girth
    if person.bag == "backpack" and sheet.cos > 0.1:
        for x in (-0.065, 0.065):
            _limb(sheet, ((x, hip + 0.335, front), (x * 1.1, hip + 0.13, front)), (0.013, 0.013), dark)
    elif person.bag == "satchel":
        face = math.copysign(front, sheet.cos)
        _limb(
            sheet,
            ((-person.side * 0.075, hip + 0.335, face), (person.side * 0.11, hip + 0.08, face)),
            (0.01, 0.01),
            dark,
        )


def draw_figure(
    person: Person, pose: Pose, size: tuple[int, int], feet: tuple[float, float], unit: float
) -> np.ndarray:
    """Draws the person alone, on nothing.

    Args:
      person: who.
      pose: how the person stands and which way he or she faces.
      size: (height, width) of the picture in pixels.
      feet: (x, y) in pixels of the ground point below the hips; may lie outside the picture.
      unit: pixels that a body height of 1.0 takes.
    Returns:
      float32 [H, W, 4] in 0..255: RGB already multiplied by the coverage, and the coverage (255 where the person is).
    """
    height, width = size
    canvas = np.zeros((height * SUPERSAMPLE, width * SUPERSAMPLE, 4), np.uint8)
    hip, girth = person.legs, person.girth
    bend = np.array([0.0, 0.0, math.tan(pose.lean)])
    beat = math.sin(pose.phase)
    legs, arms = [], []
    for side in (1, -1):
        forward = side * pose.stride * beat
        flex = 0.08 + 1.1 * pose.stride * max(0.0, side * math.cos(pose.phase))
        bone = (hip - 0.035) / 2
        legs.append(
            _swing((side * 0.05 * girth, hip, 0.0), (bone, bone), (forward + flex / 3, forward - flex), 0.03 * side)
        )
        shoulder = np.array([side * 0.104 * person.shoulders * girth, hip + 0.288, 0.0]) + 0.3 * bend
        back = -side * pose.swing * beat
        arms.append(_swing(shoulder, (0.155, 0.135), (back, back + 0.25 + 0.3 * pose.swing), 0.1 * side))
    # The lower foot stands on the ground, so the body sinks a little at every full stride.
    drop = np.array([0.0, min(leg[2, 1] for leg in legs) - 0.035, 0.0])
    legs, arms = [leg - drop for leg in legs], [arm - drop for arm in arms]
    hip -= drop[1]
    sheet = Sheet(
        canvas,
        (feet[0] * SUPERSAMPLE, feet[1] * SUPERSAMPLE),
        unit * person.height * SUPERSAMPLE,
        math.cos(pose.heading),
        math.sin(pose.heading),
    )

    hem = hip - 0.2 if person.top == "dress" else hip
    top_texture = _texture(sheet, person.top_cloth, hip + 0.335, hem)
    bottom_texture = _texture(sheet, person.bottom_cloth, hip + 0.09, 0.03)
    sides = sorted(range(2), key=lambda i: sheet.depth(1.0 if i == 0 else -1.0, 0.0))
    turned = abs(sheet.sin) > 0.35
    hand = arms[0 if person.side > 0 else 1][2]
    bag_behind = {"backpack": sheet.cos > 0, "satchel": sheet.depth(person.side, 0.0) < 0}.get(person.bag)
    for order, i in enumerate(sides):
        _draw_leg(sheet, person, legs[i], turned and order == 0, bottom_texture)
    if turned:
        _draw_arm(sheet, person, arms[sides[0]], True, top_texture)
    if person.bag and bag_behind:
        _draw_bag(sheet, person, hip, hand)
    neck = np.array([0.0, hip + 0.34, 0.0]) + 0.34 * bend
    if sheet.cos > 0:
        _draw_head(sheet, person, neck)
    _draw_torso(sheet, person, hip, pose.lean, top_texture, bottom_texture)
    if sheet.cos <= 0:
        _draw_head(sheet, person, neck)
    if person.bag:
        _draw_straps(sheet, person, hip)
    if bag_behind is False:
        _draw_bag(sheet, person, hip, hand)
    for i in sides[1:] if turned else sides:
        _draw_arm(sheet, person, arms[i], False, top_texture)
    if person.bag == "handbag":
        _draw_bag(sheet, person, hip, hand)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
