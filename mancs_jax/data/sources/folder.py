"""Custom data: a folder or a zip of images, with a CSV of labels or with names as in Market-1501."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mancs_jax.config.names import DATASETS
from mancs_jax.data.cameras import has_match
from mancs_jax.data.sources import market1501
from mancs_jax.data.sources.csv_table import read_table
from mancs_jax.data.sources.items import About, Contents, Item
from mancs_jax.data.sources.labels import HEADERS as KNOWN
from mancs_jax.data.sources.labels import SPLITS, names_of, no_person, parse_labels
from mancs_jax.data.sources.named_folders import Layout, open_folders
from mancs_jax.data.sources.source import name_some, open_source

HEADERS = {columns: words for columns, words in KNOWN.items() if "split" in columns}


@contextmanager
def open_own(name: str, path: str | Path, table: str | Path | None = None) -> Iterator[Contents]:
    """Opens custom data as the data set `name`. The name of an image is its path, relative to the folder.

    Args:
      name: of the data set, its directory under the root: letters, digits, "_" and "-".
      path: folder or zip; a top folder that encloses everything is passed through.
      table: CSV, on disk or in the folder, with the header `path,pid,camid,split` (see `csv_table` and `labels`,
        whose names the metadata keeps); without the column camid, each image is its own camera; split "train",
        "query", "gallery" or "gt_bbox". None: folders bounding_box_train, query, bounding_box_test and gt_bbox, names
        that start with pid_cCAMID.

    Raises:
      FileNotFoundError: there is nothing at `path` or `table`.
      ValueError: the name cannot be used, or an image or a line of the CSV is wrong.
    """
    check_name(name)
    about, top_folder = About(name, f"{name}: custom data."), Path(path).stem
    if table:
        with open_source(path, top_folder) as source:
            labels = parse_labels(read_table(source, table), source, str(table), HEADERS)
            splits: dict[str, list[Item]] = {}
            for label in sorted(labels, key=lambda label: SPLITS.index(label.split)):
                splits.setdefault(label.split, []).append(Item(label.name, label.pid, label.camid, label.file))
            splits = {split: sorted(items) for split, items in splits.items()}
            yield _checked(Contents(name, about, splits, source.read, metadata=names_of(labels)))
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
        if wrong := [f"{item.file}: {fault}" for split, item in items if (fault := no_person(item.pid, split))]:
            raise ValueError(f"{path}: {name_some(wrong)}")
        yield _checked(contents._replace(splits=splits))


def check_name(name: str) -> None:
    """Raises ValueError for a name that a data set cannot have."""
    if not re.fullmatch(r"[\w-]+", name, re.ASCII) or name in DATASETS:
        raise ValueError(
            f"{name!r} cannot be the name of a data set: it may have letters, digits, _ and -, and may not be "
            f"{', '.join(DATASETS)}"
        )


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
                f"{contents.name}: no person of query is in gallery under another camera, so that no score "
                "is possible; leave the column camid out if the cameras are unknown"
            )
    return contents
