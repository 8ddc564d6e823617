"""Confidence intervals of pair rates and thresholds, by the bootstrap over identities.

A draw weights each negative pair by both of its identities: w_i w_j, the number of pairs that it becomes where identity
i was drawn w_i times and j w_j times. A positive pair has one identity and the weight w_i: two copies of a person would
be two people. A distractor has no identity, so it keeps the weight 1. In each draw the threshold is found anew, because
it was found on these identities, too.

All pairs near enough to matter are sorted once. Sums of weights over a run of them are a product of the weights with
the sparse matrix of pair counts by identities, so that only the run in which the threshold of a draw lies is summed
pair by pair. The results are those of the plain sums.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float32, Float64, Int

from mancs_jax.evaluation import bootstrap
from mancs_jax.evaluation.bootstrap import FEW_PAIRS
from mancs_jax.evaluation.comparison import Comparison
from mancs_jax.evaluation.distances import from_pair
from mancs_jax.evaluation.pairs import pair_blocks
from mancs_jax.evaluation.roc import Roc

MARGIN = 2.0  # negative pairs that are read at first, as a multiple of those at the largest rate
LEAST_PAIRS = 50_000  # that are read in any case: draws of few identities differ much
MOST_PAIRS = 2**23  # read for one rate; a rate of more has no interval
RUNS = 16  # of sorted pairs, about the threshold of each rate
AT_ONCE = 2**22  # weights of pairs that exist at a time


class NearPairs(NamedTuple):
    """The positive pairs, and the N nearest negative pairs, by the identities of their images."""

    negative: Float32[np.ndarray, " N"]  # values, ascending
    query: Int[np.ndarray, " N"]  # identity of the query, from 0 to I - 1
    gallery: Int[np.ndarray, " N"]  # identity of the gallery image; I for a distractor
    are_all: bool  # there are no other negative pairs
    positive: list[Float32[np.ndarray, " P"]]  # values of each identity, ascending
    num_queries: Int[np.ndarray, " I"]
    num_gallery: Int[np.ndarray, " I"]  # images that are no junk
    num_distractors: int


class RateDraws(NamedTuple):
    """The point of the ROC curve at a false positive rate, in the sample and in each draw."""

    # Without a negative pair, as where only one identity was drawn, all three are NaN.
    fpr: Float64[np.ndarray, " draws"]  # at the threshold of the sample
    tpr: Float64[np.ndarray, " draws"]  # at the threshold of the draw
    value: Float32[np.ndarray, " draws"]  # threshold: the farthest positive pair accepted; NaN where there is none


def with_intervals(comparison: Comparison, roc: Roc, described: dict[str, Any] | None) -> dict[str, Any] | None:
    """Adds intervals to the points of a ROC curve.

    Args:
      comparison: of embeddings.
      roc: its `roc.create_roc`.
      described: its `roc.described`.

    Returns:
      `described`, where each entry of `at` has `tpr_interval`, `fpr_interval` (of the threshold in the result, on other
      identities), `distance_interval` (of the threshold) and `interval_method`, "bootstrap" or "wilson". With fewer
      than ten negative pairs within the rate, or fewer than ten positive pairs accepted or rejected, the intervals are
      Wilson's: of the false positive rate among all negative pairs, and of the true positive rate among as many
      observations as there are identities with positive pairs. All are None where the rate is less than one negative
      pair or more than MOST_PAIRS, and with fewer than `bootstrap.LEAST_IDENTITIES` query identities.
    """
    if described is None:
        return None
    rates = [at["max_fpr"] for at in described["at"]]
    is_enough = len(np.unique(comparison.query.pid)) >= bootstrap.LEAST_IDENTITIES
    usable = [rate for rate in rates if is_enough and 1 <= rate * roc.num_negatives <= MOST_PAIRS / MARGIN]
    draws = dict(zip(usable, rate_draws(comparison, roc, usable), strict=True)) if usable else {}
    points = [at | _intervals(at, roc, draws.get(at["max_fpr"]), comparison) for at in described["at"]]
    return described | {"at": points}


def _intervals(
    at: dict[str, Any], roc: Roc, draws: tuple[RateDraws, int] | None, comparison: Comparison
) -> dict[str, Any]:
    if draws is None:
        return dict.fromkeys(("tpr_interval", "fpr_interval", "distance_interval", "interval_method"))
    of, num_identities = draws
    accepted = round(at["tpr"] * roc.num_positives)
    behind = (at["max_fpr"] * roc.num_negatives, accepted, roc.num_positives - accepted)
    if min(behind) < FEW_PAIRS:
        return {
            "tpr_interval": bootstrap.wilson(at["tpr"], num_identities),
            "fpr_interval": bootstrap.wilson(at["fpr"], roc.num_negatives),
            "distance_interval": None,
            "interval_method": "wilson",
        }
    ends = np.array(bootstrap.interval(of.value), np.float32)
    return {
        "tpr_interval": bootstrap.interval(of.tpr),
        "fpr_interval": bootstrap.interval(of.fpr),
        "distance_interval": from_pair(ends, comparison.distance).tolist(),
        "interval_method": "bootstrap",
    }


def rate_draws(comparison: Comparison, roc: Roc, rates: Sequence[float]) -> list[tuple[RateDraws, int]]:
    """Finds the points of the ROC curve at some false positive rates in the draws of `bootstrap.identity_weights`.

    The identities that are drawn are those of queries and gallery.

    Args:
      comparison: of embeddings.
      roc: its `roc.create_roc`.
      rates: false positive rates, at least one.

    Returns:
      For each rate the draws, and the number of identities with positive pairs.

    Raises:
      ValueError: the comparison is not one of embeddings.
    """
    wanted = max(MARGIN * max(rates) * roc.num_negatives, LEAST_PAIRS)
    while True:
        pairs = near_pairs(comparison, roc, wanted)
        weights = bootstrap.identity_weights(len(pairs.num_queries))
        if (draws := draws_at(pairs, weights, rates)) is not None:
            num_identities = sum(len(values) > 0 for values in pairs.positive)
            return [(at_rate, num_identities) for at_rate in draws]
        wanted *= 2  # the threshold of a draw lies beyond


def near_pairs(comparison: Comparison, roc: Roc, wanted: float) -> NearPairs:
    """Reads the positive pairs, and at least `wanted` of the nearest negative pairs where there are so many."""
    enough = np.flatnonzero(roc.false_positives >= wanted)
    limit = roc.distance[enough[0]] if len(enough) else np.float32(np.inf)
    query_pid, gallery_pid = comparison.query.pid, comparison.gallery.pid
    people = np.union1d(query_pid, gallery_pid[gallery_pid > 0])
    query_identity = np.searchsorted(people, query_pid).astype(np.int32)
    gallery_identity = np.where(gallery_pid > 0, np.searchsorted(people, gallery_pid), len(people)).astype(np.int32)
    negatives, positives = [], []
    for block in pair_blocks(comparison):
        row, column = block.positive
        positives.append((block.values[row, column], query_identity[block.query[row]]))
        is_near = from_pair(block.values, comparison.distance) <= limit
        is_near &= np.isfinite(block.values)
        is_near[row, column] = False
        row, column = np.nonzero(is_near)
        negatives.append(
            (block.values[row, column], query_identity[block.query[row]], gallery_identity[block.gallery[column]])
        )
    value, query, gallery = (np.concatenate(part) for part in zip(*negatives, strict=True))
    order = np.argsort(value, kind="stable")
    positive, owner = (np.concatenate(part) for part in zip(*positives, strict=True))
    by_owner = np.lexsort((positive, owner))
    starts = np.searchsorted(owner[by_owner], np.arange(1, len(people)))
    known = gallery_pid > 0
    return NearPairs(
        negative=value[order],
        query=query[order],
        gallery=gallery[order],
        are_all=len(value) == roc.num_negatives,
        positive=np.split(positive[by_owner], starts),
        num_queries=np.bincount(query_identity, minlength=len(people)),
        num_gallery=np.bincount(gallery_identity[known], minlength=len(people)),
        num_distractors=int(np.count_nonzero(gallery_pid == 0)),
    )


def draws_at(
    pairs: NearPairs, weights: Float64[np.ndarray, "draws I"], rates: Sequence[float]
) -> list[RateDraws] | None:
    """Finds the points at some rates in each draw; None where the threshold of one lies beyond the pairs.

    Args:
      pairs: of `near_pairs`.
      weights: of `bootstrap.identity_weights`.
      rates: false positive rates.
    """
    total = _negative_weight(pairs, weights)
    sample = np.ones((1, len(pairs.num_queries)))
    count = _negative_weight(pairs, sample)[0]
    # Multiplied and not divided, so that a rate of k pairs accepts k; see `roc.at_rate`.
    budget = [rate * total * (1 + 1e-12) for rate in rates]
    limits = [_value_at(pairs, int(rate * count * (1 + 1e-12))) for rate in rates]
    if None in limits:
        return None
    thresholds = [_accepted(pairs, sample, np.array([limit], np.float32)).value[0] for limit in limits]
    ends = [0 if np.isnan(value) else int(pairs.negative.searchsorted(value, "right")) for value in thresholds]

    crossed = [np.full(len(weights), np.nan, np.float32) for _ in rates]
    is_defined = total > 0
    fpr = [np.where(is_defined, 0.0, np.nan) for _ in rates]
    before = np.zeros(len(weights))
    for start, end, mass in _runs(pairs, weights, rates, count, ends):
        after = before + mass
        for allowed, at in zip(budget, crossed, strict=True):
            inside = np.flatnonzero((before <= allowed) & (after > allowed))
            at[inside] = _crossing_values(pairs, weights[inside], slice(start, end), allowed[inside] - before[inside])
        for false, last in zip(fpr, ends, strict=True):
            if last == end:
                np.divide(after, total, out=false, where=is_defined)
        before = after
    for allowed, at in zip(budget, crossed, strict=True):
        if (before <= allowed).any() and not pairs.are_all:
            return None
        at[before <= allowed] = np.inf
    return [
        RateDraws(false, np.where(is_defined, of.tpr, np.nan), np.where(is_defined, of.value, np.float32(np.nan)))
        for false, of in zip(fpr, (_accepted(pairs, weights, at) for at in crossed), strict=True)
    ]


class _Accepted(NamedTuple):
    tpr: Float64[np.ndarray, " draws"]
    value: Float32[np.ndarray, " draws"]


def _negative_weight(pairs: NearPairs, weights: Float64[np.ndarray, "draws I"]) -> Float64[np.ndarray, " draws"]:
    """Sum of the weights of all negative pairs: all pairs of queries and gallery images but those of one identity."""
    queries, gallery = weights @ pairs.num_queries, weights @ pairs.num_gallery
    own = weights**2 @ (pairs.num_queries * pairs.num_gallery)
    return queries * (gallery + pairs.num_distractors) - own


def _value_at(pairs: NearPairs, number: int) -> float | None:
    """Value of the negative pair behind the nearest `number`, infinite where there is none; None if it was not read."""
    if number < len(pairs.negative):
        return float(pairs.negative[number])
    return np.inf if pairs.are_all else None


def _runs(
    pairs: NearPairs, weights: Float64[np.ndarray, "draws I"], rates: Sequence[float], count: float, ends: Sequence[int]
) -> Iterator[tuple[int, int, Float64[np.ndarray, " draws"]]]:
    """Yields (start, end, sum of the weights) of runs of the negative pairs, shorter about the thresholds."""
    number = len(pairs.negative)
    parts = [rate * count * np.linspace(0.4, MARGIN, RUNS) for rate in rates]
    parts.append(np.linspace(0, number, 2 + number // LEAST_PAIRS))  # beyond
    edges = np.unique(np.clip(np.concatenate([*parts, [0, number], ends]), 0, number).astype(int))
    query_weights = np.ascontiguousarray(weights.T)
    gallery_weights = np.concatenate([query_weights, np.ones((1, len(weights)))])
    size = len(gallery_weights), len(query_weights)
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        place = (pairs.gallery[start:end], pairs.query[start:end])
        counts = scipy.sparse.csr_array((np.ones(end - start), place), shape=size)  # equal places are added
        yield int(start), int(end), np.einsum("jd,jd->d", counts @ query_weights, gallery_weights)


def _crossing_values(
    pairs: NearPairs, weights: Float64[np.ndarray, "draws I"], run: slice, allowed: Float64[np.ndarray, " draws"]
) -> Float32[np.ndarray, " draws"]:
    """Value of the first pair of a run that is more than a draw allows."""
    query, gallery, length = pairs.query[run], pairs.gallery[run], run.stop - run.start
    values = np.empty(len(weights), np.float32)
    step = max(1, AT_ONCE // max(1, length))
    for start in range(0, len(weights), step):
        part = slice(start, start + step)
        columns = np.concatenate([weights[part], np.ones((len(weights[part]), 1))], axis=1)
        summed = np.cumsum(columns[:, query] * columns[:, gallery], axis=1)
        # The sums of runs and of single pairs are of whole numbers: there is no rounding between them.
        values[part] = pairs.negative[run][np.argmax(summed > allowed[part, None], axis=1)]
    return values


def _accepted(
    pairs: NearPairs, weights: Float64[np.ndarray, "draws I"], limit: Float32[np.ndarray, " draws"]
) -> _Accepted:
    """Accepts the positive pairs that are nearer than the limit of each draw."""
    accepted, number = np.zeros(len(weights)), np.zeros(len(weights))
    farthest = np.full(len(weights), np.nan, np.float32)
    for weight, values in zip(weights.T, pairs.positive, strict=True):
        if len(values):
            within = values.searchsorted(limit, side="left")
            accepted += weight * within
            number += weight * len(values)
            last: Float32[np.ndarray, " draws"] = values[np.maximum(within - 1, 0)]
            is_drawn: Bool[np.ndarray, " draws"] = (within > 0) & (weight > 0)
            farthest = np.where(is_drawn, np.fmax(farthest, last), farthest)
    with np.errstate(invalid="ignore"):
        return _Accepted(accepted / number, farthest)
