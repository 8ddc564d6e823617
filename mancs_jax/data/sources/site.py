"""Unlabelled images of a deployment: a folder or a zip, with a CSV of their cameras and frames."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mancs_jax.data.sources.csv_table import parse_rows, read_table
from mancs_jax.data.sources.labels import camera_name, fault_of_name
from mancs_jax.data.sources.source import find_unreadable, name_faults, open_source

HEADERS = {
    ("path", "camid", "frame"): "",
    ("path", "camid"): " without frames",
    ("path", "pid", "camid", "split"): " as for mancs prepare-data, of which path and camid are read",
    ("path", "pid", "camid"): " as for mancs embed, likewise",
}


class Site(NamedTuple):
    """N images of people, in the order of the CSV."""

    file: list[str]
    camera: np.ndarray  # str [N], the name of the camera
    frame: np.ndarray  # int32 [N], equal for images of one frame of one camera; -1 where the frame is unknown
    read: Callable[[str], bytes]  # a file -> its bytes


@contextmanager
def open_site(path: str | Path, table: str | Path) -> Iterator[Site]:
    """Opens the images of a site: a folder or zip of images, each of one person.

    `table` is a CSV, on disk or in the folder, with the header `path,camid,frame` or `path,camid`: camid the name of
    the camera, any text or an integer from 0; frame any text that distinguishes the frames of a camera, empty where
    unknown. The CSV of a labelled folder, `path,pid,camid,split` or `path,pid,camid`, is also accepted; its other
    labels are ignored. Raises FileNotFoundError where one does not exist, and ValueError, one line, where no images are
    listed, lines of the CSV are wrong, or images are damaged.
    """
    with open_source(path, Path(path).stem) as source:
        rows = parse_rows(read_table(source, table), source, str(table), HEADERS, _fault_of)
        if not rows:
            raise ValueError(f"{table}: no images are listed")
        if damaged := find_unreadable([row.file for row in rows], source.read):
            raise ValueError(f"{table}: take damaged images out of it, or copy them again: {name_faults(damaged)}")
        cameras = [camera_name(row.fields["camid"]) for row in rows]
        numbers: dict[tuple[str, str], int] = {}
        frame = [
            numbers.setdefault((camera, name), len(numbers)) if (name := row.fields.get("frame")) else -1
            for camera, row in zip(cameras, rows, strict=True)
        ]
        yield Site([row.file for row in rows], np.array(cameras), np.array(frame, np.int32), source.read)


def _fault_of(fields: dict[str, str]) -> str:
    return fault_of_name("camid", fields["camid"], least=0)
