"""Open-set identification: how often a search for an absent person returns a match, and a present one is missed.

Half of the query identities are removed from the gallery, in several seeded repeats. A query of a removed identity is a
*non-mated* search: any image within the threshold is a false positive. A query of another identity is a *mated* search:
it fails where no image of its own person (under another camera) is within the threshold. The terms are those of ISO/IEC
19795-1: FPIR, the false-positive identification rate, and FNIR, the false-negative identification rate. Departures from
it: a mate counts at any rank within the threshold; images of the query's own person and camera and junk never count,
as in ranking; a query without a mate in the gallery takes no part in the FNIR.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int

from mancs_jax.evaluation.bootstrap import LEAST_IDENTITIES, identity_weights, interval
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
    non_mate: Float32[np.ndarray, "R Q"]  # to the nearest image of another person, in each repeat
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
        non_mate_values = np.array(values)
        non_mate_values[row, column] = np.inf
        pid = comparison.gallery.pid[images]
        position = np.minimum(np.searchsorted(identities, pid), len(identities) - 1)
        is_query_identity = identities[position] == pid
        for removed, nearest in zip(is_removed, non_mate, strict=True):
            is_left = ~(is_query_identity & removed[position])
            if is_left.any():
                nearest[rows] = np.minimum(nearest[rows], non_mate_values[:, is_left].min(axis=1))
    mate, non_mate = (from_pair(values, comparison.distance) for values in (mate, non_mate))
    return Searches(identity, mate, non_mate, is_removed)


class Rates(NamedTuple):
    """Rates of one repeat, at R largest FPIRs and in N weightings of the identities."""

    fpir: Float64[np.ndarray, "R N"]
    fnir: Float64[np.ndarray, "R N"]
    distance: Float64[np.ndarray, "R N"]  # the threshold: nothing farther is returned


def rates_at(
    searches: Searches, repeat: int, max_fpir: Sequence[float], weights: Float[np.ndarray, "N I"] | None = None
) -> Rates:
    """The lowest FNIR with an FPIR of at most `max_fpir`.

    Args:
      searches: see `search_open_set`.
      repeat: one of its repeats.
      max_fpir: R rates between 0 and 1.
      weights: of the identities, N draws of a bootstrap; by default one draw in which each identity counts once.

    Returns:
      The threshold is the largest float32 distance that keeps the FPIR; it is infinite where no search has to be kept
      out. A rate of no search is NaN, and so is the FNIR where there is no non-mated search to set the threshold on.
    """
    removed = searches.is_removed[repeat]
    weights = np.ones((1, len(removed))) if weights is None else weights
    is_non_mated = removed[searches.identity]
    is_mated = ~is_non_mated & np.isfinite(searches.mate)
    nearest, in_front = _sorted_weights(searches.non_mate[repeat], searches.identity, is_non_mated, weights)
    mates, mates_in_front = _sorted_weights(searches.mate, searches.identity, is_mated, weights)
    # The first search that is too many; the factor lets a rate of k / N accept k.
    last = np.stack([np.sum(in_front[:, 1:] <= rate * in_front[:, -1:] * (1 + 1e-12), axis=1) for rate in max_fpir])
    too_near = np.append(nearest, np.float32(np.inf))[last]
    draws, is_limited = np.arange(len(weights)), np.isfinite(too_near)
    with np.errstate(invalid="ignore"):
        fnir = 1 - mates_in_front[draws, np.searchsorted(mates, too_near)] / mates_in_front[:, -1]
        return Rates(
            fpir=in_front[draws, np.searchsorted(nearest, too_near)] / in_front[:, -1],
            fnir=np.where(in_front[:, -1] > 0, fnir, np.nan),
            distance=np.where(is_limited, np.nextafter(too_near, np.float32(-np.inf)), too_near).astype(np.float64),
        )


def described(searches: Searches, seed: int = SEED) -> dict[str, Any]:
    """The rates as a result has them, plain numbers: means over the repeats, with 95 % intervals over identities.

    Returns:
      `repeats` and `seed`; `num_identities` and `num_removed`; means over the repeats of the numbers of searches,
      `num_non_mated` and `num_mated`; `num_without_mate`, queries that are no mated search in any repeat; `at`, for
      each of RATES: `max_fpir`, `fpir`, `fnir` and `distance` (the threshold), with `fnir_interval` and
      `distance_interval`, None where less than one non-mated search is behind the rate, the intervals also with fewer
      than `bootstrap.LEAST_IDENTITIES` identities; and `curve`, rows of an FPIR, the FNIR there, and the ends of its
      interval, likewise None.
    """
    rates = (*RATES, *CURVE_RATES)
    repeats = range(len(searches.is_removed))
    num_identities = searches.is_removed.shape[1]
    weights = identity_weights(num_identities)
    means = _mean_over_repeats([rates_at(searches, repeat, rates) for repeat in repeats])
    drawn = _mean_over_repeats([rates_at(searches, repeat, rates, weights) for repeat in repeats])
    is_non_mated = searches.is_removed[:, searches.identity]
    has_mate = np.isfinite(searches.mate)
    num_non_mated = float(is_non_mated.sum(axis=1).mean())
    at = [
        {
            "max_fpir": rate,
            "fpir": _number(means.fpir[i, 0]),
            "fnir": _number(means.fnir[i, 0]),
            "fnir_interval": _interval(drawn.fnir[i], num_identities),
            "distance": _number(means.distance[i, 0]),
            "distance_interval": _interval(drawn.distance[i], num_identities),
        }
        if rate * num_non_mated >= 1
        else {"max_fpir": rate, "fpir": None, "fnir": None, "fnir_interval": None}
        | {"distance": None, "distance_interval": None}
        for i, rate in enumerate(RATES)
    ]
    curve = [
        [float(rate), _number(means.fnir[i, 0]), *(_interval(drawn.fnir[i], num_identities) or (None, None))]
        for i, rate in enumerate(CURVE_RATES, len(RATES))
        if rate * num_non_mated >= 1
    ]
    return {
        "repeats": len(repeats),
        "seed": seed,
        "num_identities": num_identities,
        "num_removed": int(searches.is_removed[0].sum()),
        "num_non_mated": num_non_mated,
        "num_mated": float((~is_non_mated & has_mate).sum(axis=1).mean()),
        "num_without_mate": int(np.sum(~has_mate)),
        "at": at,
        "curve": curve,
    }


def _mean_over_repeats(rates: Sequence[Rates]) -> Rates:
    return Rates(*(np.mean(values, axis=0) for values in zip(*rates, strict=True)))


def _number(value: np.floating) -> float | None:
    """A number that JSON can hold."""
    return float(value) if np.isfinite(value) else None


def _interval(draws: Float64[np.ndarray, " N"], num_identities: int) -> list[float] | None:
    finite = draws[np.isfinite(draws)]
    return interval(finite) if len(finite) and num_identities >= LEAST_IDENTITIES else None


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
