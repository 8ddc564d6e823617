import sys
import zipfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from mancs_jax.data import build, market1501
from mancs_jax.data.market1501 import FOLDERS, PUBLISHED, TOP_FOLDER, Counts

REPOSITORY = Path(__file__).resolve().parents[1]
LABELS = REPOSITORY.parent / "shared" / "data" / "market1501_labels"
DATA_SET = REPOSITORY.parent / "data" / TOP_FOLDER

TINY = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0002_c2s1_000551_01.jpg", "0007_c3s1_000001_01.jpg"],
    "query": ["0001_c1s1_001051_00.jpg", "1488_c1s6_023021_00.jpg.jpg"],
    "bounding_box_test": [
        "-1_c1s1_000401_03.jpg",
        "0000_c1s1_000151_01.jpg",
        "0001_c2s1_001051_01.jpg",
        "1488_c2s6_023021_02.jpg.jpg",
    ],
    "gt_bbox": ["0001_c1s1_001051_00.jpg"],
}


def jpeg(seed: int, height: int = 16, width: int = 8) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def tiny_files() -> dict[str, bytes]:
    """Every file of a tiny Market-1501, with what surrounds the images in the published one."""
    paths = [f"{folder}/{name}" for folder, names in TINY.items() for name in names]
    files = {path: jpeg(seed) for seed, path in enumerate(paths)}
    return files | {
        "readme.txt": b"text",
        "gt_query/0001_c1s1_001051_00_good.mat": b"mat",
        "query/Thumbs.db": b"db",
    }


def write(path: Path, files: dict[str, bytes], as_zip: bool, top: str = "") -> Path:
    if as_zip:
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(top + name, data)
        return path
    for name, data in files.items():
        (path / top / name).parent.mkdir(parents=True, exist_ok=True)
        (path / top / name).write_bytes(data)
    return path


def expected_names() -> dict[str, list[str]]:
    return {split: sorted(TINY[folder]) for split, folder in FOLDERS.items()}


def published_names() -> dict[str, list[str]]:
    """Names, not the real ones, that have every count of the published set."""

    def names(people: range, images: int, distractors: int = 0, junk: int = 0) -> list[str]:
        pids = [people[i % len(people)] for i in range(images - distractors - junk)]
        labels = [f"{pid:04d}" for pid in pids] + ["0000"] * distractors + ["-1"] * junk
        # The camera changes once a round over the people, so that each person has images under several.
        return [f"{pid}_c{1 + i // len(people) % 6}s1_{i:06d}_00.jpg" for i, pid in enumerate(labels)]

    return {
        "train": names(range(751, 1502), 12936),
        "query": names(range(1, 751), 3368 - 10) + [f"0001_c6s1_{i:06d}_00.jpg" for i in range(10)],
        "gallery": names(range(1, 751), 19732, 2798, 3819),
        "gt_bbox": names(range(1, 1502), 25259),
    }


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
    assert market1501.parse_name(name) == labels


@pytest.mark.parametrize(
    "name",
    [
        "",
        "0002.jpg",
        "0002_c1s1_000451_03.png",
        "0002_c0s1_000451_03.jpg",
        "-2_c1s1_000451_03.jpg",
        "2_c1s1_000451_03.jpg",
        "0002_c1s1_000451_03.jpg.jpg.jpg",
        "x0002_c1s1_000451_03.jpg",
        "0002_c1s1_000451_03.jpg\n",
    ],
)
def test_parse_name_refuses(name):
    with pytest.raises(ValueError, match=r"is not a name such as 0002_c1s1_000451_03\.jpg"):
        market1501.parse_name(name)


def test_count_names():
    assert market1501.count_names(TINY["bounding_box_test"]) == Counts(4, 2, 1, 1, (1, 2))
    assert market1501.count_names([]) == Counts(0, 0, 0, 0, ())


@pytest.mark.parametrize("top", ["", TOP_FOLDER + "/"])
@pytest.mark.parametrize("as_zip", [True, False])
def test_open_source(tmp_path, as_zip, top):
    files = tiny_files() | {"query/.DS_Store": b"x", "query/._0001_c1s1_001051_00.jpg": b"x"}
    path = write(tmp_path / "source", files, as_zip, top)
    if as_zip:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("__MACOSX/query/0001_c1s1_001051_00.jpg", b"x")
            archive.mkdir(f"{top}gt_bbox/")
    source = market1501.open_source(path)
    assert source.names == expected_names()
    for folder, name in build.list_files(source):
        assert source.read(folder, name) == files[f"{folder}/{name}"]
    assert len(build.list_files(source)) == 10


