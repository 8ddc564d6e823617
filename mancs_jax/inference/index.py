"""Approximate search of a large gallery with FAISS: a graph of neighbours (HNSW, Malkov and Yashunin, 2018) over the
gallery's main components.

A walk through the graph compares a query with some thousand entries instead of all. Distances of 256 components are
near enough to find candidates. `mancs_jax.search` then compares the candidates exactly.
"""

import math
import os
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from mancs_jax.common.atomic_write import atomic_write, check_writable
from mancs_jax.common.local_path import local_path
from mancs_jax.common.screen import bar
from mancs_jax.evaluation.distances import check_distance, checked_norms, normalized
from mancs_jax.evaluation.labelled import checked_embedding

try:
    import faiss
except ModuleNotFoundError as error:
    raise ImportError("an index needs FAISS: pip install faiss-cpu") from error

COMPONENTS = 256  # of embeddings that are wider
LINKS = 32  # of an entry to others
VISITED = 512  # entries that a search keeps in view; of a million, 256 found 0.948 of the ten nearest, 512 0.973
SAMPLE = 16384  # entries that the main components are taken from
TRAINING_BYTES = 512 * 2**20  # of embeddings that an index of `factory` learns from
SHARE_PROBED = 16  # of the lists of an IVF index, one in so many is looked into
TESTED = 512  # entries that a new graph has to find
FOUND = 0.98  # of them; below, lists take the place of the graph
WHOLE_ENTRIES = (faiss.IndexFlat, faiss.IndexHNSWFlat, faiss.IndexIVFFlat)
CHECKED, LEAST_FOUND = 32, 0.25  # entries of a gallery that its index is asked for, and the share that it has to have
BLOCK_BYTES = 256 * 2**20  # of embeddings that are added at a time
SEED = 0

_checked_for: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # index -> the address of the gallery that fits it


def build_index(
    gallery: np.ndarray,
    path: str | Path | None = None,
    *,
    distance: str = "euclidean",
    factory: str = "",
    progress: bool = False,
) -> faiss.Index:
    """Builds an index of a gallery, for `mancs_jax.search`, which needs the gallery as well.

    Args:
      gallery: float32 [G, D]; it may be a memory-mapped file.
      path: file to write the index to, for `load_index`; its folder is made.
      distance: "euclidean" or "cosine", that of the searches.
      factory: another index in the words of FAISS's index factory, as "IVF4096,PQ64", which takes 64 bytes an entry.
        "": the graph of this module. An IVF index looks into one of `SHARE_PROBED` of its lists; change that with
        `faiss.extract_index_ivf(index).nprobe`.
      progress: whether a bar is shown.

    Raises:
      ValueError: one line: the embeddings, the distance or the factory are not as above.
      OSError: one line: the file cannot be written; its place is looked at first.
    """
    if path is not None:
        check_writable(path)
    check_distance(distance)
    gallery = checked_embedding("gallery", gallery)
    index = _manufactured(gallery, distance, factory) if factory else _graph(gallery, distance)
    _fill(index, gallery, distance, progress)
    if not factory and _share_found(index, gallery) < FOUND:
        index = _lists(gallery, distance)
        _fill(index, gallery, distance, progress)
        ivf = faiss.extract_index_ivf(index)
        while ivf.nprobe < ivf.nlist and _share_found(index, gallery) < FOUND:
            ivf.nprobe *= 2
    if path is not None:
        _write(index, path)
    return index


def _write(index: faiss.Index, path: str | Path) -> None:
    """Writes an index by Python's files, whose errors have a number; those of FAISS are text with C++ in it."""
    faults: list[OSError] = []
    with atomic_write(path) as temporary, temporary.open("wb") as file:

        def write(data: bytes) -> int:
            try:
                return file.write(data)
            except OSError as error:
                faults.append(error)
                raise

        try:
            faiss.write_index(index, faiss.PyCallbackIOWriter(write))  # type: ignore[attr-defined]
        except RuntimeError:
            if faults:
                raise faults[0] from None
            raise


def _graph(gallery: np.ndarray, distance: str) -> faiss.Index:
    """An empty graph of neighbours over the main components of a gallery."""
    projection = _main_components(gallery, distance)
    graph = faiss.IndexHNSWFlat(projection.d_out if projection else gallery.shape[1], LINKS)
    graph.hnsw.efSearch = VISITED
    return _for_distance(faiss.IndexPreTransform(projection, graph) if projection else graph, distance)


