"""Ranked lists: the right pictures in the right order under the right borders."""

import cv2
import numpy as np

from mancs_jax.data.arrays import Split
from mancs_jax.reporting.ranked_lists import BORDER, GAP, QUERY, RIGHT, WRONG, ranked_lists, write_picture


def split(pids, camids, greys):
    image = np.broadcast_to(np.array(greys, np.uint8)[:, None, None, None], (len(pids), 8, 4, 3))
    return Split(image, np.array(pids, np.int32), np.array(camids, np.int32), np.array([str(g) for g in greys]))


def test_order_borders_and_what_is_left_out(tmp_path):
    query = split([5, 6], [1, 1], [10, 20])
    # Nearest to query 0: its own camera and junk (left out), a distractor (wrong), then 130 (right), 140 (wrong).
    gallery = split([5, -1, 0, 5, 6], [1, 2, 2, 2, 2], [100, 110, 120, 130, 140])
    gallery_embedding = np.array([[0.0], [0.1], [0.2], [0.3], [0.4]], np.float32)
    picture = ranked_lists(query, gallery, np.array([[0.0], [9.0]], np.float32), gallery_embedding, [0], depth=3)
    step = 4 + 2 * BORDER + GAP
    assert picture.shape == (8 + 2 * BORDER, 4 * step - GAP, 3)
    greys = [picture[BORDER, column * step + BORDER, 0] for column in range(4)]
    borders = [tuple(picture[0, column * step].tolist()) for column in range(4)]
    assert greys == [10, 120, 130, 140]
    assert borders == [QUERY, WRONG, RIGHT, WRONG]
    write_picture(tmp_path / "a" / "b.png", picture)
    assert (cv2.imread(str(tmp_path / "a" / "b.png"))[:, :, ::-1] == picture).all()
