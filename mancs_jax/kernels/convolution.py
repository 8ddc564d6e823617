"""Convolution of the residual networks, with a fast path for XLA on CPU.

On GPU and TPU it lowers to the plain `lax` operation. On CPU, XLA is fast only for channels-last convolutions without
input dilation, on maps with at least as many pixels as the kernel; the path here brings the convolution and both
gradients into that form, or into matrix products over the channels. Under `jax.shard_map` the gradients need
`check_vma=False`.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from mancs_jax.common.processor import ynnpack_convolves

Array = Any  # of JAX, or of NumPy outside of compiled functions
Maps = Float[Array, "B H W C"]
Kernel = Float[Array, "kh kw Cin Cout"]


def convolve(x: Maps, kernel: Kernel, *, stride: int = 1, padding: int) -> Float[jax.Array, "B H2 W2 Cout"]:
    """Convolves as torch's `Conv2d`: H2 = (H + 2 * padding - kh) // stride + 1, and likewise W2.

    `stride` is the step of the window along both axes, `padding` the number of zeros added on each of the four sides.
    Raises ValueError where the channels or dtypes of `x` and `kernel` differ.
    """
    if x.shape[-1] != kernel.shape[2] or x.dtype != kernel.dtype:
        raise ValueError(
            f"convolve: x {x.dtype}{list(x.shape)} does not fit kernel {kernel.dtype}{list(kernel.shape)}; "
            "x must be [B, H, W, Cin], kernel [kh, kw, Cin, Cout], both of one dtype"
        )
    return _convolve(x, kernel, stride, padding)


def _lax_convolve(x: Maps, kernel: Kernel, stride: int, padding: int) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x: Maps, kernel: Kernel, stride: int, padding: int) -> jax.Array:
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

    def on_cpu(x, kernel, cotangent):
        return (
            _cpu_input_gradient(kernel, cotangent, x.shape, stride, padding),
            _cpu_kernel_gradient(x, cotangent, kernel.shape, stride, padding),
        )

    return lax.platform_dependent(*residuals, cotangent, cpu=on_cpu, default=by_lax)


_convolve.defvjp(_convolve_forward, _convolve_backward)


# Bytes of input and cotangent that one convolution of the kernel gradient reads. With YNNPACK they fit into the cache
# of a core; with Eigen, 12 MB were fastest on a Zen 3 with 32 MB of cache.
_CHUNK_BYTES = 3 << 19 if ynnpack_convolves() else 3 << 22
# See `_cpu_correlate`.
_EXTRA_ROWS = 1 if ynnpack_convolves() else 0


@contextmanager
def for_unknown_processors() -> Iterator[None]:
    """Traces for YNNPACK, XLA's default, whichever library convolves in this process."""
    global _EXTRA_ROWS
    before, _EXTRA_ROWS = _EXTRA_ROWS, 1
    try:
        yield
    finally:
        _EXTRA_ROWS = before


def _cpu_forward(x: Maps, kernel: Kernel, stride: int, padding: int) -> jax.Array:
    return _cpu_correlate(x, kernel, ((padding, padding), (padding, padding)), stride=stride)


def _cpu_correlate(x: Maps, kernel: Kernel, padding: Sequence, stride: int = 1, dilation: int = 1) -> Array:
    """Convolves; `padding`: zeros added (or, where negative, pixels cut) before and after rows and columns."""
    rows, columns = (dilation * (size - 1) + 1 for size in kernel.shape[:2])
    # XLA swaps map and kernel where the kernel has more pixels, and then runs a naive loop.
    if 1 < rows * columns <= x.shape[1] * x.shape[2]:
        height = (x.shape[1] + sum(padding[0]) - rows) // stride + 1
        # YNNPACK, XLA's default for convolutions, is slow with few channels. It rejects a convolution whose output has
        # more rows than its input, which Eigen then computes: hence one row too many, which is cut off again.
        extra_rows = _EXTRA_ROWS * (height == x.shape[1])
        y = lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            ((padding[0][0], padding[0][1] + extra_rows), padding[1]),
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y[:, :height]
    x = _pad(x, *padding)
    height, width = (x.shape[1] - rows) // stride * stride + 1, (x.shape[2] - columns) // stride * stride + 1
    return sum(
        _product(x[:, row : row + height : stride, column : column + width : stride], tap)
        for row, taps in zip(range(0, rows, dilation), kernel, strict=True)
        for column, tap in zip(range(0, columns, dilation), taps, strict=True)
    )


