"""Calibrated likelihood ratios: how much more often a distance occurs between two images of one person than of two.

The mapping from distance to log likelihood ratio is a straight line, found by logistic regression on pairs of people
that the network has not seen (Bruemmer and du Preez, "Application-independent evaluation of speaker detection", 2006).
It is constant where too few pairs of one kind are left to support a larger or smaller ratio. Same-person pairs and
different-person pairs have equal total weight, in the regression as in the measure of quality, Cllr: there are about a
thousand times as many pairs of two people, and how many depends only on the test set.

Cllr is the mean cost, in bits, of the ratios; 1 is that of an answer that says nothing. The minimum Cllr is the cost
after the best monotone mapping of the same pairs (pool-adjacent-violators): the difference of the two is what wrong
calibration costs.
"""

from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from jaxtyping import Float, Float64
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

from mancs_jax.evaluation.comparison import Comparison
from mancs_jax.evaluation.distances import from_pair
from mancs_jax.evaluation.pairs import pair_blocks

Knots = list[list[float]]  # [distance, natural logarithm of the likelihood ratio], by ascending distance
SUPPORT = 10  # pairs of the rarer kind beyond each end of the mapping; of small sets, one in SUPPORT_SHARE pairs
SUPPORT_SHARE = 500
# Pairs of two people are counted in so many bins of distance, each with its mean distance: the regression is the same
# to eight digits, and does not need memory for all of them.
REGRESSION_BINS = 2**20
BIN = 0.5  # width of the bins of a reliability diagram, in powers of ten of the likelihood ratio
MOST_KNOTS = 1000  # of a mapping that is read from a file


def log_likelihood_ratio(knots: Sequence[Sequence[float]], distance: Float[np.ndarray, "*shape"]) -> np.ndarray:
    """Natural logarithm of the likelihood ratio of each distance, float64: linear between knots, constant beyond."""
    at, values = np.array(knots, np.float64).T
    return np.interp(np.asarray(distance, np.float64), at, values)


def probability(log_ratio: Float64[np.ndarray, "*shape"], prior: float) -> Float64[np.ndarray, "*shape"]:
    """Posterior probability of the same person.

    Args:
      log_ratio: natural logarithms of likelihood ratios.
      prior: probability of the same person before the two images were compared, between 0 and 1.

    Raises:
      ValueError: a prior that is not one number between 0 and 1.
    """
    if not isinstance(prior, Real) or not 0 < prior < 1:
        given = f"an array of shape {np.shape(prior)}" if isinstance(prior, np.ndarray) else repr(prior)
        raise ValueError(f"prior is {given}: it must be one number between 0 and 1, as 1/200 for one of 200 people")
    return expit(log_ratio + np.log(prior) - np.log1p(-prior))


