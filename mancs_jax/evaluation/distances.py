"""Distances between embeddings, and the gallery images that count for a query: the one home of both rules.

Arguments may be NumPy arrays or arrays of JAX, within compiled functions too. The triplet loss has distances of its
own, `losses.triplet.euclidean_distances`, because it needs their gradient.
"""

from types import ModuleType
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int32, Integer

from mancs_jax.config.names import DISTANCES

Array = TypeVar("Array", np.ndarray, jax.Array)

# With squared norms between these bounds, no product or sum of them leaves the float32 range.
SMALLEST_SQUARED_NORM, LARGEST_SQUARED_NORM = 1e-36, 1e36
# Centre only if |mean|^2 > FAR x variance. Below that, float32 misplaces fewer than 1 hit in 10^4, and a copy of the
# gallery is saved.
FAR = 16
GROUP = 16  # neighbouring values of which `smallest` looks only at the least first


def check_distance(distance: str) -> None:
    """Raises ValueError for a distance that is none of DISTANCES."""
    if distance not in DISTANCES:
        raise ValueError(f"unknown distance {distance!r}: use one of {', '.join(DISTANCES)}")


def counts_for(
    query_pid: Integer[Array, " B"],
    query_camid: Integer[Array, " B"],
    gallery_pid: Integer[Array, " G"],
    gallery_camid: Integer[Array, " G"],
) -> Bool[Array, "B G"]:
    """Finds the gallery images that count for each query, by the rules of Market-1501 (Zheng et al., ICCV 2015).

    Junk (pid -1) never counts, and images of the query's own person under its own camera do not count for it.
    Distractors (pid 0) count.
    """
    own_view = (query_pid[:, None] == gallery_pid[None]) & (query_camid[:, None] == gallery_camid[None])
    return ~own_view & (gallery_pid != -1)[None]


def squared_euclidean(
    dot: Float[Array, "B N"], squared_rows: Float[Array, " B"], squared_columns: Float[Array, " N"]
) -> Float[Array, "B N"]:
    """Returns |r|^2 + |c|^2 - 2 r.c, at least 0, from the products and the squared norms."""
    return _library(dot).maximum(squared_rows[:, None] + squared_columns[None] - 2 * dot, 0)


def order_terms(squared_norm: Float[Array, " N"], distance: str) -> tuple[Float[Array, " N"], Float[Array, " N"]]:
    """Returns (offset, scale): `offset - scale * dot` orders the images for a query as their distances do.

    For one query, |q|^2 + |g|^2 - 2 q.g and |g|^2 / 2 - q.g give one order. Cosine distance and -q.g / |g| do so, too.
    Without |q|^2 no value near 0 needs clipping, so clipping makes no ties.
    """
    library = _library(squared_norm)
    if distance == "cosine":
        return library.zeros_like(squared_norm), 1 / library.sqrt(squared_norm)
    return squared_norm / 2, library.ones_like(squared_norm)


def query_terms(
    squared_query: Float[np.ndarray, " Q"], distance: str
) -> tuple[Float[np.ndarray, " Q"], Float[np.ndarray, " Q"]]:
    """Returns (offset, scale): `offset + scale * value` compares pairs of different queries.

    `value` is one of `order_terms`. The sum is half the squared Euclidean distance, or the cosine distance.
    """
    if distance == "cosine":
        return np.ones_like(squared_query), 1 / np.sqrt(squared_query)
    return squared_query / 2, np.ones_like(squared_query)


def from_pair(values: Float[np.ndarray, "*shape"], distance: str) -> Float[np.ndarray, "*shape"]:
    """Turns values of `query_terms` into distances; below 0, where rounding put them, they are 0."""
    values = np.maximum(values, 0)
    return values if distance == "cosine" else np.sqrt(2 * values)


