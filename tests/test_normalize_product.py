"""The normalised 1x1 convolution that is never made without its normalisation, against BatchNorm of the product."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mancs_jax.kernels.conv_norm import BatchNorm, Sync, normalize_batch, normalize_product

RNG = np.random.default_rng(0)
CHANNELS, FEATURES = 5, 12


def draw(dtype=np.float32):
    """(x as after a ReLU, kernel, scale, bias, weight of the loss)."""
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(size=(4, 6, 3, CHANNELS)), 0)
    parts = [rng.normal(size=shape) for shape in ((CHANNELS, FEATURES), FEATURES, FEATURES, (4, 6, 3, FEATURES))]
    return [jnp.asarray(part, dtype) for part in (x, *parts)]


def two_steps(x, kernel, scale, bias, epsilon, sync=None):
    return normalize_batch(x @ kernel.astype(x.dtype), scale, bias, epsilon, sync)


def with_gradients(normalize, x, kernel, scale, bias, weight, sync=None):
    """((loss, (y, mean, variance)), gradients of x, kernel, scale and bias)."""

    def loss(*arguments):
        y, mean, var = normalize(*arguments, 1e-5, sync)
        return jnp.sum(weight * jnp.tanh(y)), (y, mean, var)

    return jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True)(x, kernel, scale, bias)


def assert_near(ours, others, tolerance):
    """Within a part of the largest number of each array."""
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(others), strict=True):
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= tolerance * np.abs(other).max()


def test_by_hand():
    x = jnp.float32([[[[1.0, 0.0], [3.0, 2.0]]]])
    y, mean, var = normalize_product(
        x, jnp.float32([[1.0, 2.0], [1.0, -2.0]]), jnp.ones(2), jnp.float32([0.0, 5.0]), 0.0
    )
    # The product: 1 and 5 (mean 3, variance 4), and 2 and 2 (mean 2, variance 0, which only an epsilon would save).
    np.testing.assert_array_equal(mean, [3.0, 2.0])
    np.testing.assert_array_equal(var, [4.0, 0.0])
    np.testing.assert_allclose(y[..., 0], [[[-1.0, 1.0]]], rtol=1e-6)


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 1e-4)])
def test_equals_the_norm_of_the_product(dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        arguments = draw(dtype)
        assert_near(with_gradients(normalize_product, *arguments), with_gradients(two_steps, *arguments), tolerance)


def test_bfloat16_leaves_the_gradients():
    """Against float64: off by two hundredths of their norm, as kernels and shifts are rounded to 8 bits."""
    x, *others = draw()
    ours = with_gradients(normalize_product, x.astype(jnp.bfloat16), *others)[1]
    with jax.enable_x64(True):
        wide = (np.asarray(part, np.float64) for part in (x.astype(jnp.bfloat16), *others))
        exact = with_gradients(two_steps, *map(jnp.asarray, wide))[1]
    for name, one, right in zip(("x", "kernel", "scale", "bias"), ours, exact, strict=True):
        one, right = np.asarray(one, np.float64), np.asarray(right)
        assert np.linalg.norm(one - right) < 0.02 * np.linalg.norm(right), name


def test_the_product_is_not_kept():
    x, kernel, scale, bias, _ = draw()
    backward = jax.vjp(lambda *a: normalize_product(*a, 1e-5)[0], x, kernel, scale, bias)[1]
    assert x.size * FEATURES // CHANNELS not in [leaf.size for leaf in jax.tree.leaves(backward)]


@pytest.mark.parametrize("num_devices", [2, 4])
def test_devices_share_their_statistics(num_devices):
    x, kernel, scale, bias, weight = draw()
    (_, (y, mean, var)), gradients = with_gradients(normalize_product, x, kernel, scale, bias, weight)
    split = [each.reshape(num_devices, -1, *each.shape[1:]) for each in (x, weight)]
    run = jax.pmap(
        lambda x, weight: with_gradients(normalize_product, x, kernel, scale, bias, weight, Sync("devices")),
        axis_name="devices",
        devices=jax.devices()[:num_devices],
    )
    (_, (y_split, mean_split, var_split)), (by_x, *by_others) = run(*split)
    assert_near((mean_split[0], var_split[0]), (mean, var), 1e-5)
    assert_near((y_split.reshape(y.shape), by_x.reshape(x.shape)), (y, gradients[0]), 1e-4)
    assert_near([each.sum(0) for each in by_others], gradients[1:], 1e-4)


@pytest.mark.parametrize("size, features", [(1, 9), (1, 3), (3, 9)])  # a product, and two that are not
@pytest.mark.parametrize("average", [False, True])
def test_a_norm_of_a_convolution(size, features, average):
    """Against the module on a map that was convolved before, with the batch's statistics and the running ones."""
    x = jnp.asarray(RNG.normal(size=(2, 7, 5, 4)), jnp.float32)
    kernel = jnp.asarray(RNG.normal(size=(size, size, 4, features)), jnp.float32)
    draw = partial(RNG.uniform, 0.5, 2, features)
    variables = {
        "params": {"scale": jnp.float32(draw()), "bias": jnp.float32(draw())},
        "batch_stats": {"mean": jnp.float32(draw()), "var": jnp.float32(draw())},
    }
    norm = BatchNorm(use_running_average=average)
    padding = [((size - 1) // 2,) * 2] * 2
    plain = jax.lax.conv_general_dilated(x, kernel, (2, 2), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    ours = norm.apply(variables, x, kernel, 2, mutable=["batch_stats"], method="convolve_and_normalize")
    assert_near(ours, norm.apply(variables, plain, mutable=["batch_stats"]), 1e-5)
