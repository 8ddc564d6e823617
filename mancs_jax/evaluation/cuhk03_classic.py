"""The classic protocol of CUHK03: 100 persons, one random image of each in the gallery, many times over."""

import numpy as np

from mancs_jax.evaluation import single_shot
from mancs_jax.evaluation.labelled import check_known, checked_labels


def evaluate(
    distances: np.ndarray,
    query_pid: np.ndarray,
    gallery_pid: np.ndarray,
    *,
    repeats: int = 100,
    seed: int = 0,
    cmc_length: int = 50,
) -> dict:
    """Evaluates one of the 20 splits of CUHK03 (Li et al., CVPR 2014): single-shot, from one view to the other.

    In each repeat, the gallery is one random image of each person, and every query is ranked against these. The image
    of a person is sampled uniformly from all of the person's, in repeat r with the generator
    `numpy.random.default_rng([seed, r])`, persons in the order of their pids.

    Takes distances [Q, G] of the images of one view from those of the other. Returns `protocol` "cuhk03_classic", `cmc`
    (list, rank 1 first; mean over queries and repeats), `repeats`, `gallery_seed`, num_queries, num_matched_queries
    (whose person is in the gallery) and num_gallery (persons). Raises ValueError, one line: shapes do not fit, NaN, a
    pid below 1 or a number below 1.
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
    matched = np.flatnonzero(np.isin(query_pid, people))
    column = np.searchsorted(people, query_pid[matched])
    rank_counts = np.zeros(len(people) + 1, np.int64)
    for repeat in range(repeats):
        shots = single_shot.one_each(images_of, np.random.default_rng([seed, repeat]))
        rank = single_shot.match_ranks(distances[np.ix_(matched, shots)], column, shots)
        rank_counts += np.bincount(rank, minlength=len(rank_counts))
    cmc = np.cumsum(rank_counts[1:]) / (repeats * len(query_pid))
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


def over_splits(results: list[dict]) -> dict:
    """Mean and standard deviation over the results of the splits, see `single_shot.over_splits`."""
    return {"protocol": "cuhk03_classic"} | single_shot.over_splits(results)
