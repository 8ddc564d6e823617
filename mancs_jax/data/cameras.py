"""Data without cameras: each image counts as its own camera, so nothing is left out as a query's own view."""

from collections.abc import Iterable

import numpy as np

UNKNOWN = "no cameras are known: every image is its own camera, so the scores include images of one view"


def each_its_own(*camid: np.ndarray) -> bool:
    """Tells if no two images, over all the parts [N] that are given, share a camera; one image alone does not tell."""
    together = np.concatenate(camid)
    return len(together) > 1 and len(np.unique(together)) == len(together)


def has_match(query: Iterable[tuple[int, int]], gallery: Iterable[tuple[int, int]]) -> bool:
    """Tells if a query has its person under another camera in the gallery: without such a query all scores are 0.

    Args:
      query: (pid, camid) of each image.
      gallery: likewise.
    """
    cameras: dict[int, set[int]] = {}
    for pid, camid in gallery:
        cameras.setdefault(pid, set()).add(camid)
    return any(pid > 0 and cameras.get(pid, set()) - {camid} for pid, camid in query)
