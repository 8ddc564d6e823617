"""Evaluation protocols: embeddings and labels in, one result out that says how it was made.

A result is a plain dict, written as JSON: the scores, the counts, and the protocol and options that they were
made with. Callers add what only they know (recipe, data fingerprint, versions) before they write it.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mancs_jax.data.cameras import each_its_own
from mancs_jax.evaluation import checks, metrics, ranking, reranking, roc
from mancs_jax.evaluation.distances import all_distances, normalized
from mancs_jax.evaluation.metrics import HitRanks
from mancs_jax.evaluation.ranking import DistancesOf, NearestLists
from mancs_jax.evaluation.roc import Roc

POOLINGS = ("mean", "max")


class Labelled(NamedTuple):
    """Embeddings of images, and the people and cameras of each."""

    embedding: np.ndarray  # float32 [N, D]
    pid: np.ndarray  # integer [N]: > 0 a person, 0 a distractor, -1 junk
    camid: np.ndarray  # integer [N]


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
        of_reranking = {"k1": self.k1, "k2": self.k2, "lambda": self.weight} if self.rerank else None
        return {"distance": self.distance, "normalize": self.normalize, "rerank": of_reranking}


DEFAULT = Options()


class Ranked(NamedTuple):
    """The ranks of the hits of every query, and the distances behind them."""

    hits: HitRanks
    lists: Callable[[int], NearestLists]  # depth -> the nearest images of each query, with each hit at its rank
    distances_of: DistancesOf  # indices of B queries -> distances [B, G]; junk takes no part in re-ranking: largest
    roc: Callable[[], Roc] | None  # None after re-ranking: such distances depend on the rest of the gallery


def single_query(
    query: Labelled,
    gallery: Labelled,
    options: Options = DEFAULT,
    *,
    ranked: Ranked | None = None,
    progress: bool = False,
) -> dict:
    """Evaluate every query image on its own, by the rules of `ranking.hit_ranks`.

    Args:
      query: Q images, pid above 0.
      gallery: G images. Junk is taken out before anything is computed, re-ranking included.
      options: how distances are made.
      ranked: of `rank` with the same arguments, where it is there already.
      progress: whether a bar is shown.

    Returns:
      `protocol` "single_query" and the options; mAP, mAP_plain, mINP, cmc, num_queries and num_matched_queries
      (see `metrics.scores`); num_gallery (all but junk), num_distractors (those among them with pid 0) and num_junk;
      `cameras_known`, False where each image of query and gallery is its own camera; `verification`, see
      `roc.described`, None after re-ranking.

    Raises:
      ValueError: as `ranking.hit_ranks` and `reranking.rerank`.
    """
    ranked = ranked or rank(query, gallery, options, progress=progress)
    gallery_pid = np.asarray(gallery.pid)
    return {
        "protocol": "single_query",
        **options.described(),
        **metrics.scores(ranked.hits),
        "verification": roc.described(ranked.roc()) if ranked.roc else None,
        "num_gallery": int(np.sum(gallery_pid != -1)),
        "num_distractors": int(np.sum(gallery_pid == 0)),
        "num_junk": int(np.sum(gallery_pid == -1)),
        "cameras_known": not each_its_own(query.camid, gallery.camid),
    }


def multi_query(
    query: Labelled,
    gallery: Labelled,
    more: Labelled,
    pooling: str,
    options: Options = DEFAULT,
    *,
    progress: bool = False,
) -> dict:
    """Evaluate with all images of a query's person under the query's camera pooled into one embedding.

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
      As `single_query`, with protocol "multi_query", `pooling`, `num_pooled` (mean number of images a query) and
      `num_unpooled` (queries with their own image alone).

    Raises:
      ValueError: as `single_query`.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"unknown pooling {pooling!r}: use one of {', '.join(POOLINGS)}")
    query = Labelled(*checks.checked("query", *query))
    more = Labelled(*checks.checked("multi-query", *more))
    if more.embedding.shape[1] != query.embedding.shape[1]:
        widths = f"{more.embedding.shape[1]} wide, query embeddings {query.embedding.shape[1]}"
        raise ValueError(f"multi-query embeddings are {widths}: take both from the same model")
    pooled, counts = _pooled(query, normalized("query", query.embedding), more, pooling)
    result = single_query(
        query._replace(embedding=pooled), gallery, options._replace(normalize=True), progress=progress
    )
    of_pooling = {"pooling": pooling, "num_pooled": float(np.mean(counts)), "num_unpooled": int(np.sum(counts == 0))}
    return result | {"protocol": "multi_query"} | of_pooling


def rank(query: Labelled, gallery: Labelled, options: Options = DEFAULT, *, progress: bool = False) -> Ranked:
    """Finds the hits of every query image on its own; arguments and errors as those of `single_query`."""
    if options.normalize:
        query = query._replace(embedding=normalized("query", query.embedding))
        gallery = gallery._replace(embedding=normalized("gallery", gallery.embedding))
    labels = (query.pid, query.camid, gallery.pid, gallery.camid)
    if not options.rerank:
        arguments = (query.embedding, gallery.embedding, *labels)
        return Ranked(
            hits=ranking.hit_ranks(*arguments, distance=options.distance, progress=progress),
            lists=lambda depth: ranking.nearest_lists(*arguments, distance=options.distance, depth=depth),
            distances_of=lambda rows: all_distances(query.embedding[rows], gallery.embedding, options.distance),
            roc=lambda: roc.create_roc(*arguments, distance=options.distance),
        )
    query, gallery = (
        Labelled(*checks.checked(part, *of_part)) for part, of_part in (("query", query), ("gallery", gallery))
    )
    checks.check_known(query.pid)
    kept = np.flatnonzero(gallery.pid != -1)
    of_kept = reranking.rerank(
        query.embedding,
        gallery.embedding[kept],
        k1=options.k1,
        k2=options.k2,
        weight=options.weight,
        distance=options.distance,
        progress=progress,
    )

    def distances_of(rows: np.ndarray) -> np.ndarray:
        distances = np.full((len(rows), len(gallery.pid)), np.finfo(np.float32).max, np.float32)
        distances[:, kept] = of_kept(rows)
        return distances

    return Ranked(
        hits=ranking.hit_ranks_by(distances_of, *labels),
        lists=lambda depth: ranking.nearest_lists_by(distances_of, *labels, depth=depth),
        distances_of=distances_of,
        roc=None,
    )


def _pooled(query, own, more, pooling):
    """(embeddings [Q, D] pooled over the images of `more`, of norm 1; number of images of each query, [Q])."""
    units = normalized("multi-query", more.embedding)
    pooled, counts = own.copy(), np.zeros(len(own), np.int64)
    views, of_view = np.unique(np.stack([more.pid, more.camid]), axis=1, return_inverse=True)
    of_view = np.split(np.argsort(of_view, kind="stable"), np.cumsum(np.bincount(of_view))[:-1])
    images_of = dict(zip(map(tuple, views.T.tolist()), of_view, strict=True))
    for row, view in enumerate(zip(query.pid.tolist(), query.camid.tolist(), strict=True)):
        if view in images_of:
            images = units[images_of[view]]
            pooled[row] = images.mean(axis=0) if pooling == "mean" else images.max(axis=0)
            counts[row] = len(images)
    return normalized("pooled query", pooled), counts
