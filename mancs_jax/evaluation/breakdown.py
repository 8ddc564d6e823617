"""Where a network fails: rank-1 and accepted pairs for each pair of cameras, and for each group of people."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int64, Num
from scipy.sparse import csr_array

from mancs_jax.evaluation.bootstrap import FEW_PAIRS, LEAST_IDENTITIES, identity_weights, interval, wilson
from mancs_jax.evaluation.comparison import Comparison
from mancs_jax.evaluation.distances import from_pair
from mancs_jax.evaluation.pairs import pair_blocks

MOST_CAMERAS = 50  # of a matrix that can still be read
MAX_FPR = 1e-3  # the false positive rate, over all pairs, at whose threshold pairs are accepted


class Outcomes(NamedTuple):
    """What becomes of each query under each of the C cameras of the gallery.

    A pair is accepted where its distance is at most the threshold. More than MOST_CAMERAS are taken together: C is 1
    for the counts then.
    """

    camera: Int[np.ndarray, " _"]  # all of them
    positives: Int64[np.ndarray, "Q C"]  # pairs with images of the same person, by the camera of the image
    accepted: Int64[np.ndarray, "Q C"]  # of these
    is_right: Bool[np.ndarray, "Q C"]  # whether the nearest image under this camera is of the query's person


class FalseAccepts(NamedTuple):
    """Negative pairs by the people on them; a matrix of all P x P would be mostly zeros."""

    person: Int[np.ndarray, " P"]  # pids of queries and gallery, ascending, 0 for distractors included
    queries: Int64[np.ndarray, " P"]  # of each person
    images: Int64[np.ndarray, " P"]  # of each person in the gallery: each query of another person makes a negative pair
    accepted: csr_array  # [P, P], accepted pairs of a query of one person (row) and an image of another (column)


def find_outcomes(comparison: Comparison, threshold: float | None) -> Outcomes:
    """Counts, block by block.

    Args:
      comparison: of embeddings.
      threshold: the largest accepted distance; None accepts no pair, and `by_cameras` and `by_groups` give no rates.

    Raises:
      ValueError: as `pairs.pair_blocks`.
    """
    query, gallery = comparison.query, comparison.gallery
    counted = comparison.layout.counted
    camera, camera_of = np.unique(gallery.camid[counted], return_inverse=True)
    position = np.zeros(len(gallery.pid), np.int64)
    position[counted] = camera_of
    num_columns = len(camera)
    if num_columns > MOST_CAMERAS:  # without known cameras there are as many as images
        position[:], num_columns = 0, 1
    shape = (len(query.pid), num_columns)
    positives, accepted = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    best, is_right = np.full(shape, np.inf, np.float32), np.zeros(shape, bool)
    for rows, images, values, (row, column) in pair_blocks(comparison):
        cells = rows[row], position[images[column]]
        np.add.at(positives, cells, 1)
        np.add.at(accepted, cells, _is_accepted(values[row, column], comparison, threshold))
        for number in range(num_columns):
            under = np.flatnonzero(position[images] == number)
            if len(under):
                nearest = np.argmin(values[:, under], axis=1)  # of equal ones the first, as in ranking
                value = values[np.arange(len(rows)), under[nearest]]
                is_nearer = value < best[rows, number]
                chosen = rows[is_nearer]
                best[chosen, number] = value[is_nearer]
                is_right[chosen, number] = (query.pid[rows] == gallery.pid[images[under[nearest]]])[is_nearer]
    return Outcomes(camera, positives, accepted, is_right)


def find_false_accepts(comparison: Comparison, threshold: float | None) -> FalseAccepts:
    """Counts the accepted negative pairs by their people; arguments and errors as those of `find_outcomes`."""
    query, gallery, counted = comparison.query, comparison.gallery, comparison.layout.counted
    person = np.unique(np.concatenate([query.pid, gallery.pid[counted]]))
    row_of, column_of = np.searchsorted(person, query.pid), np.searchsorted(person, gallery.pid)
    accepted = csr_array((len(person), len(person)), dtype=np.int64)
    for rows, images, values, same in pair_blocks(comparison):
        is_accepted = _is_accepted(values, comparison, threshold)
        is_accepted[same] = False
        row, column = np.nonzero(is_accepted)
        places = row_of[rows[row]], column_of[images[column]]
        accepted = accepted + csr_array((np.ones(len(row), np.int64), places), shape=accepted.shape)
    queries, images = (np.bincount(of, minlength=len(person)) for of in (row_of, column_of[counted]))
    return FalseAccepts(person, queries, images, accepted)


def _is_accepted(
    values: Float32[np.ndarray, "*shape"], comparison: Comparison, threshold: float | None
) -> Bool[np.ndarray, "*shape"]:
    return from_pair(values, comparison.distance) <= np.float32(-1 if threshold is None else threshold)


def by_cameras(outcomes: Outcomes, comparison: Comparison, threshold: float | None) -> dict[str, Any] | None:
    """Rank-1 and true positive rate for each pair of a query's camera and a gallery camera, as a result has them.

    The gallery is cut down to the images of one camera. Only queries whose person was seen there take part.

    Returns:
      `query_cameras` (A) and `gallery_cameras` (C); matrices A x C of `queries`, `identities`, `rank1`,
      `rank1_interval`, `pairs` (positive ones), `tpr` and `tpr_interval`, None where there is none, and without a
      threshold; `threshold`; and `worst`, the pair of cameras with the lowest rank-1 of those with at least ten
      identities, or None. None with one camera or more than MOST_CAMERAS.
    """
    query = comparison.query
    query_cameras, camera_of = np.unique(query.camid, return_inverse=True)
    if not 1 < max(len(query_cameras), len(outcomes.camera)) <= MOST_CAMERAS:
        return None
    people, identity = np.unique(query.pid, return_inverse=True)
    shape = (len(people), len(query_cameras), len(outcomes.camera))

    def by_identity(counts: np.ndarray) -> np.ndarray:
        summed = np.zeros(shape, np.int64)
        np.add.at(summed, (identity, camera_of), counts)
        return summed.reshape(len(people), -1)

    has_mate = outcomes.positives > 0
    queries = by_identity(has_mate)
    weights = identity_weights(len(people))
    rank1 = _drawn_shares(by_identity(outcomes.is_right & has_mate), queries, weights)
    pairs = by_identity(outcomes.positives)
    tpr = _without_threshold(shape[1] * shape[2])
    if threshold is not None:
        tpr = _drawn_shares(by_identity(outcomes.accepted), pairs, weights, of_pairs=True)
    identities = np.sum(queries > 0, axis=0)

    def matrix(values: Any) -> list[list[Any]]:
        rows = [values[i : i + shape[2]] for i in range(0, shape[1] * shape[2], shape[2])]
        return [list(row) for row in rows]

    candidates = [cell for cell, number in enumerate(identities) if number >= LEAST_IDENTITIES]
    worst = min(candidates, key=lambda cell: rank1[cell]["share"], default=None)
    return {
        "query_cameras": query_cameras.tolist(),
        "gallery_cameras": outcomes.camera.tolist(),
        "identities": matrix(identities.tolist()),
        "queries": matrix(queries.sum(axis=0).tolist()),
        "rank1": matrix([of["share"] for of in rank1]),
        "rank1_interval": matrix([of["interval"] for of in rank1]),
        "pairs": matrix(pairs.sum(axis=0).tolist()),
        "tpr": matrix([of["share"] for of in tpr]),
        "tpr_interval": matrix([of["interval"] for of in tpr]),
        "threshold": threshold,
        "worst": worst
        if worst is None
        else {
            "query_camera": int(query_cameras[worst // shape[2]]),
            "gallery_camera": int(outcomes.camera[worst % shape[2]]),
            "rank1": rank1[worst]["share"],
            "rank1_interval": rank1[worst]["interval"],
            "queries": int(queries[:, worst].sum()),
            "identities": int(identities[worst]),
        },
    }


def by_groups(
    outcomes: Outcomes,
    false_accepts: FalseAccepts,
    comparison: Comparison,
    is_first: Bool[np.ndarray, " Q"],
    groups: Mapping[str, Mapping[int, str]],
    threshold: float | None,
) -> dict[str, Any]:
    """Rank-1, TPR and FPR for each group of query identities, as a result has them.

    The gallery stays whole. The FPR of a group is the share of accepted pairs among those of its queries with images of
    another person. In its interval, a pair has the product of the weights of its two people; distractors have weight 1.

    Args:
      outcomes: see `find_outcomes`, at the same threshold.
      false_accepts: likewise.
      comparison: they come from.
      is_first: whether a match has rank 1, of each query.
      groups: attribute -> pid -> value; a pid that is not there belongs to no group.
      threshold: of all pairs, for the record.

    Returns:
      `threshold`; `rows`: "all" first, then the groups, with `attribute`, `value`, `identities`, `queries`, `rank1`,
      `positive_pairs`, `tpr`, `negative_pairs`, `fpr` and the intervals of the three; `num_unknown`, query identities
      without any attribute. Without a threshold, TPR and FPR are None. Intervals are those of the bootstrap; where
      fewer than ten pairs are accepted or rejected, Wilson's: of the FPR among all negative pairs of the group, and of
      the TPR among as many observations as there are identities with positive pairs, as in `pair_intervals`.
      Groups of fewer than LEAST_IDENTITIES people have no rates (None): they would say more about these people than
      about the group.
    """
    pid = comparison.query.pid
    people, identity = np.unique(pid, return_inverse=True)
    named = [("all", "", np.ones(len(people), bool))]
    for attribute, value_of in groups.items():
        values = [value_of.get(person) for person in people.tolist()]
        for value in sorted({value for value in values if value is not None}, key=_by_number):
            named.append((attribute, value, np.array([one == value for one in values])))
    masks = np.stack([mask for _, _, mask in named], axis=1)

    def by_identity(counts: np.ndarray) -> np.ndarray:
        return np.bincount(identity, counts, minlength=len(people))[:, None] * masks

    weights = identity_weights(len(false_accepts.person))
    weights[:, false_accepts.person == 0] = 1
    row = np.searchsorted(false_accepts.person, people)
    rank1 = _drawn_shares(by_identity(is_first), by_identity(np.ones(len(pid))), weights[:, row])
    positives = by_identity(outcomes.positives.sum(axis=1))
    tpr = fpr = _without_threshold(len(named))
    once = np.ones((1, weights.shape[1]))
    accepted, negatives = (of[0][row, None] * masks for of in _pairs_by_query_person(false_accepts, once))
    if threshold is not None:
        tpr = _drawn_shares(by_identity(outcomes.accepted.sum(axis=1)), positives, weights[:, row], of_pairs=True)
        drawn = [(of[:, row] * weights[:, row]) @ masks for of in _pairs_by_query_person(false_accepts, weights)]
        fpr = _shares(accepted, negatives, *drawn, few=negatives.sum(axis=0))
    rows = [
        {
            "attribute": attribute,
            "value": value,
            "identities": int(mask.sum()),
            "queries": int(mask[identity].sum()),
            "rank1": rank1[i]["share"],
            "rank1_interval": rank1[i]["interval"],
            "positive_pairs": int(positives[:, i].sum()),
            "tpr": tpr[i]["share"],
            "tpr_interval": tpr[i]["interval"],
            "negative_pairs": int(negatives[:, i].sum()),
            "fpr": fpr[i]["share"],
            "fpr_interval": fpr[i]["interval"],
        }
        if mask.sum() >= LEAST_IDENTITIES
        else _too_few(attribute, value, int(mask.sum()), int(mask[identity].sum()))
        for i, (attribute, value, mask) in enumerate(named)
    ]
    is_known = masks[:, 1:].any(axis=1) if len(named) > 1 else np.zeros(len(people), bool)
    return {"threshold": threshold, "rows": rows, "num_unknown": int(np.sum(~is_known))}


def _too_few(attribute: str, value: str, identities: int, queries: int) -> dict[str, Any]:
    """A row without rates."""
    rates = {f"{name}{end}": None for name in ("rank1", "tpr", "fpr") for end in ("", "_interval")}
    counts = {"identities": identities, "queries": queries, "positive_pairs": None, "negative_pairs": None}
    return {"attribute": attribute, "value": value, **counts, **rates}


def _pairs_by_query_person(
    pairs: FalseAccepts, weights: Float64[np.ndarray, "draws P"]
) -> tuple[Float64[np.ndarray, "draws P"], Float64[np.ndarray, "draws P"]]:
    """(accepted, all negative pairs) of the queries of each person, each with the weight of the other person."""
    other_weight = (weights @ pairs.images)[:, None] - weights * pairs.images
    return (pairs.accepted @ weights.T).T, other_weight * pairs.queries


def _by_number(value: str) -> tuple[float, str]:
    try:
        return float(value), value
    except ValueError:
        return np.inf, value


def _without_threshold(number: int) -> list[dict[str, Any]]:
    return [{"share": None, "interval": None}] * number


def _drawn_shares(
    hits: Num[np.ndarray, "I K"],
    totals: Num[np.ndarray, "I K"],
    weights: Float64[np.ndarray, "draws I"],
    of_pairs: bool = False,
) -> list[dict[str, Any]]:
    few = np.count_nonzero(totals, axis=0) if of_pairs else None
    return _shares(hits, totals, weights @ hits, weights @ totals, few=few)


def _shares(
    hits: Num[np.ndarray, "I K"],
    totals: Num[np.ndarray, "I K"],
    hit_draws: Float64[np.ndarray, "draws K"],
    total_draws: Float64[np.ndarray, "draws K"],
    *,
    few: Num[np.ndarray, " K"] | None = None,
) -> list[dict[str, Any]]:
    """K shares of counts by identity, with their intervals; None where nothing is counted.

    Args:
      hits: counted as right, or accepted.
      totals: all.
      hit_draws: sums of the hits in the draws of a bootstrap.
      total_draws: likewise.
      few: observations of Wilson's interval where fewer than FEW_PAIRS are hits, or are none; None without this rule.
    """
    shares: list[dict[str, Any]] = []
    for k in range(hits.shape[1]):
        total, number = totals[:, k].sum(), int(np.count_nonzero(totals[:, k]))
        if not total:
            shares.append({"share": None, "interval": None})
            continue
        share, is_drawn = float(hits[:, k].sum() / total), total_draws[:, k] > 0
        draws = hit_draws[is_drawn, k] / total_draws[is_drawn, k]
        is_alike = not len(draws) or np.ptp(draws) < 1e-12
        if few is not None and min(hits[:, k].sum(), total - hits[:, k].sum()) < FEW_PAIRS:
            ends = wilson(share, float(few[k]))
        # Pairs of cameras with fewer identities are no worst, and groups with fewer have no rates.
        elif number < LEAST_IDENTITIES or is_alike:
            ends = wilson(share, number)
        else:
            ends = interval(draws)
        shares.append({"share": share, "interval": ends})
    return shares
