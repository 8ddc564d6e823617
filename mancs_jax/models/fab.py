"""The fully attentional block (FAB; paper section 3.2, figure 2)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from mancs_jax.models.resnet import PReLU

# PyTorch's default for linear layers and convolutions: uniform within 1 / sqrt(inputs).
_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_uniform(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Initialises a kernel as PyTorch does by default; the kernel of a classifier of no identities is empty."""
    return _uniform(key, shape, dtype) if 0 not in shape else jnp.zeros(shape, dtype)


class FullyAttentionalBlock(nn.Module):
    """Attention over every position and channel of any feature map (equations 1 and 2).

    `M = sigmoid(conv1x1(act(conv1x1(F))))`, `F_out = F * M + F`. A 1x1 convolution is a dense layer over channels.
    """

    squeeze: int = 0  # channels between the two convolutions; 0: C / 16, the paper's r = 16 (release: 16 for every C)
    activation: str = "relu"  # (paper) or "prelu" (release)
    kernel_sd: float = 0.0  # of the initial kernels (release: 0.001); 0: PyTorch's default
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Any, "B H W C"]) -> tuple[Float[jax.Array, "B H W C"], Float[jax.Array, "B H W C"]]:
        """Returns F_out and M."""
        channels = x.shape[-1]
        activation = PReLU(name="prelu") if self.activation == "prelu" else nn.relu
        squeeze = self.squeeze or max(channels // 16, 1)
        kernel_init = nn.initializers.normal(self.kernel_sd) if self.kernel_sd else torch_uniform
        y = nn.Dense(squeeze, kernel_init=kernel_init, dtype=self.dtype, name="squeeze")(x)
        y = nn.Dense(channels, kernel_init=kernel_init, dtype=self.dtype, name="excite")(activation(y))
        mask = nn.sigmoid(y)
        return x * mask + x, mask
