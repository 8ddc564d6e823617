"""Reads a CSV with a line per image of a folder or a zip."""

import csv
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mancs_jax.common.local_path import local_path
from mancs_jax.common.quoted import reason_of, shortened
from mancs_jax.data.sources.source import UNREADABLE, Source, name_some

LARGEST = 2**31 - 1  # pid and camid are int32


class Row(NamedTuple):
    """A line of the CSV."""

    file: str  # in the source
    name: str  # the path in the CSV, relative to the source
    fields: dict[str, str]  # by column


class Listed(NamedTuple):
    """Images that are known by their names only, in the place of a source."""

    path: Path  # for errors
    names: frozenset[str]
    top: str = ""

    def has(self, path: str) -> bool:
        """Returns whether an image has this name."""
        return path in self.names


def read_table(source: Source | Listed, table: str | Path) -> str:
    """Returns the text of a CSV on disk, or otherwise in the source.

    Raises FileNotFoundError where it is in neither place, and ValueError where it is damaged or not UTF-8.
    """
    file, inside = local_path(table), _file_of(str(table), source)
    if isinstance(source, Listed) and not file.is_file():
        raise FileNotFoundError(f"there is no {table}")
    if not file.is_file() and not source.has(inside):
        raise FileNotFoundError(f"there is no {table}, neither on disk nor in {source.path}")
    try:
        content = file.read_bytes() if isinstance(source, Listed) or file.is_file() else source.read(inside)
    except UNREADABLE as error:
        raise ValueError(f"{table}: cannot be read ({reason_of(error)}); copy or download it again") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{table}: not a CSV in UTF-8 ({reason_of(error)})") from error


def parse_rows(
    text: str,
    source: Source | Listed,
    table: str,
    headers: Mapping[tuple[str, ...], str],
    fault_of: Callable[[dict[str, str]], str],
    *,
    skip_missing: bool = False,
) -> list[Row]:
    """Returns the lines of a CSV whose first column, `path`, names each image once; empty lines are left out.

    Args:
      text: the CSV.
      source: where the images lie.
      table: the CSV's name, for errors.
      headers: the first lines that it may have, each with words for the error.
      fault_of: says what is wrong with the fields of a line, apart from its path; "" where nothing is.
      skip_missing: leave out lines whose images are not in the source, which are otherwise an error.

    Raises:
      ValueError: the header is another one, or lines are wrong: the first five, with their numbers.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    line_of: dict[str, int] = {}
    wrong = []
    try:
        header = next(reader, [])
        if tuple(header) not in headers:
            known = ", or ".join(f"{','.join(columns)!r}{words}" for columns, words in headers.items())
            raise ValueError(f"{table} line 1: is {shortened(','.join(header))!r}; it has to be {known}")
        for values in reader:
            if not values:
                continue
            line = reader.line_num
            if len(values) != len(header):
                wrong.append(f"line {line}: {len(values)} fields, not {len(header)}")
                continue
            fields = dict(zip(header, values, strict=True))
            if skip_missing and not source.has(_file_of(fields["path"], source)):
                continue
            if fault := _fault_of_path(fields["path"], source, line_of) or fault_of(fields):
                wrong.append(f"line {line}: {fault}")
                continue
            file = _file_of(fields["path"], source)
            line_of[file] = line
            rows.append(Row(file, _below(fields["path"], source), fields))
    except csv.Error as error:
        raise ValueError(f"{table} line {reader.line_num}: {reason_of(error)}") from error
    if wrong:
        raise ValueError(f"{table} {name_some(wrong)}")
    return rows


def is_integer(text: str, least: int) -> bool:
    """Returns whether text is an integer from `least` to `LARGEST`."""
    return re.fullmatch(r"-?\d{1,10}", text, re.ASCII) is not None and least <= int(text) <= LARGEST


def _fault_of_path(path: str, source: Source | Listed, line_of: dict[str, int]) -> str:
    below = PurePosixPath(_below(path, source))
    if not below.parts or below.is_absolute() or ".." in below.parts:
        return f"path {path!r} is not one below {source.path}"
    if (file := _file_of(path, source)) in line_of:
        return f"path {path!r} is there already, in line {line_of[file]}"
    return "" if source.has(file) else f"path {path!r} is no file in {source.path}, or a link that leads elsewhere"


def _file_of(path: str, source: Source | Listed) -> str:
    """Finds a file in the source by a path relative to it or to an enclosing folder, or absolute."""
    file = _below(path, source)
    parts = PurePosixPath(file).parts
    tails = ["/".join(parts[len(own) :]) for own in _own_paths(source) if parts[: len(own)] == own]
    return file if source.has(file) else next(filter(source.has, tails), file)


def _own_paths(source: Source | Listed) -> list[tuple[str, ...]]:
    """Lists the ways to write the source's own path: with any of its parents, with and without its suffix."""
    whole = source.path.absolute()
    tails = [
        (*parents, name)
        for name in {whole.name, whole.stem}
        for parents in (whole.parts[start:-1] for start in range(1, len(whole.parts)))
    ]
    if not source.top:
        return tails
    return [*tails, (source.top,), *((*tail, source.top) for tail in tails)]


def _below(path: str, source: Source | Listed) -> str:
    """Returns a path with `/`, without `./`, and relative to the source where it is in it."""
    clean, top = PurePosixPath(path.replace("\\", "/")), source.path.absolute()
    return str(clean.relative_to(top) if clean.is_relative_to(top) else clean)
