import hashlib

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from refusals import refused
from tensorflow_datasets.core.data_sources.base import BaseDataSource as TFDSSource
from tiny_sources import noise

from mancs_jax.data import arrays, build, images
from mancs_jax.data.arrays import Split
from mancs_jax.data.prepared import VERSION
from mancs_jax.data.sources.items import About, Contents, Item

pytestmark = pytest.mark.quick


def png(pixels: np.ndarray) -> bytes:
    """A lossless file, so that pixels can be compared: what is stored is decoded whatever its format."""
    return cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()


LABELS = {"c.jpg": (0, 2), "a.jpg": (7, 1), "d.jpg": (3, 6), "b.jpg": (-1, 1)}


def unsorted(splits=("train", "query"), names=tuple(LABELS), **images: bytes) -> Contents:
    """A data set whose records are not in the order of their names."""
    items = [Item(name, *LABELS[name], name) for name in names]
    images = {name: png(noise(ord(name[0]), 8, 4)) for name in LABELS} | {
        f"{name}.jpg": file for name, file in images.items()
    }
    return Contents("unsorted", About("", "For a test."), dict.fromkeys(splits, items), images.__getitem__)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("root")
    build.build(unsorted(), path)
    return path


def test_load_split_sorts_by_name_and_keeps_rows_together(root):
    split = arrays.load_split("unsorted", str(root), "train", (8, 4))
    assert split.name.tolist() == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert split.pid.tolist() == [7, -1, 0, 3] and split.pid.dtype == np.int32
    assert split.camid.tolist() == [1, 1, 2, 6] and split.camid.dtype == np.int32
    np.testing.assert_array_equal(split.image, np.stack([noise(ord(letter), 8, 4) for letter in "abcd"]))
    assert split.image.dtype == np.uint8 and split.image.flags.c_contiguous


def test_load_split_resizes(root):
    assert arrays.load_split("unsorted", root, "query", (16, 6)).image.shape == (4, 16, 6, 3)
    assert arrays.split_names("unsorted", root) == ["train", "query"]


@pytest.mark.parametrize("block", [1, 3, 4, 5])
def test_iterate_split_gives_the_pieces_of_load_split(root, block):
    whole = arrays.load_split("unsorted", root, "train", (16, 6))
    pieces = list(arrays.iterate_split("unsorted", root, "train", (16, 6), block))
    assert [len(piece.pid) for piece in pieces] == {1: [1] * 4, 3: [3, 1], 4: [4], 5: [4]}[block]
    for field, parts in zip(whole, zip(*pieces)):
        joined = np.concatenate(parts)
        np.testing.assert_array_equal(joined, field)
        assert joined.dtype == field.dtype


def test_iterate_split_holds_one_block_of_files(root, monkeypatch):
    reads, read = [], TFDSSource.__getitems__

    def count(self, rows):
        reads.append(len(rows))
        return read(self, rows)

    monkeypatch.setattr(TFDSSource, "__getitems__", count)
    monkeypatch.setattr(arrays, "_BLOCK", 2)
    pieces = arrays.iterate_split("unsorted", root, "train", (8, 4), block=3)
    assert reads == [2, 2]  # for the labels
    next(pieces)
    assert reads == [2, 2, 3]
    next(pieces)
    assert reads == [2, 2, 3, 1]


def test_iterate_split_refuses_before_the_first_piece(root):
    with pytest.raises(ValueError, match="no split 'gallery'"):
        arrays.iterate_split("unsorted", root, "gallery", (8, 4))
    with pytest.raises(ValueError, match="block is 0; it has to be at least 1"):
        arrays.iterate_split("unsorted", root, "train", (8, 4), block=0)
    with pytest.raises(ValueError, match="image_size is"):
        arrays.iterate_split("unsorted", root, "train", (8,))


def test_only_cuhk03_has_test_sets(root):
    with pytest.raises(ValueError, match="testset is 2, but unsorted has none: only CUHK03 has; set it to 0"):
        arrays.load_split("unsorted", root, "train", (8, 4), testset=2)


def test_a_damaged_png_is_refused_before_opencv_reads_it():
    """OpenCV takes the memory that a length or a size asks for, up to 4 GB."""
    encoded = png(np.zeros((4, 4, 3), np.uint8))
    data = encoded.index(b"IDAT")

    def refused(start, changed, fault):
        with pytest.raises(ValueError, match=f"^x: {fault}; copy or download it again$"):
            images.decode_image(encoded[:start] + changed + encoded[start + len(changed) :], (4, 4), "x")

    for length in (b"\xc2\x00\x00\x10", b"\x00\x00\xff\xff"):
        refused(data - 4, length, "damaged")
    refused(data, b"IDAM", "damaged")
    refused(encoded.index(b"IHDR") + 4, b"\x00\x00\x7f\xff", "damaged")  # the width
    refused(4, b"\n\x1a\n", "damaged")  # as a transfer as text leaves it
    for length in (30, len(encoded) - 20, len(encoded) - 1):
        with pytest.raises(ValueError, match="^x: cut off; copy or download it again$"):
            images.decode_image(encoded[:length], (4, 4), "x")


