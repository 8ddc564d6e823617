"""Boxes of a frame: the arithmetic on literal boxes, and the embeddings of crops."""

import numpy as np
import pytest
from PIL import Image
from tiny_workdir import WIDTH, write_workdir

import mancs_jax
from mancs_jax.data.boxes import checked_boxes, cut, to_pixels

FRAME = (60, 100)  # height, width
FRAME_IMAGE = np.random.default_rng(0).integers(0, 256, (*FRAME, 3), np.uint8)


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ([10, 20, 30, 50], [10, 20, 30, 50]),
        ([10.4, 19.6, 30.49, 49.5], [10, 20, 30, 50]),  # to the nearest edge of a pixel
        ([0.5, 1.5, 2.5, 3.5], [1, 2, 3, 4]),  # from a middle to the right, whether odd or even
        ([-5, -9.7, 30, 50], [0, 0, 30, 50]),  # cut off
        ([90, 50, 1e300, 61], [90, 50, 100, 60]),
        ([-1, -1, 101, 61], [0, 0, 100, 60]),
        ([99.4, 59.4, 99.6, 59.6], [99, 59, 100, 60]),  # one pixel
    ],
)
def test_boxes_become_pixels(box, pixels):
    found, faults = to_pixels(checked_boxes([box]), FRAME)
    assert found.tolist() == [pixels] and found.dtype == np.int64 and faults == [""]


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ([np.nan, 0, 5, 5], "has NaN or infinite values"),
        ([0, 0, np.inf, 5], "has NaN or infinite values"),
        ([5, 5, 5, 9], "has no area or is reversed"),
        ([30, 20, 10, 50], "has no area or is reversed"),
        ([10, 50, 30, 20], "has no area or is reversed"),
        ([100, 0, 120, 5], "lies outside the frame"),
        ([0, -9, 5, 0], "lies outside the frame"),
        ([7.1, 7, 7.4, 9], "covers no pixel"),
        ([99.6, 7, 120, 9], "covers no pixel"),
    ],
)
def test_boxes_with_a_fault(box, fault):
    good = [1, 2, 3, 4]
    found, faults = to_pixels(checked_boxes([good, box, good]), FRAME)
    assert found.tolist() == [good, [0, 0, 0, 0], good] and faults == ["", fault, ""]


@pytest.mark.parametrize("boxes", [[[0.1, 0.2, 1.5, 0.9]], [[0, 0, 1, 1], [0, 0, 2, 2]], [[-9, -9, -1, -1]]])
def test_boxes_of_pixels_are_no_fractions(boxes):
    np.testing.assert_array_equal(checked_boxes(boxes), np.array(boxes, np.float64))


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4)), np.zeros((0,), np.int32)])
def test_no_boxes(boxes):
    found, faults = to_pixels(checked_boxes(boxes), FRAME)
    assert found.shape == (0, 4) and faults == [] and cut(FRAME_IMAGE, found) == []


@pytest.mark.parametrize(
    ("boxes", "line"),
    [
        ([1, 2, 3, 4], r"boxes are int64 \[4\]: boxes are \[N, 4\], x1, y1, x2, y2 in pixels"),
        ([[1, 2, 3, 4, 5]], r"boxes are int64 \[1, 5\]: boxes are"),
        (np.zeros((3, 0)), r"boxes are float64 \[3, 0\]: boxes are"),
        ([[1, 2, 3, 4], [1, 2]], "boxes have rows of several lengths: boxes are"),
        ([["a", "b", "c", "d"]], r"boxes are <U1 \[1, 4\]: boxes are"),
        (np.zeros((2, 4), bool), r"boxes are bool \[2, 4\]: boxes are"),
        ([[None] * 4], r"boxes are object \[1, 4\]: boxes are"),
        (np.zeros((0, 3, 4)), r"boxes are float64 \[0, 3, 4\]: boxes are"),
        ([[0.1, 0.2, 0.5, 1.0]], r"boxes are fractions of the frame, all within \[0, 1\]: .*; multiply x by the width"),
        ([[0, 0, 1, 1], [0.2, 0.2, 0.4, 0.8]], "boxes are fractions"),
        ([[-0.01, 0.2, 0.4, 0.8], [np.nan] * 4], "boxes are fractions"),  # a little outside
    ],
)
def test_what_are_no_boxes(boxes, line):
    with pytest.raises(ValueError, match=f"^{line}"):
        checked_boxes(boxes)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    write_workdir(path)
    return mancs_jax.load(path, batch=8)


