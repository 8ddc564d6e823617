"""Checkpoints of the authors' release (github.com/hustvl/mancs), and our weights under its names.

The network of the release (reid/models/resnet.py there) names its parts

    base.*          ResNet, torchvision's names; base.layer4.2.relu.weight is the PReLU of the last block
    att1 to att3    FABs after conv-2 to conv-4: conv.0 squeezes, conv.1 is the PReLU, conv.2 excites
    feat, feat_bn, prelu, classifier_x2     the f_cls head; the f_att head has the same PReLU
    embed_x3, bn_x3, classifier_x3          the f_att head

It also has two unused parts, which are written as constants and not read: base.fc, the classifier of ImageNet, and
prelu_x3. Additional parts of other recipes have similar names: `rank_fc`, the FC of f_rank; `feat.bias`; att4 for a FAB
after conv-5. A file does not contain options without parameters (`last_stride`, "prelu" or "prelu_shared" as
`last_activation`, `attention_pool`): these come from the configuration.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from mancs_jax.models.mancs import create_model
from mancs_jax.weights.state_dict import (
    LEAF_NAMES,
    Leaf,
    Tensors,
    backbone_name,
    check,
    leaf_at,
    read_tensors,
    to_tensors,
    to_variables,
)

MODULES = {
    "rank_fc": "rank_fc",
    "cls_fc": "feat",
    "cls_bn": "feat_bn",
    "head_prelu": "prelu",
    "cls_classifier": "classifier_x2",
    "att_fc": "embed_x3",
    "att_bn": "bn_x3",
    "att_classifier": "classifier_x3",
}
FAB_MODULES = {"squeeze": "conv.0", "prelu": "conv.1", "excite": "conv.2"}
UNUSED = ("base.fc.weight", "base.fc.bias", "prelu_x3.weight")
IMAGENET_CLASSES = 1000


def load_released(path: str | Path, config: ConfigDict) -> tuple[dict[str, Any], int]:
    """Reads a complete trained model for `config.model` (`market:authors` for the release's).

    The file is `.pth` (zip format) or `.safetensors`: a state dict, or a checkpoint with the entry "state_dict".
    Returns ({"params", "batch_stats"} of `Mancs`, NumPy float32; the number of identities of its classifiers). Raises
    OSError where it cannot be read, and ValueError where it has no such model: the message lists every tensor that is
    missing, left over or wrong.
    """
    tensors = read_tensors(path)
    num_classes = num_classes_of(tensors)
    if not is_released(tensors) or num_classes is None:
        raise ValueError(
            f"{path} holds no whole network: that has tensors base.*, as in the authors' release, and "
            "classifier_x2.weight [identities, width]"
        )
    model = create_model(config, num_classes)
    x = jnp.zeros((1, *config.data.image_size, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
    leaves = released_leaves(shapes)
    fitting = check(without_unused(tensors), leaves, path, "the network of config.model")
    return to_variables(fitting, leaves), num_classes


def without_unused(tensors: Tensors) -> Tensors:
    """Removes counters and the tensors that the release never uses."""
    return {name: t for name, t in tensors.items() if name not in UNUSED and not name.endswith(".num_batches_tracked")}


def to_released(variables: dict[str, Any]) -> Tensors:
    """Converts {"params", "batch_stats"} of `Mancs` to a state dict: the release's names, PyTorch's layouts, float32.

    With the `authors` recipe it has all that the release's `load_state_dict` requires, constants for unused tensors.
    """
    tensors = to_tensors(variables, released_leaves(variables))
    if "embed_x3.weight" in tensors:
        width = tensors["feat.weight"].shape[1]
        constants = ((IMAGENET_CLASSES, width), 0.0), ((IMAGENET_CLASSES,), 0.0), ((1,), 0.25)
        tensors |= {name: np.full(*constant, np.float32) for name, constant in zip(UNUSED, constants)}
    return tensors


def is_released(tensors: Tensors) -> bool:
    """Returns whether these are the tensors of a complete model, not of a ResNet."""
    return any(name.startswith("base.") for name in tensors)


def num_classes_of(tensors: Tensors) -> int | None:
    """Returns the number of identities of the classifiers; None without a classifier."""
    classifier = tensors.get("classifier_x2.weight")
    return None if classifier is None or classifier.ndim != 2 else classifier.shape[0]


def released_backbone(tensors: Tensors) -> Tensors:
    """Returns the backbone's tensors under torchvision's names, without the PReLU of the last block."""
    return {
        name.removeprefix("base."): array
        for name, array in tensors.items()
        if name.startswith("base.") and not name.endswith(".relu.weight")
    }


def released_leaves(variables: dict[str, Any]) -> dict[str, Leaf]:
    """Maps the release's names to the `Leaf` of every array (or shape) in {"params", "batch_stats"} of `Mancs`."""
    leaves = {}
    for path, array in flatten_dict(variables).items():
        _, module, *inner, leaf = path
        if module == "backbone":
            name = f"base.{backbone_name(inner, leaf)}"
        elif module.startswith("fab"):
            name = f"att{int(module[3:]) - 1}.{FAB_MODULES[inner[0]]}.{LEAF_NAMES[leaf]}"
        else:
            name = f"{MODULES[module]}.{LEAF_NAMES[leaf]}"
        leaves[name] = leaf_at(path, array.shape, is_conv=module.startswith("fab"))
    return leaves
