"""The numbers that training starts from: a backbone of ImageNet, or a whole network."""

import sys
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from mancs_jax.weights import authors
from mancs_jax.weights.imagenet import backbone_leaves, backbone_of, missing_file
from mancs_jax.weights.shared import CARD, shipped_weights, variables_of
from mancs_jax.weights.state_dict import Tensors, read_tensors, to_variables


def check_there(pretrained: str, arch: str) -> None:
    """Refuses a run that would start from a file that is not there (ValueError, one line); "" starts from scratch."""
    if pretrained and not (shipped_weights(pretrained) or Path(pretrained)).is_file():
        raise ValueError(missing_file(pretrained, arch))


def load_into(params: dict, batch_stats: dict, pretrained: str | Path, arch: str) -> tuple[dict, dict]:
    """Puts the weights of a file into the state that training starts from.

    ImageNet weights replace the backbone; all else, FABs and the PReLU slope too, stays as it is. A whole network
    replaces everything. Its classifiers are left out where they are for another number of identities; a line on stderr
    says so.

    Args:
      params: of `Mancs`, with a subtree "backbone".
      batch_stats: of `Mancs`, with a subtree "backbone".
      pretrained: the name of a network of the package, or a file: `.pth` (zip format) or `.safetensors` of ImageNet
        weights, of the authors' release, of `mancs export-weights` or of `mancs export-network`.
      arch: key of `STAGE_SIZES`.

    Returns:
      (params, batch_stats), new dictionaries of the same structure.

    Raises:
      FileNotFoundError: no such file.
      ValueError: one line: the file cannot be read or does not fit the network.
    """
    path = shipped_weights(pretrained) or Path(pretrained)
    if not path.exists():
        raise FileNotFoundError(missing_file(path, arch))
    tensors, variables = read_tensors(path), {"params": params, "batch_stats": batch_stats}
    if (shared := variables_of(tensors)) is not None:
        tensors = _released(shared, path)
    try:
        new = (_whole if authors.is_released(tensors) else _backbone)(tensors, variables, path, arch)
    except ValueError as error:
        if shared is None:
            raise
        raise ValueError(f"{error}; {path.with_suffix(CARD)} has the config.model that it fits") from None
    started = unflatten_dict(flatten_dict(variables) | flatten_dict(new))
    return started["params"], started["batch_stats"]


def _released(shared: dict[str, Any], path: Path) -> Tensors:
    try:
        return authors.to_released(shared)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"{path}: a network with parts that are unknown here ({error}); get it again") from None


def _whole(tensors, variables, path, arch):
    leaves = authors.leaves_of(variables)
    here, there = leaves["classifier_x2.weight"].torch_shape[0], authors.num_classes_of(tensors)
    if there not in (None, here):
        print(
            f"{path} has classifiers for {there} identities, and here there are {here}: they start anew",
            file=sys.stderr,
        )
        leaves = {name: leaf for name, leaf in leaves.items() if not authors.is_of_classifier(name)}
        tensors = {name: tensor for name, tensor in tensors.items() if not authors.is_of_classifier(name)}
    return to_variables(authors.check_whole(tensors, leaves, path), leaves)


def _backbone(tensors, variables, path, arch):
    weights, before = to_variables(backbone_of(tensors, path, arch), backbone_leaves(arch)), flatten_dict(variables)
    new = {(collection, "backbone", *rest): leaf for (collection, *rest), leaf in flatten_dict(weights).items()}
    if any(name not in before or before[name].shape != leaf.shape for name, leaf in new.items()):
        raise ValueError(
            f"{path} holds a {arch} 64 channels wide, and the network's backbone is another one; "
            "set config.model.arch and config.model.width = 64, or start from scratch with --config.pretrained=''"
        )
    return unflatten_dict(new)
