"""The results of a search for one query image or a folder of them: on the screen, as JSON, a picture or a page."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from mancs_jax.common.local_path import local_path
from mancs_jax.common.screen import escaped
from mancs_jax.data.sources.labels import Camera, Label
from mancs_jax.evaluation.ranking import Found
from mancs_jax.evaluation.threshold import Limit, checked_limit, number_of, words_of
from mancs_jax.inference.embedder import Embedder
from mancs_jax.inference.gallery import (
    GREY,
    Gallery,
    answers_of,
    cameras_of,
    decoded,
    embed_whole,
    find_images,
    image_or_fault,
    is_correct,
    picture,
    shown_label,
    table,
    without_itself,
)
from mancs_jax.inference.search import search

MOST_DRAWN = 20  # queries of one picture


class Queries(NamedTuple):
    """One image, or those of a folder."""

    folder: Path
    names: list[str]  # paths below the folder, sorted
    not_images: list[str]  # files that are no images by name


class Answered(NamedTuple):
    """One query and its results."""

    query: Path
    name: str  # of the query, below the folder of queries
    found: Found  # of this query only, nearest first
    itself: str  # the gallery's entry of the query, which is excluded; "" where there is none
    label: tuple[str, str] | None = None  # person and camera, "" where it is not known; None where neither is


def find_queries(path: str | Path) -> Queries:
    """Finds the image itself, or the images of a folder.

    Raises:
      FileNotFoundError, ValueError: as `find_images`.
    """
    path = local_path(path)
    if not path.is_dir():
        return Queries(path.parent, [path.name], [])
    return Queries(path.absolute(), *find_images(path))  # names that begin with ~ are no home directories


def find_answers(
    queries: Queries,
    embedder: Embedder,
    gallery: Gallery,
    *,
    k: int,
    camera: Camera | Mapping[str, Camera] | None = None,
    distance: str = "euclidean",
    max_distance: Limit = None,
    labels: Mapping[str, Label] | None = None,
) -> tuple[list[Answered], dict[str, str]]:
    """Searches for each query; the people in the query images may be unknown.

    Args:
      queries: see `find_queries`.
      embedder: the network that embedded the gallery.
      gallery: to search.
      k: results of each query, or as many as there are.
      camera: of all queries, or of each by its name, see `gallery.cameras_of`.
      distance: "euclidean" or "cosine".
      max_distance: images beyond it are not returned; None for no limit. A threshold has to belong to the gallery.
      labels: of queries by their names, see `gallery.read_labels`; others have the labels that their names tell.

    Returns:
      (the results, name and fault of each query that cannot be read).

    Raises:
      FileNotFoundError, ValueError: one line: the only query, or all of them, cannot be read, or as `search`.
    """
    limit = checked_limit(
        max_distance, distance, normalize=gallery.normalize, flip=gallery.flip, network=gallery.network
    )
    if len(queries.names) == 1:
        names, damaged = queries.names, dict[str, str]()
        embedding = embedder(queries.folder / names[0], camera=cameras_of(names, embedder, camera))
    else:
        embedding, names, damaged = embed_whole(queries.folder, embedder, queries.names, camera=camera)
    files = [queries.folder / name for name in names]
    number = min(k + 1, len(gallery.name))
    found = search(embedding, gallery.embedding, number, distance=distance, max_distance=limit)
    answered = []
    for row, (file, name) in enumerate(zip(files, names, strict=True)):
        own = found._replace(index=found.index[[row]], distance=found.distance[[row]])
        kept, itself = without_itself(own, gallery, file, embedding[[row]], k)
        label = (labels or {}).get(name)
        shown = shown_label(name) if label is None else (label.person, label.camera)
        answered.append(Answered(file, name, kept, itself, shown))
    return answered, damaged


def none_found(max_distance: Limit) -> str:
    """The line for a query without results."""
    limit = number_of(max_distance)
    return "no match: the gallery has no other image" if limit is None else f"no match within {limit:.4g}"


def as_text(answered: Sequence[Answered], gallery: Gallery, max_distance: Limit = None) -> str:
    """The results for the screen, a table a query, with the query's name above where there are several."""
    parts = []
    for one in answered:
        lines = [f"query {escaped(one.name)}"] if len(answered) > 1 else []
        lines += [f"excluded from the results: the query itself, {escaped(one.itself)}"] if one.itself else []
        parts.append("\n".join([*lines, table(one.found, gallery, none_found(max_distance))]))
    return "\n\n".join(parts)


