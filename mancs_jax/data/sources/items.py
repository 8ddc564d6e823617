"""The images of a data set before it is built, and their comparison with the published set."""

import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from mancs_jax.common.local_path import local_path
from mancs_jax.data.sources.source import find_unreadable, md5, name_faults, name_some


class Counts(NamedTuple):
    """The size of a split."""

    images: int
    ids: int  # people: neither distractors nor junk
    distractors: int  # images of pid 0
    junk: int  # images of pid -1
    cameras: tuple[int, ...]


class About(NamedTuple):
    """Published facts about a data set."""

    title: str
    description: str
    homepage: str | None = None
    citation: str | None = None
    how_to_get: str = ""  # a sentence without its full stop
    md5: str = ""  # of the zip
    counts: Mapping[str, Counts] = {}  # of each split; {}: not published
    last_pid: int | None = None


class Item(NamedTuple):
    """One image of a split."""

    name: str  # unique in its split
    pid: int  # > 0 a person, 0 a distractor, -1 junk
    camid: int
    file: str  # argument of `Contents.read`


class Contents(NamedTuple):
    """A data set to check and build."""

    name: str  # its directory under the root
    about: About
    splits: Mapping[str, Sequence[Item]]  # sorted by name; only splits with images
    read: Callable[[str], bytes]  # file of an item -> encoded image, stored unchanged
    metadata: Mapping[str, Any] = {}  # stored with the data set, as JSON
    differences: Sequence[str] = ()  # from the published set, in addition to the counts
    notes: Sequence[str] = ()  # for the user


def count(pid: np.ndarray, camid: np.ndarray) -> Counts:
    """Counts a split from its labels, int [N] each."""
    return Counts(
        images=len(pid),
        ids=len(np.unique(pid[pid > 0])),
        distractors=int(np.sum(pid == 0)),
        junk=int(np.sum(pid == -1)),
        cameras=tuple(np.unique(camid).tolist()),
    )


def count_items(items: Sequence[Item]) -> Counts:
    """Counts a split from its items."""
    return count(*np.array([(item.pid, item.camid) for item in items], np.int32).reshape(-1, 2).T)


@contextmanager
def saying_how_to_get(about: About) -> Iterator[None]:
    """Adds to an error about a source where to get the data set, and on which terms."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}. {about.how_to_get}") from error
    except ValueError as error:
        raise ValueError(f"{error}. {about.how_to_get}") from error


def check(contents: Contents, path: str | Path, allow_differences: bool = False) -> list[str]:
    """Checks the counts and every image of the source at `path`, and reports all faults in one message.

    With `allow_differences`, differences from the published set are logged as a warning; damaged images remain an error
    (ValueError). Returns lines for the user: notes, conflicts of splits where nothing was published, the md5.
    """
    about = contents.about
    differences = find_differences(contents) if about.counts else []
    files = sorted({item.file for items in contents.splits.values() for item in items})
    unreadable = find_unreadable(files, contents.read)
    problems = [f"{len(unreadable):,} unreadable: {name_faults(unreadable)}"] if unreadable else []
    if differences and not allow_differences:
        problems.append(
            f"differs from the published {about.title}: {'; '.join(differences)} (allow_differences builds it as it is)"
        )
    if problems:
        advice = f"; fetch or unpack it again. {about.how_to_get}" if about.how_to_get else ""
        raise ValueError(f"{path}: {'; '.join(problems)}{advice}")
    if differences:
        logging.warning("%s differs from the published %s: %s", path, about.title, "; ".join(differences))
    conflicts = [] if about.counts else find_conflicts(contents.splits) + _unmatched(contents.splits)
    return [*contents.notes, *conflicts, *_md5_note(local_path(path), about)]


def find_differences(contents: Contents) -> list[str]:
    """Returns a text for each split that differs from the published set, and for each conflict of splits."""
    about, differences = contents.about, []
    for split, published in about.counts.items():
        items = contents.splits.get(split, ())
        if text := _compare(count_items(items), published):
            differences.append(f"{split}: {text}")
        pids = sorted({item.pid for item in items})
        if about.last_pid is not None and (beyond := [str(pid) for pid in pids if pid > about.last_pid]):
            differences.append(f"{split}: ids above {about.last_pid}: {name_some(beyond)}")
    return [*differences, *find_conflicts(contents.splits), *contents.differences]


def find_conflicts(splits: Mapping[str, Sequence[Item]]) -> list[str]:
    """Returns a text for each conflict of the identities of train, query and gallery."""
    people = {
        split: {item.pid for item in splits.get(split, ()) if item.pid > 0} for split in ("train", "query", "gallery")
    }
    conflicts = []
    if shared := people["train"] & (people["query"] | people["gallery"]):
        conflicts.append(f"{len(shared):,} ids are in train and in query or gallery")
    if people["gallery"] and (unmatched := people["query"] - people["gallery"]):
        conflicts.append(f"{len(unmatched):,} ids of query are not in gallery")
    return conflicts


def _unmatched(splits):
    gallery = {(item.pid, item.camid) for item in splits.get("gallery", ())}
    cameras = Counter(pid for pid, _ in gallery)
    query = splits.get("query", ())
    without = sum(cameras[item.pid] == ((item.pid, item.camid) in gallery) for item in query)
    return [f"{without:,} of {len(query):,} queries have no match under another camera"] if without else []


def _compare(counts, published):
    if not counts.images:
        return "no images"
    counted = zip(Counts._fields[:4], counts, published)
    texts = [f"{has:,} {what} (published: {wants:,})" for what, has, wants in counted if has != wants]
    if missing := sorted(set(published.cameras) - set(counts.cameras)):
        texts.append(f"missing cameras: {', '.join(map(str, missing))}")
    if unknown := sorted(set(counts.cameras) - set(published.cameras)):
        texts.append(f"unknown cameras: {', '.join(map(str, unknown))}")
    return ", ".join(texts)


def _md5_note(path, about):
    if not about.md5 or not path.is_file() or not zipfile.is_zipfile(path):
        return []
    if (digest := md5(path)) == about.md5:
        return ["md5 as published"]
    return [f"md5 {digest} differs from the published {about.md5}: a repacked copy; contents were checked"]
