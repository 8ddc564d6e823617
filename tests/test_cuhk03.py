import os
import zipfile

import cv2
import numpy as np
import pytest
import scipy.io
from tiny_sources import CUHK03_CAMIDS, CUHK03_NAMES, CUHK03_PIDS, SHARED, cuhk03_image, write_cuhk03, write_protocol

from mancs_jax.data import arrays, build
from mancs_jax.data.sources import cuhk03
from mancs_jax.data.sources.items import Contents, Item, count, find_differences

pytestmark = pytest.mark.quick

PROTOCOLS = SHARED / "cuhk03_new_protocol"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as the official zip has it, with the protocol's files beside `cuhk-03.mat`."""
    path = tmp_path_factory.mktemp("source") / "cuhk03_release"
    path.mkdir()
    write_cuhk03(path / "cuhk-03.mat")
    for boxes in ("labeled", "detected"):
        write_protocol(path / f"cuhk03_new_protocol_config_{boxes}.mat")
    return path


def decode(encoded: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)


@pytest.mark.parametrize("boxes", ["labeled", "detected"])
def test_every_image_has_its_name_labels_and_pixels(folder, boxes):
    with cuhk03.open_source(folder / "cuhk-03.mat", boxes) as found:
        assert found.name == f"cuhk03_{boxes}"
        assert [(item.name, item.pid, item.camid) for item in found.splits["all_images"]] == list(
            zip(CUHK03_NAMES, CUHK03_PIDS, CUHK03_CAMIDS)
        )
        for item in found.splits["all_images"]:
            encoded = found.read(item.file)
            pair, person, _, slot = map(int, item.name.removesuffix(".png").split("_"))
            np.testing.assert_array_equal(decode(encoded), cuhk03_image(boxes, pair, person, slot))
            assert encoded.startswith(b"\x89PNG")


def test_splits_and_testsets(folder):
    with cuhk03.open_source(folder / "cuhk-03.mat", "detected") as found:
        pass
    pids = {split: [item.pid for item in items] for split, items in found.splits.items()}
    assert pids == {"train": [1, 1, 1, 2, 2], "query": [3, 4, 5], "gallery": [3, 3, 4, 5], "all_images": CUHK03_PIDS}
    assert found.metadata == {"testsets": [[3, 4], [5]]}
    assert found.differences == ["testsets: 2 of 1 or 2 people (published: 20 of 100)"]
    assert not found.notes


def zipped(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "cuhk03_release.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "cuhk-03.mat", "cuhk03_release/cuhk-03.mat")
        archive.writestr("__MACOSX/cuhk03_release/._cuhk-03.mat", b"x")
        archive.writestr("cuhk03_release/README.md", b"text")
    return tmp_path / "cuhk03_release.zip"


@pytest.mark.parametrize("where", ["folder", "enclosing folder", "zip"])
def test_a_folder_or_a_zip_that_holds_it(folder, tmp_path, where):
    path = {"folder": folder, "enclosing folder": folder.parent}.get(where) or zipped(folder, tmp_path)
    with cuhk03.open_source(path, "labeled") as found:
        first, last = (decode(found.read(name)) for name in (CUHK03_NAMES[0], CUHK03_NAMES[-1]))
    np.testing.assert_array_equal(first, cuhk03_image("labeled", 1, 1, 1))
    np.testing.assert_array_equal(last, cuhk03_image("labeled", 2, 2, 7))
    assert list(found.splits) == (["all_images"] if where == "zip" else ["train", "query", "gallery", "all_images"])


def test_without_the_protocol_there_is_only_the_classic_one(folder, tmp_path):
    mat = tmp_path / "elsewhere.mat"
    os.link(folder / "cuhk-03.mat", mat)
    with cuhk03.open_source(mat, "labeled") as found:
        assert list(found.splits) == list(found.about.counts) == ["all_images"]
        [note] = found.notes
        assert note.startswith("no cuhk03_new_protocol_config_labeled.mat is next to it") and "classic" in note
    given = folder / "cuhk03_new_protocol_config_labeled.mat"
    with cuhk03.open_source(mat, "labeled", given) as found:
        assert list(found.splits) == ["train", "query", "gallery", "all_images"] and not found.notes


def test_the_order_of_a_protocols_indices_does_not_matter(tmp_path):
    path = write_protocol(tmp_path / "protocol.mat", gallery_idx=np.array([12, 7, 9, 8], np.uint16))
    assert cuhk03.read_protocol(path).rows["gallery"].tolist() == [6, 7, 8, 11]


@pytest.fixture(scope="module")
def root(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("root")
    with cuhk03.open_source(folder, "detected") as found:
        build.build(found, path)
    return path


def test_the_classic_protocol(root):
    def load(split, testset):
        found = arrays.load_split("cuhk03_detected", root, split, (14, 6), testset)
        assert len(found.image) == len(found.pid)
        return list(zip(found.name.tolist(), found.pid.tolist(), found.camid.tolist()))

    assert arrays.split_names("cuhk03_detected", root) == ["train", "query", "gallery", "all_images"]
    assert [pid for _, pid, _ in load("train", 0)] == [1, 1, 1, 2, 2]
    assert [pid for _, pid, _ in load("train", 1)] == [1, 1, 1, 2, 2, 5, 5]
    assert load("query", 1) == [("1_003_1_02.png", 3, 1), ("2_001_1_01.png", 4, 1)]
    assert load("gallery", 1) == [("1_003_2_06.png", 3, 2), ("1_003_2_10.png", 3, 2), ("2_001_2_06.png", 4, 2)]
    assert [pid for _, pid, _ in load("train", 2)] == [1, 1, 1, 2, 2, 3, 3, 3, 4, 4]
    assert load("query", 2) == [("2_002_1_05.png", 5, 1)] and load("gallery", 2) == [("2_002_2_07.png", 5, 2)]
    for testset in (-1, 3):
        with pytest.raises(ValueError, match=rf"testset is {testset}; cuhk03_detected has 1 to 2, and 0 for its own"):
            load("query", testset)
    with pytest.raises(ValueError, match="a test set of cuhk03_detected has no split 'all_images', only train, query"):
        load("all_images", 1)


@pytest.mark.skipif(not PROTOCOLS.is_dir(), reason="needs the official files of the protocol")
@pytest.mark.parametrize("boxes", ["labeled", "detected"])
def test_the_official_protocol(boxes):
    """Names as the slots give them, in order, have the official pids and camids, and the published counts."""
    path = PROTOCOLS / cuhk03.PROTOCOL_FILE.format(boxes=boxes)
    protocol = cuhk03.read_protocol(path)
    names = [name for name, _, _ in protocol.labels]
    assert names == sorted(names)
    sizes = [843, 440, 77, 58, 49]
    everything = cuhk03.number(names, sizes)
    assert [(item.name, item.pid, item.camid) for item in everything] == protocol.labels
    splits = cuhk03.split_by(protocol, everything, path) | {"all_images": everything}
    testsets = [[1 + 100 * (n % 14) + i for i in range(100)] for n in range(20)]
    about = cuhk03.ABOUT._replace(counts=cuhk03.COUNTS[boxes])
    found = Contents("cuhk03", about, splits, bytes, {"testsets": testsets})
    assert find_differences(found) == []
    official = scipy.io.loadmat(path)
    assert count(official["labels"], official["camId"].ravel()).ids == 1467
    first_query = official["query_idx"][0, 0] - 1
    assert splits["query"][0] == Item(*protocol.labels[first_query], names[first_query])
