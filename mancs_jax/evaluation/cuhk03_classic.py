"""The classic protocol of CUHK03: 100 persons, one random image of each in the gallery, many times over."""

import numpy as np

from mancs_jax.evaluation.distances import normalized, squared_euclidean
from mancs_jax.evaluation.labelled import check_known, checked_labels
from mancs_jax.evaluation.protocols import DEFAULT, Options

RANKS = (1, 5, 10)  # that are averaged over the splits


def score(
    distances: np.ndarray,
    query_pid: np.ndarray,
    gallery_pid: np.ndarray,
    *,
    repeats: int = 100,
    seed: int = 0,
    cmc_length: int = 50,
) -> dict:
    """Evaluate one of the 20 splits of CUHK03 (Li et al., CVPR 2014): single-shot, from one view to the other.

    In each repeat, the gallery is one random image of each person, and every query is ranked against these.
    The image of a person is drawn from all of the person's with the same probability, repeat r with the generator
    `numpy.random.default_rng([seed, r])`, persons in the order of their pids.

    Args:
      distances: float [Q, G], of the images of one view from those of the other.
      query_pid: integer [Q], above 0.
      gallery_pid: integer [G], above 0.
      repeats: galleries that are drawn, at least 1.
      seed: of the draws.
      cmc_length: number of CMC ranks, at least 1.

    Returns:
      `protocol` "cuhk03_classic", `cmc` (list, rank 1 first; mean over queries and repeats), `repeats`,
      `gallery_seed`, num_queries, num_matched_queries (whose person is in the gallery) and num_gallery (persons).

    Raises:
      ValueError: one line: shapes do not fit, NaN, or a number is below 1.
    """
    query_pid, _ = checked_labels("query", query_pid, query_pid, len(query_pid))
    gallery_pid, _ = checked_labels("gallery", gallery_pid, gallery_pid, len(gallery_pid))
    check_known(query_pid)
    if distances.shape != (len(query_pid), len(gallery_pid)) or np.isnan(distances).any():
        shape = f"{list(distances.shape)}" + (" with NaN" if np.isnan(distances).any() else "")
        raise ValueError(f"distances are {shape}: they must be numbers, [{len(query_pid)}, {len(gallery_pid)}]")
    if repeats < 1 or cmc_length < 1:
        raise ValueError(f"repeats is {repeats} and cmc_length {cmc_length}: both must be at least 1")
    people = np.unique(gallery_pid)
    images_of = [np.flatnonzero(gallery_pid == pid) for pid in people]
    column = np.searchsorted(people, query_pid)
    matched = np.flatnonzero(np.isin(query_pid, people))
    found = np.zeros(len(people) + 1, np.int64)
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        shots = np.array([images[rng.integers(len(images))] for images in images_of])
        of_shots = distances[np.ix_(matched, shots)]
        of_match = of_shots[np.arange(len(matched)), column[matched]][:, None]
        first = shots[None] < shots[column[matched]][:, None]  # of equal distances, the lower index comes first
        rank = 1 + np.sum((of_shots < of_match) | ((of_shots == of_match) & first), axis=1)
        found += np.bincount(rank, minlength=len(found))
    cmc = np.cumsum(found[1:]) / (repeats * len(query_pid))
    cmc = np.pad(cmc, (0, max(0, cmc_length - len(cmc))), mode="edge")[:cmc_length]
    return {
        "protocol": "cuhk03_classic",
        "cmc": cmc.tolist(),
        "repeats": repeats,
        "gallery_seed": seed,
        "num_queries": len(query_pid),
        "num_matched_queries": len(matched),
        "num_gallery": len(people),
    }


def distance_matrix(query: np.ndarray, gallery: np.ndarray, options: Options = DEFAULT) -> np.ndarray:
    """All distances of small sets, float64 [Q, G], of embeddings [Q, D] and [G, D]; not for re-ranking."""
    if options.normalize or options.distance == "cosine":
        query, gallery = normalized("query", query), normalized("gallery", gallery)
    query, gallery = query.astype(np.float64), gallery.astype(np.float64)
    squared = squared_euclidean(query @ gallery.T, np.vecdot(query, query), np.vecdot(gallery, gallery))
    return squared / 2 if options.distance == "cosine" else np.sqrt(squared)


def over_splits(results: list[dict]) -> dict:
    """Mean and standard deviation (n - 1) of rank-1, rank-5 and rank-10 over the splits.

    Args:
      results: of `score`, one a split, at least 1; with one, the deviation is 0.

    Returns:
      `protocol`, `num_splits`, `mean` and `sd` of "rank-1", "rank-5" and "rank-10" as fractions, and the mean `cmc`.
    """
    cmc = np.array([result["cmc"] for result in results])
    spread = cmc.std(axis=0, ddof=1) if len(results) > 1 else np.zeros(cmc.shape[1])
    return {
        "protocol": "cuhk03_classic",
        "num_splits": len(results),
        "mean": {f"rank-{rank}": float(cmc[:, rank - 1].mean()) for rank in RANKS},
        "sd": {f"rank-{rank}": float(spread[rank - 1]) for rank in RANKS},
        "cmc": cmc.mean(axis=0).tolist(),
    }
