"""Attributes of people, read from a CSV file or a .mat file: the groups that rates are broken down by."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from mancs_jax.common.local_path import local_path
from mancs_jax.common.quoted import reason_of
from mancs_jax.data.sources.csv_table import is_integer
from mancs_jax.data.sources.labels import fault_of_name

Groups = dict[str, dict[str, str]]  # attribute -> person, as the file writes it -> value; `numbered` finds the pids

MOST_VALUES = 50  # of an attribute: more are a measurement, not groups
PIDS = "image_index"  # field of a .mat file with the identities, as Market-1501_Attribute has it
NO, YES = 1, 2  # in a .mat file
# The labels of Market-1501_Attribute (Lin et al., Pattern Recognition, 2019), as its README gives them.
LABELS = {
    "gender": ("gender", {1: "male", 2: "female"}),
    "age": ("age", {1: "young", 2: "teenager", 3: "adult", 4: "old"}),
    "hair": ("hair", {1: "short", 2: "long"}),
    "up": ("sleeves", {1: "long", 2: "short"}),
    "down": ("lower-body clothing", {1: "long", 2: "short"}),
    "clothes": ("lower-body clothing type", {1: "dress", 2: "trousers"}),
} | {name: (name, {NO: "no", YES: "yes"}) for name in ("hat", "backpack", "bag", "handbag")}
COLOURS = {"up": "upper-body colour", "down": "lower-body colour"}  # of fields such as upblack, one of which is YES
OTHER = "other"  # colour


def read_groups(path: str | Path) -> Groups:
    """Reads the attributes of people.

    Args:
      path: a CSV file with a head, whose column `pid` has identities, numbers or names as in the CSV of a data set, and
        whose other columns are attributes; an empty cell is unknown. Or a .mat file (version 7 or older) with a struct,
        or a struct of structs, as Market-1501_Attribute's: its field `image_index` has the identities, the others are
        attributes.

    Returns:
      The value of each attribute for each person. Colours of clothes in a .mat file, one field each, become one
      attribute.

    Raises:
      FileNotFoundError: there is nothing at `path`.
      ValueError: one line: not such a file, a pid that is no person or has two values, or too many values.
    """
    path = local_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give a CSV file with a column pid, or a .mat file")
    groups: Groups = {}
    for pid, attribute, value in _from_mat(path) if path.suffix == ".mat" else _from_csv(path):
        value_of_pid = groups.setdefault(attribute, {})
        if value_of_pid.setdefault(pid, value) != value:
            raise ValueError(f"{path}: {attribute} of pid {pid} is {value_of_pid[pid]} and {value}: keep one of them")
    for attribute, value_of in groups.items():
        if (number := len(set(value_of.values()))) > MOST_VALUES:
            raise ValueError(
                f"{path}: {attribute} has {number} values, more than {MOST_VALUES}: make groups of them, or leave the "
                "column out"
            )
    if not groups:
        raise ValueError(f"{path} has no attributes: it has to have a column for each attribute after pid")
    return groups


def numbered(groups: Mapping[str, Mapping[str | int, str]], people: Mapping[int, str]) -> dict[str, dict[int, str]]:
    """Returns groups by pid; people who are not there are left out.

    A text is the person of exactly this name; or else, where it is an integer, the one whose name or pid is this
    integer without zeros in front of it.

    Args:
      groups: attribute -> person -> value, a person by name or by pid.
      people: pid -> name of the people of a data set whose pids are no numbers of its own; the others are integers.

    Raises:
      ValueError: one line: two texts are one person, with two values of an attribute.
    """
    pid_of = {name.strip(): pid for pid, name in people.items()}

    def find_pid(person: str | int) -> int | None:
        if isinstance(person, int):
            return person
        if person in pid_of or not is_integer(person, 1):
            return pid_of.get(person)
        number = int(person)
        return pid_of.get(str(number), None if number in people else number)

    by_pid: dict[str, dict[int, str]] = {attribute: {} for attribute in groups}
    for attribute, value_of in groups.items():
        for person, value in value_of.items():
            pid = find_pid(person)
            if pid is not None and (known := by_pid[attribute].setdefault(pid, value)) != value:
                raise ValueError(f"{attribute} of pid {person} is {known} and {value}: keep one of them")
    return by_pid


def _from_csv(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yields (person, attribute, value)."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no CSV file in UTF-8 ({reason_of(error)})") from None
    if not rows or "pid" not in rows[0]:
        raise ValueError(f"{path} has no column pid, or no rows: the first line names the columns")
    for number, row in enumerate(rows, start=2):
        cells = {name: value for name, value in row.items() if name is not None and value is not None}
        if None in row or len(cells) < len(row):
            raise ValueError(f"{path}, line {number}: it has another number of cells than the first line")
        person = _person(cells.pop("pid"), f"{path}, line {number}")
        for attribute, value in cells.items():
            if attribute.strip() and value.strip():
                yield person, attribute.strip(), value.strip()


def _from_mat(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yields (person, attribute, value)."""
    try:
        content = scipy.io.loadmat(path, squeeze_me=True, struct_as_record=False)
    except Exception as error:  # those of a damaged file have no common class
        raise ValueError(f"{path} is no .mat file of version 7 or older ({reason_of(error)})") from None
    tables = [table for name, value in content.items() if not name.startswith("__") for table in _tables(value)]
    if not tables:
        raise ValueError(f"{path} has no struct with a field {PIDS}, the identities: give a CSV file instead")
    for table in tables:
        people = [_person(one, f"{path}, {PIDS}") for one in np.atleast_1d(table.pop(PIDS))]
        values = {name: np.atleast_1d(of).tolist() for name, of in table.items()}
        if wrong := [name for name, of in values.items() if len(of) != len(people)]:
            raise ValueError(f"{path}: {wrong[0]} has {len(values[wrong[0]])} values for {len(people)} identities")
        for row, person in enumerate(people):
            yield from ((person, *pair) for pair in _labelled({name: of[row] for name, of in values.items()}).items())


def _tables(value: Any) -> Iterator[dict[str, Any]]:
    """Yields the structs with identities, as dictionaries, wherever they lie."""
    fields = getattr(value, "_fieldnames", None)
    if fields is None:
        return
    table = {name: getattr(value, name) for name in fields}
    if PIDS in table:
        yield table
    else:
        for inner in table.values():
            yield from _tables(inner)


def _labelled(values: Mapping[str, Any]) -> dict[str, str]:
    """Attributes of one person with words for numbers, where they are known, and one attribute for several colours."""
    labelled: dict[str, str] = {}
    for field, value in values.items():
        part = next((part for part in COLOURS if field.startswith(part) and field != part), "")
        if field in LABELS:
            name, words = LABELS[field]
            labelled[name] = words.get(value, str(value))
        elif part:
            known = labelled.setdefault(COLOURS[part], OTHER)
            labelled[COLOURS[part]] = field.removeprefix(part) if value == YES else known
        else:
            labelled[field] = str(value)
    return labelled


def _person(value: Any, where: str) -> str:
    text = str(value).strip()
    if isinstance(value, int | float | np.number):  # numbers of MATLAB are floats
        try:
            text = str(int(value)) if value == int(value) else text
        except (ValueError, OverflowError):  # NaN or infinite; as text it would be a name
            raise ValueError(f"{where}: pid {text} is neither an integer from 1 nor a name") from None
    if fault := fault_of_name("pid", text, least=1):
        raise ValueError(f"{where}: {fault}")
    return text
