"""Draws one walking person: a jointed, dressed body in three dimensions, seen from any side, painted as polygons.

The picture is painted at three times its size and averaged down, which is what smooths every edge.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

from mancs_jax.data.walkers.canvas import Sheet, limb, oval, panel, wrap
from mancs_jax.data.walkers.clothes import darken, draw_bag, draw_straps, weave
from mancs_jax.data.walkers.colours import shade
from mancs_jax.data.walkers.people import Person

SUPERSAMPLE = 3  # linear factor at which polygons are painted before they are averaged down
FAR_SIDE = 0.82  # brightness of the arm and the leg that are turned away from the camera


class Pose(NamedTuple):
    """One moment of a walk. `heading` 0 faces the camera, pi/2 walks to the right of the picture; radians."""

    heading: float
    phase: float  # radians of the walking cycle
    stride: float  # amplitude of the legs' swing, radians
    swing: float  # amplitude of the arms' swing, radians
    lean: float  # forward lean of the torso, radians


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
    limb(sheet, joints, (0.056 * girth, 0.037 * girth, 0.021), skin)
    limb(sheet, (heel, toe), (0.024, 0.016), shade(person.shoes, dark))
    if person.top == "dress" or person.bottom in ("skirt", "long_skirt"):
        return
    worn = texture if not far or texture is None else darken(texture, dark)
    wide = girth * person.fit
    if person.bottom == "shorts":
        limb(sheet, (hip, hip + 0.86 * (knee - hip)), (0.06 * girth, 0.05 * wide), cloth, worn)
    else:
        cuff = ankle + np.array([0.0, 0.012, 0.0])
        limb(sheet, (hip, knee, cuff), (0.06 * girth, 0.043 * wide, 0.033 * wide), cloth, worn)


def _draw_arm(sheet: Sheet, person: Person, joints: np.ndarray, far: bool, texture) -> None:
    dark = FAR_SIDE if far else 1.0
    girth, (shoulder, elbow, wrist) = person.girth, joints
    skin, cloth = shade(person.skin, dark), shade(person.top_cloth.base, dark)
    worn = texture if not far or texture is None else darken(texture, dark)
    hand = wrist + (wrist - elbow) * 0.2
    limb(sheet, (shoulder, elbow, wrist, hand), (0.031 * girth, 0.024 * girth, 0.018, 0.018), skin)
    thick = 1.2 if person.top == "coat" else 1.0
    if person.top in ("tshirt", "dress"):
        limb(sheet, (shoulder, shoulder + 0.6 * (elbow - shoulder)), (0.034 * girth, 0.034 * girth), cloth, worn)
    elif person.top in ("pullover", "coat"):
        radii = [radius * girth * thick for radius in (0.034, 0.03, 0.024)]
        limb(sheet, joints, radii, cloth, worn)


def _draw_torso(sheet: Sheet, person: Person, hip: float, lean: float, texture, bottom_texture) -> None:
    g, top = person.girth, hip + 0.335
    bend = math.tan(lean)

    def level(y, width, depth, flare=1.0):
        return (y, width * g * flare, depth * g * flare, max(0.0, y - hip) * bend)

    waist = level(hip + 0.09, 0.082, 0.066)
    if person.bottom in ("skirt", "long_skirt") and person.top != "dress":
        hem = hip - (0.16 if person.bottom == "skirt" else 0.36)
        skirt = [waist, level(hip, 0.102, 0.08), level(hem, 0.13, 0.115)]
        wrap(sheet, skirt, person.bottom_cloth.base, bottom_texture)
    elif person.top != "dress":
        wrap(
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
    wrap(sheet, body, colour, texture)
    front = sheet.cos > 0.15
    if person.top == "coat" and front:
        bottom = body[-1][0]
        panel(sheet, (0.0, (top + bottom) / 2, 0.06 * g), 0.026, (top - bottom) / 2 - 0.004, person.inner)
    elif person.top_cloth.pattern == "logo" and abs(sheet.cos) > 0.2:
        centre = (0.0, top - 0.11, 0.06 * g * math.copysign(1.0, sheet.cos))
        if person.side > 0:
            panel(sheet, centre, 0.05 * g, 0.045, person.top_cloth.accent)
        else:
            oval(sheet, centre, (0.055 * g * abs(sheet.cos), 0.055), person.top_cloth.accent)


def _draw_head(sheet: Sheet, person: Person, neck: np.ndarray) -> None:
    head = neck + np.array([0.0, 0.085, 0.012])
    ahead, hair = sheet.cos, person.hair_colour
    forward = np.array([0.0, 0.0, 1.0])
    tail = {"bob": 0.075, "long": 0.17, "ponytail": 0.15}.get(person.hair, 0.0)
    fall = [head - 0.03 * forward, head - 0.04 * forward - np.array([0.0, tail, 0.0])]
    loose = (0.05, 0.05) if person.hair != "ponytail" else (0.025, 0.014)
    if tail and ahead > 0:
        limb(sheet, fall, loose, shade(hair, 0.85))
    limb(sheet, (neck - np.array([0.0, 0.02, 0.0]), head), (0.027, 0.03), shade(person.skin, 0.85))
    oval(sheet, head, (0.05, 0.066), person.skin)
    if person.hair != "bald":
        back = max(0.0, -ahead)
        oval(sheet, head + np.array([0.0, 0.026 - 0.024 * back, -0.022]), (0.053, 0.05 + 0.016 * back), hair)
        if ahead > -0.35:
            oval(sheet, head + np.array([0.0, -0.014, 0.018]), (0.02 + 0.022 * abs(ahead), 0.044), person.skin, False)
    if ahead > 0.2:
        for eye in (-0.018, 0.018):
            oval(sheet, head + np.array([eye, 0.002, 0.04]), (0.007, 0.006), (50, 38, 34), False)
    if person.hair == "bun":
        oval(sheet, head + np.array([0.0, 0.055, -0.035]), (0.03, 0.03), hair)
    if tail and ahead <= 0:
        limb(sheet, fall, loose, hair)
    if person.hat:
        brim = {"cap": 0.075, "sunhat": 0.0}.get(person.hat)
        oval(sheet, head + np.array([0.0, 0.038, -0.004]), (0.056, 0.042), person.hat_colour)
        if brim is not None:
            edge = (0.03 + 0.02 * abs(ahead), 0.011) if person.hat == "cap" else (0.1, 0.018)
            oval(sheet, head + np.array([0.0, 0.018, brim]), edge, shade(person.hat_colour, 0.75))


def draw_figure(
    person: Person, pose: Pose, size: tuple[int, int], feet: tuple[float, float], unit: float
) -> np.ndarray:
    """Draws one person, on nothing, in a picture of `size` (height, width) pixels.

    `feet` are the (x, y) pixels of the ground point below the hips, which may lie outside the picture; `unit` are the
    pixels of a body height of 1.0. Returns float32 [H, W, 4] in 0..255: RGB already multiplied by the coverage, and the
    coverage (255 where the person is).
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
    top_texture = weave(sheet, person.top_cloth, hip + 0.335, hem)
    bottom_texture = weave(sheet, person.bottom_cloth, hip + 0.09, 0.03)
    sides = sorted(range(2), key=lambda i: sheet.depth(1.0 if i == 0 else -1.0, 0.0))
    turned = abs(sheet.sin) > 0.35
    hand = arms[0 if person.side > 0 else 1][2]
    bag_behind = {"backpack": sheet.cos > 0, "satchel": sheet.depth(person.side, 0.0) < 0}.get(person.bag)
    for order, i in enumerate(sides):
        _draw_leg(sheet, person, legs[i], turned and order == 0, bottom_texture)
    if turned:
        _draw_arm(sheet, person, arms[sides[0]], True, top_texture)
    if person.bag and bag_behind:
        draw_bag(sheet, person, hip, hand)
    neck = np.array([0.0, hip + 0.34, 0.0]) + 0.34 * bend
    if sheet.cos > 0:
        _draw_head(sheet, person, neck)
    _draw_torso(sheet, person, hip, pose.lean, top_texture, bottom_texture)
    if sheet.cos <= 0:
        _draw_head(sheet, person, neck)
    if person.bag:
        draw_straps(sheet, person, hip)
    if bag_behind is False:
        draw_bag(sheet, person, hip, hand)
    for i in sides[1:] if turned else sides:
        _draw_arm(sheet, person, arms[i], False, top_texture)
    if person.bag == "handbag":
        draw_bag(sheet, person, hip, hand)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