def test_open_source_leaves_out_what_is_missing(tmp_path):
    files = {path: data for path, data in tiny_files().items() if not path.startswith("gt_bbox/")}
    (tmp_path / "source" / "gt_bbox").mkdir(parents=True)
    assert list(market1501.open_source(write(tmp_path / "source", files, False)).names) == [
        "train",
        "query",
        "gallery",
    ]


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


@pytest.mark.parametrize(
    "member",
    [
        "../0001_c1s1_001051_00.jpg",
        "query/../../0001_c1s1_001051_00.jpg",
        "/etc/0001_c1s1_001051_00.jpg",
        "query\\0001_c1s1_001051_00.jpg",
        "query/inner/0001_c1s1_001051_00.jpg",
        link("query/0009_c1s1_001051_00.jpg"),
    ],
)
def test_odd_members_are_refused(tmp_path, member):
    path = write(tmp_path / "source.zip", tiny_files(), True)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(member, jpeg(0))
    name = getattr(member, "filename", member)
    with pytest.raises(ValueError, match="do not belong there") as error:
        market1501.open_source(path)
    assert f"{path}: {name}: " in str(error.value)


def test_copies_and_encrypted_members_are_refused(tmp_path):
    path = write(tmp_path / "source.zip", tiny_files(), True)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("query/0001_c1s1_001051_00.jpg", jpeg(0))
    with pytest.raises(ValueError, match=r"query/0001_c1s1_001051_00\.jpg: .*copies"):
        market1501.open_source(path)
    data = write(tmp_path / "locked.zip", {"query/0001_c1s1_001051_00.jpg": jpeg(0)}, True).read_bytes()
    at = data.index(b"PK\x01\x02") + 8  # the flags of the member in the central directory
    (tmp_path / "locked.zip").write_bytes(data[:at] + bytes([data[at] | 1]) + data[at + 1 :])
    with pytest.raises(ValueError, match=r"query/0001_c1s1_001051_00\.jpg: .*encrypted"):
        market1501.open_source(tmp_path / "locked.zip")


def test_subfolders_are_refused(tmp_path):
    write(tmp_path, tiny_files() | {"query/inner/0001_c1s1_001051_00.jpg": b"x"}, False)
    with pytest.raises(ValueError, match=r"query/inner: .*do not belong there"):
        market1501.open_source(tmp_path)


def test_bad_names_are_named(tmp_path):
    bad = {f"query/person{i}.jpg": b"x" for i in range(7)}
    path = write(tmp_path / "source.zip", tiny_files() | bad, True)
    with pytest.raises(ValueError, match=r"query/person4\.jpg and 2 more: not named as") as error:
        market1501.open_source(path)
    assert "person5" not in str(error.value)


def test_name_some():
    assert build.name_some(list("abcde")) == "a, b, c, d, e"
    assert build.name_some(list("abcde") * 300) == "a, b, c, d, e and 1,495 more"


