"""Re-ranking by k-reciprocal encoding (Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding",
CVPR 2017), with sparse matrices: of the distances between all pairs only one block exists at a time.

The nearest neighbours, where the arithmetic is, are found on the accelerator; sets of a few dozen neighbours an image
are sparse matrices in memory. Products of these replace the authors' loops over images.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Int32

from mancs_jax.common.pipelined import pipelined
from mancs_jax.common.screen import bar
from mancs_jax.evaluation.comparison import Comparison, DistancesOf, Rows, checked_pair, from_distances
from mancs_jax.evaluation.distances import (
    GROUP,
    check_distance,
    checked_norms,
    common_offset,
    smallest,
    squared_euclidean,
)
from mancs_jax.evaluation.labelled import Labelled, check_same_width

K1, K2, LAMBDA = 20, 6, 0.3  # the authors' values
CSR = Any  # scipy.sparse.csr_array, which takes a third of a second to import
Points = Float[np.ndarray, "N D"]  # float32, or float64 within `jax.enable_x64`
BLOCK_BYTES = 32 * 2**20  # of distances between some images and all


class Neighbours(NamedTuple):
    """The nearest neighbours of each of N images, itself included, nearest first."""

    index: Int32[np.ndarray, "N k"]  # type: ignore[assignment]  # hides tuple.index, which is not needed here
    farthest: Float[np.ndarray, " N"]  # squared distance of the image that is farthest from it


def rerank(query: Labelled, gallery: Labelled, **options: Any) -> Comparison:
    """Compares by re-ranked distances; junk takes no part. Options and errors as `reranked_distances`."""
    query, gallery = checked_pair(query, gallery)
    counted = np.flatnonzero(gallery.pid != -1)
    rest = Labelled(*(field[counted] for field in gallery))
    comparison = from_distances(reranked_distances(query.embedding, rest.embedding, **options), query, rest)
    return comparison._replace(gallery=gallery, layout=comparison.layout._replace(counted=counted))


def reranked_distances(
    query: np.ndarray,
    gallery: np.ndarray,
    *,
    k1: int = K1,
    k2: int = K2,
    weight: float = LAMBDA,
    distance: str = "euclidean",
    progress: bool = False,
) -> DistancesOf:
    """Encodes all images by their k-reciprocal neighbours and returns the re-ranked distances, a block at a time.

    The original distance d is the squared Euclidean one, of each image divided by its largest. Two images are
    reciprocal neighbours if each is among the k1 + 1 nearest of the other (an image is its own nearest); the reciprocal
    neighbours within round((k1 + 1) / 2), half away from zero, of each of these join them if more than two thirds of
    theirs are there already. An image is encoded by exp(-d) of its set, of sum 1, averaged over its k2 nearest images.
    The result is (1 - weight) * Jaccard distance of the encodings + weight * d.

    Args:
      query: embeddings [Q, D], float32 or float64; the computation has their precision.
      gallery: embeddings [G, D] of the same type, junk left out.
      k1: neighbours, at least 1 and less than Q + G.
      k2: images that an encoding is averaged over, from 1 (only itself) to k1 + 1.
      weight: of the original distance, lambda in the paper, from 0 to 1.
      distance: "euclidean", or "cosine": that of the embeddings divided by their norms.
      progress: whether a bar is shown.

    Returns a function of query indices that gives distances of the embeddings' type. Raises ValueError, one line, where
    an argument is not as above.
    """
    points, num_queries = _points(query, gallery, distance), len(query)
    check_options(k1, k2, weight, len(points))
    with _precision_of(points):
        neighbours = find_neighbours(points, k1 + 1, progress)
    sets = _expanded(_reciprocal(neighbours.index), _reciprocal(neighbours.index[:, : (k1 + 2) // 2]))
    # Where all images are the same, all distances are 0, whatever they are divided by.
    farthest = np.maximum(neighbours.farthest, np.finfo(points.dtype).tiny)
    encoding = _encoded(sets, points, farthest)
    if k2 > 1:
        encoding = _links(neighbours.index[:, :k2]).astype(points.dtype) @ encoding * points.dtype.type(1 / k2)
    query_encoding, by_image = encoding[:num_queries], encoding[num_queries:].T.tocsr()
    on_device = None

    def distances_of(rows: Rows) -> Float[np.ndarray, "B G"]:
        nonlocal on_device
        with _precision_of(points):
            if on_device is None:
                on_device = jax.device_put((points[num_queries:], _squared(points[num_queries:])))
            original = np.array(_squared_distances(points[rows], _squared(points[rows]), *on_device))
        original *= weight / farthest[rows, None]
        overlap = _overlap(query_encoding[rows], by_image)
        return original + (1 - weight) * (1 - overlap / (2 - overlap))

    return distances_of


def check_options(k1: int, k2: int, weight: float, num_images: int | None = None) -> None:
    """Raises ValueError, one line, where `rerank` cannot take the options, or not for so many images."""
    if not isinstance(k1, int | np.integer) or not isinstance(k2, int | np.integer):
        raise ValueError(f"k1 is {k1!r} and k2 {k2!r}: they must be whole numbers")
    if k1 < 1 or (num_images is not None and k1 >= num_images):
        most = "" if num_images is None else f" to {num_images - 1}, one less than there are images"
        raise ValueError(f"k1 is {k1}: it must be from 1{most}")
    if not 1 <= k2 <= k1 + 1:
        raise ValueError(f"k2 is {k2}: it must be from 1 to k1 + 1 = {k1 + 1}")
    if not 0 <= weight <= 1:
        raise ValueError(f"lambda is {weight}: it must be from 0 to 1")


def find_neighbours(points: Points, k: int, progress: bool = False) -> Neighbours:
    """The k nearest of all points to each, by squared Euclidean distance; of equal ones the lower index comes first."""
    number = len(points)
    padded = np.pad(points, ((0, -number % GROUP), (0, 0)))
    on_device = jax.device_put((padded, _squared(padded)))
    rows = min(max(BLOCK_BYTES // padded[:, 0].nbytes, 8), number)
    index, farthest = np.empty((number, k), np.int32), np.empty(number, points.dtype)
    # The last block begins sooner, so that all are of one size.
    starts = [min(start, number - rows) for start in range(0, number, rows)]
    blocks = bar(starts, desc="neighbours", unit="block", disable=not progress)
    started = ((start, _nearest_in_block(*on_device, start, number, rows, k)) for start in blocks)
    for start, results in pipelined(started):
        index[start : start + rows], farthest[start : start + rows] = results
    return Neighbours(index, farthest)


@partial(jax.jit, static_argnames=("rows", "k"))
def _nearest_in_block(
    points: Float[jax.Array, "N D"],
    squared: Float[jax.Array, " N"],
    start: Int[jax.Array, ""],
    number: Int[jax.Array, ""],
    rows: int,
    k: int,
) -> tuple[Int32[jax.Array, "{rows} {k}"], Float[jax.Array, " {rows}"]]:
    block = (jax.lax.dynamic_slice_in_dim(array, start, rows) for array in (points, squared))
    distances = _squared_distances(*block, points, squared)
    image = jnp.arange(len(points))[None]
    distances = jnp.where(image == start + jnp.arange(rows)[:, None], 0, distances)
    farthest = jnp.where(image < number, distances, 0).max(axis=1)
    return smallest(jnp.where(image < number, distances, jnp.inf), k), farthest


@jax.jit
def _squared_distances(
    rows: Float[jax.Array, "B D"],
    squared_rows: Float[jax.Array, " B"],
    columns: Float[jax.Array, "N D"],
    squared_columns: Float[jax.Array, " N"],
) -> Float[jax.Array, "B N"]:
    dot = jnp.einsum("bd,nd->bn", rows, columns, precision=jax.lax.Precision.HIGHEST)
    return squared_euclidean(dot, squared_rows, squared_columns)


def _points(query: np.ndarray, gallery: np.ndarray, distance: str) -> Points:
    """All embeddings, queries first, around 0, where float32 keeps the most digits of a distance."""
    check_distance(distance)
    for part, embedding in (("query", query), ("gallery", gallery)):
        if embedding.ndim != 2 or not embedding.size or embedding.dtype not in (np.float32, np.float64):
            kind = f"{embedding.dtype} {list(embedding.shape)}"
            raise ValueError(f"{part} embeddings are {kind}: re-ranking takes float32 or float64 [images, width]")
    check_same_width(query, gallery)
    norms = [checked_norms(part, embedding, distance) for part, embedding in (("query", query), ("gallery", gallery))]
    points = np.concatenate([query, gallery])
    if distance == "cosine":
        points /= np.sqrt(np.concatenate(norms))[:, None]
    points -= common_offset(points)
    return points


def _squared(points: Points) -> Float[np.ndarray, " N"]:
    return np.vecdot(points, points)


def _precision_of(points: Points) -> Any:
    return jax.enable_x64(points.dtype == np.float64)


def _links(index: Int32[np.ndarray, "N k"]) -> CSR:
    """[N, N] with a 1 at (i, j) for each j in row i of `index`."""
    from scipy.sparse import csr_array

    number, k = index.shape
    ones = np.ones(number * k, np.int32)
    return csr_array((ones, index.ravel(), np.arange(0, number * k + 1, k)), shape=(number, number))


def _reciprocal(index: Int32[np.ndarray, "N k"]) -> CSR:
    """[N, N] with a 1 where each of two images is among the neighbours of the other."""
    links = _links(index)
    return links.multiply(links.T).tocsr()


def _expanded(reciprocal: CSR, half: CSR) -> CSR:
    """[N, N], above 0 where j is in the expanded set of i: the paper's R*, equation 5."""
    from scipy.sparse import csr_array

    shared = reciprocal.multiply(reciprocal @ half.T).tocoo()
    joins = 3 * shared.data > 2 * half.sum(axis=1)[shared.col]
    joining = csr_array((np.ones(joins.sum(), np.int32), (shared.row[joins], shared.col[joins])), shape=shared.shape)
    return reciprocal + joining @ half