def test_a_png_may_have_a_damaged_text_and_bytes_after_its_end():
    encoded = png(np.full((4, 4, 3), 9, np.uint8))
    text = b"\x00\x00\x00\x03tEXta\x00b" + bytes(4)  # its checksum is another
    for content in (encoded[:33] + text + encoded[33:], encoded + bytes(4096)):
        assert (images.decode_image(content, (4, 4), "x") == 9).all()


def test_decode_image_is_rgb():
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200
    np.testing.assert_array_equal(images.decode_image(png(red), (4, 4), "red"), red)
    np.testing.assert_array_equal(images.decode_image(png(red), (6, 2), "red")[0, 0], [200, 0, 0])


def test_shrinking_averages_over_areas():
    pixels = noise(0, 8, 4)
    expected = pixels.astype(np.float64).reshape(2, 4, 1, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(images.decode_image(png(pixels), (2, 1), "x"), expected, atol=0.51)


def test_growing_is_bilinear():
    pixels = np.array([[0, 80], [40, 200]], np.uint8)[..., None].repeat(3, axis=-1)
    # Twice the size: output centres lie at -1/4, 1/4, 3/4 and 5/4 of the input grid, and the borders are held.
    weight = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    expected = weight @ pixels[..., 0].astype(np.float64) @ weight.T
    np.testing.assert_allclose(images.decode_image(png(pixels), (4, 4), "x")[..., 0], expected, atol=0.51)


@pytest.mark.parametrize("size", [(256,), (256, 128, 3), (0, 4), (8, -4), (8.5, 4), 8, "84"])
def test_image_size_is_checked(root, size):
    with pytest.raises(ValueError, match=r"image_size is .*; it has to be \(height, width\) in pixels"):
        arrays.load_split("unsorted", root, "train", size)


def test_errors_say_how_to_mend_them(root, tmp_path):
    line = refused(arrays.load_split, "market1501", tmp_path, "train", (8, 4), error=FileNotFoundError)
    assert line == (
        f"market1501 is not prepared under {tmp_path}; run: mancs prepare-data "
        f"--dataset=market1501 --source=ZIP_OR_FOLDER --root={tmp_path}"
    )
    with pytest.raises(FileNotFoundError, match=r"mancs prepare-data --dataset=walkers --root="):
        arrays.load_split("walkers", tmp_path, "train", (8, 4))
    with pytest.raises(FileNotFoundError, match=r"--dataset=folder --name=mine --source=ZIP_OR_FOLDER --root="):
        arrays.load_split("mine", tmp_path, "train", (8, 4))
    with pytest.raises(ValueError, match=r"unsorted under .* has no split 'gallery', only train, query"):
        arrays.load_split("unsorted", root, "gallery", (8, 4))


def test_an_image_that_cannot_be_decoded_is_named(tmp_path):
    build.build(unsorted(d=b"no image"), tmp_path)
    with pytest.raises(ValueError, match=r"d\.jpg: cannot be decoded"):
        arrays.load_split("unsorted", tmp_path, "train", (8, 4))
    with pytest.raises(ValueError, match=r"e\.jpg: cannot be decoded"):
        images.decode_image(b"", (8, 4), "e.jpg")


def make_split(pid, camid) -> Split:
    count = len(pid)
    image = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(3, axis=-1)
    names = np.array([f"{row:03d}.jpg" for row in range(count)], np.str_)
    return Split(image, np.array(pid, np.int32), np.array(camid, np.int32), names)


# Of these, 1 and 3 have two images under each of two cameras; 2 has one camera, 4 only one image under the second.
PID = [1, 1, 1, 1, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 0, -1]
CAMID = [1, 1, 2, 2, 1, 1, 5, 5, 6, 6, 4, 1, 1, 2, 1, 1]


def test_hold_out_takes_the_whole_of_each_identity():
    split = make_split(PID, CAMID)
    train, query, gallery = arrays.hold_out(split, 2, seed=0)
    assert train.pid.tolist() == [2, 2, 4, 4, 4, 0, -1]
    assert list(zip(query.pid.tolist(), query.camid.tolist(), strict=True)) == [(1, 1), (1, 2), (3, 5), (3, 6), (3, 4)]
    assert sorted(zip(gallery.pid.tolist(), gallery.camid.tolist(), strict=True)) == [(1, 1), (1, 2), (3, 5), (3, 6)]
    for part in (train, query, gallery):  # every field of a row went the same way
        rows = [int(name[:3]) for name in part.name]
        assert rows == sorted(rows)
        np.testing.assert_array_equal(part.image, split.image[rows])
        np.testing.assert_array_equal(part.pid, split.pid[rows])
        np.testing.assert_array_equal(part.camid, split.camid[rows])


def test_hold_out_without_cameras_takes_one_query_of_each():
    split = make_split(PID, range(len(PID)))
    train, query, gallery = arrays.hold_out(split, 3, seed=0)
    held = sorted(query.pid.tolist())
    assert len(held) == len(set(held)) == 3 and set(gallery.pid.tolist()) == set(held)
    assert sorted([*train.name, *query.name, *gallery.name]) == split.name.tolist()
    assert [part.camid.tolist() == [int(name[:3]) for name in part.name] for part in (query, gallery)] == [True, True]
    with pytest.raises(ValueError, match=r"from 1 to 3 \(of 4 identities, 4 have two images\)$"):
        arrays.hold_out(split, 4, seed=0)


def test_hold_out_draws_by_its_seed():
    split = make_split(PID, CAMID)
    draws = [arrays.hold_out(split, 1, seed) for seed in range(40)]
    again = [arrays.hold_out(split, 1, seed) for seed in range(40)]
    assert [part.name.tolist() for draw in draws for part in draw] == [
        part.name.tolist() for draw in again for part in draw
    ]
    assert {int(draw[1].pid[0]) for draw in draws} == {1, 3}
    queries = {tuple(draw[1].name.tolist()) for draw in draws if draw[1].pid[0] == 1}
    assert queries == {("000.jpg", "002.jpg"), ("000.jpg", "003.jpg"), ("001.jpg", "002.jpg"), ("001.jpg", "003.jpg")}


@pytest.mark.parametrize("num_ids", [0, -1, 3, 100])
def test_hold_out_refuses(num_ids):
    with pytest.raises(ValueError, match=rf"num_ids is {num_ids}; it has to be from 1 to 2 \(of 4 identities, 2 have"):
        arrays.hold_out(make_split(PID, CAMID), num_ids, seed=0)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.tuples(st.integers(-1, 5), st.integers(1, 3)), min_size=1, max_size=60),
    num_ids=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
