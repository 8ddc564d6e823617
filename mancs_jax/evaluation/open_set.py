"""Open-set identification: how often the gallery answers for people who are not in it, and misses people who are.

Half of the query identities are removed from the gallery, in several seeded repeats. A query of a removed identity is a
*non-mated* search: any image within the threshold is a false positive. A query of another identity is a *mated* search:
it fails where no image of its own person (under another camera) is within the threshold. The terms are those of ISO/IEC
19795-1: FPIR, the false-positive identification rate, and FNIR, the false-negative identification rate. Departures from
it: a mate counts at any rank within the threshold; images of the query's own person and camera and junk never count,
as in ranking; a query without a mate in the gallery takes no part in the FNIR.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int

from mancs_jax.evaluation.comparison import Comparison
from mancs_jax.evaluation.distances import from_pair
from mancs_jax.evaluation.pairs import pair_blocks

RATES = (0.01, 0.1)  # false-positive identification rates at which results tell the FNIR
CURVE_RATES = np.logspace(-3, 0, 31)  # at which the curve in a result is read
REPEATS, SEED = 5, 0


class Searches(NamedTuple):
    """The two distances of each query that decide an open-set search; infinite where there is no such image."""

    identity: Int[np.ndarray, " Q"]  # of each query, a position in the sorted identities of all queries
    mate: Float32[np.ndarray, " Q"]  # to the nearest image of the query's person
    non_mate: Float32[np.ndarray, "R Q"]  # to the nearest image of anybody else, in each repeat
    is_removed: Bool[np.ndarray, "R I"]  # the identities that are not in the gallery, in each repeat


def removed_identities(number: int, repeats: int = REPEATS, seed: int = SEED) -> Bool[np.ndarray, "R I"]:
    """Draws half of the identities, rounded down, in each repeat; repeat r has the seed [seed, r]."""
    removed = np.zeros((repeats, number), bool)
    for repeat, row in enumerate(removed):
        row[np.random.default_rng([seed, repeat]).permutation(number)[: number // 2]] = True
    return removed


def search_open_set(comparison: Comparison, repeats: int = REPEATS, seed: int = SEED) -> Searches:
    """Finds the nearest mate and non-mate of each query, block by block.

    Raises:
      ValueError: one line: re-ranked or given distances, which change with the gallery, or fewer than two identities.
    """
    identities, identity = np.unique(comparison.query.pid, return_inverse=True)
    if len(identities) < 2:
        raise ValueError("open-set evaluation needs queries of at least two people: half of them leave the gallery")
    is_removed = removed_identities(len(identities), repeats, seed)
    mate = np.full(len(identity), np.inf, np.float32)
    non_mate = np.full((repeats, len(identity)), np.inf, np.float32)
    for rows, images, values, (row, column) in pair_blocks(comparison):
        np.minimum.at(mate, rows[row], values[row, column])
        others = np.array(values)
        others[row, column] = np.inf
        pid = comparison.gallery.pid[images]
        position = np.minimum(np.searchsorted(identities, pid), len(identities) - 1)
        is_query_identity = identities[position] == pid
        for removed, nearest in zip(is_removed, non_mate, strict=True):
            is_left = ~(is_query_identity & removed[position])
            if is_left.any():
                nearest[rows] = np.minimum(nearest[rows], others[:, is_left].min(axis=1))
    return Searches(identity, *(from_pair(values, comparison.distance) for values in (mate, non_mate)), is_removed)


class Rates(NamedTuple):
    """Rates of one repeat and one weighting of the identities, at one largest FPIR."""

    fpir: Float64[np.ndarray, "*shape"]
    fnir: Float64[np.ndarray, "*shape"]
    distance: Float64[np.ndarray, "*shape"]  # the threshold: nothing farther is returned


def rates_at(
    searches: Searches, repeat: int, max_fpir: float, weights: Float[np.ndarray, "N I"] | None = None
) -> Rates:
    """The lowest FNIR with an FPIR of at most `max_fpir`.

    Args:
      searches: see `search_open_set`.
      repeat: one of its repeats.
      max_fpir: between 0 and 1.
      weights: of the identities, N draws of a bootstrap; by default one draw in which each identity counts once.

    Returns:
      Rates [N]. The threshold is the largest float32 distance that keeps the FPIR; it is infinite where no search has
      to be kept out. A rate of no search is NaN.
    """
    removed = searches.is_removed[repeat]
    if weights is None:
        weights = np.ones((1, len(removed)))
    is_non_mated = removed[searches.identity]
    is_mated = ~is_non_mated & np.isfinite(searches.mate)
    nearest, in_front_of = _sorted_weights(searches.non_mate[repeat], searches.identity, is_non_mated, weights)
    mates, mates_in_front_of = _sorted_weights(searches.mate, searches.identity, is_mated, weights)
    total, mated_total = in_front_of[:, -1:], mates_in_front_of[:, -1]
    # The first search that is too many; the factor lets a rate of k / N accept k.
    last = np.sum(in_front_of[:, 1:] <= max_fpir * total * (1 + 1e-12), axis=1)
    too_near = np.append(nearest, np.float32(np.inf))[last]
    draws = np.arange(len(weights))
    with np.errstate(invalid="ignore"):
        return Rates(
            fpir=in_front_of[draws, np.searchsorted(nearest, too_near)] / total[:, 0],
            fnir=1 - mates_in_front_of[draws, np.searchsorted(mates, too_near)] / mated_total,
            distance=np.nextafter(too_near, np.float32(-np.inf), where=np.isfinite(too_near), out=too_near.copy()).astype(
                np.float64
            ),
        )


def _sorted_weights(
    distance: Float32[np.ndarray, " Q"],
    identity: Int[np.ndarray, " Q"],
    takes_part: Bool[np.ndarray, " Q"],
    weights: Float[np.ndarray, "N I"],
) -> tuple[Float32[np.ndarray, " S"], Float64[np.ndarray, "N _"]]:
    """(distances of those that take part, ascending; the weight of the searches in front of each, and of all)."""
    chosen = np.flatnonzero(takes_part)
    order = chosen[np.argsort(distance[chosen], kind="stable")]
    cumulative = np.cumsum(weights[:, identity[order]], axis=1, dtype=np.float64)
    return distance[order], np.concatenate([np.zeros((len(weights), 1)), cumulative], axis=1)
