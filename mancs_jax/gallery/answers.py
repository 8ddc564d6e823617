"""Queries and their results in a gallery: on the screen, as JSON, and as a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mancs_jax.common.local_path import local_path
from mancs_jax.common.screen import escaped
from mancs_jax.data import images
from mancs_jax.evaluation.threshold import Limit, number_of, words_of
from mancs_jax.evaluation.threshold import described as described_limit
from mancs_jax.gallery.entry import Facts, Image, Match, hash_of
from mancs_jax.gallery.filters import described, make_filter, moment_text
from mancs_jax.gallery.gallery import Gallery
from mancs_jax.inference.answers import Queries
from mancs_jax.inference.gallery import GREY, embed_whole, labels_of, shown_label


@dataclass(frozen=True)
class How:
    """What is searched for, see `Gallery.search`."""

    k: int
    distance: str
    max_distance: Limit
    by_person: bool
    index: bool
    conditions: dict[str, Any]
    query_camera: int | None = None


class Answered(NamedTuple):
    """One query and its results, nearest first."""

    query: Path
    name: str  # below the folder of queries
    matches: list[Match]
    itself: list[str]  # names in the gallery of the query itself, which are left out


def find_answers(gallery: Gallery, queries: Queries, how: How) -> tuple[list[Answered], dict[str, str]]:
    """Searches for each query with the model of the gallery object; the query itself, an image of equal bytes, is
    excluded.

    Returns:
      (the results, name and fault of each query that cannot be read).

    Raises:
      ValueError: one line: no query can be read, or as `Gallery.search`.
    """
    progress = len(queries.names) > 1
    embedding, names, damaged = embed_whole(
        queries.folder, gallery.embedder, queries.names, camera=how.query_camera, progress=progress
    )
    answered = []
    for name, of_query in zip(names, embedding, strict=True):
        file = queries.folder / name
        own, itself = hash_of(file.read_bytes()), dict[str, None]()

        def is_itself(image: Image, own: bytes = own, itself: dict[str, None] = itself) -> bool:
            if image.hash == own:
                itself[image.name] = None
            return image.hash == own

        [matches] = gallery.search(
            of_query[None],
            how.k,
            **how.conditions,
            distance=how.distance,
            max_distance=how.max_distance,
            by_person=how.by_person,
            index=how.index,
            leave_out=is_itself,
        )
        answered.append(Answered(file, name, matches, list(itself)))
    return answered, damaged


def none_found(how: How) -> str:
    """The line for a query without results."""
    if (limit := number_of(how.max_distance)) is not None:
        return f"no match within {limit:.4g}"
    return "no image matches the filters" if how.conditions else "the gallery is empty"


def as_text(answered: Sequence[Answered], how: How) -> str:
    """The results for the screen, a table a query, with the query's name above where there are several."""
    parts = []
    for one in answered:
        lines = [f"query {escaped(one.name)}"] if len(answered) > 1 else []
        lines += [f"excluded from the results: the query itself, {escaped(name)}" for name in one.itself]
        rows = [["rank", "distance", "person", "camera", "time", "name"]]
        for rank, (distance, image) in enumerate(one.matches, start=1):
            labels = [image.person or "-", image.camera or "-", moment_text(image.time) or "-"]
            rows.append([str(rank), f"{distance:.4f}", *labels, escaped(image.name)])
        rows = [[cell for cell, used in zip(row, _used_columns(rows)) if used] for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows)][:-1]
        table = ["  ".join([*map(str.rjust, row, widths), row[-1]]) for row in rows]
        parts.append("\n".join([*lines, *(table if one.matches else [none_found(how)])]))
    return "\n\n".join(parts)


def as_json(answered: Sequence[Answered], how: How, facts: Facts) -> dict[str, Any]:
    """The results as plain values; times are seconds since 1970 UTC."""
    return {
        "network": facts.network,
        "distance": how.distance,
        "k": how.k,
        **described_limit(how.max_distance),
        "by_person": how.by_person,
        "conditions": described(make_filter(**how.conditions)),
        "queries": [
            {
                "query": one.name,
                "left_out": one.itself,
                "answers": [
                    {
                        "name": image.name,
                        "distance": round(distance, 6),
                        "person": image.person,
                        "camera": image.camera,
                        "time": image.time,
                        "folder": image.folder,
                    }
                    for distance, image in one.matches
                ],
            }
            for one in answered
        ],
    }


def page(
    answered: Sequence[Answered],
    how: How,
    place: str,
    number: int,
    network: str,
    image_size: tuple[int, int],
    folder: str | Path | None = None,
) -> str:
    """The page of all queries, HTML, see `reporting.report.search_html`.

    Args:
      answered: queries and results.
      how: they were searched.
      place: of the gallery.
      number: of its images.
      network: its name.
      image_size: (height, width) that images are decoded to.
      folder: of the gallery's images; by default each is read where it was added from. One whose file is gone is grey.
    """
    from mancs_jax.reporting.report import Shown, search_html

    used = {match.image.id: match.image for one in answered for match in one.matches}
    row_of = {i: row for row, i in enumerate(used)}
    query = [
        Shown(
            images.decode_image(one.query.read_bytes(), image_size, str(one.query)), one.name, shown_label(one.name), ()
        )
        for one in answered
    ]
    found = [
        Shown(
            _picture(image, folder, image_size),
            image.name,
            (image.person, image.camera) if image.person else None,
            _lines(image),
        )
        for image in used.values()
    ]
    conditions = described(make_filter(**how.conditions))
    facts = {
        "gallery": f"{place}, {number:,} images",
        "model": network,
        "distance": how.distance,
        "threshold": words_of(how.max_distance, number),
        "filters": "; ".join(f"{name} {_text(value)}" for name, value in conditions.items()) or "none",
        "date": datetime.now().astimezone().isoformat(" ", "minutes"),
    }
    lists = [
        [(row_of[image.id], distance, is_correct(one.name, image.person)) for distance, image in one.matches]
        for one in answered
    ]
    about = f"{len(answered):,} queries, {how.k} {'people' if how.by_person else 'results'} at most; without scores"
    return search_html("Search", about, query, found, lists, facts=facts, nothing=none_found(how))


def is_correct(query: str, person: str | None) -> bool | None:
    """Whether a person of the gallery is the one in the query's name; None if either is unknown.

    In a gallery, "0" and "-1" are names as any others; those of training data are not stored as people.
    """
    labels = labels_of(query)
    return None if person is None or labels is None or labels[0] < 1 else person == str(labels[0])


def _lines(image: Image) -> tuple[str, ...]:
    """Below an image: person, camera and time; the page itself adds folder and name."""
    labels = [f"person {image.person}" if image.person else "", f"camera {image.camera}" if image.camera else ""]
    return tuple(filter(None, [*labels, moment_text(image.time)]))


def _picture(image: Image, folder: str | Path | None, image_size: tuple[int, int]) -> np.ndarray:
    place = folder or image.folder
    try:
        if place is not None:
            file = local_path(place).absolute() / image.name
            return images.decode_image(file.read_bytes(), image_size, image.name)
    except (OSError, ValueError):
        pass
    return np.full((*image_size, 3), GREY, np.uint8)


def _used_columns(rows: Sequence[Sequence[str]]) -> list[bool]:
    """Columns of labels that no image has are left out."""
    return [name not in ("person", "camera", "time") or set(cells) != {"-"} for name, *cells in zip(*rows)]


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