def _lists(gallery: np.ndarray, distance: str) -> faiss.Index:
    """An empty index of lists of near entries, for a gallery whose copies cut a graph into parts."""
    projection = _main_components(gallery, distance)
    width = projection.d_out if projection else gallery.shape[1]
    lists = faiss.IndexIVFFlat(faiss.IndexFlatL2(width), width, max(math.isqrt(len(gallery)), 1))
    lists.nprobe = max(lists.nlist // SHARE_PROBED, 1)
    index = _for_distance(faiss.IndexPreTransform(projection, lists) if projection else lists, distance)
    index.train(_checked(_drawn(gallery, SAMPLE), distance))
    return index


def _fill(index: faiss.Index, gallery: np.ndarray, distance: str, progress: bool) -> None:
    rows = max(BLOCK_BYTES // gallery[0].nbytes, 1)
    for start in bar(range(0, len(gallery), rows), desc="indexing", unit="block", disable=not progress):
        index.add(_checked(gallery[start : start + rows], distance))


def _share_found(index: faiss.Index, gallery: np.ndarray) -> float:
    """The share of entries that a search for themselves finds, out of a sample: 1 where nothing is cut off.

    Many copies of an image link to each other alone. A walk that comes to them stays there.
    """
    sample = _drawn(gallery, TESTED)
    nearby = index.search(np.ascontiguousarray(sample), 1)[1][:, 0]
    return float(np.mean((gallery[nearby] == sample).all(axis=1) & (nearby >= 0)))


def _manufactured(gallery: np.ndarray, distance: str, factory: str) -> faiss.Index:
    """An empty index in FAISS's own words, trained on a sample of the gallery."""
    sample = _checked(_drawn(gallery, max(TRAINING_BYTES // gallery[0].nbytes, 1)), distance)
    try:
        index = _for_distance(faiss.index_factory(gallery.shape[1], factory), distance)
        index.train(sample)
    except RuntimeError as error:
        raise ValueError(f"factory={factory!r} makes no index of {list(gallery.shape)}: {_reason(error)}") from error
    if (ivf := faiss.try_extract_index_ivf(index)) is not None:
        ivf.nprobe = max(ivf.nlist // SHARE_PROBED, 1)
    return index


def _for_distance(index: faiss.Index, distance: str) -> faiss.Index:
    is_cosine = distance == "cosine"
    return faiss.IndexPreTransform(faiss.NormalizationTransform(index.d), index) if is_cosine else index


def _drawn(gallery: np.ndarray, number: int) -> np.ndarray:
    """So many entries, or all, in their order."""
    if number >= len(gallery):
        return np.asarray(gallery)
    return gallery[np.sort(np.random.default_rng(SEED).choice(len(gallery), number, replace=False))]


def _reason(error: RuntimeError) -> str:
    """The end of a message of FAISS, behind its "Error in FUNCTION at FILE:LINE: Error: 'CONDITION' failed: "."""
    return " ".join(str(error).split()).rpartition("failed: ")[2] or "it fails without a reason"


def load_index(path: str | Path) -> faiss.Index:
    """Reads an index that `build_index` wrote.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it is no index.
      OSError: it cannot be read.
    """
    path = local_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; mancs_jax.build_index(gallery, path) writes one")
    with path.open("rb"):  # OSError where it may not be read, which FAISS would not tell from a damaged one
        pass
    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise ValueError(f"{path} is no index of FAISS, or is cut off") from error


def candidates(
    index: faiss.Index | str | Path, query: np.ndarray, gallery: np.ndarray, number: int, distance: str
) -> np.ndarray:
    """Entries of the gallery that may be near, int [Q, number], nearest first; -1 where no more were found.

    Raises:
      FileNotFoundError, ValueError: no index in the file, or it is one of another gallery or distance.
    """
    index = load_index(index) if isinstance(index, str | os.PathLike) else index
    if (index.ntotal, index.d) != gallery.shape:
        raise ValueError(f"the index is of a gallery {[index.ntotal, index.d]}, not of this one, {list(gallery.shape)}")
    if (built_for := _distance_of(index)) != distance:
        raise ValueError(f"the index is for {built_for} distance: build one with distance={distance!r}")
    _check_entries(index, gallery)
    return index.search(np.ascontiguousarray(query), number)[1]


def _check_entries(index: faiss.Index, gallery: np.ndarray) -> None:
    """Refuses an index of another gallery of this shape (ValueError), once for each pair of both.

    Only an index of whole entries is asked for them: one that compresses its entries may confuse them.
    """
    whole = index
    while isinstance(whole, faiss.IndexPreTransform):
        whole = faiss.downcast_index(whole.index)
    address = gallery.__array_interface__["data"][0]
    if not isinstance(whole, WHOLE_ENTRIES) or _checked_for.get(index) == address:
        return
    sample = _drawn(gallery, CHECKED)
    nearest = index.search(np.ascontiguousarray(sample), 1)[1][:, 0]
    if np.mean((gallery[nearest] == sample).all(axis=1)) < LEAST_FOUND:
        raise ValueError(f"the index is of another gallery of {list(gallery.shape)}: build it again")
    _checked_for[index] = address


def _main_components(gallery: np.ndarray, distance: str) -> faiss.LinearTransform | None:
    """The projection on the main components; None for a gallery that has no more. FAISS's own takes minutes."""
    if min(gallery.shape) <= COMPONENTS:
        return None
    sample = _checked(_drawn(gallery, SAMPLE), distance)
    if distance == "cosine":
        sample = normalized("gallery", sample)
    centred = sample - sample.mean(axis=0)
    directions = np.linalg.eigh(centred.T @ centred)[1][:, -COMPONENTS:].T
    projection = faiss.LinearTransform(sample.shape[1], COMPONENTS)
    faiss.copy_array_to_vector(np.ascontiguousarray(directions).ravel(), projection.A)
    projection.is_trained = True
    return projection


def _distance_of(index):
    first = index.chain.at(0) if isinstance(index, faiss.IndexPreTransform) and index.chain.size() else None
    is_normalized = isinstance(first and faiss.downcast_VectorTransform(first), faiss.NormalizationTransform)
    return "cosine" if is_normalized else "euclidean"


def _checked(embedding, distance):
    checked_norms("gallery", embedding, distance)
    return np.ascontiguousarray(embedding)
