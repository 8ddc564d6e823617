"""Tests of the distances and of equation 5 against loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mancs_jax.losses.sampling import Triplets
from mancs_jax.losses.triplet import euclidean_distances, triplet_gap, triplet_loss

MARGIN = 0.5
distances_of = jax.jit(euclidean_distances)


@jax.jit
def loss_of(embedding: jax.Array, triplets: Triplets) -> jax.Array:
    """The loss of a batch whose anchors are its first rows."""
    distances = euclidean_distances(embedding[: triplets.positive.shape[0]], embedding)
    return triplet_loss(distances, triplets, MARGIN)


gradient_of = jax.jit(jax.grad(loss_of))


def loop_loss_and_gradient(embedding: np.ndarray, triplets: Triplets) -> tuple[float, np.ndarray]:
    """Equation 5 one triplet at a time, float64: the mean over those of weight above 0, and its gradient."""
    x = np.asarray(embedding, np.float64)
    loss, gradient, count = 0.0, np.zeros_like(x), 0
    for anchor in range(len(triplets.positive)):
        rows = zip(triplets.positive[anchor], triplets.negative[anchor], triplets.weight[anchor], strict=True)
        for positive, negative, weight in rows:
            if weight == 0:
                continue
            count += 1
            to_positive, to_negative = x[anchor] - x[positive], x[anchor] - x[negative]
            far, near = np.sqrt((to_positive**2).sum()), np.sqrt((to_negative**2).sum())
            if MARGIN + far - near <= 0:
                continue
            loss += MARGIN + far - near
            if far > 0:
                gradient[anchor] += to_positive / far
                gradient[positive] -= to_positive / far
            if near > 0:
                gradient[anchor] -= to_negative / near
                gradient[negative] += to_negative / near
    return loss / count, gradient / count


def random_triplets(num_anchors: int, num_candidates: int, num_triplets: int, seed: int = 0) -> Triplets:
    """Any two columns other than the anchor's, weight 1."""
    rng = np.random.default_rng(seed)
    anchors = np.arange(num_anchors)[:, None]
    shape = (num_anchors, num_triplets)
    positive = (anchors + rng.integers(1, num_candidates, shape)) % num_candidates
    negative = (anchors + rng.integers(1, num_candidates, shape)) % num_candidates
    return Triplets(positive.astype(np.int32), negative.astype(np.int32), np.ones(shape, np.float32))


def float64_distances(anchors: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    differences = anchors.astype(np.float64)[:, None, :] - candidates.astype(np.float64)[None, :, :]
    return np.sqrt((differences**2).sum(axis=-1))


def assert_as_by_loops(embedding: np.ndarray, triplets: Triplets):
    loss, gradient = loop_loss_and_gradient(embedding, triplets)
    np.testing.assert_allclose(loss_of(embedding, triplets), loss, rtol=1e-5)
    np.testing.assert_allclose(gradient_of(embedding, triplets), gradient, rtol=1e-4, atol=1e-6)


def test_distances_by_hand():
    anchors = jnp.array([[0.0, 0.0], [3.0, 4.0]])
    candidates = jnp.array([[0.0, 0.0], [3.0, 4.0], [3.0, 0.0]])
    np.testing.assert_allclose(distances_of(anchors, candidates), [[0, 5, 3], [5, 0, 4]], rtol=1e-6)


@pytest.mark.parametrize(("scale", "dim"), [(1.0, 2048), (1e-3, 64), (1e3, 64)])
def test_distances_against_float64(scale, dim):
    rng = np.random.default_rng(0)
    anchors = (scale * rng.standard_normal((8, dim))).astype(np.float32)
    candidates = (scale * rng.standard_normal((24, dim))).astype(np.float32)
    actual = distances_of(anchors, candidates)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, float64_distances(anchors, candidates), rtol=1e-5)


def test_distances_of_embeddings_that_lie_close_together_far_from_the_origin():
    """As of an untrained or a collapsing network: here the norms are 70 times the distances."""
    rng = np.random.default_rng(0)
    embedding = (10 + 0.1 * rng.standard_normal((32, 2048))).astype(np.float32)
    expected = float64_distances(embedding[:8], embedding[8:])
    np.testing.assert_allclose(distances_of(embedding[:8], embedding[8:]), expected, rtol=1e-5)


