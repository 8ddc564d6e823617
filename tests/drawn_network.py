"""A network whose every parameter and statistic is drawn, so that none can be left out unseen."""

import jax
import numpy as np

from mancs_jax.config import recipes
from mancs_jax.config.names import BASIC_BLOCK
from mancs_jax.inference.network import Network
from mancs_jax.models.mancs import init_variables

NUM_CLASSES = 5


def drawn_network(variant: str = "", **model) -> Network:
    """A narrow network of `market:VARIANT` for images of 64x32, its `model` fields changed."""
    config = recipes.market(variant).unlock()
    config.remat, config.data.image_size, config.eval_batch = (), (64, 32), 32
    config.model.width, config.model.rank_dim, config.model.cls_dim = 8, 24, 16
    config.model.update(model)
    config.lock()
    rng = np.random.default_rng(3)
    last_norm = "bn2" if config.model.arch in BASIC_BLOCK else "bn3"

    def draw(path, leaf):
        name, shape = path[-1].key, np.shape(leaf)
        if name == "scale" and path[-2].key == last_norm:  # small, as after a training: else deep networks overflow
            return rng.uniform(0.1, 0.4, shape).astype(np.float32)
        if name in ("var", "scale"):
            return rng.uniform(0.5, 1.5, shape).astype(np.float32)
        if name in ("mean", "bias"):
            return rng.normal(0, 0.2, shape).astype(np.float32)
        if name == "slope":
            return np.float32(rng.uniform(0.1, 0.6))
        inputs = np.prod(shape[:-1])
        return rng.normal(0, np.sqrt(1.5 / inputs), shape).astype(np.float32)

    variables = jax.eval_shape(lambda: init_variables(config, NUM_CLASSES))
    return Network(config, NUM_CLASSES, jax.tree_util.tree_map_with_path(draw, variables))


def drawn_images(number: int, seed: int = 0) -> np.ndarray:
    """Noise in blocks, uint8 [number, 64, 32, 3]: means over positions differ from image to image."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 200, (number, 8, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    return (blocks + rng.integers(0, 56, (number, 64, 32, 3))).astype(np.uint8)
