import pytest
from tiny_sources import DUKE, image_files, write

from mancs_jax.data import build
from mancs_jax.data.arrays import load_split
from mancs_jax.data.sources import dukemtmc_reid
from mancs_jax.data.sources.items import Contents, Counts, Item, count_items, find_differences
from mancs_jax.data.sources.named_folders import parse_name

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("name", "labels"),
    [("0001_c2_f0046182.jpg", (1, 2)), ("7139_c8_f0160815.jpg", (7139, 8)), ("0702_c1_f0000001.jpg", (702, 1))],
)
def test_parse_name(name, labels):
    assert parse_name(name, dukemtmc_reid.LAYOUT) == labels


@pytest.mark.parametrize("name", ["0001_c2s1_000451_03.jpg", "001_c2_f0046182.jpg", "-1_c2_f0046182.jpg", "0001.jpg"])
def test_parse_name_refuses(name):
    with pytest.raises(ValueError, match=r"is not a name such as 0001_c2_f0046182\.jpg"):
        parse_name(name, dukemtmc_reid.LAYOUT)


@pytest.mark.parametrize("as_zip", [True, False])
def test_prepare(tmp_path, as_zip):
    path = write(tmp_path / "source", image_files(DUKE), as_zip, top="DukeMTMC-reID/")
    with dukemtmc_reid.open_source(path) as found:
        assert found.name == "dukemtmc_reid"
        assert {split: count_items(items) for split, items in found.splits.items()} == {
            "train": Counts(2, 1, 0, 0, (1, 2)),
            "query": Counts(1, 1, 0, 0, (2,)),
            "gallery": Counts(2, 2, 0, 0, (2, 5)),
        }
        differences = find_differences(found)
        build.build(found, tmp_path / "root")
    assert "gallery: 2 images (published: 17,661), 2 ids (published: 1,110), missing cameras: 1, 3, 4, 6, 7, 8" in (
        differences
    )
    train = load_split("dukemtmc_reid", tmp_path / "root", "train", (16, 8))
    assert train.name.tolist() == ["0001_c1_f0044158.jpg", "0001_c2_f0046182.jpg"]
    assert (train.pid.tolist(), train.camid.tolist()) == ([1, 1], [1, 2])


def test_that_it_was_withdrawn_is_said(tmp_path):
    with (
        pytest.raises(ValueError, match="withdrawn by its authors in 2019, for the privacy"),
        dukemtmc_reid.open_source(tmp_path),
    ):
        pass


def published(train: int = 16522, gallery_ids: int = 1110) -> Contents:
    """Labels, not the real ones, that have every count of the published set."""

    def items(people: range, images: int) -> list[Item]:
        return [Item(f"{i}.jpg", people[i % len(people)], 1 + i % 8, "") for i in range(images)]

    splits = {
        "train": items(range(2000, 2702), train),
        "query": items(range(1, 703), 2228),
        "gallery": items(range(1, gallery_ids + 1), 17661),
    }
    return Contents("dukemtmc_reid", dukemtmc_reid.ABOUT, splits, bytes)


def test_published_counts_have_no_differences():
    assert find_differences(published()) == []
    assert find_differences(published(train=16521)) == ["train: 16,521 images (published: 16,522)"]
    assert find_differences(published(gallery_ids=1109)) == ["gallery: 1,109 ids (published: 1,110)"]
