"""Data of one's own: a folder or a zip of images, with a CSV of their labels or with names as Market-1501's."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from mancs_jax.common.local_path import local_path
from mancs_jax.config.names import DATASETS
from mancs_jax.data.cameras import has_match
from mancs_jax.data.sources import market1501
from mancs_jax.data.sources.items import About, Contents, Item
from mancs_jax.data.sources.named_folders import Layout, open_folders
from mancs_jax.data.sources.source import UNREADABLE, Source, name_some, open_source

COLUMNS = ["path", "pid", "camid", "split"]
WITHOUT_CAMERAS = ["path", "pid", "split"]
SPLITS = tuple(market1501.LAYOUT.folders)
LARGEST = 2**31 - 1  # pid and camid are int32


@contextmanager
def open_own(name: str, path: str | Path, table: str | Path | None = None) -> Iterator[Contents]:
    """Opens a data set of one's own. The name of an image is its path, relative to the folder.

    Args:
      name: of the data set, its directory under the root: letters, digits, "_" and "-".
      path: folder or zip, in which a top folder that encloses everything is passed through.
      table: CSV, on disk or in the folder, with the header `path,pid,camid,split`: a path, see `_file_of`; pid > 0 a
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


def read_table(source: Source, table: str | Path) -> str:
    """Returns the text of a CSV on disk, or else in the source.

    Raises:
      FileNotFoundError: it is at neither place.
      ValueError: it is damaged, or not UTF-8.
    """
    file, inside = local_path(table), _file_of(str(table), source)
    if not file.is_file() and not source.has(inside):
        raise FileNotFoundError(f"there is no {table}, neither on disk nor in {source.path}")
    try:
        content = file.read_bytes() if file.is_file() else source.read(inside)
    except UNREADABLE as error:
        raise ValueError(f"{table}: cannot be read ({error}); copy or download it again") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{table}: not a CSV in UTF-8 ({error})") from error


def parse_table(text: str, source: Source, table: str) -> dict[str, list[Item]]:
    """Returns the items of each split that a CSV lists, sorted by name.

    Args:
      text: the CSV.
      source: where the images lie.
      table: the CSV's name, for errors.

    Raises:
      ValueError: the header is another one, or lines are wrong: the first five, with their numbers.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    splits: dict[str, list[Item]] = {split: [] for split in SPLITS}
    line_of: dict[str, int] = {}
    wrong = []
    try:
        header = next(reader, [])
        if header not in (COLUMNS, WITHOUT_CAMERAS):
            raise ValueError(
                f"{table} line 1: is {','.join(header)!r}; it has to be {','.join(COLUMNS)!r}, or "
                f"{','.join(WITHOUT_CAMERAS)!r} without cameras"
            )
        for row in reader:
            line = reader.line_num
            if row and len(row) != len(header):
                wrong.append(f"line {line}: {len(row)} fields, not {len(header)}")
                continue
            if row and header == WITHOUT_CAMERAS:
                row.insert(2, str(len(line_of)))  # a camera of its own
            if problem := _what_is_wrong(row, source, line_of):
                wrong.append(f"line {line}: {problem}")
            elif row:
                path, pid, camid, split = row
                file = _file_of(path, source)
                line_of[file] = line
                splits[split].append(Item(_below(path, source), int(pid), int(camid), file))
    except csv.Error as error:
        raise ValueError(f"{table} line {reader.line_num}: {error}") from error
    if wrong:
        raise ValueError(f"{table} {name_some(wrong)}")
    return {split: sorted(items) for split, items in splits.items() if items}


def _what_is_wrong(row: Sequence[str], source: Source, line_of: dict[str, int]) -> str | None:
    if not row:  # an empty line
        return None
    path, pid, camid, split = row
    below = PurePosixPath(_below(path, source))
    if not below.parts or below.is_absolute() or ".." in below.parts:
        return f"path {path!r} is not one below {source.path}"
    if (file := _file_of(path, source)) in line_of:
        return f"path {path!r} is there already, in line {line_of[file]}"
    if not _is_integer(pid, -1):
        return f"pid {pid!r} is not an integer from -1"
    if not _is_integer(camid, 0):
        return f"camid {camid!r} is not an integer from 0"
    if fault := _no_person(int(pid), split):
        return fault
    if split not in SPLITS:
        return f"split {split!r} is not one of {', '.join(SPLITS)}"
    return None if source.has(file) else f"path {path!r} is no file in {source.path}, or a link that leads elsewhere"


def _no_person(pid: int, split: str) -> str:
    """Says why the images of a split cannot have this pid; "" where they can."""
    if pid > 0 or split not in ("train", "query"):
        return ""
    meaning = "a distractor" if pid == 0 else "junk"
    return f"pid {pid} in {split} is no person, but {meaning}: number people from 1, or leave it out"


def _file_of(path: str, source: Source) -> str:
    """Returns the file in the source that a path means: relative to it, to a folder that it lies in, or absolute."""
    file = _below(path, source)
    parts = PurePosixPath(file).parts
    rests = ["/".join(parts[len(own) :]) for own in _own_paths(source) if parts[: len(own)] == own]
    if not rests or source.has(file):
        return file
    return next((rest for rest in rests if source.has(rest)), file)


def _own_paths(source: Source) -> list[tuple[str, ...]]:
    """The ways to write the source's own path: its folder, or some that enclose it, with its suffix and without."""
    whole = source.path.absolute()
    tails = [
        (*parents, name)
        for name in {whole.name, whole.stem}
        for parents in (whole.parts[start:-1] for start in range(1, len(whole.parts)))
    ]
    if not source.top:
        return tails
    return [*tails, (source.top,), *((*tail, source.top) for tail in tails)]


def _below(path: str, source: Source) -> str:
    """Returns a path with `/`, without `./`, and relative to the source where it is absolute and lies below it."""
    clean, top = PurePosixPath(path.replace("\\", "/")), source.path.absolute()
    return str(clean.relative_to(top) if clean.is_relative_to(top) else clean)


def _is_integer(text: str, least: int) -> bool:
    return re.fullmatch(r"-?\d{1,10}", text, re.ASCII) is not None and least <= int(text) <= LARGEST


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