def test_hold_out_properties(labels, num_ids, seed):
    split = make_split(*zip(*labels, strict=True))
    eligible = {
        pid
        for pid in range(1, 6)
        if sum(sum(label == (pid, camid) for label in labels) >= 2 for camid in (1, 2, 3)) >= 2
    }
    people = {pid for pid, _ in labels if pid > 0}
    assume(len({camid for _, camid in labels}) < max(2, len(labels)))  # else there are no cameras
    if num_ids > len(eligible) or num_ids == len(people):
        with pytest.raises(ValueError):
            arrays.hold_out(split, num_ids, seed)
        return
    train, query, gallery = arrays.hold_out(split, num_ids, seed)
    assert sorted([*train.name, *query.name, *gallery.name]) == split.name.tolist()
    held = set(query.pid.tolist())
    assert len(held) == num_ids and held <= eligible and not held & set(train.pid.tolist())
    assert set(gallery.pid.tolist()) == held
    pairs = list(zip(query.pid.tolist(), query.camid.tolist(), strict=True))
    assert sorted(pairs) == sorted({label for label in labels if label[0] in held})
    for pid, camid in pairs:
        assert np.any((gallery.pid == pid) & (gallery.camid != camid))


def test_relabel():
    labels = arrays.relabel(np.array([1501, 2, 7, 2, 1501], np.int32))
    assert labels.tolist() == [2, 0, 1, 0, 2] and labels.dtype == np.int32


def test_fingerprint_is_the_digest_of_everything():
    split = make_split([5, -1], [1, 2])
    expected = hashlib.blake2b(
        b"(2, 1, 1, 3)"
        + b"000.jpg\x00"
        + b"001.jpg"
        + b"\5\0\0\0\xff\xff\xff\xff"
        + b"\1\0\0\0\2\0\0\0"
        + b"\0\0\0\1\1\1",
        digest_size=16,
    )
    assert arrays.fingerprint(split) == expected.hexdigest()


def test_an_unknown_data_set_is_named_with_the_nearest_known(tmp_path):
    line = refused(arrays.check_dataset, "market1502", tmp_path)
    assert line.startswith("config.data.name is 'market1502', and no such ") and 'Did you mean "market1501"?' in line
    prepared = tmp_path / "mine" / VERSION
    prepared.mkdir(parents=True)
    (prepared / "dataset_info.json").write_text("{}")
    with pytest.raises(ValueError, match=r"root=.*, which has mine; prepare it \(mancs prepare-data .* --name=other "):
        arrays.check_dataset("other", tmp_path)
    arrays.check_dataset("walkers", tmp_path)  # known, prepared or not
