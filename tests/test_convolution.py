"""The fast CPU path against float64 loops over the kernel's pixels, and against XLA's own operations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from mancs_jax.kernels import convolution
from mancs_jax.kernels.convolution import convolve
from mancs_jax.kernels.pooling import from_taps, max_pool_3x3_s2, pool_with_tap


def reference(x, kernel, cotangent, stride, padding):
    """Output and both gradients in float64, one pixel of the kernel at a time."""
    x, kernel, cotangent = (np.asarray(array, np.float64) for array in (x, kernel, cotangent))
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    padded_gradient, kernel_gradient = np.zeros_like(padded), np.zeros_like(kernel)
    height, width = cotangent.shape[1:3]
    output = np.zeros_like(cotangent)
    for row in range(kernel.shape[0]):
        for column in range(kernel.shape[1]):
            rows = slice(row, row + stride * (height - 1) + 1, stride)
            columns = slice(column, column + stride * (width - 1) + 1, stride)
            output += padded[:, rows, columns] @ kernel[row, column]
            padded_gradient[:, rows, columns] += cotangent @ kernel[row, column].T
            kernel_gradient[row, column] = np.einsum("bhwi,bhwo->io", padded[:, rows, columns], cotangent)
    inside = slice(padding, padding + x.shape[1]), slice(padding, padding + x.shape[2])
    return output, padded_gradient[:, inside[0], inside[1]], kernel_gradient


def test_xla_is_given_a_row_more_than_the_map_has_and_the_result_has_not(monkeypatch):
    """What XLA's YNNPACK declines goes to Eigen."""
    monkeypatch.setattr(convolution, "_EXTRA_ROWS", 1)
    x, kernel = jnp.zeros((2, 8, 4, 32)), jnp.zeros((3, 3, 32, 32))
    function = jax.jit(partial(convolve, padding=1))
    assert "tensor<2x9x4x32xf32>" in function.lower(x, kernel).as_text()
    assert function(x, kernel).shape == x.shape


# batch, height, width, channels in, channels out, kernel size, stride, padding
SHAPES = [
    (2, 8, 4, 5, 6, 3, 1, 1),
    (2, 8, 4, 5, 6, 3, 2, 1),
    (2, 9, 7, 5, 6, 3, 2, 1),
    (3, 4, 2, 5, 7, 3, 1, 1),
    (3, 4, 2, 5, 7, 3, 2, 1),
    (3, 2, 1, 5, 7, 3, 1, 1),
    (3, 2, 1, 5, 7, 3, 2, 1),
    (2, 1, 9, 5, 7, 3, 2, 1),
    (1, 1, 1, 4, 4, 3, 2, 1),
    (2, 7, 5, 5, 6, 1, 1, 0),
    (2, 8, 4, 5, 6, 1, 2, 0),
    (2, 7, 5, 5, 6, 1, 2, 0),
    (2, 16, 8, 3, 8, 7, 2, 3),
    (2, 15, 9, 3, 8, 7, 2, 3),
    (2, 6, 7, 4, 4, 3, 1, 0),
    (2, 6, 7, 4, 4, 3, 1, 3),
    (2, 6, 7, 4, 4, 5, 3, 2),
    (8, 32, 16, 96, 80, 3, 1, 1),  # large enough that the kernel gradient is summed over chunks of the batch
]


