"""MixStyle (Zhou et al., ICLR 2021): mixes channel statistics of images, as if new cameras had taken them."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Key

EPSILON = 1e-6  # added to variances, as in the authors' code


def mix_style(
    x: Float[jax.Array | np.ndarray, "B H W C"],
    keys: Key[jax.Array, " B"],
    probability: float,
    alpha: float,
    axis_name: str | None = None,
) -> Float[jax.Array, "B H W C"]:
    """Mixes the mean and the deviation of each channel of some images with those of another image of the batch.

    The statistics become `share * own + (1 - share) * other`, share ~ Beta(alpha, alpha), without a gradient (equations
    6 and 7). Each image samples for itself whether it is mixed, its share and the other image, over the devices of
    `axis_name`, so that the result does not depend on how a batch is split. (The authors sample once per batch.)
    """
    wide = jnp.asarray(x, jnp.promote_types(x.dtype, jnp.float32))
    mean = wide.mean((1, 2))
    deviation = jnp.sqrt(jnp.maximum((wide * wide).mean((1, 2)) - mean * mean, 0) + EPSILON)
    statistics = jax.lax.stop_gradient(jnp.stack([mean, deviation], axis=1))  # [B, 2, C]
    candidates = statistics if axis_name is None else jax.lax.all_gather(statistics, axis_name, tiled=True)

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        mixed_key, share_key, other_key = jax.random.split(key, 3)
        is_mixed = jax.random.bernoulli(mixed_key, probability)
        share = jax.random.beta(share_key, alpha, alpha)
        return jnp.where(is_mixed, share, 1.0), jax.random.randint(other_key, (), 0, len(candidates))

    share, other = jax.vmap(draw)(keys)
    share = share[:, None, None]
    own_mean, own_deviation = jnp.unstack(statistics, axis=1)
    new_mean, new_deviation = jnp.unstack(share * statistics + (1 - share) * candidates[other], axis=1)
    factor = new_deviation / own_deviation
    shift = new_mean - own_mean * factor
    return (wide * factor[:, None, None] + shift[:, None, None]).astype(x.dtype)
