"""Reads ImageNet weights from files of torchvision, timm and Hugging Face, without PyTorch."""

import re
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from mancs_jax.config.names import BASIC_BLOCK, STAGE_SIZES
from mancs_jax.models.resnet import ResNet
from mancs_jax.weights import authors
from mancs_jax.weights.state_dict import Leaf, Tensors, backbone_name, check, leaf_at, read_tensors, rename

TORCHVISION_FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
}
IGNORED = re.compile(r"(fc|classifier)\..*|.*\.num_batches_tracked")


def read_backbone(path: str | Path, arch: str) -> Tensors:
    """Reads the backbone's tensors of a file, under torchvision's names and in its layouts, float32.

    The file is `.pth` (zip format) or `.safetensors` of ImageNet weights, or of a complete model; the content decides,
    not the name. Raises FileNotFoundError without it, and ValueError where it is damaged or does not fit `arch`: the
    message lists every tensor that is missing, left over or wrong.
    """
    return fit_backbone(read_tensors(path), path, arch)


def fit_backbone(tensors: Tensors, path: str | Path, arch: str) -> Tensors:
    """Selects the backbone's tensors among those of the file `path`; errors as `read_backbone`."""
    if arch not in TORCHVISION_FILES:
        raise ValueError(f"no ImageNet weights for arch {arch!r}; there are for {', '.join(TORCHVISION_FILES)}")
    tensors = authors.released_backbone(tensors) if authors.is_released(tensors) else tensors
    tensors = {name: array for name, array in tensors.items() if not IGNORED.fullmatch(torchvision_name(name))}
    return check(rename(tensors, torchvision_name, path), backbone_leaves(arch), path, arch)


def torchvision_name(name: str) -> str:
    """Translates Hugging Face's names to torchvision's, which timm uses, too."""
    stem = re.fullmatch(r"(?:resnet\.)?embedder\.embedder\.(convolution|normalization)\.(\w+)", name)
    if stem:
        return f"{'conv1' if stem[1] == 'convolution' else 'bn1'}.{stem[2]}"
    block = re.fullmatch(
        r"(?:resnet\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\."
        r"(?:shortcut|layer\.(\d+))\.(convolution|normalization)\.(\w+)",
        name,
    )
    if not block:
        return name
    stage, index, layer, kind, leaf = block.groups()
    if layer is None:
        module = "downsample.0" if kind == "convolution" else "downsample.1"
    else:
        module = f"{'conv' if kind == 'convolution' else 'bn'}{int(layer) + 1}"
    return f"layer{int(stage) + 1}.{index}.{module}.{leaf}"


@cache
def backbone_leaves(arch: str) -> dict[str, Leaf]:
    """Maps torchvision's names to the `Leaf` of every tensor of a backbone."""
    model = ResNet(STAGE_SIZES[arch], arch not in BASIC_BLOCK)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))
    return {
        backbone_name(path[1:-1], path[-1]): leaf_at(path, leaf.shape) for path, leaf in flatten_dict(variables).items()
    }
