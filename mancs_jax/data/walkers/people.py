"""The people: build, clothes, hair and bag of an identity, sampled."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mancs_jax.data.walkers import difficulty
from mancs_jax.data.walkers.chance import PERSON, pick
from mancs_jax.data.walkers.colours import GARMENTS, Colour, dye

SKINS = ((241, 205, 180), (228, 184, 150), (205, 155, 118), (168, 118, 84), (118, 80, 58), (84, 58, 44))
HAIRS = ((28, 24, 24), (48, 34, 28), (86, 58, 38), (128, 84, 48), (196, 160, 96), (150, 148, 146), (150, 66, 36))
PATTERNS = ("hoops", "pinstripes", "checks", "dots", "two_tone", "band", "logo")


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


def _cloth(rng: np.random.Generator, patterns: Sequence[str], rate: float, period: tuple[float, float]) -> Cloth:
    base = pick(rng, GARMENTS)
    contrasting = [c for c in GARMENTS if abs(np.dot(np.subtract(c, base), (0.3, 0.59, 0.11))) > 70]
    pattern = pick(rng, patterns) if rng.random() < rate else "plain"
    return Cloth(pattern, dye(rng, base), dye(rng, pick(rng, contrasting)), float(rng.uniform(*period)))


def sample_person(rng: np.random.Generator) -> Person:
    """Draws an identity: build, clothes, hair and what is carried."""
    top = pick(rng, ("tank", "tshirt", "pullover", "coat", "dress"), (0.1, 0.35, 0.25, 0.16, 0.14))
    bottom = pick(rng, ("trousers", "shorts", "skirt", "long_skirt"), (0.5, 0.25, 0.17, 0.08))
    woven = ("pinstripes", "two_tone") if bottom == "trousers" else ("checks", "dots", "pinstripes")
    return Person(
        height=float(np.clip(rng.normal(0.98, 0.05), 0.86, 1.08)),
        girth=float(np.clip(rng.normal(1.04, 0.14), 0.82, 1.4)),
        shoulders=float(rng.uniform(0.88, 1.12)),
        legs=float(rng.uniform(0.475, 0.525)),
        skin=dye(rng, pick(rng, SKINS), 5),
        hair=pick(rng, ("bald", "short", "bob", "long", "ponytail", "bun"), (0.06, 0.38, 0.16, 0.2, 0.12, 0.08)),
        hair_colour=dye(rng, pick(rng, HAIRS, (5, 4, 3, 2, 2, 1, 1)), 6),
        top=top,
        top_cloth=_cloth(rng, PATTERNS, difficulty.PATTERN_RATE, (0.05, 0.10)),
        inner=dye(rng, pick(rng, GARMENTS)),
        bottom=bottom,
        bottom_cloth=_cloth(rng, woven, 0.3, (0.04, 0.07)),
        fit=float(rng.uniform(0.85, 1.35)),
        shoes=dye(rng, pick(rng, ((40, 38, 38), (232, 232, 230), (180, 40, 40), (110, 74, 48), (60, 90, 160)))),
        hat=pick(rng, ("", "cap", "beanie", "sunhat"), (0.76, 0.1, 0.07, 0.07)),
        hat_colour=dye(rng, pick(rng, GARMENTS)),
        bag=pick(rng, ("", "backpack", "satchel", "handbag"), (0.42, 0.24, 0.18, 0.16)),
        bag_colour=dye(rng, pick(rng, GARMENTS)),
        side=int(pick(rng, (-1, 1))),
    )


@functools.lru_cache(maxsize=64)
def identity(seed: int, passer_by: bool, number: int) -> Person:
    """The person with a number: an identity of the data set, or a passer-by."""
    return sample_person(np.random.default_rng([seed, PERSON, passer_by, number]))