def test_what_is_no_source(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.zip does not exist\. Market-1501 has to be fetched by hand"):
        market1501.open_source(tmp_path / "missing.zip")
    with pytest.raises(ValueError, match=r"no images in a folder bounding_box_train, .*fetched by hand"):
        market1501.open_source(tmp_path)
    with pytest.raises(ValueError, match="no source is given"):
        market1501.open_source(None)
    whole = write(tmp_path / "source.zip", tiny_files(), True).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.zip is not a zip file, or is cut off .*research only"):
        market1501.open_source(tmp_path / "cut.zip")


def test_published_counts_have_no_differences():
    assert market1501.find_differences(published_names()) == []


def test_every_difference_is_named():
    names = published_names()
    del names["gt_bbox"]
    names["query"] = [name for name in names["query"] if "_c3s" not in name][:3000]
    names["gallery"] = names["gallery"][1:-1] + ["0000_c7s1_000000_00.jpg"] * 3
    names["train"] = [*names["train"][:-2], "0005_c1s1_999999_00.jpg", "0000_c1s1_999999_00.jpg"]
    found = {text.split(":")[0]: text for text in market1501.find_differences(names)}
    assert set(found) == {
        "train",
        "query",
        "gallery",
        "gt_bbox",
        "1 ids are in train and in query or gallery",
    }
    count = len(names["query"])
    assert found["query"] == f"query: {count:,} images (published: 3,368), missing cameras: 3"
    assert found["train"] == "train: 752 ids (published: 751), 1 distractors (published: 0)"
    assert found["gt_bbox"] == "gt_bbox: no images"
    assert found["gallery"] == (
        "gallery: 19,733 images (published: 19,732), 2,801 distractors (published: 2,798), "
        "3,818 junk (published: 3,819), unknown cameras: 7"
    )


def test_query_ids_have_to_be_in_the_gallery():
    names = published_names()
    names["gallery"] = ["0751" + name[4:] if name.startswith("0750") else name for name in names["gallery"]]
    assert "1 ids of query are not in gallery" in market1501.find_differences(names)


WHOLE = jpeg(1, 128, 64)
PNG = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "empty"),
        (b"hello", "not a JPEG"),
        (WHOLE[:-2], "cut off"),
        (WHOLE[: len(WHOLE) // 2], "cut off"),
        (b"\xff\xd8\xff\xd9", "damaged"),
        (PNG, "not a JPEG"),
    ],
)
@pytest.mark.parametrize("as_zip", [True, False])
def test_unreadable_images_are_named(tmp_path, as_zip, data, problem):
    files = tiny_files() | {"query/0001_c1s1_001051_00.jpg": data}
    source = market1501.open_source(write(tmp_path / "source", files, as_zip))
    assert build.find_unreadable(source) == [f"query/0001_c1s1_001051_00.jpg ({problem})"]
    for allow_differences in (False, True):
        with pytest.raises(ValueError, match=r"1 unreadable: query/0001_c1s1_001051_00\.jpg"):
            market1501.check_source(source, allow_differences)


def test_a_damaged_zip_member_is_named(tmp_path):
    path = write(tmp_path / "source.zip", tiny_files(), True)
    data = bytearray(path.read_bytes())
    data[data.index(b"\xff\xd8\xff") + 100] ^= 255
    path.write_bytes(data)
    [text] = build.find_unreadable(market1501.open_source(path))
    assert text.startswith("bounding_box_train/0002_c1s1_000451_03.jpg (cannot be read: Bad CRC-32")


def test_check_source_says_everything_at_once(tmp_path, caplog):
    files = tiny_files()
    source = market1501.open_source(write(tmp_path / "good", files, False))
    with pytest.raises(ValueError, match="differs from the published") as error:
        market1501.check_source(source)
    assert all(f"{split}: " in str(error.value) for split in FOLDERS) and "\n" not in str(error.value)
    market1501.check_source(source, allow_differences=True)
    assert "query: 2 images (published: 3,368), 2 ids (published: 750), missing cameras: 2, 3, 4" in caplog.text
    files = {path: b"" if path.endswith(".jpg") else data for path, data in files.items()}
    with pytest.raises(ValueError, match=r"10 unreadable: .* and 5 more; differs from .*query: 2 images"):
        market1501.check_source(market1501.open_source(write(tmp_path / "bad", files, False)))


def tiny_builder(path):
    return partial(market1501.Market1501, source=path, allow_differences=True)


def read_back(path: Path) -> dict[str, list[dict]]:
    builder = tfds.builder_from_directory(path)
    decoders = {"image": tfds.decode.SkipDecoding()}
    return {split: list(builder.as_data_source(split=split, decoders=decoders)) for split in builder.info.splits}


@pytest.mark.parametrize("as_zip", [True, False])
def test_build_stores_the_files_in_the_order_of_their_names(tmp_path, monkeypatch, capsys, as_zip):
    files = tiny_files()
    source = write(tmp_path / "source", files, as_zip)
    counts = {split: market1501.count_names(names) for split, names in expected_names().items()}
    monkeypatch.setattr(market1501, "PUBLISHED", counts)  # so that the strict check passes
    path = build.build(partial(market1501.Market1501, source=source), tmp_path / "deep" / "root")
    assert path == tmp_path / "deep" / "root" / "market1501" / build.VERSION
    expected = {
        split: [
            {"image": files[f"{FOLDERS[split]}/{name}"], "pid": pid, "camid": camid, "name": name.encode()}
            for name in names
            for pid, camid in [market1501.parse_name(name)]
        ]
        for split, names in expected_names().items()
    }
    assert read_back(path) == expected
    assert [entry.name for entry in path.parents[1].iterdir()] == ["market1501"]
    assert str(tmp_path) not in (path / "dataset_info.json").read_text()
    decoded = tfds.builder_from_directory(path).as_data_source(split="query")[0]["image"]
    assert decoded.shape == (16, 8, 3) and decoded.dtype == np.uint8
    assert "tensorflow" not in sys.modules
    assert capsys.readouterr() == ("", "")


