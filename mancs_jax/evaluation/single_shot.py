"""Single-shot evaluation: one image of each person under one camera, searched among one image each under another.

It is the usual protocol of data sets with two cameras (CUHK01, VIPeR, PRID, GRID), repeated over random splits. The
draw of one image an identity, the ranks and the mean over splits serve `cuhk03_classic` as well.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mancs_jax.data.cameras import each_its_own
from mancs_jax.evaluation import metrics, reranking
from mancs_jax.evaluation.distances import check_distance, checked_norms, normalized, squared_euclidean
from mancs_jax.evaluation.labelled import Labelled, checked_labels
from mancs_jax.evaluation.metrics import HitRanks
from mancs_jax.evaluation.per_query import PerQuery, intervals, per_query
from mancs_jax.evaluation.protocols import DEFAULT, Evaluated, Options

RANKS = (1, 5, 10, 20)  # that are averaged over the splits
MEANS = ("mAP", "mAP_plain")  # other scores that are averaged where the splits have them


class SingleShot(NamedTuple):
    """The random splits of the protocol."""

    splits: int = 10
    identities: int = 0  # test identities of each split; 0: all that were seen by both views
    seed: int = 0
    query_camera: int | None = None  # None of both: see `draw`
    gallery_camera: int | None = None


USUAL = SingleShot()


class Draw(NamedTuple):
    """Rows of the images of one split."""

    query: np.ndarray  # int [P], one image of each test identity, ascending by pid
    gallery: np.ndarray  # int [G], G >= P: the same identities in the same order; then the images without a query


class _Views(NamedTuple):
    """The images that can be drawn."""

    cameras: tuple[int, int] | None  # of query and gallery; None: two of each identity's own, drawn in each split
    rows: dict[int, dict[int, list[int]]]  # identity -> camera -> rows of its images
    testable: list[int]  # identities that both views have seen
    only_gallery: list[list[int]]  # rows of the images of each identity that only the gallery has
    distractors: np.ndarray  # int, rows


def draw(pid: np.ndarray, camid: np.ndarray, protocol: SingleShot = USUAL) -> list[Draw]:
    """Draws the images of every split; the draw depends only on the labels, their order and the seed.

    With two cameras, the query view is the lower camid and the gallery view the higher, unless `protocol` names them.
    With more cameras and none named, the views of each identity are two of its own cameras, drawn at random in each
    split. Test identities are drawn among those seen by both views. The gallery also has one image of each identity
    that only its view has seen (without named cameras: that a single camera has seen), and all distractors of its
    view. Identities seen by both views that are not drawn take no part in the split.

    Args:
      pid: integer [N]: > 0 a person, 0 a distractor, -1 junk, which is left out.
      camid: integer [N].
      protocol: the splits. Split s is drawn with the generator `numpy.random.default_rng([seed, s])`.

    Returns:
      One `Draw` a split.

    Raises:
      ValueError: one line: no images, a single camera, an unknown camera, or too many identities.
    """
    if protocol.splits < 1 or protocol.identities < 0 or protocol.seed < 0:
        raise ValueError(
            f"splits is {protocol.splits}, identities {protocol.identities} and seed {protocol.seed}: splits must be "
            "at least 1, the others at least 0"
        )
    views = _find_views(pid, camid, protocol)
    number = protocol.identities or len(views.testable)
    if number > len(views.testable) or not views.testable:
        seen_by = "camera {} and by camera {}".format(*views.cameras) if views.cameras else "two cameras"
        raise ValueError(
            f"single-shot evaluation of {protocol.identities or 'all'} identities is impossible: "
            f"{len(views.testable)} of {len(views.rows)} were seen by {seen_by}"
        )
    return [
        _draw_split(views, number, np.random.default_rng([protocol.seed, split])) for split in range(protocol.splits)
    ]


def _find_views(pid: np.ndarray, camid: np.ndarray, protocol: SingleShot) -> _Views:
    if not len(pid):
        raise ValueError("single-shot evaluation has no images to draw from")
    pid, camid = checked_labels("single-shot", pid, camid, len(pid))
    cameras = _named_or_only(np.unique(camid[pid > 0]).tolist(), protocol)
    rows: dict[int, dict[int, list[int]]] = {}
    for row in np.flatnonzero(pid > 0).tolist():
        rows.setdefault(int(pid[row]), {}).setdefault(int(camid[row]), []).append(row)
    rows = dict(sorted(rows.items()))
    if cameras:
        query, gallery = cameras
        return _Views(
            cameras=cameras,
            rows=rows,
            testable=[person for person, seen in rows.items() if query in seen and gallery in seen],
            only_gallery=[seen[gallery] for seen in rows.values() if gallery in seen and query not in seen],
            distractors=np.flatnonzero((pid == 0) & (camid == gallery)),
        )
    return _Views(
        cameras=None,
        rows=rows,
        testable=[person for person, seen in rows.items() if len(seen) > 1],
        only_gallery=[images for seen in rows.values() if len(seen) == 1 for images in seen.values()],
        distractors=np.flatnonzero(pid == 0),
    )


def _draw_split(views: _Views, number: int, rng: np.random.Generator) -> Draw:
    people = np.sort(rng.choice(views.testable, number, replace=False)).tolist()
    seen = [views.rows[person] for person in people]
    pairs = [views.cameras or rng.choice(sorted(of), 2, replace=False).tolist() for of in seen]
    query = one_each((of[first] for of, (first, _) in zip(seen, pairs, strict=True)), rng)
    gallery = one_each((of[second] for of, (_, second) in zip(seen, pairs, strict=True)), rng)
    return Draw(query, np.concatenate([gallery, one_each(views.only_gallery, rng), views.distractors]))


def _named_or_only(cameras: Sequence[int], protocol: SingleShot) -> tuple[int, int] | None:
    """(query camera, gallery camera); None where there are more than two cameras and none is named."""
    named = (protocol.query_camera, protocol.gallery_camera)
    listed = ", ".join(map(str, cameras[:20])) + (", ..." if len(cameras) > 20 else "")
    if len(cameras) < 2:
        raise ValueError(f"single-shot evaluation needs two cameras, but all people were seen by camera {listed}")
    if named == (None, None):
        return (cameras[0], cameras[1]) if len(cameras) == 2 else None
    first, second = named
    if first is None or second is None or first == second:
        raise ValueError(f"query_camera is {first} and gallery_camera {second}: name two different cameras, or neither")
    if unknown := [str(camera) for camera in (first, second) if camera not in cameras]:
        raise ValueError(f"no person was seen by camera {' or '.join(unknown)}; the cameras are {listed}")
    return first, second


def evaluate(images: Labelled, protocol: SingleShot = USUAL, options: Options = DEFAULT) -> Evaluated:
    """Evaluates embeddings on the splits of `draw`.

    Each query has one match, at rank r of the gallery. Its plain average precision is 1 / r. That of the official
    script of Market-1501 is 1 / (2 r), or 1 where r is 1.

    Args:
      images: N embeddings and labels.
      protocol: the splits.
      options: how distances are made.

    Returns:
      The result, and the scores of the queries of all splits, one split after the other. The result has `protocol`
      "single_shot" and the options; means over the splits: mAP, mAP_plain, cmc (list, rank 1 first) and those of
      `over_splits`; `intervals` and `bootstrap` of the means, see `per_query.intervals` (splits share identities, so a
      draw gives an identity the same weight in all of them); `splits`, the scores of each split; num_identities (seen
      by both views) and, of each split, num_queries, num_matched_queries, num_gallery, num_gallery_only (identities
      without a query) and num_distractors; `split_seed`, `query_camera` and `gallery_camera` (None: two cameras of each
      identity, drawn in each split) and `cameras_known`.

    Raises:
      ValueError: one line: as `draw` and `reranking.reranked_distances`; embeddings not finite or not float32 [N, D].
    """
    draws, views = draw(images.pid, images.camid, protocol), _find_views(images.pid, images.camid, protocol)
    embedding = Labelled.checked("single-shot", *images).embedding
    check_distance(options.distance)
    checked_norms("single-shot", embedding, options.distance)
    results, split_queries = [], []
    for query, gallery in draws:
        distances = distance_matrix(embedding[query], embedding[gallery], options)
        rank = match_ranks(distances, np.arange(len(query)), gallery)
        hits = HitRanks(rank[:, None].astype(np.int32), np.ones(len(rank), np.int32))
        results.append(metrics.scores(hits))
        split_queries.append(per_query(hits, images.pid[query], images.camid[query]))
    queries = PerQuery(*map(np.concatenate, zip(*split_queries, strict=True)))
    spread = over_splits(results)
    query_camera, gallery_camera = views.cameras or (None, None)
    result = {
        "protocol": "single_shot",
        **options.described(),
        **{name: spread["mean"][name] for name in MEANS},
        **spread,
        **intervals(queries),
        "splits": [_averaged(result) for result in results],
        "split_seed": protocol.seed,
        "query_camera": query_camera,
        "gallery_camera": gallery_camera,
        "cameras_known": not each_its_own(images.camid),
        "num_identities": len(views.testable),
        "num_queries": len(draws[0].query),
        "num_matched_queries": len(draws[0].query),
        "num_gallery": len(draws[0].gallery),
        "num_gallery_only": len(views.only_gallery),
        "num_distractors": len(views.distractors),
    }
    return Evaluated(result, queries)


def one_each(images_of: Iterable[Sequence[int] | np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Draws one of the rows of each identity, each with the same probability: int [identities]."""
    return np.array([rows[int(rng.integers(len(rows)))] for rows in images_of], np.int64)


