"""The frames of a video file or of a folder of images, one after the other."""

import re
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mancs_jax.data.images import decode_image
from mancs_jax.inference.gallery import find_images

FRAMES_A_SECOND = 10.0  # of a folder, whose images do not tell


class Frames(NamedTuple):
    """Frames that can be read again and again."""

    source: Path
    rate: float  # frames a second
    numbers: Collection[int]  # of the frames, from 1 in a video
    read: Callable[[Collection[int] | None], Iterator[tuple[int, np.ndarray]]]
    # numbers, None for all -> (number; uint8 [H, W, 3], RGB) of each, in their order


def open_frames(source: Path) -> Frames:
    """Opens a folder of images, whose names end in the numbers of the frames, or a video file that OpenCV reads.

    Raises:
      FileNotFoundError: there is nothing.
      ValueError: one line: no images, names without numbers, or no video.
    """
    if source.is_dir():
        files = numbered_frames(source)

        def read_files(wanted: Collection[int] | None = None) -> Iterator[tuple[int, np.ndarray]]:
            for number in sorted(files if wanted is None else set(wanted) & set(files)):
                yield number, decode_image(files[number].read_bytes(), None, str(files[number]))

        return Frames(source, FRAMES_A_SECOND, files, read_files)
    if not source.is_file():
        raise FileNotFoundError(f"{source}: no such video or folder of frames")
    capture = cv2.VideoCapture(str(source))
    has_frame, _ = capture.read()
    rate, length = capture.get(cv2.CAP_PROP_FPS), round(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    if not has_frame:
        raise ValueError(f"{source}: no video that OpenCV reads; take its frames as files, as with ffmpeg")
    rate = rate if 0 < rate < 1000 else FRAMES_A_SECOND
    numbers = range(1, length + 1) if length > 0 else range(1, 2**31)  # some files do not tell
    return Frames(source, rate, numbers, partial(_read_video, source))


def _read_video(source: Path, wanted: Collection[int] | None) -> Iterator[tuple[int, np.ndarray]]:
    capture, number = cv2.VideoCapture(str(source)), 0
    last = None if wanted is None else max(wanted, default=0)
    try:
        while last is None or number < last:
            has_frame, image = capture.read()
            if not has_frame:
                return
            number += 1
            if wanted is None or number in wanted:
                yield number, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()


def numbered_frames(folder: Path) -> dict[int, Path]:
    """Frame number -> file, by the last number in each name."""
    names, _ = find_images(folder)
    found: dict[int, Path] = {}
    for name in names:
        digits = re.findall(r"\d+", Path(name).stem)
        if not digits:
            raise ValueError(f"{folder}: {name} has no number; names of frames end in theirs, as 000001.jpg")
        if (number := int(digits[-1])) in found:
            raise ValueError(f"{folder}: {name} and {found[number].name} are both frame {number}")
        found[number] = folder / name
    return found
