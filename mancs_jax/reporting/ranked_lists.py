"""Drawings of ranked lists, as in figure 5 of the paper: the query, then the gallery images nearest to it."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np

from mancs_jax.common.atomic_write import write_bytes
from mancs_jax.common.screen import encodable, escaped
from mancs_jax.data.arrays import Split
from mancs_jax.data.cameras import each_its_own
from mancs_jax.evaluation.ranking import Found

RIGHT, WRONG, QUERY, PAPER, INK = (46, 160, 67), (207, 34, 46), (110, 119, 129), (255, 255, 255), (60, 66, 72)  # RGB
BORDER, GAP = 3, 4  # pixels
LINE, LETTER, FONT_SIZE = 13, 6.5, 0.35  # of a caption: pixels from line to line and of a letter, OpenCV's measure
LEAST_WIDTH = 64  # pixels of an image, for its caption to fit
MOST_PIXELS = {".png": 1_000_000, ".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}  # of a side, in libraries of OpenCV
HEAT = cv2.COLORMAP_TURBO


def ranked_lists(
    query: Split,
    gallery: Split,
    nearest: Found,
    rows: Sequence[int],
    people: Mapping[int, str] = MappingProxyType({}),
    cameras: Mapping[int, str] = MappingProxyType({}),
) -> np.ndarray:
    """Draws a row of images for each query of `rows`: the query, then its results, nearest first.

    Correct results have a green border, wrong ones a red one. Below each image: person and camera, "D" for a
    distractor, "=" where the camera is the query's own, and the distance. Cameras are left out where each image is its
    own. `people` and `cameras` map pid and camid to names, where they are not numbers. Returns uint8 [height, width,
    3], RGB.
    """
    lines, has_cameras = [], not each_its_own(query.camid, gallery.camid)

    def words(pid: int, camid: int) -> str:
        camera = cameras.get(camid, str(camid)) if has_cameras else ""
        return captioned("D" if pid == 0 else people.get(pid, str(pid)), camera)

    for row in rows:
        pid, camid = query.pid[row], query.camid[row]
        cells = [framed(query.image[row], QUERY, [words(int(pid), int(camid)), "query"])]
        for i, distance in zip(nearest.index[row], nearest.distance[row], strict=True):
            if i < 0:
                continue
            who = words(int(gallery.pid[i]), int(gallery.camid[i]))
            own = " =" if has_cameras and gallery.camid[i] == camid else ""
            colour = RIGHT if gallery.pid[i] == pid else WRONG
            cells.append(framed(gallery.image[i], colour, [f"{who}{own}", f"{distance:.3g}"]))
        lines.append(joined(cells, axis=1))
    return joined(lines, axis=0)


def mask_picture(image: np.ndarray, masks: dict[int, np.ndarray]) -> np.ndarray:
    """Draws a line for each image: the image, then the mask of each stage over it, from least (blue) to largest (red).

    `image` is uint8 [N, H, W, 3], RGB; `masks` maps stages to float [N, h, w]. Returns uint8 [height, width, 3], RGB.
    """
    lines = []
    for i, picture in enumerate(image):
        cells = [framed(picture, QUERY, [""])]
        for stage, stage_masks in masks.items():
            mask = stage_masks[i]
            scaled = (mask - mask.min()) / max(mask.max() - mask.min(), 1e-12)
            large = cv2.resize((255 * scaled).astype(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_CUBIC)
            heat = cv2.applyColorMap(large, HEAT)[:, :, ::-1]
            over = cv2.addWeighted(picture, 0.4, np.ascontiguousarray(heat), 0.6, 0)
            cells.append(framed(over, QUERY, [f"conv-{stage}"]))
        lines.append(joined(cells, axis=1))
    return joined(lines, axis=0)


def captioned(person: str, camera: str) -> str:
    """A person and a camera in the words of a caption: "7 c2" for numbers, "anna, door-2" for names."""
    if not camera:
        return person
    return f"{person} c{camera}" if camera.isdecimal() else f"{person}, {camera}"


def framed(image: np.ndarray, colour: tuple[int, int, int], captions: Sequence[str]) -> np.ndarray:
    """An image, at least LEAST_WIDTH wide, with a border and lines of text below it, which wrap; uint8 [H, W, 3] RGB.

    OpenCV's fonts are ASCII: other letters are escaped.
    """
    height, width = image.shape[:2]
    if width < LEAST_WIDTH:
        image = cv2.resize(image, (LEAST_WIDTH, height * LEAST_WIDTH // width), interpolation=cv2.INTER_LINEAR)
    cell = cv2.copyMakeBorder(image, *(BORDER,) * 4, cv2.BORDER_CONSTANT, value=colour)
    letters = int((cell.shape[1] - BORDER) / LETTER)
    lines = [
        line for text in captions for line in textwrap.wrap(encodable(escaped(text), "ascii"), letters) or [""]
    ]  # OpenCV crashes at some letters that are not ASCII
    cell = _padded(cell, ((0, LINE * len(lines) + GAP), (0, 0)))
    for number, text in enumerate(reversed(lines)):
        at = (BORDER, cell.shape[0] - GAP - LINE * number)
        cv2.putText(cell, text, at, cv2.FONT_HERSHEY_SIMPLEX, FONT_SIZE, INK, 1, cv2.LINE_AA)
    return cell


def joined(parts: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """Images side by side (axis 1) or one below the other (axis 0), GAP pixels apart; the other side may differ."""
    across = 1 - axis
    longest = max(part.shape[across] for part in parts)
    padded = []
    for number, part in enumerate(parts):
        pad = [(0, 0), (0, 0)]
        pad[axis], pad[across] = (GAP if number else 0, 0), (0, longest - part.shape[across])
        padded.append(_padded(part, pad))
    return np.concatenate(padded, axis=axis)


def write_picture(path: Path, image: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] RGB as a picture, atomically; the directory is made.

    Raises ValueError, one line, where its format holds no picture of this size, and OSError.
    """
    kind = path.suffix.lower()
    height, width = image.shape[:2]
    most = MOST_PIXELS.get(kind)
    if most and max(height, width) > most:  # OpenCV would say so on stderr, in lines of its own
        larger = ", ".join(other for other, limit in MOST_PIXELS.items() if limit >= max(height, width))
        way = f"take {larger}" if larger else "draw fewer images"
        raise ValueError(
            f"{path}: the picture has {width:,} x {height:,} pixels, and {kind} holds {most:,} a side: {way}"
        )
    is_encoded, encoded = cv2.imencode(kind, image[:, :, ::-1])
    if not is_encoded:
        raise OSError(f"{path} could not be written")
    write_bytes(path, encoded.tobytes())


def _padded(image, pad):
    (top, bottom), (left, right) = pad
    return cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=PAPER)