def match_ranks(distances: np.ndarray, match: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Ranks the only match of each query.

    Args:
      distances: float [Q, G].
      match: int [Q], the column of each query's match.
      row: int [G], a number of each gallery image: of equal distances, the image with the lower number comes first.

    Returns:
      int [Q], from 1.
    """
    match_distance = distances[np.arange(len(match)), match][:, None]
    first = row[None] < row[match][:, None]
    return 1 + np.sum((distances < match_distance) | ((distances == match_distance) & first), axis=1)


def distance_matrix(query: np.ndarray, gallery: np.ndarray, options: Options = DEFAULT) -> np.ndarray:
    """All distances of small sets, [Q, G], of embeddings [Q, D] and [G, D]; float64 but for re-ranking."""
    if options.normalize or (options.distance == "cosine" and not options.rerank):
        query, gallery = normalized("query", query), normalized("gallery", gallery)
    if options.rerank:
        k1, k2, weight, distance = options.k1, options.k2, options.weight, options.distance
        distances_of = reranking.reranked_distances(query, gallery, k1=k1, k2=k2, weight=weight, distance=distance)
        return distances_of(np.arange(len(query)))
    query, gallery = query.astype(np.float64), gallery.astype(np.float64)
    squared = squared_euclidean(query @ gallery.T, np.vecdot(query, query), np.vecdot(gallery, gallery))
    return squared / 2 if options.distance == "cosine" else np.sqrt(squared)


def over_splits(results: Sequence[dict]) -> dict:
    """Mean and standard deviation (n - 1) over the splits of rank-1, rank-5, rank-10 and rank-20, and of MEANS.

    Args:
      results: one a split, at least 1, with `cmc` and, where all have them, MEANS; with one, the deviation is 0.

    Returns:
      `num_splits`, `mean` and `sd` by the score's name ("rank-1", "mAP") as fractions, and the mean `cmc`.
    """
    split_scores = [_averaged(result) for result in results]
    values = {name: np.array([scores[name] for scores in split_scores]) for name in split_scores[0]}
    return {
        "num_splits": len(results),
        "mean": {name: float(value.mean()) for name, value in values.items()},
        "sd": {name: float(value.std(ddof=1)) if len(results) > 1 else 0.0 for name, value in values.items()},
        "cmc": np.mean([result["cmc"] for result in results], axis=0).tolist(),
    }


def _averaged(result: dict) -> dict[str, float]:
    ranks = {f"rank-{rank}": result["cmc"][rank - 1] for rank in RANKS}
    return ranks | {name: result[name] for name in MEANS if name in result}
