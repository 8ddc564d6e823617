"""PK batches (paper section 3.3) as a pure function of (identities, seed, step): there is no iterator to save."""

from collections.abc import Sequence

import numpy as np

from mancs_jax.config.names import num_of_each_source


def steps_per_epoch(num_ids: int, p: int) -> int:
    """`floor(C / P)`: in an epoch every identity of one data set is met at most once (paper section 4.3)."""
    return num_ids // p


def images_by_identity(labels: np.ndarray) -> list[np.ndarray]:
    """Indices of the images of identity 0, 1, ..., C-1: `labels` is int [N] with every value of 0..C-1."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.cumsum(np.bincount(labels))[:-1])


def split_by_source(by_identity: list[np.ndarray], num_ids: Sequence[int]) -> list[list[np.ndarray]]:
    """Cuts the identities into those of each source: `num_ids` of the first source come first, and so on."""
    ends = np.cumsum(num_ids)
    return [by_identity[end - number : end] for number, end in zip(num_ids, ends, strict=True)]


def balanced_batch(by_source: Sequence[list[np.ndarray]], p: int, k: int, seed: int, step: int) -> np.ndarray:
    """Samples a PK batch with as many identities of each source, to within one (`num_of_each_source`).

    Each source has epochs of its own: it starts again when all of its identities have come, so that a small source
    comes more often. With one source this is `pk_batch`.

    Args:
      by_source: see `split_by_source`.
      p: identities a batch, of all sources together; at least one of each.
      k: images an identity.
      seed: of the run.
      step: 0, 1, ...

    Returns:
      int64 [P*K] image indices: the identities of the first source, then those of the second, and so on.
    """
    shares = num_of_each_source(p, len(by_source))
    parts = zip(by_source, shares, strict=True)
    return np.concatenate([pk_batch(ids, share, k, seed, step, source) for source, (ids, share) in enumerate(parts)])


def pk_batch(by_identity: list[np.ndarray], p: int, k: int, seed: int, step: int, source: int = 0) -> np.ndarray:
    """Draws P identities and K images of each.

    An epoch is a permutation of the identities cut into batches, the rest dropped. An identity with fewer than K
    images is drawn with replacement, each image as often as any other to within one.

    Args:
      by_identity: see `images_by_identity`.
      p: identities a batch.
      k: images an identity.
      seed: of the run.
      step: 0, 1, ...
      source: index of the data set, so that several do not draw alike.

    Returns:
      int64 [P*K] image indices, the K images of an identity side by side.
    """
    # NumPy's seeds end with any number of zeros: those of source 0 are the ones of a run with one data set.
    epoch, position = divmod(step, steps_per_epoch(len(by_identity), p))
    identities = np.random.default_rng((seed, 0, epoch, source)).permutation(len(by_identity))
    rng = np.random.default_rng((seed, 1, step, source))
    return np.concatenate([draw(rng, by_identity[i], k) for i in identities[position * p : (position + 1) * p]])


def draw(rng: np.random.Generator, images: np.ndarray, k: int) -> np.ndarray:
    """K of `images`, none twice before all have come once."""
    rounds = [rng.permutation(images) for _ in range(-(-k // len(images)))]
    return np.concatenate(rounds)[:k]
