"""Pictures of ranked lists, as in figure 5 of the paper: the query, then the gallery images nearest to it."""

from pathlib import Path

import cv2
import numpy as np

from mancs_jax.data.arrays import Split

RIGHT, WRONG, QUERY, PAPER = (46, 160, 67), (207, 34, 46), (110, 119, 129), (255, 255, 255)  # RGB
BORDER, GAP = 3, 4  # pixels


def ranked_lists(
    query: Split,
    gallery: Split,
    query_embedding: np.ndarray,
    gallery_embedding: np.ndarray,
    rows: np.ndarray,
    depth: int = 10,
) -> np.ndarray:
    """Draws a line of pictures for each of some queries: the query, then the `depth` nearest gallery images that count.

    What the official evaluation leaves out (junk, the query's own person under the query's own camera) is left out
    here. Right answers have a green border, wrong ones a red one.

    Args:
      query: the queries.
      gallery: the gallery.
      query_embedding: float32 [Q, D].
      gallery_embedding: float32 [G, D].
      rows: indices of the queries to draw.
      depth: answers to a query.

    Returns:
      uint8 [height, width, 3], RGB.
    """
    lines = []
    for row in rows:
        pid, camid = query.pid[row], query.camid[row]
        counts = np.flatnonzero((gallery.pid != -1) & ((gallery.pid != pid) | (gallery.camid != camid)))
        squared = np.sum((gallery_embedding[counts] - query_embedding[row]) ** 2, axis=1)
        nearest = counts[np.argsort(squared, kind="stable")[:depth]]
        answers = [_framed(gallery.image[i], RIGHT if gallery.pid[i] == pid else WRONG) for i in nearest]
        lines.append(_joined([_framed(query.image[row], QUERY), *answers], axis=1))
    return _joined(lines, axis=0)


def write_picture(path: Path, image: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] RGB as a picture; the directory is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image[:, :, ::-1]):
        raise OSError(f"{path} could not be written")


def _framed(image, colour):
    return cv2.copyMakeBorder(image, *(BORDER,) * 4, cv2.BORDER_CONSTANT, value=colour)


def _joined(parts, axis):
    pad = [(GAP, 0) if i == axis else (0, 0) for i in range(2)]

    def padded(part):
        return np.stack([np.pad(part[:, :, c], pad, constant_values=PAPER[c]) for c in range(3)], axis=2)

    return np.concatenate([parts[0], *(padded(part) for part in parts[1:])], axis=axis)
