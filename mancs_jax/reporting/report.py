"""report.html of a workdir: one file that opens without a network, with the ranked list of every query."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import numpy as np

from mancs_jax.data.arrays import Split
from mancs_jax.data.cameras import each_its_own
from mancs_jax.evaluation.ranking import Found

TEMPLATE = Path(__file__).with_name("report.html")
HEIGHT, WIDTH, QUALITY = 96, 48, 60  # of a thumbnail: pixels, and WebP's measure
NUM_DIGITS = 3  # of a distance


class Lists(NamedTuple):
    """The ranked lists by one way of computing distances."""

    nearest: Found
    average_precision: np.ndarray  # [Q], the official one, whose mean is mAP


class Shown(NamedTuple):
    """An image of a search."""

    image: np.ndarray  # uint8 [H, W, 3], RGB
    name: str
    labels: tuple[str, str | None] | None  # person and camera, where they are known; a camera may be "" or None
    lines: tuple[str, ...] | None = None  # below the image, with folder and name; None for the labels or the name


class Section(NamedTuple):
    """A table of the page with a heading, and paragraphs that explain it."""

    title: str
    rows: Sequence[Sequence[str]]  # of cells, the first one the head
    paragraphs: Sequence[str] = ()


Answers = Sequence[Sequence[tuple[int, float, bool | None]]]


def report_html(
    title: str,
    about: str,
    table: Sequence[Sequence[str]],
    config: Mapping[str, Any],
    charts: Sequence[str],
    query: Split,
    gallery: Split,
    lists: Mapping[str, Lists],
    masks: Mapping[int, np.ndarray],
    *,
    reading: Sequence[str] = (),
    sections: Sequence[Section] = (),
    findings: Sequence[str] = (),
    people: Mapping[int, str] = MappingProxyType({}),
    cameras: Mapping[int, str] = MappingProxyType({}),
) -> str:
    """The page.

    Args:
      title: of the page.
      about: a line below it.
      table: rows of cells, the first one the head.
      config: of the run.
      charts: SVG documents.
      query: Q images.
      gallery: G images.
      lists: name of a way -> its lists; at least one.
      masks: stage -> float [Q, h, w], the attention mask of each query, a mean over channels. Each is shown from its
        least to its largest value.
      reading: paragraphs below the table.
      sections: further tables.
      findings: HTML of further sections, as of `findings.findings`.
      people: pid -> name, where people have other names than numbers.
      cameras: camid -> name, likewise.

    Returns:
      HTML, with every text escaped and every image inside.
    """
    used = np.unique(np.concatenate([of.nearest.index.ravel() for of in lists.values()]))
    used = used[used >= 0]
    row_of = np.full(len(gallery.pid) + 1, -1)
    row_of[used] = np.arange(len(used))
    num_queries = len(query.pid)
    camera_of = None if each_its_own(query.camid, gallery.camid) else cameras

    def described(split: Split, i: int, image: int) -> dict[str, Any]:
        pid, camid = int(split.pid[i]), int(split.camid[i])
        camera = None if camera_of is None else camera_of.get(camid, camid)
        return {"image": image, "pid": people.get(pid, pid), "camid": camera, "name": str(split.name[i])}

    data = {
        "title": title,
        "about": about,
        "table": table,
        "reading": list(reading),
        "sections": [section._asdict() for section in sections],
        "config": config,
        "images": [*map(thumbnail, query.image), *(thumbnail(gallery.image[i]) for i in used)],
        "queries": [described(query, i, i) for i in range(num_queries)],
        "gallery": [described(gallery, i, num_queries + row) for row, i in enumerate(used)],
        "lists": {name: _as_json(of, row_of) for name, of in lists.items()},
        "masks": {stage: _mask_bytes(of_stage) for stage, of_stage in masks.items()},
    }
    return _filled(data, charts, findings)


def search_html(
    title: str,
    about: str,
    query: Sequence[Shown],
    gallery: Sequence[Shown],
    answers: Answers,
    *,
    facts: Mapping[str, str] | None = None,
    nothing: str = "no match",
) -> str:
    """The page of a search: ranked lists without scores, and without colours where people are unknown.

    Args:
      title: of the page.
      about: a line below it.
      query: Q images.
      gallery: images that are results, each once.
      answers: of each query, its results, nearest first: row of `gallery`, distance, and whether it shows the query's
        person, None if that is unknown.
      facts: name -> text, for a table at the top.
      nothing: stands in the place of results if there are none.

    Returns:
      HTML as of `report_html`.
    """
    shown = [
        {
            "image": i,
            "pid": of.labels and of.labels[0],
            "camid": (of.labels and of.labels[1]) or None,
            "name": of.name,
            "lines": of.lines,
        }
        for i, of in enumerate((*query, *gallery))
    ]
    lists = {
        "answers": [[row for row, _, _ in of] for of in answers],
        "distances": [[round(distance, NUM_DIGITS) for _, distance, _ in of] for of in answers],
        "is_correct": [[is_correct for _, _, is_correct in of] for of in answers],
    }
    data = {
        "title": title,
        "about": about,
        "table": [],
        "config": {},
        "images": [thumbnail(of.image) for of in (*query, *gallery)],
        "queries": shown[: len(query)],
        "gallery": shown[len(query) :],
        "lists": {"by distance": lists},
        "masks": {},
        "facts": dict(facts or {}),
        "nothing": nothing,
    }
    return _filled(data, [])


def table_html(title: str, about: str, facts: Mapping[str, str], table: Sequence[Sequence[str]]) -> str:
    """A page of facts and a table, without images.

    Args:
      title: of the page.
      about: a line below it.
      facts: name -> text.
      table: rows of cells, the first one the head.
    """
    data = {"title": title, "about": about, "table": table, "config": {}, "images": [], "queries": [], "gallery": []}
    return _filled(data | {"lists": {}, "masks": {}, "facts": dict(facts)}, [])


def _filled(data: Mapping[str, Any], charts: Sequence[str], findings: Sequence[str] = ()) -> str:
    # "<" would end the script that holds the data, whatever text it is in.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    page = TEMPLATE.read_text().replace("__CHARTS__", "".join(charts)).replace("__FINDINGS__", "".join(findings))
    return page.replace("__DATA__", text)


def thumbnail(image: np.ndarray) -> str:
    """uint8 [H, W, 3] RGB as a small WebP file, in base64."""
    small = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".webp", small[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    return base64.b64encode(encoded.tobytes()).decode()


def _as_json(of, row_of):
    counts = (of.nearest.index >= 0).sum(axis=1)
    return {
        "ap": np.round(of.average_precision, 4).tolist(),
        "answers": [row_of[index[:n]].tolist() for index, n in zip(of.nearest.index, counts)],
        "distances": [
            np.round(distance[:n].astype(float), NUM_DIGITS).tolist()
            for distance, n in zip(of.nearest.distance, counts)
        ],
    }


def _mask_bytes(masks):
    low, high = masks.min(axis=(1, 2), keepdims=True), masks.max(axis=(1, 2), keepdims=True)
    scaled = np.round(255 * (masks - low) / np.maximum(high - low, 1e-12)).astype(np.uint8)
    height, width = masks.shape[1:]
    return {"height": height, "width": width, "of_query": [base64.b64encode(m.tobytes()).decode() for m in scaled]}
