"""RGB colours: those that clothes and things come in, made lighter or darker, and varied by chance."""

import numpy as np

Colour = tuple[int, int, int]

GARMENTS = (
    (236, 236, 232), (176, 178, 180), (112, 114, 118), (38, 38, 42), (30, 40, 84), (44, 84, 168), (120, 172, 222),
    (28, 132, 134), (44, 140, 66), (116, 122, 62), (232, 208, 60), (232, 132, 40), (206, 40, 44), (116, 30, 48),
    (236, 146, 172), (122, 66, 148), (112, 76, 48), (208, 186, 148),
)  # fmt: skip


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made darker (factor < 1) or brighter (> 1)."""
    red, green, blue = (min(255, int(channel * factor)) for channel in colour)
    return red, green, blue


def dye(rng: np.random.Generator, colour: Colour, spread: float = 12) -> Colour:
    """A colour near the given one; `spread` is the sd in grey levels."""
    red, green, blue = (int(c) for c in np.clip(np.array(colour) + rng.normal(0, spread, 3), 12, 246))
    return red, green, blue