def draw(shape, dtype=np.float32):
    batch, height, width, channels_in, channels_out, size, stride, padding = shape
    generator = np.random.default_rng(0)
    out = [(length + 2 * padding - size) // stride + 1 for length in (height, width)]
    kernel = (size, size, channels_in, channels_out)
    shapes = (batch, height, width, channels_in), kernel, (batch, *out, channels_out)
    return [jnp.asarray(generator.normal(size=shape), dtype) for shape in shapes]


def output_and_gradients(x, kernel, cotangent, stride, padding):
    output, gradients = jax.vjp(partial(convolve, stride=stride, padding=padding), x, kernel)
    return output, *gradients(cotangent)


def compiled(shape):
    """A new function, which JAX traces anew: the one before may be for another processor."""
    return jax.jit(partial(output_and_gradients, stride=shape[6], padding=shape[7]))


YNNPACK, EIGEN = (1, 3 << 19), (0, 1 << 20)  # rows too many, bytes of a chunk: so few that there are some


@pytest.mark.parametrize(
    ("shape", "rows", "chunk"),
    [(shape, *YNNPACK) for shape in SHAPES] + [(SHAPES[number], *EIGEN) for number in (0, 2, -1)],
)
def test_output_and_gradients_equal_float64_loops(shape, rows, chunk, monkeypatch):
    monkeypatch.setattr(convolution, "_EXTRA_ROWS", rows)
    monkeypatch.setattr(convolution, "_CHUNK_BYTES", chunk)
    arrays = draw(shape)
    got = compiled(shape)(*arrays)
    for actual, expected in zip(got, reference(*arrays, *shape[6:]), strict=True):
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * max(np.abs(expected).max(), 1e-6))


@pytest.mark.parametrize("shape", [SHAPES[1], SHAPES[3], SHAPES[9]], ids=str)
def test_bfloat16_stays_bfloat16(shape):
    arrays = draw(shape, jnp.bfloat16)
    got = compiled(shape)(*arrays)
    for actual, expected in zip(got, reference(*arrays, *shape[6:]), strict=True):
        assert actual.dtype == jnp.bfloat16
        error = np.abs(np.asarray(actual, float) - expected).max()
        assert error < 0.03 * np.abs(expected).max()


def test_mismatch_names_both_shapes():
    with pytest.raises(ValueError, match=r"\[1, 2, 2, 3\].*\[1, 1, 4, 5\]"):
        convolve(jnp.ones((1, 2, 2, 3)), jnp.ones((1, 1, 4, 5)), padding=0)


def lax_pool(x):
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)


@pytest.mark.parametrize("shape", [(2, 8, 6, 3), (2, 7, 5, 3), (1, 1, 1, 2), (2, 2, 1, 3)], ids=str)
def test_pool_equals_lax_with_ties(shape):
    generator = np.random.default_rng(0)
    x = jnp.asarray(generator.integers(-1, 2, shape), jnp.float32)
    output, gradient = jax.vjp(jax.jit(max_pool_3x3_s2), x)
    expected_output, expected_gradient = jax.vjp(lax_pool, x)
    cotangent = jnp.asarray(generator.integers(1, 9, output.shape), jnp.float32)
    np.testing.assert_array_equal(output, expected_output)
    np.testing.assert_array_equal(gradient(cotangent)[0], expected_gradient(cotangent)[0])
    assert max_pool_3x3_s2(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    on_gpu, tap = pool_with_tap(x)
    assert tap.dtype == jnp.uint8
    np.testing.assert_array_equal(on_gpu, expected_output)
    np.testing.assert_array_equal(from_taps(tap, cotangent, shape), expected_gradient(cotangent)[0])


def stem_loss(kernel, x):
    return (max_pool_3x3_s2(convolve(x, kernel, stride=2, padding=3)) ** 2).mean()


def test_pmap_shard_map_and_checkpoint_give_the_gradient_of_one_device():
    x, kernel, _ = draw((8, 16, 8, 3, 4, 7, 2, 3))
    expected = jax.jit(jax.grad(stem_loss))(kernel, x)

    def gradient(kernel, x):
        return lax.pmean(jax.grad(jax.checkpoint(stem_loss))(kernel, x), "device")

    devices = jax.device_count()
    mapped = jax.pmap(gradient, axis_name="device", in_axes=(None, 0), out_axes=None)
    mesh = jax.make_mesh((devices,), ("device",), axis_types=(AxisType.Auto,))
    specs = (PartitionSpec(), PartitionSpec("device"))
    sharded = jax.shard_map(gradient, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False)
    for actual in (mapped(kernel, x.reshape(devices, -1, *x.shape[1:])), jax.jit(sharded)(kernel, x)):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
