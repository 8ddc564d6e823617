"""Evaluation protocols: embeddings and labels in, one result out that says how it was made.

A result is a plain dict, written as JSON: the scores, the counts, and the protocol and options that they were
made with. Callers add what only they know (recipe, data fingerprint, versions) before they write it.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from mancs_jax.data.cameras import each_its_own
from mancs_jax.evaluation import metrics, pair_intervals, reranking, roc
from mancs_jax.evaluation.comparison import Comparison, compare, kept
from mancs_jax.evaluation.distances import normalized
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.per_query import PerQuery, intervals, per_query
from mancs_jax.evaluation.ranking import hit_ranks

POOLINGS = ("mean", "max")


class Options(NamedTuple):
    """The way from embeddings to distances."""

    distance: str = "euclidean"  # or "cosine"
    normalize: bool = False  # divide each embedding by its norm
    rerank: bool = False  # k-reciprocal encoding
    k1: int = reranking.K1
    k2: int = reranking.K2
    weight: float = reranking.LAMBDA  # of the original distance in the re-ranked one

    def described(self) -> dict:
        """The options as they are written in a result."""
        rerank = {"k1": self.k1, "k2": self.k2, "lambda": self.weight} if self.rerank else None
        return {"distance": self.distance, "normalize": self.normalize, "rerank": rerank}


DEFAULT = Options()


class Evaluated(NamedTuple):
    """A result, and the scores of each query that it is made of."""

    result: dict[str, Any]
    queries: PerQuery


def evaluate_single_query(
    query: Labelled,
    gallery: Labelled,
    options: Options = DEFAULT,
    *,
    comparison: Comparison | None = None,
    progress: bool = False,
) -> Evaluated:
    """Evaluates every query image on its own, by the rules of `ranking.hit_ranks`.

    Args:
      query: Q images, pid above 0.
      gallery: G images. Junk is taken out before anything is computed, re-ranking included.
      options: how distances are made.
      comparison: of `compared` with the same arguments, where there is one already.
      progress: whether a bar is shown.

    Returns:
      The result and the scores of each query. The result has `protocol` "single_query" and the options; mAP, mAP_plain,
      mINP, cmc, num_queries and num_matched_queries (see `metrics.scores`); `intervals` and `bootstrap` (see
      `per_query.intervals`); num_gallery (all but junk), num_distractors (those among them with pid 0) and num_junk;
      `cameras_known`, False where each image of query and gallery is its own camera; `verification`, see
      `roc.described` and `pair_intervals.with_intervals`, None after re-ranking.

    Raises:
      ValueError: as `comparison.compare` and `reranking.rerank`.
    """
    if comparison is None:
        comparison = compared(query, gallery, options, progress=progress)
        comparison = comparison if options.rerank else kept(comparison)  # for the hits and for the pairs
    query, gallery = comparison.query, comparison.gallery
    hits = hit_ranks(comparison, progress=progress)
    queries = per_query(hits, query.pid, query.camid)
    verification = None
    if not options.rerank:
        curve = roc.create_roc(comparison)
        verification = pair_intervals.with_intervals(comparison, curve, roc.described(curve))
    result = {
        "protocol": "single_query",
        **options.described(),
        **metrics.scores(hits),
        **intervals(queries),
        "verification": verification,
        "num_gallery": int(np.sum(gallery.pid != -1)),
        "num_distractors": int(np.sum(gallery.pid == 0)),
        "num_junk": int(np.sum(gallery.pid == -1)),
        "cameras_known": _are_cameras_known(query, gallery),
    }
    return Evaluated(result, queries)


def _are_cameras_known(query: Labelled, gallery: Labelled) -> bool:
    """False where each image is its own camera; a query that is in the gallery, too, is one image."""
    if len(np.unique(gallery.camid)) < len(gallery.camid):
        return True
    by_camera = np.argsort(gallery.camid)
    position = np.minimum(np.searchsorted(gallery.camid[by_camera], query.camid), len(by_camera) - 1)
    row = by_camera[position]
    is_there = (gallery.camid[row] == query.camid) & (gallery.pid[row] == query.pid)
    is_there[is_there] = (gallery.embedding[row[is_there]] == query.embedding[is_there]).all(axis=1)
    return not each_its_own(query.camid[~is_there], gallery.camid)


def single_query(*args: Any, **keywords: Any) -> dict[str, Any]:
    """Returns the result of `evaluate_single_query`, with the same arguments."""
    return evaluate_single_query(*args, **keywords).result


def evaluate_multi_query(
    query: Labelled,
    gallery: Labelled,
    more: Labelled,
    pooling: str,
    options: Options = DEFAULT,
    *,
    progress: bool = False,
) -> Evaluated:
    """Evaluates with all images of a query's person under the query's camera pooled into one embedding.

    Every embedding, of the gallery too, is divided by its norm, whatever `options.normalize` says; so is what is
    pooled (Zheng et al., ICCV 2015).

    Args:
      query: Q images, pid above 0; they say who is asked for, under which camera.
      gallery: G images.
      more: the images to pool, `gt_bbox` of Market-1501. Where there is none of a query's person and camera, the
        query's own image is taken.
      pooling: "mean" or "max", of each element of the embeddings.
      options: how distances are made.
      progress: whether a bar is shown.

    Returns:
      As `evaluate_single_query`, with protocol "multi_query", `pooling`, `num_pooled` (mean number of images a query)
      and `num_unpooled` (queries with only their own image).

    Raises:
      ValueError: as `evaluate_single_query`.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"unknown pooling {pooling!r}: use one of {', '.join(POOLINGS)}")
    query, more = Labelled.checked("query", *query), Labelled.checked("multi-query", *more)
    if more.embedding.shape[1] != query.embedding.shape[1]:
        widths = f"{more.embedding.shape[1]} wide, query embeddings {query.embedding.shape[1]}"
        raise ValueError(f"multi-query embeddings are {widths}: take both from the same model")
    pooled, counts = _pooled(query, normalized("query", query.embedding), more, pooling)
    evaluated = evaluate_single_query(
        query._replace(embedding=pooled), gallery, options._replace(normalize=True), progress=progress
    )
    about = {"protocol": "multi_query", "pooling": pooling, "num_pooled": float(np.mean(counts))}
    return evaluated._replace(result=evaluated.result | about | {"num_unpooled": int(np.sum(counts == 0))})


