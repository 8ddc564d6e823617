"""ResNets (He et al., CVPR 2016) with PyTorch's padding, so that torchvision's weights give the same features."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from mancs_jax.kernels.conv_norm import ConvNorm
from mancs_jax.kernels.pooling import max_pool_3x3_s2
from mancs_jax.kernels.relu_of_sum import relu_of_sum

STAGES = (2, 3, 4, 5)  # conv-2 to conv-5


class PReLU(nn.Module):
    """`max(x, 0) + slope * min(x, 0)` with one learnt slope for all channels, initially 0.25 as in PyTorch."""

    @nn.compact
    def __call__(self, x: Float[Any, "*dims"]) -> Float[jax.Array, "*dims"]:
        slope = self.param("slope", nn.initializers.constant(0.25), ())
        return jnp.where(x >= 0, x, slope.astype(x.dtype) * x)


class Block(nn.Module):
    """Residual block: basic (3x3, 3x3) or bottleneck (1x1, 3x3, 1x1, the stride on the 3x3)."""

    width: int  # channels of the 3x3 convolutions; a bottleneck block has four times as many at its end
    bottleneck: bool
    stride: int
    conv_norm: Callable[..., ConvNorm]  # makes a `ConvNorm`
    activation: str = (
        "relu"  # or "prelu", after the addition (paper, last block), "prelu_shared", one for all (release)
    )
    first_norm: str = "batch"  # `norm` of the first convolution

    @nn.compact
    def __call__(self, x: Float[Any, "B H W C"], train: bool) -> Float[jax.Array, "B H2 W2 C2"]:
        def conv_norm(x, size, features, stride=1, names=("downsample_conv", "downsample_bn"), norm="batch"):
            layer = self.conv_norm(features, size, stride, names, norm)
            nn.share_scope(self, layer)
            return layer(x, train)

        prelu = PReLU(name="prelu") if self.activation != "relu" else None
        inner: Callable = prelu if prelu is not None and self.activation == "prelu_shared" else nn.relu
        width_out = self.width * (4 if self.bottleneck else 1)
        first, second, third = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))
        if self.bottleneck:
            y = inner(conv_norm(x, 1, self.width, 1, first, self.first_norm))
            y = inner(conv_norm(y, 3, self.width, self.stride, second))
            y = conv_norm(y, 1, width_out, 1, third)
        else:
            y = inner(conv_norm(x, 3, self.width, self.stride, first, self.first_norm))
            y = conv_norm(y, 3, width_out, 1, second)
        if self.stride != 1 or x.shape[-1] != width_out:
            x = conv_norm(x, 1, width_out, self.stride)
        return relu_of_sum(x, y) if prelu is None else prelu(x + y)


class ResNet(nn.Module):
    """The convolutional part of a ResNet; parameters are named as in torchvision (`layer2_0/conv1/kernel`)."""

    stage_sizes: tuple[int, ...]  # blocks in conv-2, conv-3, conv-4, conv-5
    bottleneck: bool
    conv_norm: Callable[..., ConvNorm] = ConvNorm
    width: int = 64  # channels of the stem and of the first stage's 3x3 convolutions
    last_stride: int = 2  # stride of conv-5, 2 or 1
    last_activation: str = "relu"  # `activation` of the last `Block`
    ibn_stages: tuple[int, ...] = ()  # stages, out of 2 to 5, whose blocks have IBN-a
    stem_norm: str = "batch"  # or "instance"
    remat: tuple[int, ...] = ()  # stages, out of 2 to 5, with gradient checkpointing of each block

    def __call__(self, x: Float[Any, "B H W 3"], train: bool) -> Float[jax.Array, "B H5 W5 C"]:
        """Runs the stem and all stages on normalised pixels."""
        x = self.stem(x, train)
        for stage in STAGES:
            x = self.stage(stage, x, train)
        return x

    @nn.compact
    def stem(self, x: Float[Any, "B H W 3"], train: bool) -> Float[jax.Array, "B H2 W2 {self.width}"]:
        """Runs conv-1 and the max pooling, which quarter height and width."""
        layer = self.conv_norm(self.width, 7, 2, ("conv1", "bn1"), self.stem_norm)
        nn.share_scope(self, layer)
        return max_pool_3x3_s2(nn.relu(layer(x, train)))

    @nn.compact
    def stage(self, stage: int, x: Float[Any, "B H W C"], train: bool) -> Float[jax.Array, "B H2 W2 C2"]:
        """Runs the blocks of a stage (2 to 5) on the output of the previous one; 3, 4 and 5 halve height and width."""
        block = nn.remat(Block, static_argnums=(2,)) if stage in self.remat else Block
        size = self.stage_sizes[stage - 2]
        for i in range(size):
            make = partial(
                block,
                self.width * 2 ** (stage - 2),
                self.bottleneck,
                block_stride(stage, i, self.last_stride),
                self.conv_norm,
                activation=self.last_activation if (stage, i) == (5, size - 1) else "relu",
                first_norm="ibn" if stage in self.ibn_stages else "batch",
            )
            x = make(name=f"layer{stage - 1}_{i}")(x, train)
        return x


def block_stride(stage: int, block: int, last_stride: int) -> int:
    """Returns the stride of block 0, 1, ... of a stage."""
    if stage == 2 or block > 0:
        return 1
    return last_stride if stage == 5 else 2
