"""PK batches (paper section 3.3) as a pure function of (identities, seed, step), without an iterator to save."""

from collections.abc import Sequence

import numpy as np

from mancs_jax.config.names import num_of_each_source


def steps_per_epoch(num_ids: int, p: int) -> int:
    """Returns `floor(C / P)`: an epoch has every identity of one data set at most once (paper section 4.3)."""
    return num_ids // p


def images_by_identity(labels: np.ndarray) -> list[np.ndarray]:
    """Returns the image indices of identity 0, 1, ..., C-1; `labels` is int [N] with every value of 0..C-1."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.cumsum(np.bincount(labels))[:-1])


def split_by_source(by_identity: list[np.ndarray], num_ids: Sequence[int]) -> list[list[np.ndarray]]:
    """Splits the identities by source: `num_ids` of the first source come first, and so on."""
    ends = np.cumsum(num_ids)
    return [by_identity[end - number : end] for number, end in zip(num_ids, ends, strict=True)]


def balanced_batch(by_source: Sequence[list[np.ndarray]], p: int, k: int, seed: int, step: int) -> np.ndarray:
    """Samples a PK batch with equally many identities of each source, to within one (`num_of_each_source`).

    Each source has its own epochs, so that the identities of a small source are sampled more often. With one source
    this is `pk_batch`. Of all sources of `split_by_source` together come `p` identities, at least one of each, with `k`
    images each. Returns int64 [P*K] image indices, source after source.
    """
    shares = num_of_each_source(p, len(by_source))
    parts = zip(by_source, shares, strict=True)
    return np.concatenate([pk_batch(ids, share, k, seed, step, source) for source, (ids, share) in enumerate(parts)])


def pk_batch(by_identity: list[np.ndarray], p: int, k: int, seed: int, step: int, source: int = 0) -> np.ndarray:
    """Samples P identities and K images of each: int64 [P*K] image indices, identity after identity.

    An epoch is a permutation of the identities, split into batches; the rest is dropped. Where an identity has fewer
    than K images, all are used equally often, to within one. `source` is the index of the data set, so that several are
    sampled differently.
    """
    # Trailing zeros do not change NumPy's seeds: those of source 0 are those of a run with one data set.
    epoch, position = divmod(step, steps_per_epoch(len(by_identity), p))
    identities = np.random.default_rng((seed, 0, epoch, source)).permutation(len(by_identity))
    rng = np.random.default_rng((seed, 1, step, source))
    return np.concatenate([draw(rng, by_identity[i], k) for i in identities[position * p : (position + 1) * p]])


def draw(rng: np.random.Generator, images: np.ndarray, k: int) -> np.ndarray:
    """Samples K of `images`, none twice before all have been used once."""
    rounds = [rng.permutation(images) for _ in range(-(-k // len(images)))]
    return np.concatenate(rounds)[:k]
