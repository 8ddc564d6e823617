"""PK batches (paper section 3.3) as a pure function of (identities, seed, step), without an iterator to save."""

from collections.abc import Sequence

import numpy as np

from mancs_jax.config.names import ids_of_each_source


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
    return [by_identity[end - count : end] for count, end in zip(num_ids, ends, strict=True)]


def balanced_batch(by_source: Sequence[list[np.ndarray]], p: int, k: int, seed: int, step: int) -> np.ndarray:
    """Samples a PK batch with equally many identities of each source, to within one (`ids_of_each_source`).

    `by_source` has, for each source, the image indices of each of its identities (`split_by_source`). A batch has `p`
    identities of all sources together, at least one of each, and `k` images of each identity. Each source has its own
    epochs, so that the identities of a small source are sampled more often. With one source this is `pk_batch`. Returns
    int64 [P*K] image indices, source after source.
    """
    num_ids = ids_of_each_source(p, len(by_source))
    return np.concatenate(
        [
            pk_batch(by_identity, source_p, k, seed, step, source)
            for source, (by_identity, source_p) in enumerate(zip(by_source, num_ids, strict=True))
        ]
    )


def pk_batch(by_identity: list[np.ndarray], p: int, k: int, seed: int, step: int, source: int = 0) -> np.ndarray:
    """Samples P identities and K images of each: int64 [P*K] image indices, identity after identity.

    An epoch is a permutation of the identities, split into batches of P; the remaining ones are dropped. Where an
    identity has fewer than K images, all are used equally often, to within one. `source` is the index of the data set,
    so that several are sampled differently.
    """
    # The second number distinguishes the seeds of identities and of images. NumPy ignores trailing zeros of a seed, so
    # that source 0 samples as a run with one data set.
    epoch, step_in_epoch = divmod(step, steps_per_epoch(len(by_identity), p))
    identities = np.random.default_rng((seed, 0, epoch, source)).permutation(len(by_identity))
    rng = np.random.default_rng((seed, 1, step, source))
    return np.concatenate([draw(rng, by_identity[i], k) for i in identities[step_in_epoch * p :][:p]])


def draw(rng: np.random.Generator, images: np.ndarray, k: int) -> np.ndarray:
    """Samples K of `images`, none twice before all have been used once."""
    rounds = [rng.permutation(images) for _ in range(-(-k // len(images)))]
    return np.concatenate(rounds)[:k]
