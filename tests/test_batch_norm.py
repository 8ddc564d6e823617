"""BatchNorm against flax's: values, running statistics, gradients, on one device and over several."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mancs_jax.kernels.conv_norm import BatchNorm, Sync, normalize_batch

RNG = np.random.default_rng(0)
X = jnp.asarray(3 * RNG.normal(size=(8, 5, 3, 4)) + 2, jnp.float32)
PARAMS = {"scale": jnp.float32([1.5, -0.5, 1.0, 0.2]), "bias": jnp.float32([0.1, 0.0, -2.0, 1.0])}
STATS = {"mean": jnp.float32([2.0, 1.0, 0.0, 2.0]), "var": jnp.float32([9.0, 4.0, 1.0, 16.0])}


def run(module, x, params):
    """(a loss with a gradient everywhere, the updated statistics)."""
    variables = {"params": params, "batch_stats": STATS}
    y, updates = module.apply(variables, x, mutable=["batch_stats"])
    weight = jnp.sin(jnp.arange(y[0].size, dtype=jnp.float32)).reshape(1, *y.shape[1:])
    return jnp.sum(weight * jnp.tanh(y) * jnp.cos(x)), updates["batch_stats"]


def with_gradients(module, x):
    return jax.value_and_grad(partial(run, module), argnums=(0, 1), has_aux=True)(x, PARAMS)


def assert_close(ours, others, **tolerance):
    assert jax.tree.structure(ours) == jax.tree.structure(others)
    jax.tree.map(partial(np.testing.assert_allclose, **tolerance), ours, others)


def kept_by_the_gradient(module, x):
    """The arrays of the size of `x` that lie in memory until the gradient is taken."""
    variables = {"params": PARAMS, "batch_stats": STATS}
    backward = jax.vjp(lambda x: module.apply(variables, x, mutable=["batch_stats"])[0], x)[1]
    return [leaf.dtype for leaf in jax.tree.leaves(backward) if leaf.size == x.size]


def flax_norm(**options):
    return nn.BatchNorm(momentum=0.9, epsilon=1e-5, **options)


@pytest.mark.parametrize("average", [False, True])
def test_equals_flax(average):
    ours = with_gradients(BatchNorm(use_running_average=average), X)
    assert_close(ours, with_gradients(flax_norm(use_running_average=average), X), rtol=2e-4, atol=2e-5)


def test_equals_flax_in_bfloat16():
    x, options = X.astype(jnp.bfloat16), {"use_running_average": False, "dtype": jnp.bfloat16}
    ours, others = (with_gradients(norm(**options), x) for norm in (BatchNorm, flax_norm))
    assert [leaf.dtype for leaf in jax.tree.leaves(ours)] == [leaf.dtype for leaf in jax.tree.leaves(others)]
    ours, others = (jax.tree.map(lambda leaf: leaf.astype(jnp.float32), result) for result in (ours, others))
    assert_close(ours, others, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_gradient_keeps_the_input_alone(dtype):
    x = X.astype(dtype)
    assert kept_by_the_gradient(BatchNorm(use_running_average=False, dtype=x.dtype), x) == [x.dtype]
    assert len(kept_by_the_gradient(flax_norm(use_running_average=False, dtype=x.dtype), x)) > 1


def test_no_gradient_goes_through_the_statistics():
    gradient = jax.grad(lambda x: sum(a.sum() for a in normalize_batch(x, *PARAMS.values(), 1e-5)[1:]))(X)
    np.testing.assert_array_equal(gradient, 0)


def test_has_the_variables_of_flax():
    ours, others = (
        module.init(jax.random.key(0), X)
        for module in (BatchNorm(use_running_average=False), flax_norm(use_running_average=False))
    )
    assert_close(ours, others)


def plain(x, scale, bias, epsilon):
    """Algorithm 1 as printed, for `jax.grad` to differentiate."""
    mean = x.mean(0, keepdims=True)
    var = jnp.square(x - mean).mean(0, keepdims=True)
    return (x - mean) / jnp.sqrt(var + epsilon) * scale[None] + bias[None]


def test_the_gradient_is_that_of_the_formula_in_float64():
    with jax.enable_x64(True):
        x = jnp.asarray(RNG.normal(size=(6, 3)) + [0.0, 1.0, 30.0], jnp.float64)
        scale, bias = jnp.float64([1.0, 2.0, -1.0]), jnp.float64([0.0, 1.0, 2.0])
        weight = jnp.asarray(RNG.normal(size=(6, 3)), jnp.float64)

        def gradients(normalize):
            return jax.grad(lambda *a: jnp.sum(weight * jnp.tanh(normalize(*a, 1e-5))), argnums=(0, 1, 2))

        arguments = (x, scale, bias)
        ours = gradients(lambda *a: normalize_batch(*a)[0])(*arguments)
        assert_close(ours, gradients(plain)(*arguments), rtol=1e-10, atol=1e-12)


def test_channels_far_from_zero_keep_their_gradient_in_float32():
    """A mean of ten standard deviations: the sum of slope * x is mostly the mean's, which is taken off again."""
    x = RNG.normal(size=(512, 4)) + 10.0
    weight = RNG.normal(size=(512, 4))
    ours = jax.grad(lambda x: jnp.sum(jnp.float32(weight) * normalize_batch(x, *PARAMS.values(), 1e-5)[0]))(
        jnp.float32(x)
    )
    with jax.enable_x64(True):
        scale, bias = (jnp.asarray(value, jnp.float64) for value in PARAMS.values())
        exact = jax.grad(lambda x: jnp.sum(weight * plain(x, scale, bias, 1e-5)))(jnp.asarray(x))
    exact = np.asarray(exact)
    assert np.linalg.norm(np.asarray(ours) - exact) < 1e-4 * np.linalg.norm(exact)


