"""A small network of the authors' release: its configuration, its PyTorch twin, its files. For tests."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import torch_mancs
import torch_resnet

from mancs_jax.config import recipes
from mancs_jax.models.mancs import create_model

CLASSES = 5
CLS_DIM = 24  # of the small network
SMALL = {"arch": "resnet10", "width": 8, "cls_dim": CLS_DIM}


def authors_config(**model):
    """The `authors` recipe on small images, without dropout, whose masks differ; `model`: what else differs."""
    config = recipes.market("authors").unlock()
    config.remat, config.batch_norm_groups = (), 1  # one batch of statistics, as in PyTorch on one device
    config.data.image_size = (64, 32)
    config.model.update({"dropout": 0.0} | model)
    return config


def create_reference(arch, width=64, cls_dim=2048, num_classes=CLASSES):
    """The release's network for `authors_config`, every tensor drawn at random."""
    sizes = torch_resnet.ARCHITECTURES[arch]
    model = torch_mancs.TorchMancs(*sizes, num_classes, width, cls_dim, dropout=0.0)
    return torch_mancs.randomize(model, seed=0).eval()


def draw_variables(config, num_classes=CLASSES):
    """Variables of a network, every number drawn at random."""
    x = jnp.zeros((1, *config.data.image_size, 3))
    shapes = jax.eval_shape(partial(create_model(config, num_classes).init, train=False), jax.random.key(0), x)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def assert_bits_equal(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for leaf, other in zip(jax.tree.leaves(tree), jax.tree.leaves(expected)):
        assert leaf.shape == other.shape and leaf.dtype == other.dtype == np.float32
        np.testing.assert_array_equal(np.asarray(leaf).view(np.int32), np.asarray(other).view(np.int32))