def as_json(answered: Sequence[Answered], gallery: Gallery) -> dict[str, Any]:
    """The results as plain values: of each query its name, and of each result name, distance, `is_correct` (None
    without labels, see `gallery.is_correct`) and, where known, pid and camid; person and camera too, where a CSV named
    them.
    """
    return {
        "network": gallery.network,
        "queries": [
            {
                "query": one.name,
                **({} if one.label is None else {"person": one.label[0], "camera": one.label[1]}),
                "left_out": one.itself,
                "answers": [
                    {
                        "name": str(gallery.name[i]),
                        "distance": round(distance, 6),
                        "is_correct": is_correct(one.label, gallery.shown(i)),
                        **_labels(gallery, i),
                    }
                    for i, distance in answers_of(one.found)
                ],
            }
            for one in answered
        ],
    }


def unknown_people(answered: Sequence[Answered], gallery: Gallery) -> str:
    """Says why no result is correct or wrong; "" where the people of a query and of the gallery are known."""
    if gallery.pid is None:
        return "the gallery has no labels of people, so no result is correct or wrong; mancs embed --csv=FILE adds them"
    if not any(one.label for one in answered):
        return "the people of the queries are not known, so no result is correct or wrong"
    return ""


def result_images(
    answered: Sequence[Answered], gallery: Gallery, folder: str | Path, image_size: tuple[int, int]
) -> tuple[dict[int, UInt8[np.ndarray, "H W 3"]], dict[str, str]]:
    """Reads the images of all results from the folder that the gallery was made of.

    Returns:
      (image by its position in the gallery, grey where it cannot be read; name and fault of those).
    """
    shown, faults, folder = dict[int, np.ndarray](), dict[str, str](), local_path(folder)
    for i in sorted({i for one in answered for i, _ in answers_of(one.found)}):
        name = str(gallery.name[i])
        image = image_or_fault(folder, image_size, name)
        if isinstance(image, str):
            faults[name] = image
            image = np.full((*image_size, 3), GREY, np.uint8)
        shown[i] = image
    return shown, faults


def draw(
    answered: Sequence[Answered],
    gallery: Gallery,
    images: Mapping[int, UInt8[np.ndarray, "h w 3"]],
    image_size: tuple[int, int],
) -> UInt8[np.ndarray, "H W 3"]:
    """Draws a line for each query, see `gallery.picture` and `result_images`; RGB."""
    from mancs_jax.reporting import ranked_lists  # not at the top: few searches draw a picture

    return ranked_lists.joined(
        [picture(one.query, one.found, gallery, images, image_size, one.label) for one in answered], axis=0
    )


def page(
    answered: Sequence[Answered],
    gallery: Gallery,
    images: Mapping[int, UInt8[np.ndarray, "h w 3"]],
    image_size: tuple[int, int],
    *,
    place: str | Path,
    network: str,
    distance: str,
    max_distance: Limit = None,
) -> str:
    """The page of all queries, HTML, see `reporting.report.search_html`.

    Args:
      answered: queries and results.
      gallery: that was searched.
      images: of the results, see `result_images`.
      image_size: (height, width) that queries are decoded to.
      place: of the gallery's file.
      network: name of the model.
      distance: "euclidean" or "cosine".
      max_distance: the threshold.
    """
    from mancs_jax.reporting.report import Shown, search_html

    row_of = {i: row for row, i in enumerate(images)}
    query = [Shown(decoded(one.query, image_size), one.name, one.label) for one in answered]
    shown_gallery = [Shown(image, str(gallery.name[i]), gallery.shown(i)) for i, image in images.items()]
    lists = [
        [(row_of[i], distance, is_correct(one.label, gallery.shown(i))) for i, distance in answers_of(one.found)]
        for one in answered
    ]
    options = [name for name in ("flip", "normalize") if getattr(gallery, name)]
    facts = {
        "gallery": f"{place}, {len(gallery.name):,} images",
        "model": f"{network}, {', '.join(options)}" if options else network,
        "distance": distance,
        "threshold": words_of(max_distance, len(gallery.name)),
        "date": datetime.now().astimezone().isoformat(" ", "minutes"),
    }
    about = f"{len(answered):,} queries; {unknown_people(answered, gallery) or 'without scores'}"
    return search_html("Search", about, query, shown_gallery, lists, facts=facts, nothing=none_found(max_distance))


def _labels(gallery: Gallery, i: int) -> dict[str, int | str]:
    if gallery.pid is None or gallery.camid is None:
        return {}
    numbers: dict[str, int | str] = {"pid": int(gallery.pid[i]), "camid": int(gallery.camid[i])}
    shown = gallery.shown(i) if gallery.person is not None else None
    return numbers if shown is None else numbers | {"person": shown[0], "camera": shown[1]}
