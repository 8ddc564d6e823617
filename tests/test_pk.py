"""Tests of the PK batches: what an epoch holds, and that a batch depends on nothing but seed and step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from mancs_jax.data.pk import balanced_batch, images_by_identity, pk_batch, split_by_source, steps_per_epoch

pytestmark = pytest.mark.quick

# Identities of 1 to 20 images, in the mixed order of a data set.
SIZES = np.array([20, 3, 16, 1, 7, 5, 12, 4, 9, 2, 17])
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(len(SIZES)), SIZES))
BY_IDENTITY = images_by_identity(LABELS)


def test_images_by_identity_by_hand():
    groups = images_by_identity(np.array([2, 0, 1, 0, 2, 2], np.int32))
    assert [group.tolist() for group in groups] == [[1, 3], [2], [0, 4, 5]]


@pytest.mark.parametrize(("num_ids", "p", "steps"), [(751, 16, 46), (702, 16, 43), (767, 32, 23), (32, 32, 1)])
def test_steps_per_epoch(num_ids, p, steps):
    assert steps_per_epoch(num_ids, p) == steps


@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=12),
    k=st.integers(2, 8),
    seed=st.integers(0, 2**40),
    step=st.integers(0, 10_000),
    data=st.data(),
)
def test_a_batch_is_p_identities_of_k_images(sizes, k, seed, step, data):
    p = data.draw(st.integers(1, len(sizes)))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    batch = pk_batch(images_by_identity(labels), p, k, seed, step)
    assert batch.shape == (p * k,) and np.issubdtype(batch.dtype, np.integer)
    drawn = labels[batch].reshape(p, k)
    np.testing.assert_array_equal(drawn, np.broadcast_to(drawn[:, :1], (p, k)))
    assert len(set(drawn[:, 0])) == p
    for identity, images in zip(drawn[:, 0], batch.reshape(p, k), strict=True):
        counts = np.bincount(images, minlength=len(labels))[labels == identity]
        assert counts.min() >= k // sizes[identity] and counts.max() <= -(-k // sizes[identity])


@pytest.mark.parametrize("p", [1, 3, 4, 11])
def test_an_epoch_meets_an_identity_at_most_once(p):
    steps = steps_per_epoch(len(SIZES), p)
    for epoch in range(6):
        met = [LABELS[pk_batch(BY_IDENTITY, p, 4, 7, epoch * steps + i)][::4] for i in range(steps)]
        assert len(set(np.concatenate(met))) == steps * p


def test_identities_left_over_change_from_epoch_to_epoch():
    """11 identities in batches of 4 leave 3 out; each is met in about 8 of 11 epochs."""
    met = [LABELS[pk_batch(BY_IDENTITY, 4, 2, 0, step)][::2] for step in range(2 * 220)]
    counts = np.bincount(np.concatenate(met), minlength=11)
    assert counts.sum() == 220 * 8
    assert np.all(np.abs(counts - 160) < 5 * np.sqrt(220 * 8 / 11 * 3 / 11))


def test_same_seed_and_step_give_the_same_batch_in_any_order():
    forward = [pk_batch(BY_IDENTITY, 4, 4, 3, step) for step in range(12)]
    np.random.seed(1)  # the global state must not matter
    backward = [pk_batch(BY_IDENTITY, 4, 4, 3, step) for step in reversed(range(12))]
    np.testing.assert_array_equal(forward, backward[::-1])


def test_seeds_steps_and_epochs_differ():
    batches = [pk_batch(BY_IDENTITY, 4, 8, seed, step) for seed in range(3) for step in range(8)]
    assert len({batch.tobytes() for batch in batches}) == 24
    identities_of_epochs = {LABELS[pk_batch(BY_IDENTITY, 11, 1, 0, epoch)].tobytes() for epoch in range(20)}
    identities_of_seeds = {LABELS[pk_batch(BY_IDENTITY, 11, 1, seed, 0)].tobytes() for seed in range(20)}
    assert len(identities_of_epochs) == len(identities_of_seeds) == 20
    one_identity = [np.arange(20)]
    images_of_seeds = {pk_batch(one_identity, 1, 20, seed, 0).tobytes() for seed in range(20)}
    assert len(images_of_seeds) == 20


def test_each_image_of_an_identity_is_as_likely_as_any_other():
    """Also where copies are needed: 8 draws from 3 images are 3 + 3 + 2."""
    drawn = np.concatenate([pk_batch(BY_IDENTITY, 11, 8, 0, epoch) for epoch in range(600)])
    for images in BY_IDENTITY:
        counts = np.array([np.count_nonzero(drawn == image) for image in images])
        assert counts.sum() == 600 * 8
        # Drawn without replacement the counts scatter less than chi-square, never more.
        assert len(images) == 1 or chisquare(counts).pvalue > 1e-4


def test_the_order_of_identities_in_a_batch_is_random():
    first = [LABELS[pk_batch(BY_IDENTITY, 11, 1, 0, epoch)[0]] for epoch in range(1100)]
    assert chisquare(np.bincount(first, minlength=11)).pvalue > 1e-4


def test_the_identities_of_each_source_by_hand():
    groups = images_by_identity(np.array([0, 1, 1, 2, 3, 3], np.int32))
    first, second = split_by_source(groups, (3, 1))
    assert [rows.tolist() for rows in first] == [[0], [1, 2], [3]] and [rows.tolist() for rows in second] == [[4, 5]]


@pytest.mark.parametrize(("p", "num_ids", "shares"), [(4, (4, 7), (2, 2)), (5, (3, 4, 4), (2, 2, 1)), (4, (11,), (4,))])
def test_every_batch_is_balanced(p, num_ids, shares):
    by_source = split_by_source(BY_IDENTITY, num_ids)
    ends = np.cumsum(num_ids)
    for step in range(40):
        identities = LABELS[balanced_batch(by_source, p, 3, 5, step)][::3]
        sources = np.searchsorted(ends, identities, side="right")
        assert sources.tolist() == np.repeat(np.arange(len(num_ids)), shares).tolist()
        assert len(set(identities.tolist())) == p


def test_each_source_has_epochs_of_its_own():
    by_source = split_by_source(BY_IDENTITY, (4, 7))
    batches = [LABELS[balanced_batch(by_source, 4, 2, 0, step)][::2].reshape(2, 2) for step in range(60)]
    for source, (ids, steps) in enumerate([(range(4), 2), (range(4, 11), 3)]):
        for epoch in range(60 // steps):
            met = np.concatenate([batch[source] for batch in batches[epoch * steps : (epoch + 1) * steps]])
            assert len(set(met.tolist())) == 2 * steps and set(met.tolist()) <= set(ids)


def test_one_source_is_a_plain_batch_and_sources_draw_apart():
    for step in (0, 7, 400):
        np.testing.assert_array_equal(
            balanced_batch([BY_IDENTITY], 4, 4, 3, step), pk_batch(BY_IDENTITY, 4, 4, 3, step)
        )
    first, second = np.split(LABELS[balanced_batch([BY_IDENTITY, BY_IDENTITY], 20, 1, 3, 0)], 2)
    assert first.tolist() != second.tolist()
