"""ResNets (He et al., CVPR 2016) with PyTorch's padding, so that torchvision weights give the same features."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mancs_jax.models.batch_norm import InstanceBatchNorm, InstanceNorm
from mancs_jax.models.pooling import max_pool_3x3_s2

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
    """`max(x + y, 0)`, exactly, for finite x and y of one shape: the end of a residual block; the gradient is 0 at 0.

    On CPU (NaN there where y is -inf) it reads two arrays: XLA for CPU repeats whatever reads one where it is used. A
    block's output is used twice, so each block would compute those before it again.
    """
    return jax.lax.platform_dependent(
        x, y, cpu=lambda x, y: jnp.maximum(x, -y) + y, default=lambda x, y: jnp.maximum(x + y, 0)
    )


def _relu_of_sum_forward(x, y):
    z = relu_of_sum(x, y)
    # XLA would ask whether x + y > 0 instead, and on a GPU write that sum beside z.
    return z, jax.lax.platform_dependent(z, cpu=lambda z: z, default=jax.lax.optimization_barrier)


def _relu_of_sum_backward(z, cotangent):
    cotangent = jnp.where(z > 0, cotangent, 0)
    return cotangent, cotangent


relu_of_sum.defvjp(_relu_of_sum_forward, _relu_of_sum_backward)


class Kernel(nn.Module):
    """The kernel of a convolution without bias: float32 [size, size, channels, features]."""

    size: int
    channels: int
    features: int

    @nn.compact
    def __call__(self) -> jax.Array:
        return self.param("kernel", kaiming_normal_fan_out, (self.size, self.size, self.channels, self.features))


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
    ibn: bool = False  # whether the first normalisation is IBN-a

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        def normed(x, size, features, stride=1, *, of):
            """The normalised convolution, of a kernel and a norm whose names end in `of`."""
            kernel = Kernel(size, x.shape[-1], features, name=of.format("conv"))()
            norm = partial(InstanceBatchNorm, self.norm) if self.ibn and of == "{}1" else self.norm
            return norm(use_running_average=not train, name=of.format("bn"))(x, kernel, stride)

        prelu = PReLU(name="prelu") if self.activation != "relu" else None
        inner: Callable = prelu if prelu is not None and self.activation == "prelu_shared" else nn.relu
        width_out = self.width * (4 if self.bottleneck else 1)
        if self.bottleneck:
            y = inner(normed(x, 1, self.width, of="{}1"))
            y = inner(normed(y, 3, self.width, self.stride, of="{}2"))
            y = normed(y, 1, width_out, of="{}3")
        else:
            y = inner(normed(x, 3, self.width, self.stride, of="{}1"))
            y = normed(y, 3, width_out, of="{}2")
        if self.stride != 1 or x.shape[-1] != width_out:
            x = normed(x, 1, width_out, self.stride, of="downsample_{}")
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
      ibn_stages: stages, out of 2 to 5, whose blocks have IBN-a.
      stem_norm: "batch" or "instance", the normalisation of the stem.
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
    ibn_stages: tuple[int, ...] = ()
    stem_norm: str = "batch"
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
        kernel = Kernel(7, x.shape[-1], self.width, name="conv1")()
        if self.stem_norm == "instance":
            stem: nn.Module = InstanceNorm(dtype=self.dtype, name="bn1")
        else:
            stem = self.norm(use_running_average=not train, name="bn1")
        x = nn.relu(stem(x.astype(self.dtype), kernel, 2))
        x = max_pool_3x3_s2(x)
        for stage, size in enumerate(self.stage_sizes):
            block = nn.remat(Block, static_argnums=(2,)) if stage + 2 in self.remat else Block
            for i in range(size):
                stride = 1 if stage == 0 or i > 0 else (self.last_stride if stage == 3 else 2)
                last = stage == 3 and i == size - 1
                activation = self.last_activation if last else "relu"
                name = f"layer{stage + 1}_{i}"
                ibn = stage + 2 in self.ibn_stages
                make = partial(block, self.width * 2**stage, self.bottleneck, stride, self.norm, activation, ibn)
                x = make(name=name)(x, train)
            if after_stage is not None:
                x = after_stage(stage + 2, x)
        return x
