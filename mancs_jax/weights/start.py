"""The numbers that training starts from: a backbone of ImageNet, or a whole network."""

import json
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from mancs_jax.common.local_path import local_path
from mancs_jax.common.screen import tell
from mancs_jax.config.checks import from_json
from mancs_jax.config.names import sources
from mancs_jax.weights import authors
from mancs_jax.weights.imagenet import TORCHVISION_FILES, backbone_leaves, fit_backbone
from mancs_jax.weights.shared import CAMERAS, CARD, WEIGHTS, is_shared, shipped_networks, shipped_weights
from mancs_jax.weights.state_dict import Leaf, check, read_tensors, to_variables

# Fields of `config.model` on which the numbers of a network do not depend.
OF_TRAINING = ("dropout", "head_init", "fab_init", "mixstyle_stages", "mixstyle", "mixstyle_alpha")


def check_start(config: ConfigDict) -> None:
    """Refuses a run that could not start from `config.pretrained`; "" starts from scratch.

    Raises:
      ValueError: one line: the file is not there, or is a network with another `config.model`.
    """
    if not config.pretrained:
        return
    path = _path(config.pretrained)
    if path.is_dir():
        raise ValueError(f"config.pretrained: {path} is a folder; give the file NAME{WEIGHTS} in it")
    if not path.is_file():
        raise ValueError(_missing(config.pretrained, config.model.arch))
    if (card := _card(path)) is None:
        return
    there, here = from_json(card["config"]).model.to_dict(), config.model.to_dict()
    if other := sorted(name for name in here if name not in OF_TRAINING and here[name] != there.get(name)):
        fields = ", ".join(f"--config.model.{name}={there.get(name)!r}" for name in other)
        raise ValueError(f"config.pretrained: {config.pretrained} is a network of another model; give it {fields}")


def with_pretrained_model(config: ConfigDict) -> ConfigDict:
    """Takes `model` and `data.image_size` from the network in `config.pretrained`, if `config.like_pretrained`.

    Raises:
      ValueError: one line: there is no such network, or no card that tells its architecture.
    """
    if not (config.like_pretrained and config.pretrained):
        return config
    path = _path(config.pretrained)
    if not path.is_file():
        raise ValueError(_missing(config.pretrained, config.model.arch))
    if (card := _card(path)) is None:
        raise ValueError(
            f"config.like_pretrained is True, but {config.pretrained} has no card that tells its architecture: give a "
            "network of mancs export --format=weights, or one that comes with the package"
        )
    config, pretrained = config.copy_and_resolve_references(), from_json(card["config"])
    with config.unlocked():
        config.model, config.data.image_size = pretrained.model, pretrained.data.image_size
    return config.lock()


