"""BatchNorm (Ioffe and Szegedy 2015) of a map or of its convolution, with gradients that move fewer bytes.

The gradient keeps the input alone and reads it twice. `flax.linen.BatchNorm` (same variables, same values) keeps the
centred input besides, and takes one sum more. A 1x1 convolution that widens is normalised before it is made.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mancs_jax.models.convolution import convolve


class BatchNorm(nn.Module):
    """Normalises each channel, the last axis, over all others, of a map or of its convolution; gives `dtype`.

    Attributes:
      use_running_average: whether the running statistics are taken, instead of those of the batch.
      axis_name: the pmap axis over which the batch's statistics are taken; None for each device its own.
      momentum: of the running statistics (torch's 0.1 is 0.9).
      epsilon: added to the variance.
      dtype: of the result; statistics are float32.
    """

    use_running_average: bool
    axis_name: str | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, kernel: jax.Array | None = None, stride: int = 1) -> jax.Array:
        """Normalises `x`, or its convolution.

        Args:
          x: [..., C] float; with a kernel [B, H, W, Cin].
          kernel: [k, k, Cin, C] float32, with `(k - 1) // 2` zeros around the map; None normalises `x` itself.
          stride: of the convolution.

        Returns:
          The shape of `x`, or of its convolution.
        """
        channels = (x if kernel is None else kernel).shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        if self.use_running_average:
            factor, mean = scale * jax.lax.rsqrt(running_var.value + self.epsilon), running_mean.value
            if kernel is None:
                y = (_widened(x) - _last(mean, x)) * _last(factor, x) + _last(bias, x)
            else:
                y = _affine(x, kernel * _last(factor, kernel), bias - mean * factor, stride)
            return y.astype(self.dtype)
        axis_name = None if self.is_initializing() else self.axis_name
        if kernel is None:
            y, mean, var = normalize_batch(x, scale, bias, self.epsilon, axis_name)
        elif kernel.shape[:2] == (1, 1) and kernel.shape[2] < channels:
            x = x[:, ::stride, ::stride]
            y, mean, var = normalize_product(x, kernel[0, 0], scale, bias, self.epsilon, axis_name)
        else:
            x = _convolved(x, kernel, stride)
            y, mean, var = normalize_batch(x, scale, bias, self.epsilon, axis_name)
        if not self.is_initializing():
            for running, value in ((running_mean, mean), (running_var, var)):
                running.value = self.momentum * running.value + (1 - self.momentum) * value
        return y.astype(self.dtype)


class InstanceNorm(nn.Module):
    """Normalises each channel of each image over its positions (Ulyanov et al. 2016), of a map or of its convolution.

    Attributes:
      epsilon: added to the variance.
      dtype: of the result; statistics are float32.
    """

    epsilon: float = BatchNorm.epsilon
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, kernel: jax.Array | None = None, stride: int = 1) -> jax.Array:
        """Arguments and result as of `BatchNorm`; there are no running statistics."""
        x = x if kernel is None else _convolved(x, kernel, stride)
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], jnp.float32)
        return jax.vmap(lambda image: normalize_batch(image, scale, bias, self.epsilon)[0])(x).astype(self.dtype)


class InstanceBatchNorm(nn.Module):
    """IBN-a: InstanceNorm of the first half of the channels and BatchNorm of the others (Pan et al., ECCV 2018).

    Attributes:
      norm: makes the BatchNorm; called with `use_running_average` and `name`.
      use_running_average: see `BatchNorm`.
    """

    norm: Callable[..., nn.Module]
    use_running_average: bool

    @nn.compact
    def __call__(self, x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
        """Normalises the convolution of `x`, see `BatchNorm`. Names of parameters are those of the authors' code."""
        half = kernel.shape[-1] // 2
        batch = self.norm(use_running_average=self.use_running_average, name="BN")(x, kernel[..., half:], stride)
        instance = InstanceNorm(dtype=batch.dtype, name="IN")(x, kernel[..., :half], stride)
        return jnp.concatenate([instance, batch], axis=-1)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalize_batch(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Ioffe and Szegedy 2015, algorithm 1, over all axes but the last.

    Args:
      x: [..., C], float; computed in float32, or in its own dtype where that is wider.
      scale: [C].
      bias: [C].
      epsilon: added to the variance.
      axis_name: the pmap axis over whose devices the statistics are taken; None for this device's alone.

    Returns:
      [..., C], and the mean and the (biased) variance [C], through which no gradient goes.
    """
    return _forward(x, scale, bias, epsilon, axis_name)[0]


def _forward(x, scale, bias, epsilon, axis_name):
    wide = _widened(x)
    mean, mean_of_squares = _sums(wide, wide * wide, axis_name) / _count(x, axis_name)
    var = jnp.maximum(mean_of_squares - mean * mean, 0)
    y = _normalize(x, mean, var, scale, bias, epsilon)
    return (y, mean, var), (x, mean, jax.lax.rsqrt(var + epsilon), scale)


def _backward(epsilon, axis_name, residuals, cotangents):
    x, mean, inverse, scale = residuals
    wide, slope = _widened(x), cotangents[0]
    # Not the sum of slope * (x - mean): XLA for CPU would write that difference to memory first.
    by_bias, product = _sums(slope, slope * wide, None)
    by_scale = (product - mean * by_bias) * inverse
    by_both = jnp.stack([by_bias, by_scale])
    # The statistics of all devices carry the losses of all: each input has a part in each.
    mean_bias, mean_scale = (by_both if axis_name is None else jax.lax.psum(by_both, axis_name)) / _count(x, axis_name)
    dx = slope - _last(mean_bias, x) - (wide - _last(mean, x)) * _last(inverse * mean_scale, x)
    dx = dx * _last(scale * inverse, x)
    return dx.astype(x.dtype), by_scale.astype(scale.dtype), by_bias.astype(scale.dtype)


normalize_batch.defvjp(_forward, _backward)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def normalize_product(
    x: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`normalize_batch` of `x @ kernel`, without that product: its statistics come from those of `x`.

    The mean of a product is linear in the mean of `x`. Its mean square is quadratic in the second moments of `x`. So
    the normalisation is known before the product is made, and goes into the kernel. The gradient reads `x` alone,
    which has a quarter of the channels at the end of a bottleneck block.

    Args:
      x: [B, H, W, Cin], float; products are of this dtype, sums are float32, or of a wider dtype of `x`.
      kernel: [Cin, C], float32.
      scale: [C].
      bias: [C].
      epsilon: added to the variance.
      axis_name: as in `normalize_batch`.

    Returns:
      [B, H, W, C] of the dtype of `x`; the mean and the variance of the product, [C], through which no gradient goes.
    """
    return _product_forward(x, kernel, scale, bias, epsilon, axis_name)[0]


def _product_forward(x, kernel, scale, bias, epsilon, axis_name):
    total, moments = _total(x), _contracted(x, x)
    mean_x, mean_of_squares = _means((total, (kernel * (moments @ kernel)).sum(0)), x, axis_name)
    mean = mean_x @ kernel
    var = jnp.maximum(mean_of_squares - mean * mean, 0)
    inverse = jax.lax.rsqrt(var + epsilon)
    folded = (kernel * _last(scale * inverse, kernel)).astype(x.dtype)
    # The mean of the product of the rounded kernel: so that the result is centred.
    y = _affine(x, folded[None, None], bias - mean_x @ _widened(folded))
    return (y, mean, var), (x, total, moments, mean_x, kernel, mean, inverse, scale)


def _product_backward(epsilon, axis_name, residuals, cotangents):
    x, total, moments, mean_x, kernel, mean, inverse, scale = residuals
    slope = cotangents[0]
    product, by_bias = _contracted(x, slope), _total(slope)
    by_scale = ((kernel * product).sum(0) - mean * by_bias) * inverse
    mean_bias, mean_scale = _means((by_bias, by_scale), x, axis_name)
    factor, pull = scale * inverse, inverse * mean_scale
    # The gradient of the product would be factor * (slope - mean_bias - (x @ kernel - mean) * pull).
    centred = moments @ kernel - jnp.outer(total, mean)
    by_kernel = product - jnp.outer(total, mean_bias) - centred * _last(pull, kernel)
    by_kernel = by_kernel * _last(factor, kernel)
    of_slope = (kernel * _last(factor, kernel)).T.astype(x.dtype)
    of_x = ((kernel * _last(-factor * pull, kernel)) @ kernel.T).astype(x.dtype)
    shift = -(mean_bias @ _widened(of_slope) + mean_x @ _widened(of_x))
    dx = _affine(slope, of_slope[None, None], shift) + _convolved(x, of_x[None, None])
    return dx, by_kernel.astype(kernel.dtype), by_scale.astype(scale.dtype), by_bias.astype(scale.dtype)


normalize_product.defvjp(_product_forward, _product_backward)


def _affine(x, kernel, shift, stride=1):
    # In the dtype of `x`, so that a GPU's convolution takes in the sum, and an addition and a ReLU after it.
    return _convolved(x, kernel, stride) + _last(shift, x).astype(x.dtype)


def _convolved(x, kernel, stride=1):
    return convolve(x, kernel.astype(x.dtype), stride=stride, padding=(kernel.shape[0] - 1) // 2)


def _contracted(a, b):
    """[..., M], [..., N] -> [M, N]: products of all pairs of channels, summed over all other axes."""
    a, b = (each.reshape(-1, each.shape[-1]) for each in (a, b))
    return jnp.matmul(a.T, b, precision="highest", preferred_element_type=_widened(a).dtype)


def _total(x):
    return _widened(x).sum(tuple(range(x.ndim - 1)))


def _means(sums, x, axis_name):
    """Sums as means over all devices of the axis, if one is named."""
    sums = sums if axis_name is None else jax.lax.psum(sums, axis_name)
    return jax.tree.map(lambda each: each / _count(x, axis_name), sums)


def _normalize(x, mean, var, scale, bias, epsilon):
    return (_widened(x) - _last(mean, x)) * _last(scale * jax.lax.rsqrt(var + epsilon), x) + _last(bias, x)


def _last(channel, x):
    """[C] -> [1, ..., 1, C], as many axes as `x` has."""
    return channel.reshape((1,) * (x.ndim - 1) + (-1,))


def _widened(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _sums(a, b, axis_name):
    """Sums of both over all axes but the last, [2, C]; over all devices of the axis, if one is named."""
    axes = tuple(range(a.ndim - 1))
    sums = jnp.stack([a.sum(axes), b.sum(axes)])
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)


def _count(x, axis_name):
    return x.size // x.shape[-1] * (1 if axis_name is None else jax.lax.axis_size(axis_name))
