import numpy as np
import pytest
import scipy.io
from tiny_sources import MARKET, REPOSITORY, SHARED, image_files, market_files, write

from mancs_jax.data import build
from mancs_jax.data.arrays import load_split
from mancs_jax.data.sources import market1501
from mancs_jax.data.sources.items import Counts, Item, count, count_items, find_differences
from mancs_jax.data.sources.market1501 import LAYOUT
from mancs_jax.data.sources.named_folders import parse_name

pytestmark = pytest.mark.quick

LABELS = SHARED / "market1501_labels"
DATA_SET = REPOSITORY.parent / "data" / LAYOUT.top_folder
OFFICIAL = [
    ("train", "train_label.mat", "label", "train_cam.mat", "cam"),
    ("query", "queryID.mat", "queryID", "queryCam.mat", "queryCAM"),
    ("gallery", "testID.mat", "testID", "testCam.mat", "testCAM"),
]


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("0002_c1s1_000451_03.jpg", (2, 1)),
        ("1501_c6s4_001902_01.jpg", (1501, 6)),
        ("1488_c5s3_071762_01.jpg.jpg", (1488, 5)),
        ("-1_c4s6_022316_11.jpg.jpg", (-1, 4)),
        ("0000_c3s3_000001_99.jpg", (0, 3)),
    ],
)
def test_parse_name(name, labels):
    assert parse_name(name, LAYOUT) == labels


@pytest.mark.parametrize(
    "name",
    ["", "0002.jpg", "0002_c1s1_000451_03.png", "0002_c0s1_000451_03.jpg", "-2_c1s1_000451_03.jpg"]
    + ["2_c1s1_000451_03.jpg", "0002_c1s1_000451_03.jpg.jpg.jpg", "x0002_c1s1_000451_03.jpg"]
    + ["0002_c1s1_000451_03.jpg\n"],
)
def test_parse_name_refuses(name):
    with pytest.raises(ValueError, match=r"is not a name such as 0002_c1s1_000451_03\.jpg"):
        parse_name(name, LAYOUT)


@pytest.mark.parametrize("top", ["", LAYOUT.top_folder + "/"])
@pytest.mark.parametrize("as_zip", [True, False])
def test_open_source(tmp_path, as_zip, top):
    files = market_files()
    with market1501.open_source(write(tmp_path / "source", files, as_zip, top)) as found:
        assert {split: [item.name for item in items] for split, items in found.splits.items()} == {
            split: sorted(MARKET[folder]) for split, folder in LAYOUT.folders.items()
        }
        name = "-1_c1s1_000401_03.jpg"
        assert found.splits["gallery"][0] == Item(name, -1, 1, f"bounding_box_test/{name}")
        assert all(found.read(item.file) == files[item.file] for items in found.splits.values() for item in items)
    assert count_items(found.splits["gallery"]) == Counts(4, 2, 1, 1, (1, 2))


def test_open_source_leaves_out_what_is_missing(tmp_path):
    files = {path: data for path, data in market_files().items() if not path.startswith("gt_bbox/")}
    (tmp_path / "source" / "gt_bbox").mkdir(parents=True)
    with market1501.open_source(write(tmp_path / "source", files, False)) as found:
        assert list(found.splits) == ["train", "query", "gallery"]


@pytest.mark.skipif(not LABELS.is_dir(), reason="needs the official label files")
def test_published_counts_are_those_of_the_official_labels():
    for split, pid_file, pid_key, camid_file, camid_key in OFFICIAL:
        pid = scipy.io.loadmat(LABELS / pid_file)[pid_key].ravel().astype(np.int32)
        camid = scipy.io.loadmat(LABELS / camid_file)[camid_key].ravel().astype(np.int32)
        assert count(pid, camid) == market1501.ABOUT.counts[split]


@pytest.mark.skipif(not (LABELS.is_dir() and DATA_SET.is_dir()), reason="needs the official labels and the data set")
def test_sorted_names_have_the_official_labels():
    with market1501.open_source(DATA_SET) as found:
        assert find_differences(found) == []
    for split, pid_file, pid_key, camid_file, camid_key in OFFICIAL:
        pid, camid = np.array([(item.pid, item.camid) for item in found.splits[split]]).T
        np.testing.assert_array_equal(pid, scipy.io.loadmat(LABELS / pid_file)[pid_key].ravel())
        np.testing.assert_array_equal(camid, scipy.io.loadmat(LABELS / camid_file)[camid_key].ravel())


DISTRACTORS = ["0000_c1s1_000151_01.jpg", "0000_c6s3_099999_12.jpg", "0000_c2s1_000151_01.jpg.jpg"]


@pytest.mark.parametrize(
    ("as_zip", "folder", "given"),
    [(as_zip, folder, "") for as_zip in (True, False) for folder in ("images", "distractors_500k/images")]
    + [(False, "images", "images")],
)
def test_distractors(tmp_path, as_zip, folder, given):
    path = write(tmp_path / "source", image_files({folder: DISTRACTORS}), as_zip)
    with market1501.open_distractors(path / given) as found:
        assert {split: count_items(items) for split, items in found.splits.items()} == {
            "distractors": Counts(3, 0, 3, 0, (1, 2, 6))
        }
        assert find_differences(found)[0].startswith("distractors: 3 images (published: 500,000)")
        build.build(found, tmp_path / "root")
    split = load_split("market1501_500k", tmp_path / "root", "distractors", (16, 8))
    assert split.name.tolist() == sorted(DISTRACTORS)
    assert (split.pid.tolist(), split.camid.tolist()) == ([0, 0, 0], [1, 2, 6])
