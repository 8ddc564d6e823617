"""A convolution and its normalisation as one layer, with gradients that move fewer bytes.

The gradient of BatchNorm keeps only the input and reads it twice; `flax.linen.BatchNorm` (same variables, same values)
also keeps the centred input, and computes one more sum. A 1x1 convolution with more output than input channels is
normalised before it is computed, see `normalize_product`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from mancs_jax.kernels.convolution import convolve

EPSILON = 1e-5  # added to every variance
MOMENTUM = 0.9  # of running statistics; PyTorch calls it 0.1
Array = Any  # of JAX, or of NumPy outside of compiled functions
Channels = Float[Array, " C"]
Maps = Float[Array, "B H W Cin"]
Normalized = tuple[Float[jax.Array, "*dims C"], Float[jax.Array, " C"], Float[jax.Array, " C"]]  # and mean, variance

kaiming_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Sync(NamedTuple):
    """The devices that share BatchNorm statistics: those of a pmap axis, in `groups` groups of consecutive devices."""

    axis_name: str
    groups: int = 1


class State(NamedTuple):
    """Parameters and running statistics (Flax variables) of C channels, each float32 [C]."""

    scale: Channels
    bias: Channels
    mean: nn.Variable
    var: nn.Variable


class BatchNorm(nn.Module):
    """Normalises each channel, the last axis, over all other axes (Ioffe and Szegedy 2015).

    With `use_running_average`, it uses the running statistics. Otherwise it uses those of the batch, which the devices
    of `sync` share (None: each device has its own); each of `groups` groups of a device's images has its own.
    Statistics are float32.
    """

    use_running_average: bool
    sync: Sync | None = None
    groups: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def state(self, channels: int) -> State:
        """Creates or reads the parameters and running statistics."""
        return State(
            self.param("scale", nn.initializers.ones, (channels,), jnp.float32),
            self.param("bias", nn.initializers.zeros, (channels,), jnp.float32),
            self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32),
            self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32),
        )

    def __call__(self, x: Float[Array, "*dims C"]) -> Float[jax.Array, "*dims C"]:
        """Normalises an array, and updates the running statistics where they are not used."""
        state = self.state(x.shape[-1])
        if self.use_running_average:
            y = _normalize(x, state.mean.value, state.var.value, state.scale, state.bias, EPSILON)
        else:
            y = self.normalize_groups(state, x, lambda x, sync: normalize_batch(x, state.scale, state.bias, sync=sync))
        return y.astype(self.dtype)

    def convolve_and_normalize(
        self, x: Maps, kernel: Float[Array, "k k Cin C"], stride: int
    ) -> Float[jax.Array, "B H2 W2 C"]:
        """Convolves and normalises."""
        state = self.state(kernel.shape[-1])
        scale, bias = state.scale, state.bias
        if self.use_running_average:
            factor = scale * jax.lax.rsqrt(state.var.value + EPSILON)
            y = _affine(x, kernel * _on_last_axis(factor, kernel), bias - state.mean.value * factor, stride)
        elif kernel.shape[:2] == (1, 1) and kernel.shape[2] < kernel.shape[3]:
            x = x[:, ::stride, ::stride]
            y = self.normalize_groups(
                state, x, lambda x, sync: normalize_product(x, kernel[0, 0], scale, bias, sync=sync)
            )
        else:
            x = _convolved(x, kernel, stride)
            y = self.normalize_groups(state, x, lambda x, sync: normalize_batch(x, scale, bias, sync=sync))
        return y.astype(self.dtype)

    def interpolated(
        self,
        x: Maps,
        kernel: Float[Array, "k k Cin C"],
        stride: int,
        weight: float | jax.Array,
        number: int | jax.Array,
    ) -> Float[jax.Array, "B H2 W2 C"]:
        """Convolves and normalises by statistics between the running ones (`weight` 0) and those of the batch (1).

        The statistics of its first `number` images replace the running ones, so that the caller can read them.
        """
        x, state = _convolved(x, kernel, stride), self.state(kernel.shape[-1])
        is_counted = (jnp.arange(len(x)) < number)[:, None, None, None]
        batch_statistics, counted = (
            [moment(_widened(x), axis=(0, 1, 2), where=where) for moment in (jnp.mean, jnp.var)]
            for where in (None, is_counted)
        )
        running = (state.mean.value, state.var.value)
        mean, var = ((1 - weight) * old + weight * new for old, new in zip(running, batch_statistics))
        state.mean.value, state.var.value = counted
        return _normalize(x, mean, var, state.scale, state.bias, EPSILON).astype(self.dtype)

    def normalize_groups(self, state: State, x: Array, normalize: Callable) -> jax.Array:
        """Normalises each group of `x` [B, ...] by its own statistics, and updates the running ones by their means.

        `normalize` is (x, sync) -> `Normalized`. While the variables are initialised, the batch is one group.
        """
        normalize = partial(normalize, sync=None if self.is_initializing() else self.sync)
        if self.groups > 1 and not self.is_initializing():
            y, means, variances = jax.vmap(normalize)(x.reshape(self.groups, -1, *x.shape[1:]))
            y, mean, var = y.reshape(-1, *y.shape[2:]), means.mean(0), variances.mean(0)
        else:
            y, mean, var = normalize(x)
        if not self.is_initializing():
            for running, batch_value in ((state.mean, mean), (state.var, var)):
                running.value = MOMENTUM * running.value + (1 - MOMENTUM) * batch_value
        return y


class InstanceNorm(nn.Module):
    """Normalises each channel of each image over its positions (Ulyanov et al. 2016); returns `dtype`."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[jax.Array, "B H W C"]:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], jnp.float32)
        return jax.vmap(lambda image: normalize_batch(image, scale, bias)[0])(x).astype(self.dtype)


