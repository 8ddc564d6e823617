"""Checks of embeddings and labels before anything is computed: one line that says what is wrong, and where."""

import numpy as np
from numpy.typing import ArrayLike

DISTANCES = ("euclidean", "cosine")
# With squared norms between these bounds, no product or sum of them leaves the float32 range.
SMALLEST_SQUARED_NORM, LARGEST_SQUARED_NORM = 1e-36, 1e36


def checked(
    part: str, embedding: ArrayLike, pid: ArrayLike, camid: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings and labels of one part as NumPy arrays.

    Args:
      part: "query", "gallery", ..., for the error.
      embedding: float32 [N, D].
      pid: integer [N], -1 = junk, 0 = distractor.
      camid: integer [N].

    Returns:
      (embedding float32 [N, D], pid int32 [N], camid int32 [N]); no copy where the type is right.

    Raises:
      ValueError: one line: shape, dtype, length or pid are wrong, or every image is junk.
    """
    embedding = checked_embedding(part, embedding)
    return embedding, *checked_labels(part, pid, camid, len(embedding))


def checked_embedding(part: str, embedding: ArrayLike) -> np.ndarray:
    """Embeddings float32 [N, D] as a NumPy array; ValueError as `checked`."""
    embedding = np.asarray(embedding)
    shape = list(embedding.shape)
    if embedding.ndim != 2 or embedding.dtype != np.float32:
        kind = f"{embedding.dtype} {shape}"
        raise ValueError(f"{part} embeddings are {kind}: they must be float32 [images, width]")
    if embedding.size == 0:
        raise ValueError(f"{part} embeddings are empty, {shape}: there is nothing to rank")
    return embedding


def checked_labels(part: str, pid: ArrayLike, camid: ArrayLike, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of `number` images as int32 arrays; ValueError as `checked`."""
    labels = []
    for name, label in (("pids", np.asarray(pid)), ("camids", np.asarray(camid))):
        if label.dtype.kind not in "iu":
            raise ValueError(f"{part} {name} are {label.dtype}: they must be integers")
        if label.shape != (number,):
            raise ValueError(f"{part} {name} have shape {list(label.shape)}, but there are {number} {part} images")
        labels.append(label.astype(np.int32))
        if (labels[-1] != label).any():
            raise ValueError(f"{part} {name} do not fit int32: number them anew")
    pid, camid = labels
    if pid.min() < -1:
        raise ValueError(
            f"{part} image {pid.argmin()} has pid {pid.min()}: pids are -1 (junk), 0 (distractor) or above"
        )
    if (pid == -1).all():
        raise ValueError(f"every {part} image has pid -1 (junk): there is nothing to rank")
    return pid, camid


def check_known(query_pid: np.ndarray) -> None:
    """Raises ValueError where a query is not of a known person (pid below 1)."""
    if query_pid.min() < 1:
        raise ValueError(
            f"query {query_pid.argmin()} has pid {query_pid.min()}, which is no person: leave it out, or, if people "
            "are numbered from 0, add 1 to every pid above -1 of query and gallery"
        )


def common_offset(embedding: np.ndarray) -> np.ndarray:
    """A vector near the mean of embeddings [N, D], [D], to be subtracted before distances are computed: float32 keeps
    the most digits of them around 0.

    It is rounded so coarsely that subtracting it is exact for values of few bits, such as whole numbers: what was
    equally far apart stays so.
    """
    largest = float(np.abs(embedding).max())
    if largest == 0:
        return np.zeros(embedding.shape[1], embedding.dtype)
    step = 2.0 ** (np.floor(np.log2(largest)) - 6)
    return (np.round(embedding.mean(axis=0, dtype=np.float64) / step) * step).astype(embedding.dtype)


def check_same_width(query: np.ndarray, gallery: np.ndarray) -> None:
    """Raises ValueError where embeddings [Q, D] and [G, D] differ in D."""
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query embeddings are {query.shape[1]} wide, gallery embeddings {gallery.shape[1]}:"
            " take both from the same model"
        )


def check_distance(distance: str) -> None:
    """Raises ValueError for a distance that is none of DISTANCES."""
    if distance not in DISTANCES:
        raise ValueError(f"unknown distance {distance!r}: use one of {', '.join(DISTANCES)}")


def squared_norms(part: str, embedding: np.ndarray, distance: str) -> np.ndarray:
    """Squared norms [N] of embeddings [N, D]; ValueError if one is not finite or out of range for float32 distances."""
    with np.errstate(over="ignore", invalid="ignore"):
        squared_norm = np.vecdot(embedding, embedding)
    too_large = ~(squared_norm < LARGEST_SQUARED_NORM)
    too_small = (squared_norm < SMALLEST_SQUARED_NORM) & (distance == "cosine")
    if not (too_large | too_small).any():
        if 0 < squared_norm.max() < SMALLEST_SQUARED_NORM:
            raise ValueError(f"{part} embeddings all have norms below 1e-18: scale them")
        return squared_norm
    first = np.argmax(too_large | too_small)
    if too_small[first]:
        what = "norm 0 (below 1e-18), so no cosine distance: check the model"
    elif np.isfinite(embedding[first]).all():
        what = "a norm above 1e18: scale the embeddings"
    else:
        what = "NaN or infinite values: check the model"
    number = np.count_nonzero(too_large | too_small)
    raise ValueError(f"{part} embedding {first} has {what} ({number} of {len(embedding)} are so)")
