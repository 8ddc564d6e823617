"""An approximate index (FAISS) of the cache of a gallery, and the rows that have come since, exactly."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mancs_jax.gallery.cache import Cache, shred
from mancs_jax.inference import exact
from mancs_jax.inference.exact import Block, Nearest

if TYPE_CHECKING:
    from mancs_jax.inference.index import Index

CANDIDATES = 4  # times k, that an index is asked for; their exact distances decide
TIE = 1e-4  # candidates whose distances differ by less, relatively, may be copies of one image, and others left out
SHARE = 10  # of the rows of an index, one in so many may have come or gone since


class Covering(NamedTuple):
    """An index, and the rows of a cache that it covers."""

    index: "Index"  # type: ignore[assignment]  # hides tuple.index, which is not needed here
    build: str  # of the cache
    rows: int  # it covers so many, from the first


def build(block: Block, build: str, distance: str) -> Covering:
    """Makes an index of all rows of a cache, none of which is erased."""
    from mancs_jax.inference.index import build_index  # not at the top: it needs FAISS

    return Covering(build_index(block.rows, distance=distance), build, len(block.ids))


def write(covering: Covering, cache: Cache) -> Path:
    """Writes an index into the cache's folder, in the place of older ones; returns its path."""
    from mancs_jax.inference.index import write_index

    older = cache.index_files(covering.index.distance)
    path = cache.folder / f"index-{covering.index.distance}-{covering.build}-{covering.rows}.faiss"
    write_index(path, covering.index)
    for other in older:
        if other != path:
            shred(other)
    return path


def load(path: Path) -> Covering:
    """Reads an index that `write` wrote; errors as `inference.index.load_index`."""
    from mancs_jax.inference.index import load_index

    _, _, build, rows = path.stem.split("-")
    return Covering(load_index(path), build, int(rows))


def is_outdated(covering: Covering, block: Block) -> bool:
    """Tells whether more than one in `SHARE` of the rows have come or gone since the index was made."""
    erased = np.count_nonzero(np.isinf(block.half_squared[: covering.rows]))
    return (len(block.ids) - covering.rows + int(erased)) * SHARE > covering.rows


def nearest(query: np.ndarray, blocks: Iterable[Block], k: int, distance: str, covering: Covering) -> Nearest:
    """`exact.nearest`, where an index proposes candidates among the rows that it covers.

    A query is searched exactly where the index proposes fewer than k rows that are not erased, or where its k-th and
    its last candidate are equally far.
    """
    first, *later_blocks = blocks
    covered = Block(*(field[: covering.rows] for field in first))
    number = min(CANDIDATES * k, covering.rows)
    proposed = covering.index.faiss_index.search(np.ascontiguousarray(query), number)[1]
    best = Nearest(np.full((len(query), k), -1), np.full((len(query), k), np.inf))
    is_doubtful = np.zeros(len(query), bool)
    for row, positions in enumerate(proposed):
        positions = np.sort(positions[positions >= 0])
        positions = positions[np.isfinite(covered.half_squared[positions])]
        distances = exact.distances(query[row], covered.rows[positions], distance)
        order = np.lexsort((positions, distances))
        kept = order[:k]
        best.ids[row, : len(kept)], best.distance[row, : len(kept)] = covered.ids[positions[kept]], distances[kept]
        is_all = number == covering.rows
        is_doubtful[row] = not is_all and (
            len(order) < min(k, covering.rows) or distances[kept[-1]] >= (1 - TIE) * distances[order[-1]]
        )
    if is_doubtful.any():
        again = exact.nearest(query[is_doubtful], [covered], k, distance)
        best.ids[is_doubtful], best.distance[is_doubtful] = again
    since = [Block(*(field[covering.rows :] for field in first)), *later_blocks]
    return exact.merged(best, exact.nearest(query, since, k, distance))