class InstanceBatchNorm(nn.Module):
    """IBN-a: InstanceNorm of the first half of the channels, BatchNorm of the second half (Pan et al., ECCV 2018).

    Attributes: those of `BatchNorm`. The parameters of the halves are "IN" and "BN", as in the authors' code.
    """

    use_running_average: bool
    sync: Sync | None = None
    groups: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def convolve_and_normalize(
        self, x: Maps, kernel: Float[Array, "k k Cin C"], stride: int
    ) -> Float[jax.Array, "B H2 W2 C"]:
        """Convolves and normalises."""
        half = kernel.shape[-1] // 2
        batch_norm = BatchNorm(self.use_running_average, self.sync, self.groups, self.dtype, name="BN")
        instance = InstanceNorm(self.dtype, name="IN")(_convolved(x, kernel[..., :half], stride))
        return jnp.concatenate([instance, batch_norm.convolve_and_normalize(x, kernel[..., half:], stride)], axis=-1)


class Kernel(nn.Module):
    """The kernel of a convolution without bias."""

    size: int
    channels: int
    features: int

    @nn.compact
    def __call__(self) -> Float[Array, "k k Cin C"]:
        return self.param("kernel", kaiming_normal_fan_out, (self.size, self.size, self.channels, self.features))


class ConvNorm(nn.Module):
    """A convolution without bias, padded by `(size - 1) // 2`, and the normalisation of its output.

    It shares the scope of the calling module, so that parameters have torchvision's names: "conv1" next to "bn1".
    `sync` and `groups` are those of `BatchNorm`.
    """

    features: int  # channels of the output
    size: int  # height and width of the kernel
    stride: int = 1
    names: tuple[str, str] = ("conv", "bn")  # of the kernel and of the normalisation
    norm: str = "batch"  # or "instance", "ibn": `InstanceNorm`, `InstanceBatchNorm`
    sync: Sync | None = None
    groups: int = 1
    dtype: Any = jnp.float32  # of the computation and the result; parameters and statistics are float32

    @nn.compact
    def __call__(self, x: Maps, train: bool) -> Float[jax.Array, "B H2 W2 C"]:
        """Runs the layer; with `train`, BatchNorm uses the statistics of the batch and updates the running ones."""
        conv, norm = self.names
        kernel = Kernel(self.size, x.shape[-1], self.features, name=conv)()
        if self.norm == "instance":
            return InstanceNorm(self.dtype, name=norm)(_convolved(x, kernel, self.stride))
        options = {"sync": self.sync, "groups": self.groups, "dtype": self.dtype}
        layer = InstanceBatchNorm if self.norm == "ibn" else BatchNorm
        return layer(use_running_average=not train, **options, name=norm).convolve_and_normalize(x, kernel, self.stride)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalize_batch(
    x: Float[Array, "*dims C"], scale: Channels, bias: Channels, epsilon: float = EPSILON, sync: Sync | None = None
) -> Normalized:
    """Normalises over all axes but the last (Ioffe and Szegedy 2015, algorithm 1).

    With n the number of positions and z = (x - mean) / sqrt(var + epsilon), the output is y = scale * z + bias. For a
    cotangent g of y, and with <.> for the mean over positions, the chain rule through mean and var gives

        d bias = sum(g),  d scale = sum(g * z),
        d x = scale / sqrt(var + epsilon) * (g - <g> - z * <g * z>).

    So the gradient needs `x`, the statistics and two sums: sum(g) and sum(g * x), of which sum(g * z) is an affine
    function. The centred input is not kept.

    Computed in float32, or in the dtype of `x` where that is wider. Statistics are those of the devices of `sync`. No
    gradient goes through the mean and the (biased) variance that are returned.
    """
    return _forward(x, scale, bias, epsilon, sync)[0]


