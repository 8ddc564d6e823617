"""Boxes of a video, and their files in MOTChallenge's format (det.txt, gt.txt, results).

A line is a box: `frame,id,x,y,width,height,conf,...`. Frames are numbered from 1. x, y is the left upper corner
in pixels, taken as it stands.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mancs_jax.common.atomic_write import write_text
from mancs_jax.common.local_path import local_path
from mancs_jax.data.boxes import FRACTIONS, are_fractions
from mancs_jax.data.sources.source import name_some

FIELDS = "frame,id,x,y,width,height"  # that every line has; conf follows, and fields that nothing here reads


class Tracks(NamedTuple):
    """Boxes of a video, each with its frame and the number of its track."""

    frame: np.ndarray  # int64 [N], from 1
    number: np.ndarray  # int64 [N]; -1 of detections, which belong to no track yet
    box: np.ndarray  # float64 [N, 4], x1, y1, x2, y2 in pixels
    confidence: np.ndarray  # float64 [N]; 0 in a gt.txt marks what is not scored


def read_mot(path: str | Path) -> Tracks:
    """Reads a file, sorted by frame; lines of one frame stay in their order. A line without conf has 1.

    Raises:
      FileNotFoundError: no such file.
      ValueError: one line: it holds no boxes or fractions of the frame, or lines are wrong: the first five, with their
        numbers.
    """
    path = local_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it has to be a MOT file, a line a box: {FIELDS},conf")
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text ({error}): a MOT file has a line a box: {FIELDS},conf") from error
    rows, wrong = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row, fault = _parsed(line)
        if fault:
            wrong.append(f"line {number}: {fault}")
        rows.append(row)
    if wrong:
        raise ValueError(f"{path} {name_some(wrong)}")
    if not rows:
        raise ValueError(f"{path} holds no boxes: a MOT file has a line a box: {FIELDS},conf")
    table = np.array(rows)
    if are_fractions(table[:, 2:6]):
        raise ValueError(f"{path}: boxes are fractions of the frame, all within [0, 1]: {FRACTIONS}")
    table = table[np.argsort(table[:, 0], kind="stable")]
    box = table[:, 2:6] + np.pad(table[:, 2:4], ((0, 0), (2, 0)))
    return Tracks(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), box, table[:, 6])


def write_mot(path: str | Path, tracks: Tracks) -> None:
    """Writes boxes as MOTChallenge takes results, atomically: pixels in hundredths, and -1 for a place in the world."""
    lines = [
        f"{frame},{number},{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{confidence:.3f},-1,-1,-1\n"
        for frame, number, (x1, y1, x2, y2), confidence in zip(
            tracks.frame.tolist(), tracks.number.tolist(), tracks.box.tolist(), tracks.confidence.tolist(), strict=True
        )
    ]
    write_text(path, "".join(lines))


def overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of each pair of boxes.

    Args:
      one: float [N, 4], x1 <= x2 and y1 <= y2.
      other: float [M, 4], likewise.

    Returns:
      float64 [N, M] in [0, 1]; 0 where both boxes have no area.
    """
    one, other = np.asarray(one, np.float64)[:, None], np.asarray(other, np.float64)[None]
    low, high = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    common = np.clip(high - low, 0, None).prod(axis=-1)
    union = (one[..., 2:] - one[..., :2]).prod(axis=-1) + (other[..., 2:] - other[..., :2]).prod(axis=-1) - common
    return np.divide(common, union, out=np.zeros_like(union), where=union > 0)


LARGEST = 2.0**53


def _parsed(line: str) -> tuple[list[float], str]:
    """(frame, id, x, y, width, height, conf of a line; a fault, "" where it has none)."""
    fields = line.split(",")
    if len(fields) < 6:
        return [], f"{len(fields)} fields, not {FIELDS} and more"
    try:
        row = [float(field) for field in fields[:7]] + [1.0] * (len(fields) == 6)
    except ValueError:
        return [], f"{line.strip()[:60]!r} has a field that is no number"
    frame, number, _, _, width, height, _ = row
    if not all(map(math.isfinite, row)):
        return [], "a field is NaN or infinite"
    if max(map(abs, row)) >= LARGEST:
        return [], "a field is larger than 2^53, where float64 has no next whole number"
    if frame < 1 or frame % 1 or number % 1:
        return [], f"frame {fields[0]} and id {fields[1]} have to be whole numbers, and frames begin at 1"
    if width <= 0 or height <= 0:
        return [], f"width {fields[4]} and height {fields[5]} have to be above 0"
    return row, ""