def _encoded(sets: CSR, points: Points, farthest: Float[np.ndarray, " N"]) -> CSR:
    """The sets [N, N] with exp(-d) in place of each member, each row of sum 1: equation 7."""
    from scipy.sparse import csr_array

    squared = _squared(points)
    closeness = np.empty(sets.nnz, points.dtype)
    for image, point in enumerate(points):
        row = slice(*sets.indptr[image : image + 2])
        members = sets.indices[row]
        distances = np.maximum(squared[image] + squared[members] - 2 * (points[members] @ point), 0)
        weights = np.exp(-distances / farthest[image])
        closeness[row] = weights / weights.sum()
    return csr_array((closeness, sets.indices, sets.indptr), shape=sets.shape)


def _overlap(query: CSR, by_image: CSR) -> Float[np.ndarray, "B G"]:
    """Sums over images of the lesser of two encodings, [B, N] and (transposed) [N, G]."""
    overlap = np.empty((query.shape[0], by_image.shape[1]), query.dtype)
    lengths = np.diff(by_image.indptr)
    for row in range(len(overlap)):
        entries = slice(*query.indptr[row : row + 2])
        image = query.indices[entries]
        number = lengths[image]
        # The entries of the images' rows, one after the other.
        entry = np.repeat(by_image.indptr[image] - np.cumsum(number) + number, number) + np.arange(number.sum())
        lesser = np.minimum(by_image.data[entry], np.repeat(query.data[entries], number))
        overlap[row] = np.bincount(by_image.indices[entry], lesser, by_image.shape[1])
    return overlap
