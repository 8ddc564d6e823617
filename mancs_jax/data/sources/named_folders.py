"""Data sets that are folders of images whose names tell the person and the camera, as Market-1501's do."""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from mancs_jax.data.sources.items import About, Contents, Item, saying_how_to_get
from mancs_jax.data.sources.source import Source, name_some, open_source


class Layout(NamedTuple):
    """Where the images lie and how they are named."""

    folders: Mapping[str, str]  # split -> folder
    top_folder: str  # that may enclose the others
    pattern: re.Pattern[str]  # of a whole name; its first group is the pid, its second the camid
    form: str  # the pattern in words, for errors


def parse_name(name: str, layout: Layout) -> tuple[int, int]:
    """Returns (pid, camid) of a file name.

    Raises:
      ValueError: the name does not have the layout's form.
    """
    found = layout.pattern.fullmatch(name)
    if found is None:
        raise ValueError(f"{name!r} is not a name such as {layout.form}")
    return int(found[1]), int(found[2])


@contextmanager
def open_folders(name: str, about: About, layout: Layout, path: str | Path) -> Iterator[Contents]:
    """Lists a zip or a folder, with or without its top folder, and checks the names.

    Args:
      name: of the data set.
      about: what was published about it.
      layout: its folders and names.
      path: the zip or the folder.

    Raises:
      FileNotFoundError: there is nothing at `path`.
      ValueError: it is no zip, or none of the folders has images in it, or there is something in them that does not
        belong there.
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
            f"{source.path}: {name_some(bad)}: not named as {layout.form}; take out of these folders what does not "
            "belong to the data set"
        )
    splits: dict[str, list[Item]] = {}
    for split, name, file in files:
        splits.setdefault(split, []).append(Item(name, *parse_name(name, layout), file))
    return splits
