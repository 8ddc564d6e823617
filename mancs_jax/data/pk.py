"""PK batches (paper section 3.3) as a pure function of (identities, seed, step): there is no iterator to save."""

import numpy as np


def steps_per_epoch(num_ids: int, p: int) -> int:
    """`floor(C / P)`: in an epoch every identity is met at most once (paper section 4.3)."""
    return num_ids // p


def images_by_identity(labels: np.ndarray) -> list[np.ndarray]:
    """Indices of the images of identity 0, 1, ..., C-1: `labels` is int [N] with every value of 0..C-1."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.cumsum(np.bincount(labels))[:-1])


def pk_batch(by_identity: list[np.ndarray], p: int, k: int, seed: int, step: int) -> np.ndarray:
    """Draws P identities and K images of each.

    An epoch is a permutation of the identities cut into batches, the rest dropped. An identity with fewer than K
    images is drawn with replacement, each image as often as any other to within one.

    Args:
      by_identity: see `images_by_identity`.
      p: identities a batch.
      k: images an identity.
      seed: of the run.
      step: 0, 1, ...

    Returns:
      int64 [P*K] image indices, the K images of an identity side by side.
    """
    epoch, position = divmod(step, steps_per_epoch(len(by_identity), p))
    identities = np.random.default_rng((seed, 0, epoch)).permutation(len(by_identity))
    rng = np.random.default_rng((seed, 1, step))
    return np.concatenate([draw(rng, by_identity[i], k) for i in identities[position * p : (position + 1) * p]])


def draw(rng: np.random.Generator, images: np.ndarray, k: int) -> np.ndarray:
    """K of `images`, none twice before all have come once."""
    rounds = [rng.permutation(images) for _ in range(-(-k // len(images)))]
    return np.concatenate(rounds)[:k]