def assert_same(found, expected):
    assert found.dtype == np.float32 and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


BOXES = [[10.2, 5.0, 40, 55.4], [-3, -3, 20, 70], [60, 0, 61, 60], [40, 20, 72, 52]]  # the first is cut, one is narrow
PIXELS = [(10, 5, 40, 55), (0, 0, 20, 60), (60, 0, 61, 60), (40, 20, 72, 52)]


def test_a_box_gives_what_its_crop_gives_in_every_form(embedder, tmp_path):
    crops = [FRAME_IMAGE[y1:y2, x1:x2].copy() for x1, y1, x2, y2 in PIXELS]
    expected = embedder(crops)
    assert expected.std(axis=0).max() > 0.05  # the crops do differ
    files = [tmp_path / f"{number}.png" for number in range(len(crops))]
    for file, crop in zip(files, crops, strict=True):
        Image.fromarray(crop).save(file)
    assert_same(embedder(files), expected)
    assert_same(embedder([Image.fromarray(crop) for crop in crops]), expected)
    assert_same(np.concatenate([embedder(crop) for crop in crops]), expected)  # one at a time
    frame = tmp_path / "frame.png"
    Image.fromarray(FRAME_IMAGE).save(frame)
    mirrored = np.ascontiguousarray(FRAME_IMAGE[:, ::-1])[:, ::-1]
    for form in (FRAME_IMAGE, frame, str(frame), Image.open(frame), mirrored):
        assert_same(embedder(form, boxes=BOXES), expected)
        assert_same(embedder(form, np.float32(BOXES)), expected)
    assert_same(embedder(FRAME_IMAGE, boxes=PIXELS * 5), np.tile(expected, (5, 1)))  # more than a batch
    assert embedder(FRAME_IMAGE, boxes=[]).shape == (0, WIDTH)


def test_bad_boxes(embedder):
    boxes = [*BOXES[:2], [30, 20, 10, 50], BOXES[3], [200, 0, 210, 9]]
    line = (
        r"^box 2 has no area or is reversed: \[30\.0, 20\.0, 10\.0, 50\.0\] in a frame of 100 x 60; boxes are "
        r"\[N, 4\], x1, y1, x2, y2 in pixels; bad_boxes='zeros' gives it zeros$"
    )
    with pytest.raises(ValueError, match=line):
        embedder(FRAME_IMAGE, boxes=boxes)
    found = embedder(FRAME_IMAGE, boxes=boxes, bad_boxes="zeros")
    assert_same(found[[0, 1, 3]], embedder(FRAME_IMAGE, boxes=[BOXES[i] for i in (0, 1, 3)]))
    assert (found[[2, 4]] == 0).all() and (np.abs(found[[0, 1, 3]]).max(axis=1) > 0).all()
    assert (embedder(FRAME_IMAGE, boxes=boxes[2:3], bad_boxes="zeros") == np.zeros((1, WIDTH))).all()
    with pytest.raises(ValueError, match="^bad_boxes is 'skip': it may be 'error' or 'zeros'$"):
        embedder(FRAME_IMAGE, boxes=BOXES, bad_boxes="skip")


@pytest.mark.parametrize(
    ("frame", "line"),
    [
        ("nowhere.jpg", "nowhere.jpg: no such file"),
        ([FRAME_IMAGE], "boxes go with one frame, not with list: give a path"),
        (np.stack([FRAME_IMAGE] * 2), r"the frame is uint8 \[2, 60, 100, 3\]: it has to be uint8 \[height, width, 3\]"),
        (np.zeros((4, 4)), r"the frame is float64 \[4, 4\]: it has to be uint8"),
        (7, "boxes go with one frame, not with int"),
        (Image.new("F", (4, 4)), "the frame is a PIL image of mode F: convert it"),
    ],
)
def test_what_is_no_frame(embedder, frame, line):
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=f"^{line}"):
        embedder(frame, boxes=[[0, 0, 2, 2]])
