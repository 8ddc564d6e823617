"""The people and cameras of images, as a CSV names them: any text, and the numbers that stand for it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mancs_jax.data.sources.csv_table import Listed, is_integer, parse_rows
from mancs_jax.data.sources.source import Source

HEADERS = {
    ("path", "pid", "camid", "split"): "",
    ("path", "pid", "camid"): " without splits",
    ("path", "pid", "split"): " without cameras",
    ("path", "pid"): " with neither",
}
Camera = int | str  # names of cameras are text; an integer stands for its digits
SPLITS = ("train", "query", "gallery", "gt_bbox")
NUMBER = re.compile(r"[-+]?\d+(\.\d*)?", re.ASCII)


class Label(NamedTuple):
    """What a CSV says of one image."""

    file: str  # in the source, see `csv_table.Row`
    name: str  # the path as the CSV has it
    pid: int  # > 0 a person, 0 a distractor, -1 junk
    camid: int
    person: str  # as the CSV names it
    camera: str  # likewise; "" where the CSV has no cameras, and each image is its own
    split: str  # one of SPLITS; "" where the CSV has none


def parse_labels(
    text: str,
    source: Source | Listed,
    table: str,
    headers: Mapping[tuple[str, ...], str] = HEADERS,
    *,
    skip_missing: bool = False,
) -> list[Label]:
    """Returns the labels that a CSV has, in the order of its lines; arguments as `csv_table.parse_rows`.

    A column of integers keeps them. In a column with any other text, people are numbered from 1 and cameras from 1,
    sorted by their text. A pid of 0 is a distractor and one of -1 is junk in both. Raises ValueError as `parse_rows`,
    and where a person, a camera or a split is none.
    """
    rows = parse_rows(text, source, table, headers, _fault_of, skip_missing=skip_missing)
    pids, people = _numbered([row.fields["pid"].strip() for row in rows], least=-1)
    if rows and "camid" in rows[0].fields:
        camids, cameras = _numbered([row.fields["camid"].strip() for row in rows], least=0)
    else:
        camids, cameras = list(range(len(rows))), [""] * len(rows)
    return [
        Label(row.file, row.name, pid, camid, person, camera, row.fields.get("split", ""))
        for row, pid, camid, person, camera in zip(rows, pids, camids, people, cameras, strict=True)
    ]


def camera_name(camera: Camera) -> str:
    """Returns the name of a camera: text without spaces around it, and an integer without zeros in front of it; "" for
    -1, a camera that is not known."""
    name = str(camera).strip()
    if is_integer(name, 0):
        return str(int(name))
    return "" if name == "-1" else name


def names_of(labels: Sequence[Label]) -> dict[str, Any]:
    """Returns the names that stand for numbers, as JSON keeps them: "people" and "cameras", number -> text; a column
    of integers has no entry."""
    people = {str(label.pid): label.person for label in labels if label.person != str(label.pid)}
    cameras = {str(label.camid): label.camera for label in labels if label.camera not in ("", str(label.camid))}
    return {kind: names for kind, names in (("people", people), ("cameras", cameras)) if names}


def _numbered(texts: Sequence[str], least: int) -> tuple[list[int], list[str]]:
    """(numbers, texts that are shown for them) of a column; integers below 1 keep their meaning among other texts."""
    if all(is_integer(text, least) for text in texts):
        numbers = [int(text) for text in texts]
        return numbers, [str(number) for number in numbers]
    fixed = {text: int(text) for text in set(texts) if least < 0 and is_integer(text, least) and int(text) < 1}
    number = {text: i for i, text in enumerate(sorted(set(texts) - set(fixed)), start=1)} | fixed
    return [number[text] for text in texts], [str(fixed.get(text, text)) for text in texts]


def _fault_of(fields: dict[str, str]) -> str:
    for column, least in (("pid", -1), ("camid", 0)):
        if fault := fault_of_name(column, fields.get(column, "0"), least):
            return fault
    pid, split = fields["pid"].strip(), fields.get("split")
    if split is None:
        return ""
    if is_integer(pid, -1) and (fault := no_person(int(pid), split)):
        return fault
    return "" if split in SPLITS else f"split {split!r} is not one of {', '.join(SPLITS)}"


def fault_of_name(column: str, text: str, least: int) -> str:
    """Returns why a cell does not name a person or a camera: it is empty, or a number but not an integer from `least`.

    Returns "" if it does.
    """
    text = text.strip()
    if not text or (NUMBER.fullmatch(text) and not is_integer(text, least)):
        return f"{column} {text!r} is neither an integer from {least} nor a name"
    return ""


def no_person(pid: int, split: str) -> str:
    """Says why the images of a split cannot have this pid; "" where they can."""
    if pid > 0 or split not in ("train", "query"):
        return ""
    meaning = "a distractor" if pid == 0 else "junk"
    return f"pid {pid} in {split} is no person, but {meaning}: number people from 1, or leave it out"