def _cpu_input_gradient(
    kernel: Kernel, cotangent: Maps, input_shape: tuple[int, ...], stride: int, padding: int
) -> jax.Array:
    """Each of the stride x stride phases of the input gradient is a convolution of the cotangent.

    Row `stride * b + phase` of the input meets kernel row `stride * t + first` in output row `b + shift - t`.
    """
    counts = [-(-size // stride) for size in input_shape[1:3]]

    def taps(phase, axis):
        shift, first = divmod(phase + padding, stride)
        num_taps = len(range(first, kernel.shape[axis], stride))
        after = counts[axis] + shift - cotangent.shape[1 + axis]
        return slice(first, None, stride), num_taps, (num_taps - 1 - shift, after)

    def gradient(row_phase, column_phase):
        rows, num_rows, row_padding = taps(row_phase, 0)
        columns, num_columns, column_padding = taps(column_phase, 1)
        if num_rows * num_columns == 0:
            return jnp.zeros((input_shape[0], *counts, input_shape[3]), cotangent.dtype)
        flipped = kernel[rows, columns][::-1, ::-1].swapaxes(2, 3)
        return _cpu_correlate(cotangent, flipped, (row_padding, column_padding))

    if stride == 1:
        return gradient(0, 0)
    phases = range(stride)
    x = jnp.stack([jnp.stack([gradient(row, column) for column in phases], 3) for row in phases], 2)
    x = x.reshape(input_shape[0], stride * counts[0], stride * counts[1], input_shape[3])
    return x[:, : input_shape[1], : input_shape[2]]


def _cpu_kernel_gradient(
    x: Float[Array, "B H W Cin"], cotangent: Float[Array, "B H2 W2 Cout"], shape: tuple, stride: int, padding: int
) -> Float[jax.Array, "kh kw Cin Cout"]:
    """Computes the kernel gradient: a convolution over the batch with the cotangent as kernel, in chunks of images."""
    batch = x.shape[0]
    rows, columns = shape[:2]
    if (rows, columns) == (1, 1):
        height, width = (stride * (size - 1) + 1 for size in cotangent.shape[1:3])
        x = _pad(x, (padding, padding), (padding, padding))[:, :height:stride, :width:stride]
        left, right = (a.reshape(-1, a.shape[-1]) for a in (x, cotangent))
        return (left.T @ right).reshape(shape)

    def gradient(x, cotangent):
        # The zeros after the map: as many as the last window reaches, which stride > 1 may leave short.
        after = [
            shape[axis] + stride * (cotangent.shape[1 + axis] - 1) - padding - x.shape[1 + axis] for axis in (0, 1)
        ]
        # Channels-last for both: XLA runs any other layout through a slow path.
        x, cotangent = lax.optimization_barrier((x.transpose(3, 1, 2, 0), cotangent.transpose(1, 2, 0, 3)))
        kernel = _cpu_correlate(x, cotangent, [(padding, zeros) for zeros in after], dilation=stride)
        return kernel.transpose(1, 2, 0, 3)

    # Adding a chunk should not cost more than reading it.
    chunk_bytes = max(_CHUNK_BYTES, math.prod(shape) * x.dtype.itemsize)
    least_chunks = min(-(-(x.nbytes + cotangent.nbytes) // chunk_bytes), batch)
    chunks = next(n for n in range(least_chunks, batch + 1) if batch % n == 0)
    if chunks == 1:
        return gradient(x, cotangent)
    x, cotangent = (a.reshape(chunks, batch // chunks, *a.shape[1:]) for a in (x, cotangent))
    zero = jnp.zeros(shape, x.dtype)
    return lax.fori_loop(0, chunks, lambda i, total: total + gradient(x[i], cotangent[i]), zero)


def _pad(x: Maps, rows: tuple[int, int], columns: tuple[int, int]) -> jax.Array:
    """Adds zeros (or, where negative, cuts pixels) before and after the rows and the columns."""
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)])


def _product(a: Float[Array, "*dims M"], b: Float[Array, "M N"]) -> Float[jax.Array, "*dims N"]:
    return (a.reshape(-1, a.shape[-1]) @ b).reshape(*a.shape[:-1], b.shape[-1])
