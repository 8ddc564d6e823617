"""Embeddings with the people and cameras of their images, and the one place that refuses those that do not fit."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int32, Integer
from numpy.typing import ArrayLike


class Labelled(NamedTuple):
    """Embeddings of images, and the person and camera of each."""

    embedding: Float32[np.ndarray, "N D"]
    pid: Integer[np.ndarray, " N"]  # > 0 a person, 0 a distractor, -1 junk
    camid: Integer[np.ndarray, " N"]

    @classmethod
    def checked(cls, part: str, embedding: ArrayLike, pid: ArrayLike, camid: ArrayLike) -> "Labelled":
        """Returns embeddings float32 [N, D] and integer labels [N] as int32, without a copy where the type is right.

        Raises ValueError, one line that names the `part` ("query", "gallery", ...): shape, dtype, length or pid are
        wrong, or every image is junk (pid -1).
        """
        embedding = checked_embedding(part, embedding)
        return cls(embedding, *checked_labels(part, pid, camid, len(embedding)))


def checked_embedding(part: str, embedding: ArrayLike) -> Float32[np.ndarray, "N D"]:
    """Embeddings as a NumPy array; ValueError as `Labelled.checked`."""
    embedding = np.asarray(embedding)
    shape = list(embedding.shape)
    if embedding.ndim != 2 or embedding.dtype != np.float32:
        kind = f"{embedding.dtype} {shape}"
        raise ValueError(f"{part} embeddings are {kind}: they must be float32 [images, width]")
    if embedding.size == 0:
        raise ValueError(f"{part} embeddings are empty, {shape}: there is nothing to rank")
    return embedding


def checked_labels(
    part: str, pid: ArrayLike, camid: ArrayLike, number: int
) -> tuple[Int32[np.ndarray, " {number}"], Int32[np.ndarray, " {number}"]]:
    """Labels of `number` images; ValueError as `Labelled.checked`."""
    labels = []
    for name, label in (("pids", np.asarray(pid)), ("camids", np.asarray(camid))):
        if label.dtype.kind not in "iu":
            raise ValueError(f"{part} {name} are {label.dtype}: they must be integers")
        if label.shape != (number,):
            raise ValueError(f"{part} {name} have shape {list(label.shape)}, but there are {number} {part} images")
        labels.append(label.astype(np.int32, copy=False))
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


def check_known(query_pid: Integer[np.ndarray, " Q"]) -> None:
    """Raises ValueError where a query is not of a known person (pid below 1)."""
    if query_pid.min() < 1:
        raise ValueError(
            f"query {query_pid.argmin()} has pid {query_pid.min()}, which is no person: leave it out, or, if people "
            "are numbered from 0, add 1 to every pid above -1 of query and gallery"
        )


def check_same_width(query: Float[np.ndarray, "Q _"], gallery: Float[np.ndarray, "G _"]) -> None:
    """Raises ValueError where embeddings differ in their width."""
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query embeddings are {query.shape[1]} wide, gallery embeddings {gallery.shape[1]}:"
            " take both from the same model"
        )
