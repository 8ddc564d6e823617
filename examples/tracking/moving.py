"""People as what moves before a camera that stands still: background subtraction (MOG2, Zivkovic, ICPR 2004) of OpenCV.

It needs no model and no download. Everything tall that moves counts as a person, people who hide each other are one
box, and who stands still becomes background. A detector of people finds far more: take its boxes where you can.
(OpenCV's own people detector, a histogram of gradients with an SVM, is no longer part of OpenCV 5.)
"""

from collections.abc import Iterator

import cv2
import numpy as np
from mot import Tracks
from video import Frames

from mancs_jax.common.screen import bar

HEIGHT = 360  # pixels, to which frames are scaled
LEARNED = 60  # frames, spread over the video, that the background is learned from first
CLOSED, OPENED = (5, 25), (3, 5)  # width and height in pixels of gaps that are filled, and of specks that are removed
LEAST_HEIGHT = 0.12  # of a person, as a share of the frame's
TALLER = 1.2  # height of a person by the width, at least
FOREGROUND = 255  # of a mask; shadows have another value


def detect_all(frames: Frames) -> Tracks:
    """Finds what moves in all frames.

    Returns:
      Boxes with the share of each that is foreground as its confidence.

    Raises:
      ValueError: one line: nothing moves.
    """
    subtractor = cv2.createBackgroundSubtractorMOG2(detectShadows=True)
    numbers = [number for number, _ in _scaled(frames)]
    step = max(len(numbers) // LEARNED, 1)
    for _, image in _scaled(frames, numbers[::step]):
        subtractor.apply(image)
    number, boxes, shares = [], [np.zeros((0, 4))], [np.zeros(0)]
    for frame, image in bar(_scaled(frames), desc="detecting", unit="frame", total=len(numbers), delay=2):
        box, share = _boxes(subtractor.apply(image))
        number += [frame] * len(box)
        boxes.append(box)
        shares.append(share)
    if not number:
        raise ValueError(
            f"{frames.source}: nothing as tall as a person moves in it; give the boxes of a detector as "
            "--detections=FILE, which a camera that moves needs in any case"
        )
    first = next(image for _, image in frames.read(numbers[:1]))
    box = np.concatenate(boxes) * (len(first) / HEIGHT)
    return Tracks(np.array(number), np.full(len(number), -1), box, np.concatenate(shares))


def _scaled(frames: Frames, numbers: list[int] | None = None) -> Iterator[tuple[int, np.ndarray]]:
    for number, image in frames.read(numbers):
        scale = HEIGHT / len(image)
        yield number, cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _boxes(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(float64 [N, 4], x1, y1, x2, y2; shares of foreground, float64 [N]) of a mask, uint8 [H, W]."""
    moving = np.where(mask == FOREGROUND, FOREGROUND, 0).astype(np.uint8)
    cleaned = cv2.morphologyEx(moving, cv2.MORPH_OPEN, np.ones(OPENED[::-1], np.uint8))
    whole = cv2.morphologyEx(cleaned, cv2.MORPH_CLOSE, np.ones(CLOSED[::-1], np.uint8))
    _, _, found, _ = cv2.connectedComponentsWithStats(whole)
    x, y, width, height, area = found[1:].astype(np.float64).T  # the first one is the background
    kept = (height >= LEAST_HEIGHT * len(mask)) & (height >= TALLER * width)
    box = np.stack([x, y, x + width, y + height], axis=1)
    return box[kept], (area / (width * height))[kept]
