"""The nearest gallery entries of each query: exactly, or out of the candidates of an approximate index."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float32, Integer

from mancs_jax.common.one_process import check_not_forked
from mancs_jax.evaluation.calibration import knots_of
from mancs_jax.evaluation.comparison import compare
from mancs_jax.evaluation.distances import are_usable, check_distance, checked_norms, pair_distances
from mancs_jax.evaluation.labelled import Labelled, check_same_width, checked_embedding
from mancs_jax.evaluation.ranking import Found, nearest
from mancs_jax.evaluation.threshold import Limit, are_normalized, checked_limit
from mancs_jax.inference import exact

if TYPE_CHECKING:
    from mancs_jax.inference.index import Index

CANDIDATE_BYTES = 32 * 2**20  # of candidates' embeddings that exist at a time
CANDIDATES = 4  # times k, that an index is asked for; their exact distances decide
# Candidates whose distances differ by less, relatively, are copies of one image: others may have been left out.
TIE = 1e-4
ACCELERATORS = ("gpu", "tpu")  # platforms whose products are faster than NumPy's


def search(
    query: np.ndarray,
    gallery: np.ndarray,
    k: int = 10,
    *,
    distance: str = "euclidean",
    max_distance: Limit = None,
    index: "str | Path | Index | None" = None,
    num_candidates: int | None = None,
    calibration: Mapping[str, Any] | None = None,
) -> Found:
    """Finds the nearest gallery entries of each query.

    Without an index the search is exact: every entry is compared, block by block, so the gallery may be a memory-mapped
    file of any length. On a CPU, the result is that of float64 distances. On a GPU or TPU, float32 products decide
    which k are nearest, and float64 distances put them in order. Of equal distances the lower index comes
    first. With an index, its candidates are ordered in the same way. A query is searched exactly where the index gives
    fewer than k, or where the k-th and the last candidate are equally far: a gallery with many copies of an image has
    more of them than candidates.

    Args:
      query: float32 [Q, D].
      gallery: float32 [G, D].
      k: entries for each query, at least 1. A gallery with fewer entries is filled up with -1 at an infinite distance.
      distance: "euclidean", or "cosine": 1 - cosine of the angle.
      max_distance: entries beyond this distance are not returned; None for no limit. A decision threshold of
        `mancs_jax.threshold_of`, or a number. Of a threshold it is checked that it belongs to this distance and, for
        Euclidean distance, to embeddings that have norm 1, or have not, as these have.
      index: of this gallery and distance: a `faiss.Index`, as from `build_index`, or its file; None for the exact
        search.
      num_candidates: entries that the index is asked for, at least k; None for 4 k. An index that compresses its
        entries needs more.
      calibration: the model card of the embeddings (`Embedder.card`), or a result of `mancs evaluate --calibrate`. Only
        its field `calibration`, which may be given as well, is used: for `distance`, it gives `Found.likelihood_ratio`
        and `Found.probability`.

    Raises:
      ValueError: one line: embeddings, k, distance, threshold or index are not as above, or the calibration is damaged.
      FileNotFoundError: no index in that file.
      ImportError: an index without FAISS.
    """
    check_not_forked()
    check_distance(distance)
    query, gallery = checked_embedding("query", query), checked_embedding("gallery", gallery)
    check_same_width(query, gallery)
    knots = knots_of(calibration, distance)
    if k < 1:
        raise ValueError(f"k is {k}: it must be at least 1")
    # Cosine distance is the same with norms of 1 and without.
    is_checked = distance == "euclidean" and (max_distance is not None or knots is not None)
    is_normalized = are_normalized(query) if is_checked else None
    if is_normalized is not None and knots is not None:
        _check_calibrated_for(calibration or {}, is_normalized)
    limit = checked_limit(max_distance, distance, normalize=is_normalized)
    checked_norms("query", query, distance)
    if num_candidates is not None and num_candidates < k:
        raise ValueError(f"num_candidates is {num_candidates}: it must be at least k, which is {k}")
    wanted, k = k, min(k, len(gallery))
    if index is None:
        return _limited(_exact(query, gallery, k, distance), wanted, limit)._replace(knots=knots)

    from mancs_jax.inference.index import candidates  # not at the top: it needs FAISS

    number = min(CANDIDATES * k if num_candidates is None else num_candidates, len(gallery))
    ordered = _in_order(query, gallery, candidates(index, query, gallery, number, distance), distance)
    kth, last = ordered.distance[:, k - 1], ordered.distance[:, -1]
    is_tied = np.isfinite(last) & ((1 - TIE) * last <= kth)
    doubtful = np.isinf(kth) | (is_tied if k < number < len(gallery) else False)
    ordered = Found(ordered.index[:, :k], ordered.distance[:, :k])
    if doubtful.any():
        exact = _exact(query[doubtful], gallery, k, distance)
        ordered.index[doubtful], ordered.distance[doubtful] = exact.index, exact.distance
    return _limited(ordered, wanted, limit)._replace(knots=knots)


def _limited(found: Found, k: int, max_distance: float | None) -> Found:
    """k results a query, filled up with -1, and none beyond the greatest distance."""
    is_far = found.distance > (np.inf if max_distance is None else max_distance)
    index, distance = np.where(is_far, -1, found.index), np.where(is_far, np.float32(np.inf), found.distance)
    beyond = ((0, 0), (0, k - index.shape[1]))
    return Found(np.pad(index, beyond, constant_values=-1), np.pad(distance, beyond, constant_values=np.inf))


def _check_calibrated_for(calibration: Mapping[str, Any], is_normalized: bool) -> None:
    """Refuses (ValueError) a card or a result whose Euclidean distances are of embeddings with another norm."""
    if "calibration" not in calibration:  # the field alone does not say it
        return
    embedded = calibration.get("embedded") or {}
    normalize = bool(calibration.get("normalize") or embedded.get("normalize"))
    if normalize != is_normalized:
        raise ValueError(
            f"the calibration has normalize={normalize}, and these embeddings have normalize={is_normalized}: their "
            "Euclidean distances are other numbers, so calibrate for them (mancs evaluate --calibrate)"
        )


def _exact(query: Float32[np.ndarray, "Q D"], gallery: Float32[np.ndarray, "G D"], k: int, distance: str) -> Found:
    """Compares every entry: with NumPy on a CPU, and otherwise on the default device, tile by tile."""
    device = jax.device_put(0).device
    if device.platform not in ACCELERATORS:

        def check(half_squared: np.ndarray) -> None:
            if not are_usable(2 * half_squared, distance).all():
                checked_norms("gallery", gallery, distance)  # which names the entry

        ids, distances = exact.nearest_rows(query, gallery, k, distance, check)
        return Found(ids.astype(np.int32), distances.astype(np.float32))
    # All queries are of one person who is not in the gallery: every entry counts.
    sets = [
        Labelled(embedding, np.full(len(embedding), pid, np.int32), np.zeros(len(embedding), np.int32))
        for embedding, pid in ((query, 1), (gallery, 0))
    ]
    candidates = nearest(compare(*sets, distance=distance, devices=[device], streamed=True), k)
    return _in_order(query, gallery, candidates.index, distance)


def _in_order(
    query: Float32[np.ndarray, "Q D"],
    gallery: Float32[np.ndarray, "G D"],
    nearby: Integer[np.ndarray, "Q C"],
    distance: str,
) -> Found:
    """The gallery entries `nearby`, -1 for none, in the order of their distances."""
    ordered = Found(np.empty(nearby.shape, np.int32), np.empty(nearby.shape, np.float32))
    rows = max(CANDIDATE_BYTES // (nearby.shape[1] * query[0].nbytes), 1)
    for start in range(0, len(query), rows):
        block = slice(start, start + rows)
        wide = query[block, None].astype(np.float64), gallery[nearby[block]].astype(np.float64)
        distances = pair_distances(*wide, distance)
        distances[nearby[block] < 0] = np.inf
        order = np.lexsort((nearby[block], distances))
        ordered.index[block] = np.take_along_axis(nearby[block], order, axis=1)
        ordered.distance[block] = np.take_along_axis(distances, order, axis=1)
    return ordered
