"""Data without cameras: each image is its own camera, so that no image is ignored as a query's own view."""

from collections.abc import Iterable

import numpy as np

UNKNOWN = "no cameras are known: every image is its own camera, so the scores include images of one view"


def each_its_own(*camid: np.ndarray) -> bool:
    """Returns whether no two images of all parts [N] share a camera; False for fewer than two images."""
    together = np.concatenate(camid)
    return len(together) > 1 and len(np.unique(together)) == len(together)


def has_match(query: Iterable[tuple[int, int]], gallery: Iterable[tuple[int, int]]) -> bool:
    """Returns whether any query has a match under another camera; without one all scores are 0.

    `query` and `gallery` are (pid, camid) of each image.
    """
    cameras: dict[int, set[int]] = {}
    for pid, camid in gallery:
        cameras.setdefault(pid, set()).add(camid)
    return any(pid > 0 and cameras.get(pid, set()) - {camid} for pid, camid in query)
