"""The fully attentional block (FAB; paper section 3.2, figure 2)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mancs_jax.models.resnet import PReLU

small_normal = nn.initializers.normal(0.001)


class FullyAttentionalBlock(nn.Module):
    """Attention over every position and channel of any feature map (equations 1 and 2).

    `M = sigmoid(conv1x1(act(conv1x1(F))))`, `F_out = F * M + F`. A 1x1 convolution is a dense layer over channels.

    Attributes:
      squeeze: channels between the two convolutions; 0 takes C / 16, the paper's r = 16 (the release: 16, whatever C
        is).
      activation: "relu" (paper) or "prelu" (release).
      dtype: of the computation.
    """

    squeeze: int = 0
    activation: str = "relu"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, H, W, C] -> (F_out, M), both of the same shape."""
        channels = x.shape[-1]
        activation = PReLU(name="prelu") if self.activation == "prelu" else nn.relu
        squeeze = self.squeeze or max(channels // 16, 1)
        y = nn.Dense(squeeze, kernel_init=small_normal, dtype=self.dtype, name="squeeze")(x)
        y = nn.Dense(channels, kernel_init=small_normal, dtype=self.dtype, name="excite")(activation(y))
        mask = nn.sigmoid(y)
        return x * mask + x, mask
