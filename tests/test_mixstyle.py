"""MixStyle: statistics against float64, gradients against PyTorch with the statistics detached, several devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mancs_jax.models.mixstyle import EPSILON, mix_style

RNG = np.random.default_rng(0)
X = np.float32(RNG.normal(size=(8, 6, 4, 5)) * RNG.uniform(0.5, 3, (8, 1, 1, 5)) + RNG.normal(size=(8, 1, 1, 5)))
KEYS = jax.random.split(jax.random.key(1), len(X))


def statistics(x):
    x = np.asarray(x, np.float64)
    return x.mean((1, 2)), np.sqrt(x.var((1, 2)) + EPSILON)


def test_each_image_has_statistics_between_its_own_and_those_of_another():
    mixed = np.asarray(mix_style(X, KEYS, 1.0, 0.5))
    own, new = statistics(X), statistics(mixed)
    shares = set()
    for image in range(len(X)):
        fits = []
        for other in range(len(X)):
            # With this other image, one share has to explain the mean and the deviation of all channels.
            gap = np.concatenate([s[image] - s[other] for s in own])
            change = np.concatenate([s[image] for s in new]) - np.concatenate([s[other] for s in own])
            share = change @ gap / max(gap @ gap, 1e-12)
            fits.append((np.abs(change - share * gap).max(), share))
        error, share = min(fits)
        assert error < 1e-4 and -1e-4 < share < 1 + 1e-4
        shares.add(round(share, 3))
        # What is not style stays: the normalised map.
        whitened = [(np.float64(x[image]) - s[0][image]) / s[1][image] for x, s in ((X, own), (mixed, new))]
        np.testing.assert_allclose(whitened[1], whitened[0], atol=1e-3)
    assert len(shares) > 4


def test_the_probability_decides_for_each_image():
    np.testing.assert_allclose(mix_style(X, KEYS, 0.0, 0.1), X, atol=1e-5)
    keys, x = jax.random.split(jax.random.key(2), 400), np.tile(X, (50, 1, 1, 1))
    changed = np.abs(mix_style(x, keys, 0.5, 0.5) - x).max((1, 2, 3)) > 1e-4
    assert 0.35 < changed.mean() < 0.55  # half of them, less those that meet themselves (one in eight)


def test_gradient_against_pytorch():
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(X.transpose(0, 3, 1, 2).copy()).requires_grad_()
    weight = np.float32(RNG.normal(size=X.shape))
    y, pull = jax.vjp(lambda x: mix_style(x, KEYS, 1.0, 0.5), X)
    mean, deviation = x.mean((2, 3), keepdim=True).detach(), (x.var((2, 3), keepdim=True, correction=0) + 1e-6).sqrt()
    deviation = deviation.detach()
    new_mean, new_deviation = (torch.from_numpy(np.float32(s))[:, :, None, None] for s in statistics(y))
    theirs = (x - mean) / deviation * new_deviation + new_mean
    np.testing.assert_allclose(y, theirs.detach().numpy().transpose(0, 2, 3, 1), atol=2e-3)
    theirs.backward(torch.from_numpy(weight.transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(pull(weight)[0], x.grad.numpy().transpose(0, 2, 3, 1), rtol=2e-3, atol=2e-3)


def test_several_devices_mix_as_one():
    whole = mix_style(X, KEYS, 0.7, 0.3)
    mapped = jax.pmap(partial(mix_style, probability=0.7, alpha=0.3, axis_name="devices"), axis_name="devices")
    parts = mapped(X.reshape(4, 2, *X.shape[1:]), KEYS.reshape(4, 2))
    np.testing.assert_allclose(np.asarray(parts).reshape(X.shape), whole, rtol=1e-5, atol=1e-5)


def test_the_dtype_stays():
    assert mix_style(jnp.asarray(X, jnp.bfloat16), KEYS, 1.0, 0.1).dtype == jnp.bfloat16
