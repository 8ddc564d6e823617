"""Random choices: the seeds of each kind of choice, and a choice by weight."""

from collections.abc import Sequence
from typing import Any

import numpy as np

# First entry of the seed sequence of each kind of random choice, so that no two kinds share numbers.
PERSON, VISIT, PICTURE, BOX, SCENE, JUNK, DISTRACTOR = range(7)


def pick(rng: np.random.Generator, choices: Sequence, weights: Sequence[float] | None = None) -> Any:
    """One of the choices, by weight."""
    if weights is None:
        return choices[int(rng.integers(len(choices)))]
    return choices[int(np.searchsorted(np.cumsum(weights) / np.sum(weights), rng.random(), side="right"))]