def test_a_build_that_fails_leaves_nothing(tmp_path, monkeypatch):
    source = write(tmp_path / "source", tiny_files(), False)
    root = tmp_path / "new" / "root"
    with pytest.raises(ValueError, match="differs from the published"):
        build.build(partial(market1501.Market1501, source=source), root)
    assert not root.parent.exists()

    def interrupted(names, read):
        yield build.Example(names[0], 1, 1, read(names[0]))
        raise KeyboardInterrupt

    monkeypatch.setattr(market1501, "examples", interrupted)
    root.mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        build.build(tiny_builder(source), root)
    assert list(root.iterdir()) == []


def test_an_existing_build_is_replaced_only_on_request_and_only_by_a_complete_one(tmp_path):
    root = tmp_path / "root"
    old = build.build(tiny_builder(write(tmp_path / "old", tiny_files(), False)), root)
    before = read_back(old)
    changed = tiny_files() | {"query/0001_c1s1_001051_00.jpg": jpeg(99)}
    new_source = write(tmp_path / "new", changed, False)
    with pytest.raises(FileExistsError, match="exists"):
        build.build(tiny_builder(new_source), root)
    with pytest.raises(ValueError, match="differs from"):
        build.build(partial(market1501.Market1501, source=new_source), root, overwrite=True)
    assert read_back(old) == before
    assert build.build(tiny_builder(new_source), root, overwrite=True) == old
    assert read_back(old)["query"][0]["image"] == jpeg(99)
    assert read_back(old)["train"] == before["train"]
    assert [entry.name for entry in root.iterdir()] == ["market1501"]


def test_the_old_build_comes_back_when_the_new_one_cannot_be_moved_in(tmp_path, monkeypatch):
    create_builder = tiny_builder(write(tmp_path / "source", tiny_files(), False))
    path = build.build(create_builder, tmp_path / "root")
    before = read_back(path)
    rename = Path.rename

    def fail(self, target):
        if target == path and self.name == build.VERSION:
            raise OSError("no space left")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no space left"):
        build.build(create_builder, tmp_path / "root", overwrite=True)
    assert read_back(path) == before
    assert [entry.name for entry in (tmp_path / "root").iterdir()] == ["market1501"]


def test_a_killed_build_is_pointed_out_and_left_alone(tmp_path, caplog):
    leftover = tmp_path / "root" / ".building-0123abcd"
    leftover.mkdir(parents=True)
    build.build(tiny_builder(write(tmp_path / "source", tiny_files(), False)), tmp_path / "root")
    assert str(leftover) in caplog.text and leftover.exists()


@pytest.mark.skipif(not LABELS.is_dir(), reason="needs the official label files")
def test_published_counts_are_those_of_the_official_labels():
    loadmat = pytest.importorskip("scipy.io").loadmat
    for split, pid_file, pid_key, camid_file, camid_key in OFFICIAL:
        pid = loadmat(LABELS / pid_file)[pid_key].ravel().astype(np.int32)
        camid = loadmat(LABELS / camid_file)[camid_key].ravel().astype(np.int32)
        assert market1501.count(pid, camid) == PUBLISHED[split]


@pytest.mark.skipif(not (LABELS.is_dir() and DATA_SET.is_dir()), reason="needs the official labels and the data set")
def test_sorted_names_have_the_official_labels():
    loadmat = pytest.importorskip("scipy.io").loadmat
    source = market1501.open_source(DATA_SET)
    assert market1501.find_differences(source.names) == []
    for split, pid_file, pid_key, camid_file, camid_key in OFFICIAL:
        pid, camid = np.array([market1501.parse_name(name) for name in source.names[split]]).T
        np.testing.assert_array_equal(pid, loadmat(LABELS / pid_file)[pid_key].ravel())
        np.testing.assert_array_equal(camid, loadmat(LABELS / camid_file)[camid_key].ravel())


OFFICIAL = [
    ("train", "train_label.mat", "label", "train_cam.mat", "cam"),
    ("query", "queryID.mat", "queryID", "queryCam.mat", "queryCAM"),
    ("gallery", "testID.mat", "testID", "testCam.mat", "testCAM"),
]
