"""Approximate search of a large gallery with FAISS: a graph of neighbours (HNSW, Malkov and Yashunin, 2018) over the
gallery's main components.

A walk through the graph compares a query with some thousand entries instead of all. Distances of 256 components are
near enough to find candidates. `mancs_jax.search` then compares the candidates exactly.
"""

import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mancs_jax.common.atomic_write import atomic_write
from mancs_jax.evaluation import checks
from mancs_jax.evaluation.distances import normalized

try:
    import faiss
except ModuleNotFoundError as error:
    raise ImportError("an index needs FAISS: pip install faiss-cpu") from error

COMPONENTS = 256  # of embeddings that are wider
LINKS = 32  # of an entry to others
VISITED = 512  # entries that a search keeps in view; of a million, 256 found 0.948 of the ten nearest, 512 0.973
SAMPLE = 16384  # entries that the main components are taken from
BLOCK_BYTES = 256 * 2**20  # of embeddings that are added at a time
SEED = 0


def build_index(
    gallery: np.ndarray, path: str | Path | None = None, *, distance: str = "euclidean", progress: bool = False
) -> faiss.Index:
    """Builds an index of a gallery, for `mancs_jax.search`, which needs the gallery as well.

    Args:
      gallery: float32 [G, D]; it may be a memory-mapped file.
      path: file to write the index to, for `load_index`; its folder is made.
      distance: "euclidean" or "cosine", that of the searches.
      progress: whether a bar is shown.

    Raises:
      ValueError: one line: the embeddings or the distance are not as above.
    """
    checks.check_distance(distance)
    gallery = checks.checked_embedding("gallery", gallery)
    number, width = gallery.shape
    is_wide = min(number, width) > COMPONENTS
    graph = faiss.IndexHNSWFlat(COMPONENTS if is_wide else width, LINKS)
    graph.hnsw.efSearch = VISITED
    index: faiss.Index = graph
    if is_wide:
        drawn = np.random.default_rng(SEED).choice(number, min(SAMPLE, number), replace=False)
        index = faiss.IndexPreTransform(_main_components(gallery[np.sort(drawn)], distance), index)
    if distance == "cosine":
        index = faiss.IndexPreTransform(faiss.NormalizationTransform(width), index)
    rows = max(BLOCK_BYTES // gallery[0].nbytes, 1)
    for start in tqdm(range(0, number, rows), desc="indexing", unit="block", disable=not progress):
        index.add(_checked(gallery[start : start + rows], distance))
    if path is not None:
        with atomic_write(path) as temporary:
            faiss.write_index(index, str(temporary))
    return index


def load_index(path: str | Path) -> faiss.Index:
    """Reads an index that `build_index` wrote.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it is no index.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; mancs_jax.build_index(gallery, path) writes one")
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
    return index.search(np.ascontiguousarray(query), number)[1]


def _main_components(sample, distance):
    """The projection on the main components; FAISS's own PCA takes minutes for embeddings 2,048 wide."""
    sample = _checked(sample, distance)
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
    checks.squared_norms("gallery", embedding, distance)
    return np.ascontiguousarray(embedding)