def fit(comparison: Comparison) -> Knots | None:
    """Fits the mapping to all pairs of a comparison.

    Returns:
      Two knots; None where the pairs are too few, or the two kinds do not overlap, so that no ratio can be estimated.

    Raises:
      ValueError: the comparison is not one of embeddings.
    """
    parts, near, largest, num_other = [], [], 0.0, 0
    for positive, negative in _distances(comparison):
        parts.append(positive)
        near.append(np.partition(negative, SUPPORT)[:SUPPORT] if len(negative) > SUPPORT else negative)
        largest, num_other = max(largest, float(negative.max(initial=0))), num_other + len(negative)
    same = np.sort(np.concatenate(parts))
    if min(len(same), num_other) < SUPPORT:
        return None
    ranks = [max(1, min(SUPPORT, number // SUPPORT_SHARE)) for number in (len(same), num_other)]
    farthest, nearest = same[-ranks[0]], np.sort(np.concatenate(near))[ranks[1] - 1]
    if not nearest < farthest:
        return None
    number, sums = np.zeros(REGRESSION_BINS), np.zeros(REGRESSION_BINS)
    for _, negative in _distances(comparison):
        place = (negative * ((REGRESSION_BINS - 1) / largest if largest else 0)).astype(np.int64)
        number += np.bincount(place, minlength=REGRESSION_BINS)
        sums += np.bincount(place, negative, minlength=REGRESSION_BINS)
    is_there = number > 0
    intercept, slope = logistic_regression(same, sums[is_there] / number[is_there], number[is_there])
    return [[float(at), float(intercept + slope * at)] for at in (nearest, farthest)]


def _distances(comparison: Comparison) -> Iterator[tuple[Float64[np.ndarray, " P"], Float64[np.ndarray, " N"]]]:
    """Yields the distances of the positive pairs, and of the negative pairs, of blocks."""
    for block in pair_blocks(comparison):
        values = block.values.astype(np.float64)
        positive = values[block.positive]
        values[block.positive] = np.inf
        negative = values[np.isfinite(values)]
        yield from_pair(positive, comparison.distance), from_pair(negative, comparison.distance)


def logistic_regression(
    same: Float64[np.ndarray, " P"], other: Float64[np.ndarray, " N"], number: Float64[np.ndarray, " N"] | None = None
) -> tuple[float, float]:
    """(intercept, slope) of the log likelihood ratio over the distance; the slope is not above 0.

    The two kinds of pairs have equal total weight. `number` says how many pairs each of `other` stands for; None for 1.
    """
    share = np.full(len(other), 1 / len(other)) if number is None else number / np.sum(number)
    centre = np.dot(share, other)
    scale = np.sqrt(np.dot(share, (other - centre) ** 2)) or 1.0
    kinds = [
        ((distances - centre) / scale, shares, sign)
        for distances, shares, sign in ((same, np.full(len(same), 1 / len(same)), 1.0), (other, share, -1.0))
    ]

    def cost(line: np.ndarray) -> tuple[float, np.ndarray]:
        total, gradient = 0.0, np.zeros(2)
        for distance, shares, sign in kinds:
            margin = sign * (line[0] + line[1] * distance)
            total += np.dot(shares, np.logaddexp(0, -margin))
            wrong = -sign * shares * expit(-margin)
            gradient += [np.sum(wrong), np.dot(wrong, distance)]
        return total, gradient

    bounds = [(None, None), (None, 0.0)]
    fitted = minimize(cost, [0.0, -1.0], jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 0, "gtol": 1e-10})
    intercept, slope = fitted.x
    return float(intercept - slope * centre / scale), float(slope / scale)


def quality(comparison: Comparison, knots: Sequence[Sequence[float]]) -> dict[str, Any] | None:
    """How well a mapping fits pairs of other people than it was set on, over all pairs, in float64.

    Returns:
      `cllr`, `min_cllr`, `num_positive_pairs`, `num_negative_pairs` and `reliability`: of each bin of the mapping's
      ratios, `log10_ratio` (its middle), `observed` (log10 of the share of positive pairs over that of negative pairs
      in it; None where one is empty) and the numbers of `positive` and `negative` pairs. None where there is no pair
      of one kind.

    Raises:
      ValueError: the comparison is not one of embeddings.
    """
    positives = np.concatenate([block.values[block.positive] for block in pair_blocks(comparison)])
    thresholds, number = np.unique(positives, return_counts=True)
    low = np.floor(min(value for _, value in knots) / np.log(10) / BIN)
    num_bins = int(np.floor(max(value for _, value in knots) / np.log(10) / BIN) - low) + 1

    def cost_and_bins(values: np.ndarray, sign: float) -> tuple[float, np.ndarray]:
        ratio = log_likelihood_ratio(knots, from_pair(values.astype(np.float64), comparison.distance))
        in_bins = np.floor(ratio / np.log(10) / BIN).astype(np.int64) - int(low)
        return float(np.logaddexp(0, -sign * ratio).sum()), np.bincount(in_bins, minlength=num_bins)

    positive_cost, positive_bins = cost_and_bins(positives, 1)
    negative_cost, negative_bins, num_negatives = 0.0, np.zeros(num_bins, np.int64), 0
    at_most = np.zeros(len(thresholds), np.int64)
    for block in pair_blocks(comparison):
        values = np.array(block.values)
        values[block.positive] = np.inf
        negatives = np.sort(values[np.isfinite(values)])
        at_most += negatives.searchsorted(thresholds, side="right")
        cost, in_bins = cost_and_bins(negatives, -1)
        negative_cost, negative_bins = negative_cost + cost, negative_bins + in_bins
        num_negatives += len(negatives)
    if not num_negatives or not len(positives):
        return None
    return {
        "cllr": float((positive_cost / len(positives) + negative_cost / num_negatives) / (2 * np.log(2))),
        "min_cllr": minimum_cllr(number, np.diff(at_most, prepend=0, append=num_negatives)),
        "num_positive_pairs": len(positives),
        "num_negative_pairs": num_negatives,
        "reliability": [
            {
                "log10_ratio": float((low + i + 0.5) * BIN),
                "observed": float(np.log10(positive / len(positives)) - np.log10(negative / num_negatives))
                if positive and negative
                else None,
                "positive": int(positive),
                "negative": int(negative),
            }
            for i, (positive, negative) in enumerate(zip(positive_bins, negative_bins, strict=True))
        ],
    }


def minimum_cllr(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Cllr after the best monotone mapping of the same pairs, by pool-adjacent-violators.

    Args:
      positives: int [P], numbers of positive pairs at P ascending distances, each above 0.
      negatives: int [P + 1], numbers of negative pairs up to each of these distances and beyond the one before; and
        beyond the last. Negative pairs between two positive ones always fall into one block.
    """
    same = np.append(positives, 0) / np.sum(positives)
    other = negatives / np.sum(negatives)
    is_there = same + other > 0
    same, other = same[is_there], other[is_there]
    posterior = isotonic_regression(same / (same + other), weights=same + other, increasing=False).x
    with np.errstate(divide="ignore"):
        costs = [
            -np.sum(share[share > 0] * np.log2(of[share > 0]))
            for share, of in ((same, posterior), (other, 1 - posterior))
        ]
    return float(sum(costs) / 2)


def calibrated(comparisons: Mapping[str, Comparison], set_on: str) -> dict[str, Any]:
    """Fits a mapping for each distance.

    Args:
      comparisons: distance -> held-out identities, compared by it.
      set_on: who they are, in words.

    Returns:
      `set_on` and, for each distance, `knots` and `set_on`, the quality on the same pairs without `reliability`; or
      None, see `fit`.
    """
    calibration: dict[str, Any] = {"set_on": set_on}
    for distance, comparison in comparisons.items():
        knots = fit(comparison)
        quality_of_fit = (quality(comparison, knots) if knots else None) or {}
        quality_of_fit.pop("reliability", None)
        calibration[distance] = knots and {"knots": knots, "set_on": quality_of_fit}
    return calibration


def knots_of(card: Mapping[str, Any] | None, distance: str) -> Knots | None:
    """The mapping of a card, of a result, or of the `calibration` of one, for one distance; None where it has none.

    Results of several rows, name -> result, are taken where one of them has a calibration.

    Raises:
      ValueError: one line: it has one that is damaged, or several rows have one.
    """
    card = card or {}
    rows = [name for name, of in card.items() if isinstance(of, Mapping) and of.get("calibration")]
    rows = [] if "calibration" in card else rows
    if len(rows) > 1:
        raise ValueError(f"{len(rows)} rows have a calibration ({', '.join(rows)}): give one of them")
    card = card[rows[0]] if rows else card
    calibration = card.get("calibration", card)
    mapping = calibration.get(distance) if isinstance(calibration, Mapping) else calibration
    if mapping is None:
        return None
    knots = mapping.get("knots") if isinstance(mapping, Mapping) else None
    if not _is_monotone(knots):
        raise ValueError(
            f"the calibration for {distance} distance is damaged: knots must be pairs of finite numbers, distances "
            "ascending and logarithms of ratios descending; get the card again"
        )
    return knots


def _is_monotone(knots: Any) -> bool:
    if not isinstance(knots, Sequence) or not 2 <= len(knots) <= MOST_KNOTS:
        return False
    if not all(isinstance(knot, Sequence) and len(knot) == 2 for knot in knots):
        return False
    if not all(type(number) in (int, float) and np.isfinite(number) for knot in knots for number in knot):
        return False
    at, values = np.array(knots, np.float64).T
    return bool((np.diff(at) > 0).all() and (np.diff(values) <= 0).all())
