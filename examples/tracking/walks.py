"""The ways of the walkers of a scene: where each one is, and which way he or she faces, frame by frame.

Some walk in pairs, turn about, or stand for a while. Lengths are in frame heights: x to the right, depth 0 at the far
end of the ground and 1 at the near end.
"""

import math
from typing import NamedTuple

import numpy as np

# First entry of the seed sequence of a scene; the data set takes 0 to 6 (mancs_jax/data/walkers/chance.py).
WALK = 7

RATE = 10  # frames a second
PACE = 0.8  # body heights a second: 1.4 m/s
PACE_SPREAD = 0.15  # sd of the pace from one walker to another
CYCLE = 0.82  # body heights that two steps take
PAIR_RATE = 0.35  # share of walkers who go beside the one before
TURN_RATE = 0.01  # of a frame in which somebody turns about
STAND_RATE = 0.008  # of a frame in which somebody stops
STAND = (8, 25)  # fewest and most frames that somebody stands
DEPTHS = (0.25, 0.95)  # of the walkers' lanes


class Walk(NamedTuple):
    """The way of one walker over F frames."""

    x: np.ndarray  # float [F], of the feet
    depth: np.ndarray  # float [F], of the feet
    heading: np.ndarray  # float [F], radians, see `figure.Pose`
    phase: np.ndarray  # float [F], radians of the walking cycle
    moves: np.ndarray  # bool [F]
    there: np.ndarray  # bool [F], False before the walker comes and after he or she has left


def body_height(depth: np.ndarray | float) -> np.ndarray | float:
    """Height of a grown person at a depth, in frame heights."""
    return 0.38 + 0.25 * np.asarray(depth)


def walks(seed: int, num_people: int, num_frames: int, width: float) -> list[Walk]:
    """Draws the ways of all walkers; `width` is that of the frame, in frame heights."""
    drawn: list[Walk] = []
    start: tuple[float, float, float, float, int] | None = None
    for number in range(num_people):
        rng = np.random.default_rng([seed, WALK, 1, number])
        start = _start(rng, num_frames, width, start)
        drawn.append(_walk(rng, start, num_frames, width))
    return drawn


def _start(rng, num_frames, width, before):
    """(x, depth, direction, pace, first frame) of a walker, beside the one before where they are a pair."""
    beside = rng.random() < PAIR_RATE and before is not None
    direction, depth = float(rng.choice((-1, 1))), rng.uniform(*DEPTHS)
    pace = PACE * math.exp(rng.normal(0, PACE_SPREAD))
    first = 0 if rng.random() < 0.5 else int(rng.integers(0, max(1, int(0.6 * num_frames))))
    x = rng.uniform(0, width) if first == 0 else (-0.1 if direction > 0 else width + 0.1)
    if not beside:
        return x, depth, direction, pace, first
    x, depth, direction, pace, first = before
    near = float(np.clip(depth + rng.choice((-1, 1)) * rng.uniform(0.03, 0.1), *DEPTHS))
    return x + rng.uniform(-0.15, 0.15), near, direction, pace, first


def _walk(rng, start, num_frames, width) -> Walk:
    x, depth, direction, pace, first = start
    walk = Walk(*np.zeros((4, num_frames)), *np.zeros((2, num_frames), bool))
    heading, phase, standing = direction * math.pi / 2, rng.uniform(0, 2 * math.pi), 0
    drift = rng.normal(0, 0.004)
    for frame in range(first, num_frames):
        if rng.random() < TURN_RATE:
            direction = -direction
        if standing == 0 and rng.random() < STAND_RATE:
            standing = int(rng.integers(STAND[0], STAND[1] + 1))
        heading += float(np.clip(direction * math.pi / 2 - heading, -0.9, 0.9))  # a turn takes four frames
        step = 0.0 if standing else pace / RATE * math.exp(rng.normal(0, 0.05))
        standing = max(0, standing - 1)
        if not DEPTHS[0] <= depth + drift <= DEPTHS[1]:
            drift = -drift
        x += step * math.sin(heading) * float(body_height(depth))
        depth += drift * bool(step)
        phase += 2 * math.pi * step / CYCLE
        if not -0.3 < x < width + 0.3:
            break
        for field, value in zip(walk, (x, depth, heading, phase, step > 0, True), strict=True):
            field[frame] = value
    return walk
