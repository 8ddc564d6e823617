"""Approximate nearest-neighbour search in a large gallery with FAISS.

By default an HNSW graph (Malkov and Yashunin, 2018) over the gallery's main components finds candidates, and
`mancs_jax.search` compares them exactly. Near-duplicates can cut such a graph into parts, and embeddings without main
directions lose their neighbours when they are projected. So every index is measured after it was built: recall@10, with
entries of the gallery as queries, and with new queries. Where recall is below `LEAST_RECALL`, more entries are visited,
then an IVF index takes the place of the graph, and more of its lists are probed until recall suffices.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mancs_jax.common.atomic_write import atomic_write, check_writable
from mancs_jax.common.local_path import local_path
from mancs_jax.common.quoted import shortened
from mancs_jax.common.screen import bar
from mancs_jax.evaluation.distances import check_distance, checked_norms, normalized, pair_distances
from mancs_jax.evaluation.labelled import checked_embedding

try:
    import faiss
except ModuleNotFoundError:  # an error of the first call: `help(mancs_jax)` and `import *` work without the extra
    faiss = None  # type: ignore[assignment]

COMPONENTS = 256  # of embeddings that are wider
LINKS = 32  # of an entry to others
VISITED = (512, 2048)  # entries that a search of the graph keeps in view: at first, and at most
SAMPLE = 16384  # entries that the main components are taken from
TRAINING_BYTES = 512 * 2**20  # of embeddings that an index of `factory` learns from
SHARE_PROBED = 16  # of the lists of an IVF index, one in so many is looked into
TESTED = 256  # queries of each kind that recall is measured with
LEAST_RECALL = 0.97  # of both kinds; a sample of 256 queries is off by 0.003
K, CANDIDATES = 10, 40  # of recall@10, and candidates of each query, as `search` asks for
SAME = 1e-4  # distances that differ by less, relatively, are equal
FINGERPRINTED = 64  # rows
BLOCK_BYTES = 256 * 2**20  # of embeddings that are added at a time
SEED = 0
MARK = b"mancs_jax.index1"  # ends a file, after the metadata and their length; FAISS reads what is before


@dataclass(frozen=True)
class Index:
    """An approximate index of one gallery, for one distance."""

    faiss_index: faiss.Index = field(repr=False)
    distance: str  # "euclidean" or "cosine"
    fingerprint: str  # of the gallery, see `fingerprint_of`
    recall: dict[str, float]  # recall@10 with "entries" of the gallery as queries, and with new "queries"


def build_index(
    gallery: np.ndarray,
    path: str | Path | None = None,
    *,
    distance: str = "euclidean",
    factory: str = "",
    queries: np.ndarray | None = None,
    progress: bool = False,
) -> Index:
    """Builds an index of a gallery, for `mancs_jax.search`, which needs the gallery as well.

    Args:
      gallery: float32 [G, D]; it may be a memory-mapped file.
      path: file to write the index to, for `load_index`; its folder is made.
      distance: "euclidean" or "cosine", that of the searches.
      factory: another index in the words of FAISS's index factory, as "IVF4096,PQ64", which takes 64 bytes an entry.
        "": see this module. An IVF index looks into one of `SHARE_PROBED` of its lists; change that with
        `faiss.extract_index_ivf(index.faiss_index).nprobe`. Its recall is measured, and left as it is.
      queries: float32 [Q, D] to measure recall with; by default they are sampled with the gallery's mean and
        covariance.
      progress: whether a bar is shown.

    Raises:
      ImportError: FAISS is not installed.
      ValueError: one line: the embeddings, the distance or the factory are not as above.
      OSError: one line: the file cannot be written; its place is looked at first.
    """
    _require_faiss()
    if path is not None:
        check_writable(path)
    check_distance(distance)
    gallery = checked_embedding("gallery", gallery)
    tests = {"entries": _drawn(gallery, TESTED), "queries": _new_queries(gallery) if queries is None else queries}
    checked_norms("gallery", tests["entries"], distance)  # before anything takes long
    tests = {name: np.ascontiguousarray(query) for name, query in tests.items()}
    farthest = {name: _kth_distances(query, gallery, distance) for name, query in tests.items()}

    def recall_of(index: faiss.Index) -> dict[str, float]:
        return {
            name: _recall(
                index.search(query, min(CANDIDATES, len(gallery)))[1], query, gallery, distance, farthest[name]
            )
            for name, query in tests.items()
        }

    if factory:
        faiss_index = _manufactured(gallery, distance, factory)
        _fill(faiss_index, gallery, distance, progress)
        recall = recall_of(faiss_index)
    else:
        projection = _main_components(gallery, distance)
        if projection is not None and not _keeps_neighbours(projection, tests, gallery, distance, farthest):
            projection = None
        for faiss_index in _attempts(gallery, distance, projection, progress):
            recall = recall_of(faiss_index)
            if min(recall.values()) >= LEAST_RECALL:
                break
    index = Index(faiss_index, distance, fingerprint_of(gallery), recall)
    if path is not None:
        write_index(path, index)
    return index


def _require_faiss() -> None:
    if faiss is None:
        raise ImportError("an index needs FAISS: pip install faiss-cpu")


def _attempts(
    gallery: np.ndarray, distance: str, projection: faiss.LinearTransform | None, progress: bool
) -> Iterator[faiss.Index]:
    """Yields indexes that find more and more, and take longer and longer; the last one compares everything."""
    width = gallery.shape[1] if projection is None else projection.d_out
    graph = faiss.IndexHNSWFlat(width, LINKS)
    index = _in_front(projection, graph, distance)
    _fill(index, gallery, distance, progress)
    graph.hnsw.efSearch = VISITED[0]
    while graph.hnsw.efSearch <= VISITED[1]:
        yield index
        graph.hnsw.efSearch *= 2
    del index, graph
    lists = faiss.IndexIVFFlat(faiss.IndexFlatL2(width), width, max(math.isqrt(len(gallery)), 1))
    index = _in_front(projection, lists, distance)
    index.train(_checked(_drawn(gallery, SAMPLE), distance))
    _fill(index, gallery, distance, progress)
    lists.nprobe = max(lists.nlist // SHARE_PROBED, 1)
    while lists.nprobe < lists.nlist:
        yield index
        lists.nprobe = min(2 * lists.nprobe, lists.nlist)
    yield index


def _in_front(projection: faiss.LinearTransform | None, index: faiss.Index, distance: str) -> faiss.Index:
    return _for_distance(index if projection is None else faiss.IndexPreTransform(projection, index), distance)


def _fill(index: faiss.Index, gallery: np.ndarray, distance: str, progress: bool) -> None:
    rows = max(BLOCK_BYTES // gallery[0].nbytes, 1)
    for start in bar(range(0, len(gallery), rows), desc="indexing", unit="block", disable=not progress):
        index.add(_checked(gallery[start : start + rows], distance))


def _new_queries(gallery: np.ndarray) -> np.ndarray:
    """Queries float32 [TESTED, D] with the mean and the covariance of rows that no component is taken from."""
    sample = _drawn(gallery, 2 * SAMPLE)
    sample = sample[1::2] if len(sample) > 1 else sample
    mean = sample.mean(axis=0, dtype=np.float64)
    weights = np.random.default_rng(SEED).standard_normal((TESTED, len(sample))) / math.sqrt(len(sample))
    return (mean + weights @ (sample - mean)).astype(np.float32)


def _kth_distances(query: np.ndarray, gallery: np.ndarray, distance: str) -> np.ndarray:
    """The distance [Q] of the last one of the exact `K` nearest."""
    from mancs_jax.inference.search import search  # not at the top: it imports this module, too

    return search(query, gallery, min(K, len(gallery)), distance=distance).distance[:, -1]


def _recall(
    candidates: np.ndarray, query: np.ndarray, gallery: np.ndarray, distance: str, farthest: np.ndarray
) -> float:
    """The share of the exact nearest that are among candidates [Q, C]; copies of an image count for each other."""
    number = min(K, len(gallery))
    hits = 0
    for embedding, row, limit in zip(query, candidates, farthest, strict=True):
        distances = pair_distances(embedding[None, None], gallery[row[row >= 0]][None], distance)
        hits += min(int(np.count_nonzero(distances <= limit * (1 + SAME) + np.finfo(np.float32).tiny)), number)
    return hits / (number * len(query))


def _keeps_neighbours(
    projection: faiss.LinearTransform,
    tests: dict[str, np.ndarray],
    gallery: np.ndarray,
    distance: str,
    farthest: dict[str, np.ndarray],
) -> bool:
    """Returns whether exact search of the projected embeddings has the recall that an index needs."""
    flat = _in_front(projection, faiss.IndexFlatL2(projection.d_out), distance)
    rows = max(BLOCK_BYTES // gallery[0].nbytes, 1)
    best = {
        name: (np.empty((len(query), 0), np.float32), np.empty((len(query), 0), np.int64))
        for name, query in tests.items()
    }
    for start in range(0, len(gallery), rows):
        flat.add(_checked(gallery[start : start + rows], distance))
        for name, query in tests.items():
            distances, position = flat.search(query, min(CANDIDATES, flat.ntotal))
            distances = np.concatenate([best[name][0], distances], axis=1)
            position = np.concatenate([best[name][1], start + position], axis=1)
            order = np.argsort(distances, axis=1, kind="stable")[:, :CANDIDATES]
            best[name] = np.take_along_axis(distances, order, axis=1), np.take_along_axis(position, order, axis=1)
        flat.reset()
    recall = [_recall(best[name][1], query, gallery, distance, farthest[name]) for name, query in tests.items()]
    return min(recall) >= LEAST_RECALL


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
    """The end of a message of FAISS, after its "Error in FUNCTION at FILE:LINE: Error: 'CONDITION' failed: "."""
    return shortened(" ".join(str(error).split()).rpartition("failed: ")[2]) or "it fails without a reason"


def fingerprint_of(gallery: np.ndarray) -> str:
    """32 hex digits that depend on the shape of a gallery and on rows that are spread over it, the last one included.

    A row that is removed or inserted shifts all after it, so it changes the fingerprint. A single row that is
    overwritten changes it only if it is one of the `FINGERPRINTED` rows.
    """
    rows = np.unique(np.linspace(0, len(gallery) - 1, FINGERPRINTED).round().astype(np.int64))
    digest = hashlib.blake2b(repr(gallery.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(gallery[rows]).data)
    return digest.hexdigest()


def write_index(path: str | Path, index: Index) -> None:
    """Writes an index atomically: FAISS's own format, then the metadata (OSError: it cannot be written)."""
    facts = json.dumps({name: value for name, value in vars(index).items() if name != "faiss_index"}).encode()
    faults: list[OSError] = []
    with atomic_write(path) as temporary, temporary.open("wb") as file:

        def write(data: bytes) -> int:  # errors of Python's files have a number; those of FAISS are text with C++ in it
            try:
                return file.write(data)
            except OSError as error:
                faults.append(error)
                raise

        try:
            faiss.write_index(index.faiss_index, faiss.PyCallbackIOWriter(write))  # type: ignore[attr-defined]
        except RuntimeError:
            if faults:
                raise faults[0] from None
            raise
        file.write(facts + len(facts).to_bytes(8, "little") + MARK)


