"""Data of one's own: a folder or a zip of images, with a CSV of their labels or with names as Market-1501's."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mancs_jax.config.names import DATASETS
from mancs_jax.data.cameras import has_match
from mancs_jax.data.sources import market1501
from mancs_jax.data.sources.csv_table import is_integer, parse_rows, read_table
from mancs_jax.data.sources.items import About, Contents, Item
from mancs_jax.data.sources.named_folders import Layout, open_folders
from mancs_jax.data.sources.source import Source, name_some, open_source

HEADERS = {("path", "pid", "camid", "split"): "", ("path", "pid", "split"): " without cameras"}
SPLITS = tuple(market1501.LAYOUT.folders)


@contextmanager
def open_own(name: str, path: str | Path, table: str | Path | None = None) -> Iterator[Contents]:
    """Opens a data set of one's own. The name of an image is its path, relative to the folder.

    Args:
      name: of the data set, its directory under the root: letters, digits, "_" and "-".
      path: folder or zip, in which a top folder that encloses everything is passed through.
      table: CSV, on disk or in the folder, with the header `path,pid,camid,split`: a path, see `csv_table`; pid > 0 a
        person, 0 a distractor, -1 junk; camid >= 0, or no such column, and each image is its own camera; split
        "train", "query", "gallery" or "gt_bbox". None: folders bounding_box_train, query, bounding_box_test and
        gt_bbox, names that start with pid_cCAMID.

    Raises:
      FileNotFoundError: there is nothing at `path` or `table`.
      ValueError: the name cannot be used, or an image or a line of the CSV is wrong.
    """
    check_name(name)
    about, top_folder = About(name, f"{name}: data of one's own."), Path(path).stem
    if table:
        with open_source(path, top_folder) as source:
            yield _checked(
                Contents(name, about, parse_table(read_table(source, table), source, str(table)), source.read)
            )
        return
    layout = Layout(
        folders=market1501.LAYOUT.folders,
        top_folder=top_folder,
        pattern=re.compile(r"(-1|\d{1,9})_c(\d{1,9})(?:\D.*)?\.\w+"),
        form="0002_c1_... (id, camera)",
    )
    with open_folders(name, about, layout, path) as contents:
        splits = {split: [item._replace(name=item.file) for item in items] for split, items in contents.splits.items()}
        items = [(split, item) for split in splits for item in splits[split]]
        if wrong := [f"{item.file}: {fault}" for split, item in items if (fault := _no_person(item.pid, split))]:
            raise ValueError(f"{path}: {name_some(wrong)}")
        yield _checked(contents._replace(splits=splits))


def check_name(name: str) -> None:
    """Raises ValueError where a data set cannot have this name."""
    if not re.fullmatch(r"[\w-]+", name, re.ASCII) or name in DATASETS:
        raise ValueError(
            f"{name!r} cannot be the name of a data set: it may have letters, digits, _ and -, and may not be "
            f"{', '.join(DATASETS)}"
        )


def parse_table(text: str, source: Source, table: str) -> dict[str, list[Item]]:
    """Returns the items of each split that a CSV lists, sorted by name; arguments and errors as of `parse_rows`."""
    splits: dict[str, list[Item]] = {split: [] for split in SPLITS}
    for number, row in enumerate(parse_rows(text, source, table, HEADERS, _fault_of)):
        camid = row.fields.get("camid", number)  # without the column, a camera of its own
        splits[row.fields["split"]].append(Item(row.name, int(row.fields["pid"]), int(camid), row.file))
    return {split: sorted(items) for split, items in splits.items() if items}


def _fault_of(fields: dict[str, str]) -> str:
    pid, camid, split = fields["pid"], fields.get("camid", "0"), fields["split"]
    if not is_integer(pid, -1):
        return f"pid {pid!r} is not an integer from -1"
    if not is_integer(camid, 0):
        return f"camid {camid!r} is not an integer from 0"
    if fault := _no_person(int(pid), split):
        return fault
    return "" if split in SPLITS else f"split {split!r} is not one of {', '.join(SPLITS)}"


def _no_person(pid: int, split: str) -> str:
    """Says why the images of a split cannot have this pid; "" where they can."""
    if pid > 0 or split not in ("train", "query"):
        return ""
    meaning = "a distractor" if pid == 0 else "junk"
    return f"pid {pid} in {split} is no person, but {meaning}: number people from 1, or leave it out"


def _checked(contents: Contents) -> Contents:
    if not contents.splits:
        raise ValueError(f"{contents.name}: no images are listed")
    if ("query" in contents.splits) != ("gallery" in contents.splits):
        raise ValueError(
            f"{contents.name}: query and gallery go together, but only {', '.join(contents.splits)} has images"
        )
    if "query" in contents.splits:
        query, gallery = ([(item.pid, item.camid) for item in contents.splits[part]] for part in ("query", "gallery"))
        if not has_match(query, gallery):
            raise ValueError(
                f"{contents.name}: no person of query is in gallery under another camera, so that nothing could be "
                "scored; leave the column camid out if the cameras are unknown"
            )
    return contents
