import hashlib

import numpy as np
import pytest
from refusals import refused
from tiny_sources import jpeg, write

from mancs_jax.data.sources import items as checks
from mancs_jax.data.sources.items import About, Contents, Counts, Item

pytestmark = [pytest.mark.quick, pytest.mark.usefixtures("warnings_are_logged")]

IMAGES = {"a": jpeg(0), "b": jpeg(1), "c": b"", "d": b"x"}


def items(*labels: tuple[int, int], file: str = "a") -> list[Item]:
    return [Item(f"{row:03d}.jpg", pid, camid, file) for row, (pid, camid) in enumerate(labels)]


def make(splits, **about) -> Contents:
    return Contents("tiny", About("Tiny", "For a test.", **about), splits, IMAGES.__getitem__)


SPLITS = {"train": items((1, 1), (2, 3)), "query": items((3, 1)), "gallery": items((3, 2), (0, 1), (-1, 1))}
COUNTS = {"train": Counts(2, 2, 0, 0, (1, 3)), "query": Counts(1, 1, 0, 0, (1,)), "gallery": Counts(3, 1, 1, 1, (1, 2))}


def test_counts():
    assert checks.count(np.array([1, 0, -1, 1, 5]), np.array([2, 2, 1, 9, 2])) == Counts(5, 2, 1, 1, (1, 2, 9))
    assert {split: checks.count_items(found) for split, found in SPLITS.items()} == COUNTS
    assert checks.count_items([]) == Counts(0, 0, 0, 0, ())


def test_the_published_set_has_no_differences():
    assert checks.find_differences(make(SPLITS, counts=COUNTS, last_pid=3)) == []
    assert checks.check(make(SPLITS, counts=COUNTS, last_pid=3), "here") == []


def test_every_difference_is_named():
    splits = {"train": items((1, 1), (5, 7), (0, 1)), "query": items((1, 1), (4, 1)), "gallery": items((1, 2))}
    counts = COUNTS | {"gt_bbox": Counts(1, 1, 0, 0, (1,))}
    found = make(splits, counts=counts, last_pid=4)._replace(differences=["something else"])
    assert checks.find_differences(found) == [
        "train: 3 images (published: 2), 1 distractors (published: 0), missing cameras: 3, unknown cameras: 7",
        "train: ids above 4: 5",
        "query: 2 images (published: 1), 2 ids (published: 1)",
        "gallery: 1 images (published: 3), 0 distractors (published: 1), 0 junk (published: 1), missing cameras: 1",
        "gt_bbox: no images",
        "1 ids are in train and in query or gallery",
        "1 ids of query are not in gallery",
        "something else",
    ]


def test_check_says_everything_at_once(caplog):
    found = make(SPLITS | {"query": items((3, 1), (3, 1), file="c")}, counts=COUNTS, how_to_get="Ask for it")
    assert refused(checks.check, found, "here") == (
        "here: 1 unreadable: c (empty); differs from the published Tiny: query: 2 images (published: 1) "
        "(allow_differences builds it as it is); fetch or unpack it again. Ask for it"
    )
    with pytest.raises(ValueError, match=r"^here: 1 unreadable: c \(empty\); fetch"):
        checks.check(found, "here", allow_differences=True)
    assert not caplog.text
    found = found._replace(splits=SPLITS | {"query": items((3, 1), (3, 1))})
    assert checks.check(found, "here", allow_differences=True) == []
    assert "here differs from the published Tiny: query: 2 images (published: 1)" in caplog.text


def test_conflicts_of_ones_own_data_are_told():
    query = items((3, 1), (1, 2), (6, 1), (3, 2), (4, 1))
    gallery = items((3, 2), (1, 2), (4, 2), (4, 1))  # 3 is found from camera 1 alone, 1 from none, 4 from both
    found = make({"train": items((1, 1)), "query": query, "gallery": gallery})._replace(notes=["a note"])
    assert checks.check(found, "here") == [
        "a note",
        "1 ids are in train and in query or gallery",
        "1 ids of query are not in gallery",
        "3 of 5 queries have no match under another camera",
    ]
    assert checks.check(make({"train": items((1, 1))}), "here") == []


def test_the_md5_of_a_zip_is_compared(tmp_path):
    path = write(tmp_path / "source.zip", {"a": b"x"}, True)
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    about = {"counts": COUNTS, "md5": md5}
    assert checks.check(make(SPLITS, **about), path) == ["md5 as published"]
    assert checks.check(make(SPLITS, **about), tmp_path) == []  # a folder has none
    path.write_bytes(b"y" + path.read_bytes())
    [note] = checks.check(make(SPLITS, **about), path)
    changed = hashlib.md5(path.read_bytes()).hexdigest()
    assert note == f"md5 {changed} differs from the published {md5}: a repacked copy; contents were checked"
