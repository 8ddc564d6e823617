"""Same person or not: the receiver operating characteristic over all pairs of a query and a gallery image that count.

A pair is accepted where its distance is at most a threshold. The rule of the pairs that count is that of ranking,
`distances.counts_for`. Pairs of one person are positive, all others negative, distractors included.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Int64

from mancs_jax.evaluation.comparison import Comparison, fits_in_memory
from mancs_jax.evaluation.distances import from_pair
from mancs_jax.evaluation.pairs import pair_blocks

RATES = (1e-2, 1e-3, 1e-4)  # false positive rates at which results tell the true positive rate
CURVE_RATES = np.logspace(-6, 0, 61)  # at which the curve in a result is read
# Values are counted in bins of their leading bits: non-negative float32 numbers are ordered as their bits are.
SHIFT = 12  # a bin is 1/2048 of its value wide
NUM_BINS = int(np.float32(np.inf).view(np.int32)) >> SHIFT  # of finite values


class Roc(NamedTuple):
    """Accepted pairs at each of P thresholds, exactly.

    The thresholds are the distances of positive pairs: between two of these no true positive is won. Beyond the equal
    error and the largest of RATES they are the ends of bins.
    """

    distance: Float32[np.ndarray, " P"]  # the thresholds, ascending; P may be 0
    true_positives: Int64[np.ndarray, " P"]  # positive pairs at most as far
    false_positives: Int64[np.ndarray, " P"]  # negative pairs at most as far
    nearer_negatives: Int64[np.ndarray, " P"]  # negative pairs that are nearer
    num_positives: int  # of all pairs that count
    num_negatives: int


def create_roc(comparison: Comparison) -> Roc:
    """Counts the accepted pairs at the distance of every positive pair, exactly, in blocks.

    The values of all positive pairs have to be known before a negative pair is counted. A gallery whose values do not
    fit into memory, see `comparison.kept`, is therefore compared twice.

    Raises:
      ValueError: the comparison is not one of embeddings: such distances depend on the rest of the gallery.
    """
    is_read_once = comparison.memory is None and fits_in_memory(comparison)
    pairs = list(_pair_values(comparison)) if is_read_once else None
    parts, in_bins = [np.empty(0, np.float32)], np.zeros(NUM_BINS, np.int64)
    for values, positives in pairs or _pair_values(comparison):
        parts.append(positives)
        in_bins += _in_bins(values)
    positives = np.concatenate(parts)
    positives_in_bins = _in_bins(positives)
    in_bins -= positives_in_bins
    negatives_to, positives_to = np.cumsum(in_bins), np.cumsum(positives_in_bins)
    num_negatives, num_positives = int(negatives_to[-1]), len(positives)

    # Sorting all negative pairs takes longer than computing them, and most are too far to matter.
    past_rates = negatives_to >= max(RATES) * num_negatives
    past_equal_error = negatives_to * num_positives >= (num_positives - positives_to) * num_negatives
    last_near = int(np.argmax(past_rates & past_equal_error))
    limit = (last_near + 1) << SHIFT
    thresholds, number = np.unique(positives[_bits(positives) < limit], return_counts=True)
    # Negative pairs are all pairs but the positive ones.
    at_most, nearer = -np.cumsum(number), number - np.cumsum(number)
    for values, _ in pairs or _pair_values(comparison):
        near = np.sort(values[_bits(values) < limit])
        at_most += near.searchsorted(thresholds, side="right")
        nearer += near.searchsorted(thresholds, side="left")

    far = last_near + np.flatnonzero((in_bins + positives_in_bins)[last_near:])
    ends = (((far + 1) << SHIFT) - 1).astype(np.int32).view(np.float32)  # the largest value of each bin
    return Roc(
        distance=from_pair(np.concatenate([thresholds, ends]), comparison.distance),
        true_positives=np.concatenate([np.cumsum(number), positives_to[far]]),
        false_positives=np.concatenate([at_most, negatives_to[far]]),
        nearer_negatives=np.concatenate([nearer, negatives_to[far]]),
        num_positives=num_positives,
        num_negatives=num_negatives,
    )


def rates_within(comparison: Comparison, thresholds: Sequence[float]) -> list[dict[str, float]]:
    """Counts the pairs within given distances, exactly: the rates that thresholds of other data give on this.

    Args:
      comparison: of embeddings.
      thresholds: distances.

    Returns:
      `fpr` and `tpr` of each threshold, and the threshold as `distance`.

    Raises:
      ValueError: as `create_roc`; and where there is no positive or no negative pair.
    """
    limits = np.asarray(thresholds, np.float32)
    false_positives, true_positives = np.zeros(len(limits), np.int64), np.zeros(len(limits), np.int64)
    num_negatives = num_positives = 0
    for values in _pair_values(comparison):
        pairs, positives = (from_pair(part, comparison.distance) for part in values)
        for number, limit in enumerate(limits):
            positive = np.count_nonzero(positives <= limit)
            true_positives[number] += positive
            false_positives[number] += np.count_nonzero(pairs <= limit) - positive
        num_negatives += int(np.count_nonzero(np.isfinite(pairs))) - len(positives)
        num_positives += len(positives)
    if not num_negatives or not num_positives:
        raise ValueError("rates need pairs of one person under two cameras, and pairs of two people: there are none")
    return [
        {"distance": float(limit), "fpr": _share(false, num_negatives), "tpr": _share(true, num_positives)}
        for limit, false, true in zip(thresholds, false_positives, true_positives, strict=True)
    ]


def _bits(values: Float32[np.ndarray, "*shape"]) -> Int32[np.ndarray, "*shape"]:
    return values.view(np.int32)


def _in_bins(values: Float32[np.ndarray, "*shape"]) -> Int64[np.ndarray, " bins"]:
    """Numbers of finite values in each bin."""
    return np.bincount(_bits(values).ravel() >> SHIFT, minlength=NUM_BINS)[:NUM_BINS]


def _pair_values(comparison: Comparison) -> Iterator[tuple[Float32[np.ndarray, "B T"], Float32[np.ndarray, " N"]]]:
    """Yields (values of all pairs, infinite where one does not count; those of the positive pairs) of blocks."""
    for block in pair_blocks(comparison):
        yield block.values, block.values[block.positive]


def at_rate(roc: Roc, rate: float) -> dict[str, Any]:
    """The largest true positive rate with a false positive rate of at most `rate`.

    Returns:
      `max_fpr` (the rate asked for), `fpr` and `tpr` that are reached, and `distance`, the threshold: the farthest
      positive pair that is accepted. `tpr` is 0 and `distance` None where no positive pair can be accepted.
    """
    # Multiplied and not divided, so that a rate of k / num_negatives accepts k.
    within = np.flatnonzero(roc.false_positives <= rate * roc.num_negatives * (1 + 1e-12))
    if not len(within):
        return {"max_fpr": float(rate), "fpr": 0.0, "tpr": 0.0, "distance": None}
    last = within[-1]
    return {
        "max_fpr": float(rate),
        "fpr": _share(roc.false_positives[last], roc.num_negatives),
        "tpr": _share(roc.true_positives[last], roc.num_positives),
        "distance": float(roc.distance[last]),
    }


def equal_error(roc: Roc) -> dict[str, Any]:
    """The point where as large a share of negative pairs is accepted as of positive pairs refused.

    The curve is made of straight lines between the points of all distances, so pairs at one distance are taken in
    together, and a share of them where the curve crosses between.

    Returns:
      `rate`, and `distance`: the farthest positive pair that is accepted there; None where none is.
    """
    accepted = roc.true_positives / roc.num_positives
    before = np.concatenate([[0.0], accepted[:-1]])
    # Two corners a distance: its negative pairs that are nearer, then all its pairs.
    false_positive = np.stack([roc.nearer_negatives, roc.false_positives], axis=1).ravel() / roc.num_negatives
    true_positive = np.stack([before, accepted], axis=1).ravel()
    x, y = np.append(0.0, false_positive), np.append(0.0, true_positive)
    corner = int(np.flatnonzero(x + y >= 1)[0])  # there is one: at the last distance all positive pairs are accepted
    start, end = x[corner - 1] + y[corner - 1], x[corner] + y[corner]
    share = (1 - start) / (end - start)
    at = (corner - 1) // 2 - corner % 2  # nearer negatives only leave the threshold at the distance before
    return {
        "rate": float(x[corner - 1] + share * (x[corner] - x[corner - 1])),
        "distance": float(roc.distance[at]) if at >= 0 else None,
    }


def described(roc: Roc) -> dict[str, Any] | None:
    """The curve as a result has it, plain numbers; None where there is no positive or no negative pair.

    Returns:
      `num_positive_pairs`, `num_negative_pairs`, `at` (`at_rate` of each of RATES), `equal_error`, and `curve`, pairs
      of a false positive rate and the true positive rate at most that.
    """
    if not roc.num_positives or not roc.num_negatives:
        return None
    return {
        "num_positive_pairs": roc.num_positives,
        "num_negative_pairs": roc.num_negatives,
        "at": [at_rate(roc, rate) for rate in RATES],
        "equal_error": equal_error(roc),
        "curve": [[float(rate), at_rate(roc, rate)["tpr"]] for rate in CURVE_RATES],
    }


def _share(number: int | np.integer, total: int) -> float:
    return float(number / total)
