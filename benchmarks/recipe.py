"""The training of both sides of a benchmark: the authors' recipe, drawn images. It needs neither JAX nor PyTorch."""

import argparse
import runpy

import numpy as np
from ml_collections import ConfigDict

from mancs_jax.config import recipes

# Of the tests' PyTorch network, too.
BASIC_BLOCK = ("resnet10", "resnet18", "resnet34")
BOTTLENECK = ("resnet50", "resnet101", "resnet152")


def add_network_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `create_config`, and --num_classes."""
    parser.add_argument("--arch", choices=BASIC_BLOCK + BOTTLENECK, default="resnet50")
    parser.add_argument("--width", type=int, default=64, help="channels of the stem")
    parser.add_argument("--image_size", type=int, nargs=2, metavar=("H", "W"), help="256 128; below ResNet-50 128 64")
    parser.add_argument("--k", type=int, default=4, help="images of an identity in a batch")
    parser.add_argument("--num_classes", type=int, default=751)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation")


def create_config(flags: argparse.Namespace, batch: int) -> ConfigDict:
    """The `authors` recipe, `authors,small` below ResNet-50: what PyTorch's network of the tests is, too.

    Args:
      flags: of `add_network_flags`.
      batch: images, a multiple of --k.

    Raises:
      ValueError: one line: the batch is not one of at least two identities.
    """
    if batch % flags.k or batch < 2 * flags.k:
        raise ValueError(f"a batch of {batch} is not at least two identities of {flags.k} images: see --k")
    config = recipes.market("authors,small" if flags.arch in BASIC_BLOCK else "authors").unlock()
    config.pretrained = ""
    config.remat = ()  # the peer keeps its activations, too
    config.batch_norm_groups = 1  # and takes the statistics of the whole batch
    config.dtype = flags.dtype
    config.model.arch, config.model.width = flags.arch, flags.width
    config.data.p, config.data.k = batch // flags.k, flags.k
    if flags.image_size:
        config.data.image_size = tuple(flags.image_size)
    return config.lock()


def load_config(name: str) -> ConfigDict:
    """`configs/market.py:authors`: a configuration as `mancs train --config` takes it, not locked."""
    file, _, variant = name.partition(":")
    config = runpy.run_path(file)["get_config"](*[variant] if variant else [])
    return config.copy_and_resolve_references().unlock()


def drawn_data(config: ConfigDict, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """K images of noise for each identity, uint8 [C*K, H, W, 3], and their labels int32 [C*K]."""
    labels = np.repeat(np.arange(num_classes, dtype=np.int32), config.data.k)
    shape = (len(labels), *config.data.image_size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), labels
