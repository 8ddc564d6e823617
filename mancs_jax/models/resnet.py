"""ResNets (He et al., CVPR 2016) with PyTorch's padding, so that torchvision weights give the same features."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mancs_jax.models.convolution import convolve, max_pool_3x3_s2

# Blocks in conv-2, conv-3, conv-4 and conv-5. ResNet-10 is the usual smaller sibling; no ImageNet weights exist for it.
STAGE_SIZES = {
    "resnet10": (1, 1, 1, 1),
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
BASIC_BLOCK = frozenset({"resnet10", "resnet18", "resnet34"})

kaiming_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


@jax.custom_vjp
def relu_of_sum(x: jax.Array, y: jax.Array) -> jax.Array:
    """`max(x + y, 0)`, exactly, for finite x and y of one shape (NaN where y is -inf): the end of a residual block.

    Written so that it reads two arrays: XLA for CPU repeats whatever reads one where it is used, and a block's output
    is used twice, so that each block would compute those before it again. The gradient is 0 where the sum is.
    """
    return jnp.maximum(x, -y) + y


def _relu_of_sum_forward(x, y):
    z = relu_of_sum(x, y)
    return z, z


def _relu_of_sum_backward(z, cotangent):
    cotangent = jnp.where(z > 0, cotangent, 0)
    return cotangent, cotangent


relu_of_sum.defvjp(_relu_of_sum_forward, _relu_of_sum_backward)


class Convolution(nn.Module):
    """Bias-free k x k convolution, `(k - 1) // 2` zeros on each side as in PyTorch. [B,H,W,Cin] -> [B,H/s,W/s,C]."""

    features: int
    kernel_size: int
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", kaiming_normal_fan_out, shape)
        padding = (self.kernel_size - 1) // 2
        return convolve(x.astype(self.dtype), kernel.astype(self.dtype), stride=self.stride, padding=padding)


class PReLU(nn.Module):
    """`max(x, 0) + slope * min(x, 0)` with one learnt slope for all channels, 0.25 at the start as in PyTorch."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        slope = self.param("slope", nn.initializers.constant(0.25), ())
        return jnp.where(x >= 0, x, slope.astype(x.dtype) * x)


class Block(nn.Module):
    """Residual block: basic (3x3, 3x3) or bottleneck (1x1, 3x3, 1x1, the stride on the 3x3).

    `activation` is "relu"; "prelu", a PReLU after the addition (the paper's last activation); or "prelu_shared", one
    PReLU for every activation of the block (the authors' release).
    """

    width: int
    bottleneck: bool
    stride: int
    norm: Callable[..., nn.Module]
    activation: str = "relu"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = partial(Convolution, dtype=self.dtype)
        norm = partial(self.norm, use_running_average=not train)
        prelu = PReLU(name="prelu") if self.activation != "relu" else None
        inner: Callable = prelu if prelu is not None and self.activation == "prelu_shared" else nn.relu
        width_out = self.width * (4 if self.bottleneck else 1)
        if self.bottleneck:
            y = inner(norm(name="bn1")(conv(self.width, 1, name="conv1")(x)))
            y = inner(norm(name="bn2")(conv(self.width, 3, self.stride, name="conv2")(y)))
            y = norm(name="bn3")(conv(width_out, 1, name="conv3")(y))
        else:
            y = inner(norm(name="bn1")(conv(self.width, 3, self.stride, name="conv1")(x)))
            y = norm(name="bn2")(conv(width_out, 3, name="conv2")(y))
        if self.stride != 1 or x.shape[-1] != width_out:
            x = conv(width_out, 1, self.stride, name="downsample_conv")(x)
            x = norm(name="downsample_bn")(x)
        return relu_of_sum(x, y) if prelu is None else prelu(x + y)


class ResNet(nn.Module):
    """The convolutional part of a ResNet; parameters are named as in torchvision (`layer2_0/conv1/kernel`).

    Attributes:
      stage_sizes: blocks in conv-2, conv-3, conv-4, conv-5.
      bottleneck: whether blocks are 1x1-3x3-1x1, with four times the width at their end.
      norm: makes a BatchNorm; called with `use_running_average` and `name`.
      width: channels of the stem and of the first stage's 3x3 convolutions.
      last_stride: stride of conv-5, 2 or 1.
      last_activation: `activation` of the very last block, see `Block`.
      remat: stages, out of 2 to 5, whose blocks compute their inner activations again in the backward pass instead of
        keeping them.
      dtype: of the computation; parameters are float32.
    """

    stage_sizes: tuple[int, ...]
    bottleneck: bool
    norm: Callable[..., nn.Module]
    width: int = 64
    last_stride: int = 2
    last_activation: str = "relu"
    remat: tuple[int, ...] = ()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, after_stage: Callable[[int, jax.Array], jax.Array] | None = None
    ) -> jax.Array:
        """Runs the network.

        Args:
          x: [B, H, W, 3], normalised pixels.
          train: whether BatchNorm takes the batch's statistics (and updates the running ones).
          after_stage: called with (2, conv-2's output), (3, ...), (4, ...), (5, ...); its result goes on. Attention
            modules are plugged in here.

        Returns:
          conv-5's output, [B, H/32, W/32, C] (or /16 with `last_stride=1`).
        """
        x = Convolution(self.width, 7, 2, self.dtype, name="conv1")(x)
        x = nn.relu(self.norm(use_running_average=not train, name="bn1")(x))
        x = max_pool_3x3_s2(x)
        for stage, size in enumerate(self.stage_sizes):
            block = nn.remat(Block, static_argnums=(2,)) if stage + 2 in self.remat else Block
            for i in range(size):
                stride = 1 if stage == 0 or i > 0 else (self.last_stride if stage == 3 else 2)
                last = stage == 3 and i == size - 1
                activation = self.last_activation if last else "relu"
                name = f"layer{stage + 1}_{i}"
                make = partial(block, self.width * 2**stage, self.bottleneck, stride, self.norm, activation)
                x = make(dtype=self.dtype, name=name)(x, train)
            if after_stage is not None:
                x = after_stage(stage + 2, x)
        return x
