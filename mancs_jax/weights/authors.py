"""Checkpoints of the authors' release (github.com/hustvl/mancs), and ours under its names.

The network of the release (reid/models/resnet.py there) names its parts

    base.*          ResNet, torchvision's names; base.layer4.2.relu.weight is the PReLU of the last block
    att1 to att3    FABs after conv-2 to conv-4: conv.0 squeezes, conv.1 is the PReLU, conv.2 excites
    feat, feat_bn, prelu, classifier_x2     the f_cls head; the PReLU is the f_att head's too
    embed_x3, bn_x3, classifier_x3          the f_att head

and holds two parts that it never uses, which are written as constants and not read: base.fc, the classifier of
ImageNet, and prelu_x3. What other recipes have beside these is named in the same way: `rank_fc`, the FC of f_rank;
`feat.bias`; att4 for a FAB after conv-5. Options without parameters leave no trace in a file: `last_stride`,
"prelu" or "prelu_shared" as `last_activation`, and `attention_pool`. They come from the configuration.
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
    """A whole trained network.

    Args:
      path: `.pth` (zip format) or `.safetensors`, a state dict, alone or as the entry "state_dict" of a checkpoint.
      config: of which `model` says what the network is; that of `configs/market.py:authors` for the release's.

    Returns:
      ({"params", "batch_stats"} as `Mancs` has them, NumPy float32; the number of identities of its classifiers).

    Raises:
      ValueError: the file cannot be read, holds no such network, or does not fit `config.model`: the message lists
        every tensor that is missing, left over or wrong.
      OSError: cannot be read.
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
    leaves = leaves_of(shapes)
    fitting = check(without_unused(tensors), leaves, path, "the network of config.model")
    return to_variables(fitting, leaves), num_classes


def without_unused(tensors: Tensors) -> Tensors:
    """The tensors without those that the release never uses, and without counters."""
    return {name: t for name, t in tensors.items() if name not in UNUSED and not name.endswith(".num_batches_tracked")}


def to_released(variables: dict[str, Any]) -> Tensors:
    """The state dict of a network: the release's names, PyTorch's layouts, float32.

    Args:
      variables: {"params", "batch_stats"} of `Mancs`.

    Returns:
      For the network of the `authors` recipe all that the release's `load_state_dict` asks for, constants for what it
      never uses; for others see the module.
    """
    tensors = to_tensors(variables, leaves_of(variables))
    if "embed_x3.weight" in tensors:
        width = tensors["feat.weight"].shape[1]
        constants = ((IMAGENET_CLASSES, width), 0.0), ((IMAGENET_CLASSES,), 0.0), ((1,), 0.25)
        tensors |= {name: np.full(*constant, np.float32) for name, constant in zip(UNUSED, constants)}
    return tensors


def is_released(tensors: Tensors) -> bool:
    """Tells if these are the tensors of a whole network, not of a ResNet."""
    return any(name.startswith("base.") for name in tensors)


def num_classes_of(tensors: Tensors) -> int | None:
    """The number of identities of a whole network's classifiers; None if no tensor tells."""
    classifier = tensors.get("classifier_x2.weight")
    return None if classifier is None or classifier.ndim != 2 else classifier.shape[0]


def backbone_of(tensors: Tensors) -> Tensors:
    """The backbone's tensors under torchvision's names, without the PReLU of the last block."""
    return {
        name.removeprefix("base."): array
        for name, array in tensors.items()
        if name.startswith("base.") and not name.endswith(".relu.weight")
    }


def leaves_of(variables: dict[str, Any]) -> dict[str, Leaf]:
    """The release's name -> `Leaf` of every array (or shape) in {"params", "batch_stats"} of `Mancs`."""
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
