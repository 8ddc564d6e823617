"""Boxes in an image: x1, y1, x2, y2 in pixels, as detectors and trackers return them.

The upper left corner of the image is (0, 0). A box has the pixels from x1 up to, but not including, x2; likewise for y.
"""

from typing import Any

import numpy as np

FORM = "boxes are [N, 4], x1, y1, x2, y2 in pixels"
FRACTIONS = "multiply x by the width and y by the height of the frame"


def checked_boxes(boxes: Any) -> np.ndarray:
    """Returns boxes as float64 [N, 4], none for an empty list.

    Raises ValueError, one line, for other shapes and types, and for fractions of the frame.
    """
    try:
        array = np.asarray(boxes)
    except ValueError:  # rows of several lengths
        raise ValueError(f"boxes have rows of several lengths: {FORM}") from None
    if array.shape in ((0,), (1, 0), (0, 4)):  # no box, as [], [[]], or an empty slice
        return np.zeros((0, 4))
    if array.dtype.kind not in "iuf" or array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"boxes are {array.dtype} {list(array.shape)}: {FORM}")
    if are_fractions(array):
        raise ValueError(f"boxes are fractions of the frame, all within [0, 1]: {FORM}; {FRACTIONS}")
    return array.astype(np.float64)


def are_fractions(boxes: np.ndarray) -> bool:
    """Returns whether no box of [N, 4] reaches beyond the first pixel; fractions may be slightly outside of [0, 1]."""
    known = boxes[np.isfinite(boxes).all(axis=1)]
    return len(known) > 0 and bool(known.max() <= 1 and known.min() > -1)


def to_pixels(boxes: np.ndarray, frame_size: tuple[int, int]) -> tuple[np.ndarray, list[str]]:
    """Rounds boxes, float64 [N, 4], to whole pixels and clips them to the frame, (height, width).

    Corners are rounded to the nearest edge of a pixel, halves to the right or down. Returns int64 [N, 4], and the fault
    of each box, "" for none; a box with a fault is [0, 0, 0, 0].
    """
    height, width = frame_size
    limits = np.array([width, height, width, height], np.float64)
    finite = np.isfinite(boxes).all(axis=1)
    known = np.where(finite[:, None], boxes, 0)
    is_forward = (known[:, 2:] > known[:, :2]).all(axis=1)
    meets = (known[:, :2] < limits[:2]).all(axis=1) & (known[:, 2:] > 0).all(axis=1)
    pixels = np.floor(np.clip(known, 0, limits) + 0.5).astype(np.int64)
    has_pixels = (pixels[:, 2:] > pixels[:, :2]).all(axis=1)
    faults = np.select(
        [~finite, ~is_forward, ~meets, ~has_pixels],
        ["has NaN or infinite values", "has no area or is reversed", "lies outside the frame", "covers no pixel"],
        default="",
    )
    return np.where((faults == "")[:, None], pixels, 0), faults.tolist()


def cut(frame: np.ndarray, pixels: np.ndarray) -> list[np.ndarray]:
    """Crops uint8 [H, W, 3] to boxes int [N, 4] of `to_pixels`; the crops are views of the frame."""
    return [frame[y1:y2, x1:x2] for x1, y1, x2, y2 in pixels.tolist()]