def load_index(path: str | Path) -> Index:
    """Reads an index that `build_index` wrote.

    Raises ImportError without FAISS, FileNotFoundError, ValueError where it is no index or has no fingerprint, and
    OSError.
    """
    _require_faiss()
    path = local_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; mancs_jax.build_index(gallery, path) writes one")
    facts = _facts_of(path)
    try:
        return Index(faiss.read_index(str(path)), **facts)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{path} is no index of mancs_jax.build_index, or is damaged") from error


def _facts_of(path: Path) -> dict:
    """Reads the metadata at the end of a file."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - len(MARK) - 8, 0))
        length, mark = int.from_bytes(file.read(8), "little"), file.read()
        if mark != MARK or length > size:
            raise ValueError(
                f"{path} is cut off, or is no index of mancs_jax.build_index, which knows its gallery: build it again"
            )
        file.seek(size - len(MARK) - 8 - length)
        try:
            facts = json.loads(file.read(length))
        except ValueError:
            facts = None
    if not isinstance(facts, dict):
        raise ValueError(f"{path} is no index of mancs_jax.build_index, or is damaged")
    return facts


def candidates(
    index: Index | str | Path | Any, query: np.ndarray, gallery: np.ndarray, number: int, distance: str
) -> np.ndarray:
    """Entries of the gallery that may be near, int [Q, number], nearest first; -1 where no more were found.

    Raises errors as `load_index`, and ValueError for an index of another gallery or distance.
    """
    _require_faiss()
    index = load_index(Path(index)) if isinstance(index, str | os.PathLike) else index
    if not isinstance(index, Index):
        raise ValueError(f"an index has to come from build_index or load_index, not {type(index).__name__}")
    shape = (index.faiss_index.ntotal, index.faiss_index.d)
    if shape != gallery.shape:
        raise ValueError(f"the index is of a gallery {list(shape)}, not of this one, {list(gallery.shape)}")
    if index.fingerprint != fingerprint_of(gallery):
        raise ValueError("the index is of another gallery of this size, or of another order: build it again")
    if index.distance != distance:
        raise ValueError(f"the index is for {index.distance} distance: build one with distance={distance!r}")
    return index.faiss_index.search(np.ascontiguousarray(query), number)[1]


def _main_components(gallery: np.ndarray, distance: str) -> faiss.LinearTransform | None:
    """The projection on the main components; None for a gallery that has no more. FAISS's own takes minutes."""
    if min(len(gallery) // 2, gallery.shape[1]) <= COMPONENTS:
        return None
    sample = _checked(_drawn(gallery, 2 * SAMPLE)[::2], distance)  # `_new_queries` takes the others
    if distance == "cosine":
        sample = normalized("gallery", sample)
    centred = sample - sample.mean(axis=0)
    directions = np.linalg.eigh(centred.T @ centred)[1][:, -COMPONENTS:].T
    projection = faiss.LinearTransform(sample.shape[1], COMPONENTS)
    faiss.copy_array_to_vector(np.ascontiguousarray(directions).ravel(), projection.A)
    projection.is_trained = True
    return projection


def _checked(embedding, distance):
    checked_norms("gallery", embedding, distance)
    return np.ascontiguousarray(embedding)
