"""Scores from the ranks of the true matches: mAP (trapezoid and plain), CMC and mINP.

These scores depend on nothing but the rank of each hit among the gallery images that count for its query.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int32


class HitRanks(NamedTuple):
    """Ranks of the hits of every query; H is the largest number of hits, at least 1."""

    ranks: Int32[np.ndarray, "Q H"]  # each row ascending, first rank 1; 0 beyond the query's number of hits
    counts: Int32[np.ndarray, " Q"]  # number of hits; 0 where the gallery has no match for the query


def average_precisions(hits: HitRanks) -> tuple[Float64[np.ndarray, " Q"], Float64[np.ndarray, " Q"]]:
    """Average precision of every query, in both customary forms.

    With n hits at ranks r_1 < ... < r_n, the plain form is the mean of k / r_k. The official Market-1501
    script uses the trapezoid form, the mean of (p + k / r_k) / 2. There p is the precision at rank r_k - 1,
    which is (k - 1) / (r_k - 1). In front of the first rank, p is 1.

    Returns:
      (trapezoid, plain), each in [0, 1]; 0 for a query without a match.
    """
    order = np.arange(1, hits.ranks.shape[1] + 1)[None]
    is_hit = order <= hits.counts[:, None]
    ranks = np.where(is_hit, hits.ranks, order)
    precision = order / ranks
    precision_before = np.where(ranks == 1, 1.0, (order - 1) / np.maximum(ranks - 1, 1))
    number = np.maximum(hits.counts, 1)
    trapezoid = np.sum((precision_before + precision) / 2, axis=1, where=is_hit) / number
    return trapezoid, np.sum(precision, axis=1, where=is_hit) / number


def inverse_negative_penalties(hits: HitRanks) -> Float64[np.ndarray, " Q"]:
    """Number of hits / rank of the last hit, of every query; 0 without a match (Ye et al., "Deep Learning for Person
    Re-identification: A Survey and Outlook", 2021)."""
    last = hits.ranks[np.arange(len(hits.counts)), np.maximum(hits.counts, 1) - 1]
    return hits.counts / np.maximum(last, 1)


def scores(hits: HitRanks, *, cmc_length: int = 50) -> dict:
    """Scores over all queries; a query without a match counts with 0.

    Args:
      hits: of all queries.
      cmc_length: number of CMC ranks, at least 1.

    Returns:
      Plain numbers, the scores as fractions in [0, 1]: `mAP` (official trapezoid), `mAP_plain`, `mINP`
      (mean of `inverse_negative_penalties`), `cmc` (list, rank 1 first: share of the queries with a hit at that rank or
      before), `num_queries`, `num_matched_queries`.

    Raises:
      ValueError: if cmc_length is below 1 or there is no query.
    """
    num_queries = len(hits.counts)
    if cmc_length < 1:
        raise ValueError(f"cmc_length is {cmc_length}: ask for at least 1 rank")
    if num_queries == 0:
        raise ValueError("there are no queries to score: the mean over none is undefined")
    trapezoid, plain = average_precisions(hits)
    firsts = np.bincount(hits.ranks[:, 0], minlength=cmc_length + 1)[1 : cmc_length + 1]
    return {
        "mAP": float(trapezoid.mean()),
        "mAP_plain": float(plain.mean()),
        "mINP": float(inverse_negative_penalties(hits).mean()),
        "cmc": (np.cumsum(firsts) / num_queries).tolist(),
        "num_queries": num_queries,
        "num_matched_queries": int(np.count_nonzero(hits.counts)),
    }
