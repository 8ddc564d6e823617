"""The patterns of cloth, and the bags that people carry."""

import math

import cv2
import numpy as np

from mancs_jax.data.walkers.canvas import Sheet, limb, panel, wrap
from mancs_jax.data.walkers.colours import shade
from mancs_jax.data.walkers.people import Cloth, Person


def weave(sheet: Sheet, cloth: Cloth, top: float, bottom: float) -> np.ndarray | None:
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
        raise ValueError(f"unknown pattern {cloth.pattern!r} of a cloth; see people.Cloth for the names")
    base, accent = np.array([(*cloth.base, 255), (*cloth.accent, 255)], np.uint8).view(np.uint32)[:, 0]
    chosen = np.broadcast_to(chosen, (height, width))
    return np.where(chosen, accent, base).view(np.uint8).reshape(height, width, 4)


def darken(texture: np.ndarray, factor: float) -> np.ndarray:
    """A texture in less light; the coverage stays."""
    dark = cv2.convertScaleAbs(texture, alpha=factor)
    dark[..., 3] = 255
    return dark


def draw_bag(sheet: Sheet, person: Person, hip: float, hand: np.ndarray) -> None:
    """Paints the bag itself; `hip` is the height of the hip joint, `hand` the body point that holds a handbag."""
    dark = shade(person.bag_colour, 0.6)
    if person.bag == "backpack":
        levels = [
            (hip + 0.33, 0.05, 0.02, -0.1),
            (hip + 0.3, 0.085, 0.05, -0.11),
            (hip + 0.1, 0.095, 0.06, -0.12),
            (hip + 0.07, 0.08, 0.05, -0.11),
        ]
        wrap(sheet, levels, person.bag_colour)
        if sheet.cos < -0.3:
            panel(sheet, (0.0, hip + 0.15, -0.15), 0.06, 0.035, dark)
    elif person.bag == "satchel":
        limb(
            sheet,
            ((person.side * 0.12, hip + 0.05, -0.03), (person.side * 0.12, hip + 0.05, 0.06)),
            (0.06, 0.06),
            person.bag_colour,
        )
    else:
        limb(sheet, (hand, hand - np.array([0.0, 0.05, 0.0])), (0.008, 0.008), dark)
        limb(
            sheet,
            (hand - np.array([0.0, 0.085, 0.045]), hand - np.array([0.0, 0.085, -0.045])),
            (0.045, 0.045),
            person.bag_colour,
        )


def draw_straps(sheet: Sheet, person: Person, hip: float) -> None:
    """Paints what crosses the torso of a bag that hangs behind it or at its side."""
    dark, front = shade(person.bag_colour, 0.7), 0.065 * person.girth
    if person.bag == "backpack" and sheet.cos > 0.1:
        for x in (-0.065, 0.065):
            limb(sheet, ((x, hip + 0.335, front), (x * 1.1, hip + 0.13, front)), (0.013, 0.013), dark)
    elif person.bag == "satchel":
        face = math.copysign(front, sheet.cos)
        limb(
            sheet,
            ((-person.side * 0.075, hip + 0.335, face), (person.side * 0.11, hip + 0.08, face)),
            (0.01, 0.01),
            dark,
        )
