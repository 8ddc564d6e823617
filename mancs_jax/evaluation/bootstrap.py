"""Confidence intervals by the bootstrap over identities.

Queries of one person are not independent: a person who is hard to recognize in one image mostly is so in the next. So
identities are drawn with replacement, not queries (the cluster bootstrap: Davison and Hinkley, "Bootstrap Methods and
their Application", 1997, section 3.8). A draw gives each identity a weight, the number of times it was drawn, and a
score becomes a weighted mean. The models and the gallery stay as they are: an interval says how much a score depends on
which people the test set happens to have.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Float64, Integer, Num

DRAWS = 2000
SEED = 0
CONFIDENCE = 0.95
# With fewer, scores, pair rates and open-set rates have no interval (with 20 identities, those of scores cover 90 to 93
# %, see docs/benchmarks.md), groups have no rates, and rates of a pair of cameras have Wilson's interval.
LEAST_IDENTITIES = 10
FEW_PAIRS = 10  # with fewer accepted or rejected, a rate of pairs has Wilson's interval
NORMAL_QUANTILE = 1.959963984540054  # of (1 + CONFIDENCE) / 2


def identity_weights(num_identities: int, *, draws: int = DRAWS, seed: int = SEED) -> Float64[np.ndarray, "draws I"]:
    """Draws as many identities as there are, with replacement, and counts how often each one was drawn.

    The weights depend on nothing but the arguments, so that two results on the same identities share their draws.

    Args:
      num_identities: I, at least 1.
      draws: number of repetitions.
      seed: of `numpy.random.default_rng`.

    Returns:
      Whole numbers, each row with the sum I.
    """
    rng = np.random.default_rng(seed)
    weights = np.empty((draws, num_identities))
    for row in weights:
        row[:] = np.bincount(rng.integers(num_identities, size=num_identities), minlength=num_identities)
    return weights


def weighted_means(
    values: Num[np.ndarray, "N ..."], identity: Integer[np.ndarray, " N"], weights: Float64[np.ndarray, "draws I"]
) -> Float64[np.ndarray, "draws ..."]:
    """Means of values in each draw, each value with the weight of its identity.

    Args:
      values: a value, or several, of each query or other observation.
      identity: the column of `weights` for each.
      weights: of `identity_weights`.

    Returns:
      A mean for each draw; NaN in draws without an observation, where some identities have none.
    """
    columns = np.reshape(values, (len(identity), -1)).astype(np.float64)
    number = np.bincount(identity, minlength=weights.shape[1])
    sums = np.stack([np.bincount(identity, column, minlength=weights.shape[1]) for column in columns.T], axis=1)
    with np.errstate(invalid="ignore"):
        means = (weights @ sums) / (weights @ number)[:, None]
    return means.reshape(len(weights), *np.shape(values)[1:])


def interval(draws: Float[np.ndarray, " draws"], confidence: float = CONFIDENCE) -> list[float]:
    """The interval between the percentiles of a score's draws, as [low, high]; NaN where all draws are NaN.

    Draws in which the score is undefined (NaN) are left out.
    """
    defined = draws[~np.isnan(draws)]
    if not len(defined):
        return [float("nan")] * 2
    return np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()


def wilson(share: float, number: float) -> list[float]:
    """Wilson's interval of a share, as [low, high] (Wilson, 1927): for shares of 0 or 1 and for few observations.

    Args:
      share: that was observed, in [0, 1].
      number: of independent observations, above 0.
    """
    squared = NORMAL_QUANTILE**2 / number
    centre = (share + squared / 2) / (1 + squared)
    half = np.sqrt(squared * share * (1 - share) + squared**2 / 4) / (1 + squared)
    return [max(0.0, float(centre - half)), min(1.0, float(centre + half))]


def mean_intervals(
    values: Mapping[str, Num[np.ndarray, " N"]], pid: Integer[np.ndarray, " N"]
) -> dict[str, list[float]]:
    """Intervals of means of values in [0, 1], by the bootstrap over identities.

    Where every draw has the same mean (all queries are right, or all are wrong), the bootstrap knows no uncertainty:
    the interval is Wilson's then, of as many observations as there are identities.

    Args:
      values: name of a score -> its value for each query.
      pid: identity of each query.

    Returns:
      name -> [low, high].
    """
    people, identity = np.unique(pid, return_inverse=True)
    draws = weighted_means(np.stack(list(values.values()), axis=1), identity, identity_weights(len(people)))
    spread = np.ptp(draws, axis=0)
    return {
        name: interval(draws[:, i]) if spread[i] > 1e-12 else wilson(float(np.mean(of)), len(people))
        for i, (name, of) in enumerate(values.items())
    }
