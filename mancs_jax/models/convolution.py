"""Convolution and max pooling of the residual networks, with a fast path for XLA on CPU.

On GPU and TPU both functions lower to the plain `lax` operation. On CPU a 1x1 convolution becomes a matrix
product over the channels, and a convolution of a map narrower than its kernel (a naive loop in XLA) a sum of
shifted products.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax


def convolve(x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int) -> jax.Array:
    """Two-dimensional convolution with the same padding on all four sides, as torch's `Conv2d` computes it.

    Args:
      x: [B, H, W, Cin], float.
      kernel: [kh, kw, Cin, Cout], of the dtype of `x`.
      stride: step of the window along both axes, in pixels.
      padding: zeros added on each of the four sides, in pixels.

    Returns:
      [B, (H + 2 * padding - kh) // stride + 1, (W + 2 * padding - kw) // stride + 1, Cout], dtype of `x`.

    Raises:
      ValueError: the channels or dtypes of `x` and `kernel` differ.
    """
    if x.shape[-1] != kernel.shape[2] or x.dtype != kernel.dtype:
        raise ValueError(
            f"convolve: x {x.dtype}{list(x.shape)} does not fit kernel {kernel.dtype}{list(kernel.shape)}; "
            "x must be [B, H, W, Cin], kernel [kh, kw, Cin, Cout], both of one dtype"
        )
    return _convolve(x, kernel, stride, padding)


def max_pool_3x3_s2(x: jax.Array) -> jax.Array:
    """Maximum over 3x3 windows, stride 2, padding 1: torch's `MaxPool2d(3, 2, padding=1)`.

    The gradient goes to the first maximum of a window in row-major order, as in torch and XLA.

    Args:
      x: [B, H, W, C], float.

    Returns:
      [B, (H + 1) // 2, (W + 1) // 2, C], dtype of `x`.
    """
    return _max_pool(x)


def _lax_convolve(x, kernel, stride, padding):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x, kernel, stride, padding):
    return lax.platform_dependent(
        x,
        kernel,
        cpu=partial(_cpu_forward, stride=stride, padding=padding),
        default=partial(_lax_convolve, stride=stride, padding=padding),
    )


def _convolve_forward(x, kernel, stride, padding):
    return _convolve(x, kernel, stride, padding), (x, kernel)


def _convolve_backward(stride, padding, residuals, cotangent):
    def by_lax(x, kernel, cotangent):
        return jax.vjp(lambda x, kernel: _lax_convolve(x, kernel, stride, padding), x, kernel)[1](cotangent)

    def by_products(x, kernel, cotangent):
        return (
            _cpu_input_gradient(kernel, cotangent, x.shape, stride, padding),
            _cpu_kernel_gradient(x, cotangent, kernel.shape, stride, padding),
        )

    return lax.platform_dependent(*residuals, cotangent, cpu=by_products, default=by_lax)


_convolve.defvjp(_convolve_forward, _convolve_backward)


# Bytes of shifted copies that one matrix product of the kernel gradient reads: small enough to stay in cache.
_CHUNK_BYTES = 4 << 20


def _cpu_forward(x, kernel, stride, padding):
    return _cpu_correlate(x, kernel, stride, (padding, padding), (padding, padding))


def _cpu_correlate(x, kernel, stride, row_padding, column_padding):
    """Convolution of `x` padded with zeros (cut, where negative) before and after its rows and columns."""
    rows, columns = kernel.shape[:2]
    # XLA swaps map and kernel where the kernel has more pixels, and then runs a naive loop.
    if rows * columns > 1 and rows * columns <= x.shape[1] * x.shape[2]:
        padding = (row_padding, column_padding)
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    x = _pad(x, row_padding, column_padding)
    height, width = (x.shape[1] - rows) // stride * stride + 1, (x.shape[2] - columns) // stride * stride + 1
    return sum(
        _product(x[:, row : row + height : stride, column : column + width : stride], kernel[row, column])
        for row in range(rows)
        for column in range(columns)
    )


def _cpu_input_gradient(kernel, cotangent, input_shape, stride, padding):
    """Each of the stride x stride phases of the input gradient is a convolution of the cotangent.

    Row `stride * b + phase` of the input meets kernel row `stride * t + first` in output row `b + shift - t`.
    """
    counts = [-(-size // stride) for size in input_shape[1:3]]

    def taps(phase, axis):
        shift, first = divmod(phase + padding, stride)
        number = len(range(first, kernel.shape[axis], stride))
        after = counts[axis] + shift - cotangent.shape[1 + axis]
        return slice(first, None, stride), number, (number - 1 - shift, after)

    def gradient(row_phase, column_phase):
        rows, row_number, row_padding = taps(row_phase, 0)
        columns, column_number, column_padding = taps(column_phase, 1)
        if row_number * column_number == 0:
            return jnp.zeros((input_shape[0], *counts, input_shape[3]), cotangent.dtype)
        part = kernel[rows, columns][::-1, ::-1].swapaxes(2, 3)
        return _cpu_correlate(cotangent, part, 1, row_padding, column_padding)

    if stride == 1:
        return gradient(0, 0)
    phases = range(stride)
    x = jnp.stack([jnp.stack([gradient(row, column) for column in phases], 3) for row in phases], 2)
    x = x.reshape(input_shape[0], stride * counts[0], stride * counts[1], input_shape[3])
    return x[:, : input_shape[1], : input_shape[2]]


def _cpu_kernel_gradient(x, cotangent, kernel_shape, stride, padding):
    """Input, shifted by every kernel column, times cotangent, shifted by every kernel row: all taps at once.

    So each side is copied kh or kw times instead of one side kh * kw times. The batch is cut into chunks to
    keep these copies in cache.
    """
    rows, columns, channels_in, channels_out = kernel_shape
    height, width = cotangent.shape[1:3]

    def gradient(x, cotangent):
        kernel = jnp.zeros(kernel_shape, x.dtype)
        for first in range(min(stride, rows)):
            taps = len(range(first, rows, stride))
            # Rows of this phase that lie in the image, counted in the padded one.
            start = max(-(-(padding - first) // stride), 0)
            stop = min((padding + x.shape[1] - 1 - first) // stride, height + taps - 2) + 1
            offset = stride * start + first - padding
            part = x[:, offset : offset + stride * (stop - start - 1) + 1 : stride]
            part = _pad(part, (0, 0), (padding, padding))
            span = stride * (width - 1) + 1
            shifted = [part[:, :, column : column + span : stride] for column in range(columns)]
            cotangents = [_pad(cotangent, (tap - start, stop - tap - height), (0, 0)) for tap in range(taps)]
            left = jnp.concatenate(shifted, -1).reshape(-1, columns * channels_in)
            right = jnp.concatenate(cotangents, -1).reshape(-1, taps * channels_out)
            # Without the barrier XLA copies inside the product.
            left, right = lax.optimization_barrier((left, right))
            product = (left.T @ right).reshape(columns, channels_in, taps, channels_out)
            kernel = kernel.at[first::stride].set(product.transpose(2, 0, 1, 3))
        return kernel

    batch = x.shape[0]
    copied = x.dtype.itemsize * (x.size * columns // stride + cotangent.size * rows)
    wanted = -(-copied // _CHUNK_BYTES)
    chunks = next(n for n in range(min(wanted, batch), batch + 1) if batch % n == 0)
    if rows * columns == 1 or chunks == 1:
        return gradient(x, cotangent)
    chunked = [a.reshape(chunks, batch // chunks, *a.shape[1:]) for a in (x, cotangent)]
    zero = jnp.zeros(kernel_shape, x.dtype)
    return lax.scan(lambda total, chunk: (total + gradient(*chunk), None), zero, chunked)[0]


def _pad(x, rows, columns):
    """Adds zeros (or, where negative, cuts) before and after the rows and the columns of `x` [B, H, W, C]."""
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)])


def _product(a, b):
    """Matrix product over the last axis of `a` [..., M] and the first of `b` [M, N]."""
    return (a.reshape(-1, a.shape[-1]) @ b).reshape(*a.shape[:-1], b.shape[-1])


@jax.custom_vjp
def _max_pool(x):
    return lax.platform_dependent(x, cpu=lambda x: _pool_axis(_pool_axis(x, 2), 1), default=_lax_max_pool)


def _lax_max_pool(x):
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)


def _max_pool_forward(x):
    return _max_pool(x), x


def _max_pool_backward(x, cotangent):
    def separable(x, cotangent):
        # First along the columns, then the rows: so the first maximum in row-major order wins a tie.
        by_columns = _pool_axis(x, 2)
        cotangent = _unpool_axis(by_columns, _pool_axis(by_columns, 1), cotangent, 1)
        return (_unpool_axis(x, by_columns, cotangent, 2),)

    def by_lax(x, cotangent):
        return jax.vjp(_lax_max_pool, x)[1](cotangent)

    return lax.platform_dependent(x, cotangent, cpu=separable, default=by_lax)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _triples(x, axis):
    """The first, middle and last element of each window of 3, stride 2, padding 1 along `axis`."""
    size = x.shape[axis]
    count = (size + 1) // 2
    pad = [(0, 0)] * x.ndim
    pad[axis] = (1, 2 * count - size)
    x = jnp.pad(x, pad, constant_values=-jnp.inf)
    return [lax.slice_in_dim(x, start, start + 2 * count - 1, 2, axis) for start in range(3)]


def _pool_axis(x, axis):
    first, middle, last = _triples(x, axis)
    return jnp.maximum(jnp.maximum(first, middle), last)


def _unpool_axis(x, pooled, cotangent, axis):
    first, middle, _ = _triples(x, axis)
    to_first = first == pooled
    to_middle = ~to_first & (middle == pooled)
    zero = jnp.zeros((), cotangent.dtype)
    from_first = jnp.where(to_first, cotangent, zero)
    from_last = jnp.where(to_first | to_middle, zero, cotangent)
    # The last element of a window is the first of the next.
    following = lax.slice_in_dim(from_first, 1, None, axis=axis)
    pad = [(0, 0)] * x.ndim
    pad[axis] = (0, 1)
    odd = from_last + jnp.pad(following, pad)
    pairs = jnp.stack([jnp.where(to_middle, cotangent, zero), odd], axis + 1)
    shape = list(x.shape)
    shape[axis] = 2 * pooled.shape[axis]
    return lax.slice_in_dim(pairs.reshape(shape), 0, x.shape[axis], axis=axis)
