"""OpenCV's people detector: histograms of oriented gradients and a linear SVM (Dalal and Triggs, CVPR 2005).

It is part of OpenCV and downloads nothing. It finds people who stand or walk and are in full view, from about 100
pixels of height on. Modern detectors find many more: take their boxes where you can.
"""

import cv2
import numpy as np
from mot import Tracks
from video import Frames

from mancs_jax.common.screen import bar

HEIGHT = 480  # pixels, to which frames are scaled for the detector
STRIDE, SCALE = (8, 8), 1.05  # of the windows: pixels from one to the next, and from one size to the next
LEAST_WEIGHT = 0.3  # of the SVM
OVERLAP = 0.45  # from which the weaker of two boxes is left out
MARGIN = (0.15, 0.05)  # of a window on each side, which is no person: shares of its width and height


def detect_people(image: np.ndarray, height: int = HEIGHT) -> tuple[np.ndarray, np.ndarray]:
    """Finds people.

    Args:
      image: uint8 [H, W, 3], RGB.
      height: to which the image is scaled, in pixels; a larger one finds smaller people and takes longer.

    Returns:
      (boxes, float64 [N, 4], x1, y1, x2, y2 in pixels; weights of the SVM, float64 [N]).
    """
    scale = height / len(image)
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None, fx=scale, fy=scale)
    if min(grey.shape[0] / 128, grey.shape[1] / 64) < 1:  # smaller than the detector's window
        return np.zeros((0, 4)), np.zeros(0)
    detector = cv2.HOGDescriptor()
    detector.setSVMDetector(cv2.HOGDescriptor.getDefaultPeopleDetector())  # type: ignore[arg-type]
    windows, weights = detector.detectMultiScale(grey, winStride=STRIDE, scale=SCALE, groupThreshold=0)
    weights = np.asarray(weights, np.float64).reshape(-1)
    windows = np.asarray(windows, np.float64).reshape(-1, 4)
    kept = np.asarray(cv2.dnn.NMSBoxes(windows.tolist(), weights.tolist(), LEAST_WEIGHT, OVERLAP), int).reshape(-1)
    place, sides = windows[kept, :2], windows[kept, 2:]
    margin = sides * MARGIN
    return np.concatenate([place + margin, place + sides - margin], axis=1) / scale, weights[kept]


def detect_all(frames: Frames, height: int = HEIGHT) -> Tracks:
    """Finds the people in all frames.

    Raises:
      ValueError: one line: nobody is found.
    """
    number, boxes, weights = [], [np.zeros((0, 4))], [np.zeros(0)]
    for frame, image in bar(frames.read(None), desc="detecting", unit="frame", delay=2):
        box, weight = detect_people(image, height)
        number += [frame] * len(box)
        boxes.append(box)
        weights.append(weight)
    if not number:
        raise ValueError(
            f"{frames.source}: OpenCV's people detector finds nobody: try --detector_height={2 * height}, or give the "
            "boxes of another detector as --detections=FILE"
        )
    return Tracks(np.array(number), np.full(len(number), -1), np.concatenate(boxes), np.concatenate(weights))