def _forward(
    x: Float[Array, "*dims C"], scale: Channels, bias: Channels, epsilon: float, sync: Sync | None
) -> tuple[Normalized, tuple]:
    wide = _widened(x)
    mean, mean_of_squares = _synced(jnp.stack([_channel_sums(wide), _channel_sums(wide * wide)]), sync) / _count(
        x, sync
    )
    var = jnp.maximum(mean_of_squares - mean * mean, 0)
    y = _normalize(x, mean, var, scale, bias, epsilon)
    return (y, mean, var), (x, mean, jax.lax.rsqrt(var + epsilon), scale)


def _backward(epsilon, sync, residuals, cotangents):
    x, mean, inverse, scale = residuals
    wide, cotangent = _widened(x), cotangents[0]
    # Not the sum of cotangent * (x - mean): XLA for CPU would write that difference to memory first.
    d_bias, product = jnp.stack([_channel_sums(cotangent), _channel_sums(cotangent * wide)])
    d_scale = (product - mean * d_bias) * inverse
    # The statistics depend on the inputs of all devices.
    mean_bias, mean_scale = _synced(jnp.stack([d_bias, d_scale]), sync) / _count(x, sync)
    dx = (
        cotangent
        - _on_last_axis(mean_bias, x)
        - (wide - _on_last_axis(mean, x)) * _on_last_axis(inverse * mean_scale, x)
    )
    dx = dx * _on_last_axis(scale * inverse, x)
    return dx.astype(x.dtype), d_scale.astype(scale.dtype), d_bias.astype(scale.dtype)


normalize_batch.defvjp(_forward, _backward)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def normalize_product(
    x: Float[Array, "*dims Cin"],
    kernel: Float[Array, "Cin C"],
    scale: Channels,
    bias: Channels,
    epsilon: float = EPSILON,
    sync: Sync | None = None,
) -> Normalized:
    """Computes `normalize_batch` of `u = x @ kernel` without u: its statistics come from those of `x`.

    With W the kernel, n positions, s = sum(x) and M = sum(x x^T) over positions,

        mean(u) = (s / n) W,  mean(u^2) = diag(W^T M W) / n,

    so that the normalisation is known before the product is computed, and is folded into the kernel. For a cotangent g
    of the output, f = scale / sqrt(var + epsilon) and z = (u - mean(u)) / sqrt(var + epsilon), `normalize_batch` has

        d u = f * (g - <g> - z * <g * z>),  d x = d u W^T,  d W = sum(x d u^T).

    u is linear in x. So with p = <g * z> / sqrt(var + epsilon), the first becomes two small products,

        d x = g (f W)^T - x (W diag(f p) W^T) - <g> (f W)^T + (s / n) (W diag(f p) W^T),

    and the second needs only sum(x g^T), M and s:

        d W = f * (sum(x g^T) - s <g>^T - (M W - s mean(u)^T) p).

    sum(g * z) is diag(W^T sum(x g^T)), centred and scaled. The gradient reads `x`, which has a quarter of the channels
    of u at the end of a bottleneck block.

    Products, and the result, have the dtype of `x`; sums are float32, or of the dtype of `x` where that is wider.
    """
    return _product_forward(x, kernel, scale, bias, epsilon, sync)[0]


def _product_forward(x, kernel, scale, bias, epsilon, sync):
    total, moments = _channel_sums(x), _channel_products(x, x)
    mean_x, mean_of_squares = _synced_means((total, (kernel * (moments @ kernel)).sum(0)), x, sync)
    mean = mean_x @ kernel
    var = jnp.maximum(mean_of_squares - mean * mean, 0)
    inverse = jax.lax.rsqrt(var + epsilon)
    folded = (kernel * _on_last_axis(scale * inverse, kernel)).astype(x.dtype)
    # With the mean of the product of the rounded kernel, the result is centred.
    y = _affine(x, folded[None, None], bias - mean_x @ _widened(folded))
    return (y, mean, var), (x, total, moments, mean_x, kernel, mean, inverse, scale)


