"""Pictures of ranked lists: the right images in the right order under the right borders."""

import cv2
import numpy as np
import pytest

from mancs_jax.data.arrays import Split
from mancs_jax.evaluation.ranking import Found
from mancs_jax.reporting.ranked_lists import (
    BORDER,
    GAP,
    LEAST_WIDTH,
    LINE,
    PAPER,
    QUERY,
    RIGHT,
    WRONG,
    mask_picture,
    ranked_lists,
    write_picture,
)

pytestmark = pytest.mark.quick


def split(pids, camids, greys):
    image = np.broadcast_to(np.array(greys, np.uint8)[:, None, None, None], (len(pids), 128, LEAST_WIDTH, 3))
    return Split(image, np.array(pids, np.int32), np.array(camids, np.int32), np.array([str(g) for g in greys]))


def test_order_and_borders(tmp_path):
    query, gallery = split([5, 6], [1, 1], [10, 20]), split([5, 0, 6], [2, 2, 1], [100, 110, 120])
    answers = Found(np.array([[1, 0, 2], [2, -1, -1]]), np.float32([[0.1, 0.2, 0.3], [0.4, np.inf, np.inf]]))
    picture = ranked_lists(query, gallery, answers, [0, 1])
    across, down = LEAST_WIDTH + 2 * BORDER + GAP, 128 + 2 * BORDER + 2 * LINE + GAP + GAP
    assert picture.shape == (2 * down - GAP, 4 * across - GAP, 3)
    greys = [[picture[row * down + BORDER, column * across + BORDER, 0] for column in range(4)] for row in range(2)]
    borders = [[tuple(picture[row * down, column * across].tolist()) for column in range(4)] for row in range(2)]
    assert greys == [[10, 110, 100, 120], [20, 120, PAPER[0], PAPER[0]]]
    assert borders == [[QUERY, WRONG, RIGHT, WRONG], [QUERY, RIGHT, PAPER, PAPER]]
    captions = picture[128 + 2 * BORDER : down - GAP]
    assert (captions[:, :across] < 200).any() and (captions[:, 3 * across :] < 200).any()  # text
    write_picture(tmp_path / "a" / "b.png", picture)
    assert (cv2.imread(str(tmp_path / "a" / "b.png"))[:, :, ::-1] == picture).all()


@pytest.mark.parametrize(
    ("name", "side", "line"),
    [
        ("a.jpg", 70_000, r"70,000 x 1 pixels, and \.jpg holds 65,500 a side: take \.png$"),
        ("a.WEBP", 20_000, r"20,000 x 1 pixels, and \.webp holds 16,383 a side: take \.png, \.jpg, \.jpeg$"),
        ("a.png", 1_000_001, r"1,000,001 x 1 pixels, and \.png holds 1,000,000 a side: draw fewer images$"),
    ],
)
def test_a_picture_too_large_for_its_format(tmp_path, capfd, name, side, line):
    with pytest.raises(ValueError, match=line):
        write_picture(tmp_path / name, np.zeros((1, side, 3), np.uint8))
    assert capfd.readouterr() == ("", "") and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "side"), [("a.jpg", 65_500), ("a.webp", 16_383), ("a.png", 70_000)])
def test_a_picture_of_the_largest_size_is_written(tmp_path, name, side):
    write_picture(tmp_path / name, np.zeros((1, side, 3), np.uint8))
    assert cv2.imread(str(tmp_path / name)).shape == (1, side, 3)


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    write_picture(tmp_path / "a.png", np.zeros((1, 2, 3), np.uint8))
    before = (tmp_path / "a.png").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_picture(tmp_path / "a.png", np.ones((9, 9, 3), np.uint8))
    assert (tmp_path / "a.png").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_masks_lie_over_their_image():
    image = np.full((2, 128, LEAST_WIDTH, 3), 100, np.uint8)
    bottom = np.repeat([[0.0, 0.0], [1.0, 1.0]], 2, axis=0)
    picture = mask_picture(image, {2: np.stack([bottom, bottom[::-1]]), 3: np.full((2, 2, 2), 0.3)})
    across, down = LEAST_WIDTH + 2 * BORDER + GAP, 128 + 2 * BORDER + LINE + GAP + GAP
    middle = across + across // 2
    top, low = picture[BORDER + 5, middle].astype(int), picture[BORDER + 122, middle].astype(int)
    assert low[0] > top[0]  # red where the mask is large
    second_top, second_low = picture[down + BORDER + 5, middle], picture[down + BORDER + 122, middle]
    assert (second_top == low).all() and (second_low == top).all()
