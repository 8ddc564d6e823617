import numpy as np
import pytest
from tiny_sources import CUHK01_FILES, CUHK01_NAMES, noise, write

from mancs_jax.data import build
from mancs_jax.data.arrays import load_split
from mancs_jax.data.prepare import prepare
from mancs_jax.data.sources import cuhk01
from mancs_jax.data.sources.items import Contents, Counts, Item, count_items, find_differences
from mancs_jax.data.sources.named_folders import parse_name

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("name", ["0001000.png", "0001005.png", "001001.png", "0001001.jpg", "0001_001.png"])
def test_parse_name_refuses(name):
    with pytest.raises(ValueError, match=r"is not a name such as 0001003\.png \(identity, 00, image 1 to 4\)"):
        parse_name(name, cuhk01.LAYOUT)


@pytest.mark.parametrize(("as_zip", "top"), [(True, "CUHK01/"), (True, ""), (False, "CUHK01/"), (False, "")])
def test_prepare(tmp_path, as_zip, top):
    path = write(tmp_path / "source", CUHK01_FILES | {"campus/Thumbs.db": b"db"}, as_zip, top)
    with cuhk01.open_source(path) as found:
        assert found.name == "cuhk01"
        assert {split: count_items(items) for split, items in found.splits.items()} == {
            "train": Counts(8, 2, 0, 0, (1, 2))
        }
        assert find_differences(found) == ["train: 8 images (published: 3,884), 2 ids (published: 971)"]
        build.build(found, tmp_path / "root")
    train = load_split("cuhk01", tmp_path / "root", "train", (16, 8))
    assert train.name.tolist() == CUHK01_NAMES
    assert train.pid.tolist() == [1] * 4 + [971] * 4 and train.camid.tolist() == [1, 1, 2, 2] * 2
    np.testing.assert_array_equal(train.image[5], noise(5))


def test_its_folder_of_images_is_a_source(tmp_path):
    path = write(tmp_path / "CUHK01", CUHK01_FILES, as_zip=False)
    with cuhk01.open_source(path / "campus") as found:
        assert len(found.splits["train"]) == 8


def test_a_source_that_is_something_else_says_where_to_get_it(tmp_path):
    for files, line in [
        ({"photos/0001001.png": b""}, "no images in a folder campus"),
        (CUHK01_FILES | {"campus/me.png": b""}, r"me\.png: not named as 0001003\.png"),
    ]:
        path = write(tmp_path / f"{len(files)}.zip", files, as_zip=True)
        with pytest.raises(ValueError, match=f"{line}.*CUHK01 has to be asked for at https://"):
            prepare("cuhk01", str(path), str(tmp_path / "root"))
    path = write(tmp_path / "tiny.zip", CUHK01_FILES, as_zip=True)
    with pytest.raises(ValueError, match=r"differs from the published CUHK01: train: 8 images \(published: 3,884\)"):
        prepare("cuhk01", str(path), str(tmp_path / "root"))
    assert not (tmp_path / "root").exists()


def test_the_published_counts_have_no_differences():
    def published(last_pid: int = 971) -> Contents:
        people = [*range(1, 971), last_pid]
        items = [Item(f"{pid:04d}00{i}.png", pid, (i + 1) // 2, "") for pid in people for i in (1, 2, 3, 4)]
        return Contents("cuhk01", cuhk01.ABOUT, {"train": items}, bytes)

    assert find_differences(published()) == []
    assert find_differences(published(972)) == ["train: ids above 971: 972"]