def test_distances_of_bfloat16_embeddings_are_float32():
    embedding = jnp.asarray(np.random.default_rng(0).standard_normal((12, 64)), jnp.bfloat16)
    actual = distances_of(embedding[:4], embedding[4:])
    assert actual.dtype == jnp.float32
    exact = np.asarray(embedding, np.float32)
    np.testing.assert_allclose(actual, float64_distances(exact[:4], exact[4:]), rtol=1e-5)


@pytest.mark.parametrize("dim", [64, 512, 2048])
def test_equal_embeddings_are_at_distance_zero(dim):
    """Many of them, with long tails: the rounding of one product of two embeddings is a matter of luck."""
    rng = np.random.default_rng(0)
    for _ in range(8):
        embedding = (rng.standard_normal((256, dim)) ** 3).astype(np.float32)
        embedding[128:] = embedding[:128]
        distances = np.asarray(distances_of(embedding[:128], embedding))
        np.testing.assert_array_equal(distances[:, :128].diagonal(), 0)
        np.testing.assert_array_equal(distances[:, 128:].diagonal(), 0)


def test_loss_by_hand():
    """Gaps -1, 0 and 2 at margin 0.5: hinges 0, 0.5 and 2.5, whose mean is 1."""
    distances = jnp.array([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [3.0, 1.0, 0.0]])
    triplets = Triplets(jnp.array([[1], [0], [0]]), jnp.array([[2], [2], [1]]), jnp.ones((3, 1)))
    np.testing.assert_allclose(triplet_gap(distances, triplets), [[-1], [0], [2]])
    np.testing.assert_allclose(triplet_loss(distances, triplets, 0.5), 1.0, rtol=1e-6)


@pytest.mark.parametrize("scale", [0.05, 0.3])
def test_loss_and_gradient_against_a_loop(scale):
    """With most hinges open, and with about half of them closed."""
    embedding = (scale * np.random.default_rng(1).standard_normal((24, 32))).astype(np.float32)
    triplets = random_triplets(24, 24, 5)
    assert_as_by_loops(embedding, triplets)


def test_weights_of_zero_and_two_give_the_mean_over_half_of_the_triplets():
    embedding = (0.3 * np.random.default_rng(3).standard_normal((24, 32))).astype(np.float32)
    triplets = random_triplets(24, 24, 5)
    chosen = np.zeros(120, np.float32)
    chosen[np.random.default_rng(3).permutation(120)[:60]] = 2
    triplets = triplets._replace(weight=chosen.reshape(24, 5))
    assert_as_by_loops(embedding, triplets)


def test_images_drawn_twice_have_a_finite_gradient():
    """Each embedding stands twice in the batch, and the copy is each anchor's positive or its negative."""
    embedding = (0.3 * np.random.default_rng(4).standard_normal((24, 32))).astype(np.float32)
    embedding[12:] = embedding[:12]
    copy = np.roll(np.arange(24), 12)[:, None]
    other = np.roll(np.arange(24), 5)[:, None]
    pairs = np.concatenate([copy, other, copy], axis=1), np.concatenate([other, copy, copy], axis=1)
    triplets = Triplets(pairs[0], pairs[1], np.ones((24, 3), np.float32))
    assert_as_by_loops(embedding, triplets)


def test_a_batch_of_one_point_has_gradient_zero():
    embedding = np.full((24, 32), 0.7, np.float32)
    triplets = random_triplets(24, 24, 5)
    np.testing.assert_allclose(loss_of(embedding, triplets), MARGIN)
    np.testing.assert_array_equal(gradient_of(embedding, triplets), 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_embedding_that_is_not_finite_shows_in_the_loss(bad):
    """Distance 0 would hide that the network has diverged."""
    embedding = np.random.default_rng(5).standard_normal((24, 32)).astype(np.float32)
    embedding[3] = bad
    assert np.isnan(loss_of(embedding, random_triplets(24, 24, 5)))
