"""The canvas a body is painted on, and its shapes in three dimensions: limbs, ovals, wraps and panels.

Lengths are in units of a grown person's height (1.0): x points to the person's left, y up from the ground, z forward.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike

from mancs_jax.data.walkers.colours import Colour, shade

SUBPIXEL_BITS = 4  # fractional bits of the polygon corners handed to OpenCV
OUTLINE = 0.74  # brightness of a part's edge line against its own colour; separates limbs of one colour
TILT = 0.12  # how much lower a nearer point appears: the cameras look down a little


class Sheet(NamedTuple):
    """The canvas and the map from body units to its pixels."""

    canvas: np.ndarray  # uint8 [H, W, 4], RGB and coverage
    origin: tuple[float, float]  # canvas x, y of the point on the ground below the hips
    unit: float  # canvas pixels per body unit
    cos: float
    sin: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Body coordinates [N, 3] to canvas coordinates [N, 2]."""
        x, y, z = points.T
        pixels = np.empty((len(points), 2))
        pixels[:, 0] = self.origin[0] + (x * self.cos + z * self.sin) * self.unit
        pixels[:, 1] = self.origin[1] - (y - TILT * self.depth(x, z)) * self.unit
        return pixels

    def depth(self, x: Any, z: Any) -> Any:
        """Returns how far body points, numbers or arrays, stand out towards the camera, in body units."""
        return z * self.cos - x * self.sin


def _fixed_point(corners: np.ndarray) -> np.ndarray:
    """Canvas pixels as the integers that OpenCV takes, int32 [N, 2]."""
    return np.rint(corners * (1 << SUBPIXEL_BITS)).astype(np.int32)


def _trace(sheet: Sheet, corners: np.ndarray, colour: Colour, thickness: int = 3) -> None:
    """Draws the edge line of one polygon, in the darkened colour."""
    line = (*shade(colour, OUTLINE), 255)
    cv2.polylines(sheet.canvas, [_fixed_point(corners)], True, line, thickness, cv2.LINE_8, SUBPIXEL_BITS)


def _fill(sheet: Sheet, corners: np.ndarray, colour: Colour, texture: np.ndarray | None = None, outline=True) -> None:
    """Paints one polygon, corners [N, 2] in canvas pixels, with a colour or with a canvas-sized texture."""
    fixed = _fixed_point(corners)
    if texture is None:
        cv2.fillPoly(sheet.canvas, [fixed], (*colour, 255), shift=SUBPIXEL_BITS)
    else:
        height, width = sheet.canvas.shape[:2]
        (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
        left, top = max(math.floor(left), 0), max(math.floor(top), 0)
        right, bottom = min(math.ceil(right) + 1, width), min(math.ceil(bottom) + 1, height)
        if right <= left or bottom <= top:
            return
        mask = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(mask, [fixed - np.array([left, top]) * (1 << SUBPIXEL_BITS)], 1, shift=SUBPIXEL_BITS)
        cv2.copyTo(texture[top:bottom, left:right], mask, sheet.canvas[top:bottom, left:right])
    if outline:
        _trace(sheet, corners, colour, thickness=2)


_HALF_TURN = np.linspace(-math.pi / 2, math.pi / 2, 7)
_ARC = np.stack([np.cos(_HALF_TURN), np.sin(_HALF_TURN)], 1)
_TURN = np.linspace(0, 2 * math.pi, 20, endpoint=False)
_RING = np.stack([np.cos(_TURN), np.sin(_TURN)], 1)


def _capsule(start: np.ndarray, end: np.ndarray, radii: tuple[float, float]) -> np.ndarray:
    """Corners [14, 2] of the tapered, round-ended shape between two canvas points."""
    dx, dy = (end - start).tolist()
    length = math.hypot(dx, dy)
    if length < 1e-6:  # seen end on: any direction does
        dx, length = 1.0, 1.0
    dx, dy = dx / length, dy / length
    arc = _ARC @ np.array([[dx, dy], [-dy, dx]])
    return np.concatenate([start - radii[0] * arc, end + radii[1] * arc])


def limb(
    sheet: Sheet, joints: ArrayLike, radii: Sequence[float], colour: Colour, texture: np.ndarray | None = None
) -> None:
    """A round-ended limb through joints [J, 3] with a radius at each, in body units; no line where its bones meet."""
    points = sheet.project(np.asarray(joints, np.float64))
    reach = [radius * sheet.unit for radius in radii]
    bones = [_capsule(points[i], points[i + 1], (reach[i], reach[i + 1])) for i in range(len(points) - 1)]
    for bone in bones:
        _trace(sheet, bone, colour)
    for bone in bones:
        _fill(sheet, bone, colour, texture, outline=False)


def oval(sheet: Sheet, centre: ArrayLike, radii: ArrayLike, colour: Colour, outline: bool = True) -> None:
    """An upright ellipse about a body point, radii in body units."""
    middle = sheet.project(np.asarray([centre], np.float64))
    _fill(sheet, middle + _RING * np.asarray(radii) * sheet.unit, colour, outline=outline)


def wrap(sheet: Sheet, levels: ArrayLike, colour: Colour, texture: np.ndarray | None = None) -> None:
    """A body of elliptical cross-sections; levels, top to bottom: (height y, half width, half depth, offset z)."""
    y, width, depth, forward = np.asarray(levels, np.float64).T
    reach = np.hypot(width * sheet.cos, depth * sheet.sin) * sheet.unit
    middle = sheet.project(np.stack([np.zeros_like(y), y, forward], 1))
    left, right = middle.copy(), middle.copy()
    left[:, 0] -= reach
    right[:, 0] += reach
    _fill(sheet, np.concatenate([left, right[::-1]]), colour, texture)


def panel(sheet: Sheet, centre: Sequence[float], half_width: float, half_height: float, colour: Colour) -> None:
    """A flat rectangle that lies across the body (in the x-y plane), so it narrows as the body turns."""
    x, y, z = centre
    corners = [(x + i * half_width, y + j * half_height, z) for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    _fill(sheet, sheet.project(np.array(corners)), colour)