def multi_query(*args: Any, **keywords: Any) -> dict[str, Any]:
    """Returns the result of `evaluate_multi_query`, with the same arguments."""
    return evaluate_multi_query(*args, **keywords).result


def compared(query: Labelled, gallery: Labelled, options: Options = DEFAULT, *, progress: bool = False) -> Comparison:
    """Compares two sets by the distances that the options name; arguments and errors as `evaluate_single_query`."""
    if options.normalize:
        query = query._replace(embedding=normalized("query", query.embedding))
        gallery = gallery._replace(embedding=normalized("gallery", gallery.embedding))
    if not options.rerank:
        return compare(query, gallery, distance=options.distance)
    keywords = {"k1": options.k1, "k2": options.k2, "weight": options.weight, "distance": options.distance}
    return reranking.rerank(query, gallery, progress=progress, **keywords)


def _pooled(
    query: Labelled, own: Float32[np.ndarray, "Q D"], more: Labelled, pooling: str
) -> tuple[Float32[np.ndarray, "Q D"], Int64[np.ndarray, " Q"]]:
    """(embeddings pooled over the images of `more`, of norm 1; number of images of each query)."""
    units = normalized("multi-query", more.embedding)
    pooled, counts = own.copy(), np.zeros(len(own), np.int64)
    views, view_index = np.unique(np.stack([more.pid, more.camid]), axis=1, return_inverse=True)
    groups = np.split(np.argsort(view_index, kind="stable"), np.cumsum(np.bincount(view_index))[:-1])
    view_images = dict(zip(map(tuple, views.T.tolist()), groups, strict=True))
    for row, view in enumerate(zip(query.pid.tolist(), query.camid.tolist(), strict=True)):
        if view in view_images:
            images = units[view_images[view]]
            pooled[row] = images.mean(axis=0) if pooling == "mean" else images.max(axis=0)
            counts[row] = len(images)
    return normalized("pooled query", pooled), counts
