"""Tracks as a video with their boxes drawn into it, and as crops, one folder for all."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from mot import Tracks
from video import Frames

from mancs_jax.common.atomic_write import atomic_write, write_bytes
from mancs_jax.data.boxes import cut, to_pixels

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
CROPS = 8  # of a track, at most
QUALITY = 95  # of their JPEG files


def write_video(path: Path, frames: Frames, tracks: Tracks) -> int:
    """Writes the frames with the boxes of the tracks, each in a colour of its own, and returns their number.

    Raises:
      ValueError: one line: frames differ in size, or OpenCV cannot write such a video.
    """
    drawn = 0
    with atomic_write(path) as temporary:
        # OpenCV chooses the format by the ending of the name.
        named, writer, size = temporary.with_name(f"{temporary.name}{path.suffix}"), None, None
        try:
            for image in _drawn(frames, tracks):
                if writer is None:
                    size = image.shape[1::-1]
                    codec = cv2.VideoWriter.fourcc(*CODECS[path.suffix.lower()])
                    writer = cv2.VideoWriter(str(named), codec, frames.rate, size)
                    if not writer.isOpened():
                        raise ValueError(f"{path}: this OpenCV writes no such video; try {', '.join(CODECS)}")
                if image.shape[1::-1] != size:
                    raise ValueError(f"{frames.source}: its frames differ in size, so they make no video")
                writer.write(image)
                drawn += 1
        finally:
            if writer is not None:
                writer.release()
            if named.exists():
                named.replace(temporary)
    return drawn


def _drawn(frames: Frames, tracks: Tracks) -> Iterator[np.ndarray]:
    for number, image in frames.read(None):
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        rows = np.flatnonzero(tracks.frame == number)
        for track, (x1, y1, x2, y2) in zip(tracks.number[rows].tolist(), tracks.box[rows].round().astype(int).tolist()):
            colour = colour_of(track)
            cv2.rectangle(image, (x1, y1), (x2, y2), colour, 2)
            cv2.putText(image, str(track), (x1, max(y1 - 4, 12)), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 2, cv2.LINE_AA)
        yield image


def colour_of(track: int) -> tuple[int, int, int]:
    """Blue, green and red of a track; tracks that follow each other differ."""
    hue = np.uint8([[[track * 67 % 180, 220, 255]]])
    blue, green, red = cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return blue, green, red


def write_crops(folder: Path, frames: Frames, tracks: Tracks, camera: int) -> int:
    """Writes crops of each track, spread over it, as TRACK_cCAMERA_FRAME.jpg, and returns their number.

    `mancs embed` reads the track as the person, since names begin like those of Market-1501.
    """
    chosen = np.concatenate([np.zeros(0, int), *map(_spread, map(np.flatnonzero, _masks(tracks)))])
    number = 0
    for frame, image in frames.read(set(tracks.frame[chosen].tolist())):
        rows = chosen[tracks.frame[chosen] == frame]
        corners, faults = to_pixels(tracks.box[rows], image.shape[:2])
        is_good = np.array([not fault for fault in faults], bool)
        for row, crop in zip(rows[is_good].tolist(), cut(image, corners[is_good]), strict=True):
            _, encoded = cv2.imencode(".jpg", crop[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
            write_bytes(folder / f"{tracks.number[row]:04d}_c{camera}_{frame:06d}.jpg", encoded.tobytes())
            number += 1
    return number


def _masks(tracks: Tracks) -> list[np.ndarray]:
    return [tracks.number == number for number in np.unique(tracks.number)]


def _spread(rows: np.ndarray) -> np.ndarray:
    return rows[np.unique(np.linspace(0, len(rows) - 1, CROPS).round().astype(int))]
