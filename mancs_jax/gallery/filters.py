"""Filters of images, as people write them, and as SQL.

A filter is evaluated in the database before any distance is computed, so it never leaves fewer results than exist.
"""

from collections.abc import Callable, Iterable
from datetime import date, datetime
from typing import Any, NamedTuple

LAST = 1e11  # seconds: the year 5138
Label = str | int
Moment = str | float | date  # a datetime is a date


class Filter(NamedTuple):
    """Filters that an image has to match, all of them; an empty one matches every image."""

    person: tuple[str, ...] = ()  # one of these
    camera: tuple[str, ...] = ()  # one of these
    name: str = ""  # pattern: `*` stands for any text, `?` for one letter
    since: float | None = None  # seconds since 1970 UTC; images without a time meet neither this nor `before`
    before: float | None = None


def make_filter(
    person: Label | Iterable[Label] | None = None,
    camera: Label | Iterable[Label] | None = None,
    name: str | None = None,
    since: Moment | None = None,
    before: Moment | None = None,
) -> Filter:
    """Reads filters.

    Args:
      person: label, or several of which any one holds; 7 is the same as "7".
      camera: likewise.
      name: pattern of names. `*` stands for any text, slashes included, and `?` for one letter.
      since: earliest time, as `seconds_of` takes it.
      before: images have to be older than this time.

    Raises:
      ValueError: one line: a time that cannot be read, or an empty pattern or label.
    """
    if name == "":
        raise ValueError("the pattern of names is empty: give one as 'cam3/*', or leave it out")
    return Filter(
        _labels("person", person),
        _labels("camera", camera),
        name or "",
        None if since is None else seconds_of(since, "since"),
        None if before is None else seconds_of(before, "before"),
    )


def label_of(value: Label | None, what: str) -> str | None:
    """The text of a label; None for none. Raises ValueError for an empty one, and for other types."""
    if value is None:
        return None
    if isinstance(value, bool) or not (isinstance(value, str) or hasattr(value, "__index__")):
        raise ValueError(f"{what} is {value!r}: it has to be a text or a whole number")
    text = str(value).strip()
    if not text or "\0" in text:
        raise ValueError(f"{what} is {value!r}: it has to be a text or a whole number")
    return text


def seconds_of(moment: Moment, what: str) -> float:
    """Seconds since 1970-01-01 UTC.

    Args:
      moment: "2026-11-30", "2026-11-30T14:05", "2026-11-30T14:05:30+01:00", a date, a datetime, or the seconds. Without
        an offset it is local time; a date is its first moment.
      what: its name, for the error.

    Raises:
      ValueError: one line: it is none of these.
    """
    if type(moment) is float and abs(moment) < LAST:  # the usual one, of which there may be millions
        return moment
    try:
        if isinstance(moment, str):
            moment = datetime.fromisoformat(moment.strip())
        if isinstance(moment, datetime):
            return moment.timestamp()
        if isinstance(moment, date):
            return datetime(moment.year, moment.month, moment.day).timestamp()
        seconds = float(moment)
        if abs(seconds) < LAST:  # NaN is not
            return seconds
    except (ValueError, TypeError, OverflowError, OSError):
        pass
    raise ValueError(f"{what} is {moment!r}: give a date or a time, as 2026-11-30 or 2026-11-30T14:05")


def moment_text(seconds: float | None) -> str:
    """Local time as 2026-11-30 14:05:30; "" for None."""
    return "" if seconds is None else datetime.fromtimestamp(seconds).isoformat(" ", "seconds")


def described(filter: Filter) -> dict[str, Any]:
    """The filters as plain values, without empty ones, for reports and receipts."""
    values: dict[str, Any] = {name: list(labels) for name in ("person", "camera") if (labels := getattr(filter, name))}
    values |= {"name": filter.name} if filter.name else {}
    return values | {name: moment_text(at) for name in ("since", "before") if (at := getattr(filter, name)) is not None}


def condition(filter: Filter, like: Callable[[str], tuple[str, str]]) -> tuple[str, list[Any]]:
    """The filter as SQL on the columns of `image`.

    Args:
      filter: the filters.
      like: turns a pattern of names into the database's own comparison and its parameter, as ("GLOB ?", "cam3/*").

    Returns:
      (condition, "" for every image; its parameters).
    """
    parts: list[str] = []
    parameters: list[Any] = []
    for name in ("person", "camera"):
        if labels := getattr(filter, name):
            parts.append(f"{name} IN ({', '.join('?' * len(labels))})")
            parameters += labels
    if filter.since is not None:
        parts.append("time >= ?")
        parameters.append(filter.since)
    if filter.before is not None:
        parts.append("time < ?")
        parameters.append(filter.before)
    if filter.name:
        comparison, parameter = like(filter.name)
        parts.append(f"name {comparison}")
        parameters.append(parameter)
    return " AND ".join(parts), parameters


def _labels(what: str, value: Label | Iterable[Label] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    several = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    labels = [label_of(each, what) for each in several]
    if not labels or None in labels:
        raise ValueError(f"{what} is {value!r}: give a label, or leave it out")
    return tuple(dict.fromkeys(label for label in labels if label is not None))