def _product_backward(epsilon, sync, residuals, cotangents):
    x, total, moments, mean_x, kernel, mean, inverse, scale = residuals
    cotangent = cotangents[0]
    product, d_bias = _channel_products(x, cotangent), _channel_sums(cotangent)
    d_scale = ((kernel * product).sum(0) - mean * d_bias) * inverse
    mean_bias, mean_scale = _synced_means((d_bias, d_scale), x, sync)
    f, p = scale * inverse, inverse * mean_scale  # of the derivation
    centred = moments @ kernel - jnp.outer(total, mean)
    d_kernel = product - jnp.outer(total, mean_bias) - centred * _on_last_axis(p, kernel)
    d_kernel = d_kernel * _on_last_axis(f, kernel)
    from_cotangent = (kernel * _on_last_axis(f, kernel)).T.astype(x.dtype)
    from_x = ((kernel * _on_last_axis(-f * p, kernel)) @ kernel.T).astype(x.dtype)
    shift = -(mean_bias @ _widened(from_cotangent) + mean_x @ _widened(from_x))
    dx = _affine(cotangent, from_cotangent[None, None], shift) + _convolved(x, from_x[None, None])
    return dx, d_kernel.astype(kernel.dtype), d_scale.astype(scale.dtype), d_bias.astype(scale.dtype)


normalize_product.defvjp(_product_forward, _product_backward)


def _affine(x: Array, kernel: Array, shift: Array, stride: int = 1) -> jax.Array:
    # In the dtype of `x`, so that a GPU fuses the sum, and an addition and a ReLU after it, into the convolution.
    return _convolved(x, kernel, stride) + _on_last_axis(shift, x).astype(x.dtype)


def _convolved(x: Array, kernel: Array, stride: int = 1) -> jax.Array:
    return convolve(x, kernel.astype(x.dtype), stride=stride, padding=(kernel.shape[0] - 1) // 2)


def _channel_products(a: Float[Array, "*dims M"], b: Float[Array, "*dims N"]) -> Float[jax.Array, "M N"]:
    """Sums the products of a channel of `a` and a channel of `b` over all positions."""
    a, b = (array.reshape(-1, array.shape[-1]) for array in (a, b))
    return jnp.matmul(a.T, b, precision="highest", preferred_element_type=_widened(a).dtype)


def _channel_sums(x: Float[Array, "*dims C"]) -> Float[jax.Array, " C"]:
    return _widened(x).sum(tuple(range(x.ndim - 1)))


def _synced(sums: jax.Array, sync: Sync | None) -> jax.Array:
    """Adds up the sums of the devices that share statistics."""
    if sync is None:
        return sums
    if sync.groups == 1:
        return jax.lax.psum(sums, sync.axis_name)
    # One row for the sums of each group: `psum` within groups is not available under every kind of mapping.
    group = jax.lax.axis_index(sync.axis_name) * sync.groups // jax.lax.axis_size(sync.axis_name)
    is_own = (jnp.arange(sync.groups) == group).reshape(-1, *(1,) * sums.ndim)
    return jax.lax.psum(jnp.where(is_own, sums, 0), sync.axis_name)[group]


def _count(x: Array, sync: Sync | None) -> int:
    """Returns the number of positions of a statistic, over all devices that share it."""
    devices = 1 if sync is None else jax.lax.axis_size(sync.axis_name) // sync.groups
    return x.size // x.shape[-1] * devices


def _synced_means(sums, x, sync):
    """Divides sums over the positions of `x` by their number, both over all devices that share statistics."""
    return jax.tree.map(lambda leaf: _synced(leaf, sync) / _count(x, sync), sums)


def _normalize(
    x: Float[Array, "*dims C"], mean: Channels, var: Channels, scale: Channels, bias: Channels, epsilon: float
) -> Float[jax.Array, "*dims C"]:
    return (_widened(x) - _on_last_axis(mean, x)) * _on_last_axis(
        scale * jax.lax.rsqrt(var + epsilon), x
    ) + _on_last_axis(bias, x)


def _on_last_axis(channels: Float[Array, " C"], x: Array) -> Float[Any, "*ones C"]:
    """Gives a vector over channels as many axes as `x` has, so that no broadcast adds axes implicitly."""
    return channels.reshape((1,) * (x.ndim - 1) + (-1,))


def _widened(x: Float[Array, "*dims"]) -> Float[Array, "*dims"]:
    """Converts to float32, or leaves a wider dtype."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