def squared_norms(embedding: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " N"]:
    """Squared norms of embeddings, infinite or NaN where they do not fit."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.vecdot(embedding, embedding)


def are_usable(squared_norm: Float[np.ndarray, " N"], distance: str) -> Bool[np.ndarray, " N"]:
    """Whether float32 holds the distances of images with these squared norms."""
    is_large_enough = (squared_norm >= SMALLEST_SQUARED_NORM) | (distance != "cosine")
    return (squared_norm < LARGEST_SQUARED_NORM) & is_large_enough


def checked_norms(part: str, embedding: Float[np.ndarray, "N D"], distance: str) -> Float[np.ndarray, " N"]:
    """Squared norms of the embeddings of one part, named for the error.

    Raises ValueError, one line, where an embedding is not finite, or its norm is out of range for float32 distances.
    """
    squared_norm = squared_norms(embedding)
    is_usable = are_usable(squared_norm, distance)
    if is_usable.all():
        if 0 < squared_norm.max() < SMALLEST_SQUARED_NORM:
            raise ValueError(f"{part} embeddings all have norms below 1e-18: scale them")
        return squared_norm
    first = np.argmin(is_usable)
    if squared_norm[first] < SMALLEST_SQUARED_NORM:
        fault = "norm 0 (below 1e-18), so no cosine distance: check the model"
    elif np.isfinite(embedding[first]).all():
        fault = "a norm above 1e18: scale the embeddings"
    else:
        fault = "NaN or infinite values: check the model"
    number = np.count_nonzero(~is_usable)
    raise ValueError(f"{part} embedding {first} has {fault} ({number} of {len(embedding)} are so)")


def common_offset(embedding: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " D"]:
    """A vector near the mean, to be subtracted before distances are computed: float32 has the most digits near 0.

    It is rounded so coarsely that subtracting it is exact for values of few bits, such as whole numbers: what was
    equally far apart stays so.
    """
    largest = float(np.abs(embedding).max())
    if largest == 0:
        return np.zeros(embedding.shape[1], embedding.dtype)
    step = 2.0 ** (np.floor(np.log2(largest)) - 6)
    return (np.round(embedding.mean(axis=0, dtype=np.float64) / step) * step).astype(embedding.dtype)


def centre_of(
    query: Float[np.ndarray, "Q D"], squared_query: Float[np.ndarray, " Q"], distance: str
) -> Float[np.ndarray, " D"] | None:
    """Returns the vector to subtract from all embeddings before distances are computed; None where there is no need.

    Far from the origin float32 has few digits left for Euclidean distances; see FAR.
    """
    offset = common_offset(query)
    squared_offset = np.vecdot(offset, offset)
    is_far = distance == "euclidean" and squared_offset > FAR * (squared_query.mean() - squared_offset)
    return offset if is_far else None


def normalized(part: str, embedding: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Divides the embeddings of one part, named for the error, by their norms."""
    return embedding / np.sqrt(checked_norms(part, np.asarray(embedding), "cosine"))[:, None]


def all_distances(
    query: Float[np.ndarray, "B D"], gallery: Float[np.ndarray, "G D"], distance: str
) -> Float[np.ndarray, "B G"]:
    """Computes the distances of all pairs, of the embeddings' type; for small sets."""
    if distance == "cosine":
        query, gallery = normalized("query", query), normalized("gallery", gallery)
    else:
        offset = common_offset(gallery)
        query, gallery = query - offset, gallery - offset
    squared = squared_euclidean(query @ gallery.T, np.vecdot(query, query), np.vecdot(gallery, gallery))
    return squared / 2 if distance == "cosine" else np.sqrt(squared)


def pair_distances(
    query: Float[np.ndarray, "B 1 D"], gallery: Float[np.ndarray, "B C D"], distance: str
) -> Float[np.ndarray, "B C"]:
    """Computes distances from differences, exact where they are small."""
    if distance == "cosine":
        query, gallery = (part / np.sqrt(np.vecdot(part, part))[..., None] for part in (query, gallery))
    difference = gallery - query
    squared = np.vecdot(difference, difference)
    return squared / 2 if distance == "cosine" else np.sqrt(squared)


def smallest(values: Float[jax.Array, "B N"], k: int) -> Int32[jax.Array, "B {k}"]:
    """Positions of the k smallest of each row, k at most N, in order; of equal ones the lower position comes first.

    They lie in the k runs of GROUP values whose least is smallest, so only these few values are sorted.
    """
    rows, width = values.shape
    if width <= k * GROUP:
        return jax.lax.top_k(-values, k)[1]
    padded = jnp.pad(values, ((0, 0), (0, -width % GROUP)), constant_values=jnp.inf)
    group = jnp.sort(jax.lax.top_k(-padded.reshape(rows, -1, GROUP).min(axis=2), k)[1], axis=1)
    position = (group[:, :, None] * GROUP + jnp.arange(GROUP, dtype=jnp.int32)[None, None]).reshape(rows, -1)
    # Out of `values`: XLA then never writes the padded array to memory.
    group_values = jnp.take_along_axis(values, jnp.minimum(position, width - 1), axis=1)
    candidates = jnp.where(position < width, group_values, jnp.inf)
    return jnp.take_along_axis(position, jax.lax.top_k(-candidates, k)[1], axis=1)


def _library(array: Array) -> ModuleType:
    return jnp if isinstance(array, jax.Array) else np
