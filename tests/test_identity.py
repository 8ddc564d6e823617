"""Tests of the classification losses: equations 7 to 10 in float64 loops, their gradients by differences."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mancs_jax.losses.identity import attention_loss, focal_loss

B, C = 6, 5
RNG = np.random.default_rng(0)
LOGITS = (3 * RNG.standard_normal((B, C))).astype(np.float32)
LABELS = np.array([0, 4, 2, 2, 1, 3], np.int32)
EXTREME = jnp.array([[1e4, -1e4, -1e4], [-1e4, 1e4, -1e4]], jnp.float32)

focal = jax.jit(jax.value_and_grad(focal_loss), static_argnames=("gamma", "probability", "detach_weight"))
attention = jax.jit(jax.value_and_grad(attention_loss), static_argnames="kind")


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softmax(row: np.ndarray, c: int) -> float:
    return math.exp(row[c]) / sum(math.exp(x) for x in row)


def true_class_probability(row: np.ndarray, label: int, probability: str) -> float:
    """Equation 7, or the release's softmax."""
    return sigmoid(row[label]) if probability == "sigmoid" else softmax(row, label)


def loop_focal(logits, labels, gamma: float, probability: str, weight_logits=None) -> float:
    """Equation 8; the weights (1 - p)^gamma are those of `weight_logits` where given."""
    weight_logits = logits if weight_logits is None else weight_logits
    total = 0.0
    for row, weight_row, label in zip(logits, weight_logits, labels, strict=True):
        weight = (1 - true_class_probability(weight_row, label, probability)) ** gamma
        total -= weight * math.log(true_class_probability(row, label, probability))
    return total / len(labels)


def loop_attention(logits, labels, kind: str) -> float:
    """Equation 10 with q of equation 9, or softmax cross-entropy."""
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        if kind == "softmax":
            total -= math.log(softmax(row, label))
            continue
        for c, x in enumerate(row):
            y, q = float(c == label), sigmoid(x)
            total -= (y * math.log(q) + (1 - y) * math.log(1 - q)) / len(row)
    return total / len(labels)


def differences(loss, logits: np.ndarray) -> np.ndarray:
    """The gradient of a float64 function by central differences."""
    logits = logits.astype(np.float64)
    gradient = np.zeros_like(logits)
    for index in np.ndindex(*logits.shape):
        step = np.zeros_like(logits)
        step[index] = 1e-5
        gradient[index] = (loss(logits + step) - loss(logits - step)) / 2e-5
    return gradient


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 5])
@pytest.mark.parametrize("probability", ["sigmoid", "softmax"])
def test_focal_loss_against_a_loop(probability, gamma):
    value, gradient = focal(LOGITS, LABELS, gamma=gamma, probability=probability)
    reference = partial(loop_focal, labels=LABELS, gamma=gamma, probability=probability)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, reference(LOGITS.astype(np.float64)), rtol=1e-5)
    np.testing.assert_allclose(gradient, differences(reference, LOGITS), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("probability", ["sigmoid", "softmax"])
def test_detached_focal_weight_is_a_constant_in_the_gradient(probability):
    value, gradient = focal(LOGITS, LABELS, gamma=2.0, probability=probability, detach_weight=True)
    reference = partial(
        loop_focal, labels=LABELS, gamma=2, probability=probability, weight_logits=LOGITS.astype(np.float64)
    )
    np.testing.assert_allclose(value, reference(LOGITS.astype(np.float64)), rtol=1e-5)
    np.testing.assert_allclose(gradient, differences(reference, LOGITS), rtol=1e-4, atol=1e-6)
    attached = focal(LOGITS, LABELS, gamma=2.0, probability=probability)[1]
    assert np.abs(gradient - attached).max() > 1e-2


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_attention_loss_against_a_loop(kind):
    value, gradient = attention(LOGITS, LABELS, kind=kind)
    reference = partial(loop_attention, labels=LABELS, kind=kind)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, reference(LOGITS.astype(np.float64)), rtol=1e-5)
    np.testing.assert_allclose(gradient, differences(reference, LOGITS), rtol=1e-4, atol=1e-6)


def test_sigmoid_focal_loss_by_hand():
    """True-class logits 0, log 3, -log 3 give p = 1/2, 3/4, 1/4; the other classes do not matter.

    1/4 * log 2 = 0.1732868; 1/16 * log(4/3) = 0.0179801; 9/16 * log 4 = 0.7797906; their mean is 0.3236858.
    """
    log3 = math.log(3)
    logits = jnp.array([[0.0, 9.0], [-5.0, log3], [-log3, 2.0]])
    value, gradient = focal(logits, jnp.array([0, 1, 0]), gamma=2.0, probability="sigmoid")
    np.testing.assert_allclose(value, 0.3236858, rtol=1e-6)
    np.testing.assert_array_equal(gradient[jnp.arange(3), jnp.array([1, 0, 1])], 0)


@pytest.mark.parametrize("gamma", [0, 0.5, 2])
@pytest.mark.parametrize("probability", ["sigmoid", "softmax"])
@pytest.mark.parametrize("detach", [False, True])
def test_focal_loss_of_extreme_logits(probability, gamma, detach):
    """The true class sure and right costs nothing; sure and wrong costs |log p|, and the gradient is -1/B."""
    value, gradient = focal(EXTREME, jnp.array([0, 0]), gamma=gamma, probability=probability, detach_weight=detach)
    expected = 1e4 if probability == "sigmoid" else 2e4
    np.testing.assert_allclose(value, expected / 2, rtol=1e-5)
    assert np.all(np.isfinite(gradient))
    np.testing.assert_allclose(gradient[0], 0, atol=1e-3)
    np.testing.assert_allclose(gradient[1, 0], -0.5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "expected"), [("sigmoid", 2e4 / 6), ("softmax", 2e4 / 2)])
def test_attention_loss_of_extreme_logits(kind, expected):
    value, gradient = attention(EXTREME, jnp.array([0, 0]), kind=kind)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(gradient[0], 0)
    assert gradient[1, 0] < 0 < gradient[1, 1]


def test_focal_loss_keeps_small_differences_of_p_from_one():
    """1 - p = 8.3e-7 at logit 14, where 1 - p in float32 has one digit."""
    value, _ = focal(jnp.array([[14.0, 0.0]]), jnp.array([0]), gamma=2.0, probability="sigmoid")
    np.testing.assert_allclose(value, sigmoid(-14) ** 2 * math.log1p(math.exp(-14)), rtol=1e-4)