def load_into(
    params: dict, batch_stats: dict, pretrained: str | Path, arch: str, data_fingerprint: str = ""
) -> tuple[dict, dict]:
    """Puts the weights of a file into the state that training starts from.

    ImageNet weights replace the backbone; all else, FABs and the PReLU slope too, stays as it is. A whole network
    replaces everything. Its classifiers are for the people of its own training: they start anew where the card beside
    the file names other images, or where there is no card and the number of identities is another. A line on stderr
    says so.

    Args:
      params: of `Mancs`, with a subtree "backbone".
      batch_stats: of `Mancs`, with a subtree "backbone".
      pretrained: the name of a network of the package, or a file: `.pth` (zip format) or `.safetensors` of ImageNet
        weights, of the authors' release, of `mancs export --format=torch` or `--format=weights`.
      arch: key of `STAGE_SIZES`.
      data_fingerprint: of the training images.

    Returns:
      (params, batch_stats), new dictionaries of the same structure.

    Raises:
      FileNotFoundError: no such file.
      ValueError: one line: the file cannot be read or does not fit the network.
    """
    path, variables = _path(pretrained), {"params": params, "batch_stats": batch_stats}
    tensors = read_tensors(path)
    if is_shared(tensors):
        # Training starts from the network itself, not from its statistics of one camera.
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{CAMERAS}.")}
        flat = flatten_dict(variables)
        leaves = {".".join(name): Leaf(name, leaf.shape, leaf.shape) for name, leaf in flat.items()}
    elif authors.is_released(tensors):
        leaves, tensors = authors.leaves_of(variables), authors.without_unused(tensors)
    else:
        return _with_backbone(variables, tensors, path, arch)
    classifiers = {name for name, leaf in leaves.items() if leaf.path[1].endswith("_classifier")}
    card = _card(path)
    if card is not None:
        are_others = card["data_fingerprint"] != data_fingerprint
    else:
        are_others = any(name in tensors and tensors[name].shape != leaves[name].torch_shape for name in classifiers)
    if are_others:
        leaves = {name: leaf for name, leaf in leaves.items() if name not in classifiers}
        tensors = {name: tensor for name, tensor in tensors.items() if name not in classifiers}
    fitting = check(tensors, leaves, path, "the network of config.model")
    if are_others:
        tell(f"{pretrained}: its classifiers are for other people and start anew")
    if is_shared(tensors):
        return _joined(variables, {leaf.path: fitting[name] for name, leaf in leaves.items()})
    return _joined(variables, flatten_dict(to_variables(fitting, leaves)))


def knows_held_out(config: ConfigDict, data_fingerprint: str) -> bool:
    """Tells if people that are held out may have been trained on by the network that training starts from."""
    card = _card(_path(config.pretrained)) if config.pretrained else None
    return (
        card is not None
        and bool(config.data.validation_ids)
        and bool(set(sources(card["trained_on"])) & set(sources(config.data.name)))
        and card["data_fingerprint"] != data_fingerprint
    )


def _missing(path: str, arch: str) -> str:
    name = TORCHVISION_FILES.get(arch)
    where = f"torchvision's {name} from https://download.pytorch.org/models/{name} or " if name else ""
    return (
        f"config.pretrained: no file {path}; get {where}timm's model.safetensors from "
        f"https://huggingface.co/timm/{arch}.tv_in1k, give a network of the package ({', '.join(shipped_networks())}), "
        "or start from scratch with --config.pretrained=''"
    )


def _path(pretrained: str | Path) -> Path:
    """The file; of a card, the weights beside it."""
    path = shipped_weights(pretrained) or local_path(pretrained)
    return path.with_suffix(WEIGHTS) if path.suffix == CARD else path


def _card(path: Path) -> dict[str, Any] | None:
    """The card of a shared network beside its weights; None for other files."""
    beside = path.with_suffix(CARD)
    if path.suffix != WEIGHTS or not beside.is_file():
        return None
    try:
        card = json.loads(beside.read_text())
        needed = from_json(card["config"]).model.to_dict(), card["data_fingerprint"], card["trained_on"]
    except (ValueError, TypeError, AttributeError, LookupError):
        needed = None
    if not needed:
        raise ValueError(f"{beside} is not the card of {path.name}; get both files again, or move it away")
    return card


def _joined(variables: dict[str, Any], new: dict[tuple[str, ...], Any]) -> tuple[dict, dict]:
    joined = unflatten_dict(flatten_dict(variables) | new)
    return joined["params"], joined["batch_stats"]


def _with_backbone(variables, tensors, path, arch):
    weights = to_variables(fit_backbone(tensors, path, arch), backbone_leaves(arch))
    before = flatten_dict(variables)
    new = {(collection, "backbone", *rest): leaf for (collection, *rest), leaf in flatten_dict(weights).items()}
    if any(name not in before or before[name].shape != leaf.shape for name, leaf in new.items()):
        raise ValueError(
            f"{path} holds a {arch} 64 channels wide, and the network's backbone is another one; "
            "set config.model.arch and config.model.width = 64, or start from scratch with --config.pretrained=''"
        )
    return _joined(variables, new)
