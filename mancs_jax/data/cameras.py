"""Data without cameras: each image counts as its own camera, so nothing is left out as a query's own view."""

import numpy as np

UNKNOWN = "no cameras are known: every image is its own camera, so the scores include images of one view"


def each_its_own(*camid: np.ndarray) -> bool:
    """Tells if no two images, over all the parts [N] that are given, share a camera; one image alone does not tell."""
    together = np.concatenate(camid)
    return len(together) > 1 and len(np.unique(together)) == len(together)