def test_half_precision_is_normalised_in_float32():
    x = X.astype(jnp.bfloat16)
    y, _ = BatchNorm(use_running_average=False, dtype=jnp.bfloat16).apply(
        {"params": PARAMS, "batch_stats": STATS}, x, mutable=["batch_stats"]
    )
    exact, _ = BatchNorm(use_running_average=False).apply(
        {"params": PARAMS, "batch_stats": STATS}, x.astype(jnp.float32), mutable=["batch_stats"]
    )
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize(
    ("parts", "num_devices", "groups", "local"),
    [(1, 2, 1, 1), (1, 4, 1, 1), (4, 1, 1, 4), (4, 2, 0, 2), (4, 4, 0, 1), (4, 4, 4, 1), (4, 8, 4, 1)],
)
def test_groups_do_not_depend_on_the_devices(parts, num_devices, groups, local):
    """One group of all images, or four groups of two: in one device, in each of several, or over several devices."""
    sync = Sync("devices", groups) if groups else None
    module = BatchNorm(use_running_average=False, sync=sync, groups=local)
    run_parts = jax.pmap(partial(run_all, module), axis_name="devices", devices=jax.devices()[:num_devices])
    y, updates, dx, by_params = run_parts(X.reshape(num_devices, -1, *X.shape[1:]))
    alone = [run_all(BatchNorm(use_running_average=False), part) for part in X.reshape(parts, 8 // parts, *X.shape[1:])]
    np.testing.assert_allclose(y.reshape(X.shape), np.concatenate([part[0] for part in alone]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dx.reshape(X.shape), np.concatenate([part[2] for part in alone]), rtol=1e-3, atol=2e-5)
    for name in STATS:
        mean = np.mean([part[1][name] for part in alone], axis=0)
        np.testing.assert_allclose(updates[name].mean(0), mean, rtol=1e-5)
    for name in PARAMS:
        total = np.sum([part[3][name] for part in alone], axis=0)
        np.testing.assert_allclose(by_params[name].sum(0), total, rtol=1e-3, atol=1e-4)


def run_all(module, x):
    """(output, updated statistics, gradients of a weighted sum by x and by the parameters)."""

    def apply(x, params):
        return module.apply({"params": params, "batch_stats": STATS}, x, mutable=["batch_stats"])

    y, pull, updates = jax.vjp(apply, x, PARAMS, has_aux=True)
    return y, updates["batch_stats"], *pull(jnp.sin(y))
