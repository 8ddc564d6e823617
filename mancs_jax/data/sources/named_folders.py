"""Data sets in folders of images whose names have the person and the camera, as in Market-1501."""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from mancs_jax.data.sources.items import About, Contents, Item, saying_how_to_get
from mancs_jax.data.sources.source import Source, name_some, open_source


class Layout(NamedTuple):
    """Folders and names of the images."""

    folders: Mapping[str, str]  # split -> folder
    top_folder: str  # that may enclose the other folders
    pattern: re.Pattern[str]  # of a complete name; the groups are pid and camid
    form: str  # the pattern in words, for errors


def parse_name(name: str, layout: Layout) -> tuple[int, int]:
    """Returns (pid, camid) of a file name (ValueError: it does not match the pattern)."""
    if (match := layout.pattern.fullmatch(name)) is None:
        raise ValueError(f"{name!r} is not a name such as {layout.form}")
    return int(match[1]), int(match[2])


@contextmanager
def open_folders(name: str, about: About, layout: Layout, path: str | Path) -> Iterator[Contents]:
    """Lists a zip or a folder, with or without its top folder, and checks the names.

    Raises FileNotFoundError where `path` does not exist, and ValueError where it is not a zip, no folder has images, or
    other files are in the folders.
    """
    with ExitStack() as stack:
        with saying_how_to_get(about):
            source = stack.enter_context(open_source(path, layout.top_folder, layout.folders.values()))
            splits = _list(source, layout)
        yield Contents(name, about, splits, source.read)


def _list(source: Source, layout: Layout) -> dict[str, list[Item]]:
    names = {split: source.list(folder) for split, folder in layout.folders.items()}
    folders = ", ".join(layout.folders.values())
    if not any(names.values()):
        raise ValueError(f"{source.path}: no images in a folder {folders}, neither at the top nor in a top folder")
    files = [(split, name, f"{layout.folders[split]}/{name}") for split in names for name in names[split]]
    bad = [file for _, name, file in files if not layout.pattern.fullmatch(name)]
    if bad:
        raise ValueError(
            f"{source.path}: {name_some(bad)}: not named as {layout.form}; remove files that do not "
            "belong to the data set from these folders"
        )
    splits: dict[str, list[Item]] = {}
    for split, name, file in files:
        splits.setdefault(split, []).append(Item(name, *parse_name(name, layout), file))
    return splits
