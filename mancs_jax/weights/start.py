"""Initial weights of a training run: ImageNet weights of the backbone, or a complete model."""

import json
from collections.abc import Mapping
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

# Fields of `config.model` that the shapes and the use of the weights do not depend on.
ONLY_IN_TRAINING = ("dropout", "head_init", "fab_init", "mixstyle_stages", "mixstyle", "mixstyle_alpha")


def check_start(config: ConfigDict) -> None:
    """Refuses (ValueError, one line) a missing `config.pretrained`, or a model with another `config.model`."""
    if not config.pretrained:
        return
    path = _path(config.pretrained)
    if path.is_dir():
        raise ValueError(f"config.pretrained: {path} is a folder; give the file NAME{WEIGHTS} in it")
    if not path.is_file():
        raise ValueError(_missing(config.pretrained, config.model.arch))
    if (card := _card(path)) is None:
        return
    pretrained, configured = from_json(card["config"]).model.to_dict(), config.model.to_dict()
    if different := sorted(
        name for name in configured if name not in ONLY_IN_TRAINING and configured[name] != pretrained.get(name)
    ):
        fields = ", ".join(f"--config.model.{name}={pretrained.get(name)!r}" for name in different)
        raise ValueError(f"config.pretrained: {config.pretrained} has another architecture; set {fields}")


def with_pretrained_model(config: ConfigDict) -> ConfigDict:
    """With `config.like_pretrained`, copies architecture and `data.image_size` from the card of `config.pretrained`.

    Fields of `model` that only training uses (dropout, MixStyle, initialisation) stay those of `config`.
    Raises ValueError, one line, without such a model or card.
    """
    if not (config.like_pretrained and config.pretrained):
        return config
    path = _path(config.pretrained)
    if not path.is_file():
        raise ValueError(_missing(config.pretrained, config.model.arch))
    if (card := _card(path)) is None:
        raise ValueError(
            f"config.like_pretrained is True, but {config.pretrained} has no card with its architecture: give "
            "a model of mancs export --format=weights, or a pretrained one"
        )
    config, pretrained = config.copy_and_resolve_references(), from_json(card["config"])
    with config.unlocked():
        config.model.update({name: pretrained.model[name] for name in config.model if name not in ONLY_IN_TRAINING})
        config.data.image_size = pretrained.data.image_size
    return config.lock()


def load_into(
    params: dict, batch_stats: dict, pretrained: str | Path, arch: str, data_fingerprint: str = ""
) -> tuple[dict, dict]:
    """Loads weights into the initial state of a training run, and returns new (params, batch_stats).

    ImageNet weights replace only the backbone, without its PReLU. A complete model replaces everything, except the
    classifiers where they are for other identities: where its card has another data fingerprint, or, without a card,
    where the number of identities differs. A line on stderr says so.

    `pretrained` is the name of a pretrained model, or a file: `.pth` (zip format) or `.safetensors` of ImageNet
    weights, of the authors' release, or of `mancs export --format=torch` or `--format=weights`; `data_fingerprint` is
    that of the training images. Raises FileNotFoundError without the file, and ValueError, one line, where it is
    damaged or does not fit the network.
    """
    path, variables = _path(pretrained), {"params": params, "batch_stats": batch_stats}
    tensors = read_tensors(path)
    if is_shared(tensors):
        # Statistics of single cameras are not used.
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{CAMERAS}.")}
        flat = flatten_dict(variables)
        leaves = {".".join(name): Leaf(name, leaf.shape, leaf.shape) for name, leaf in flat.items()}
    elif authors.is_released(tensors):
        leaves, tensors = authors.released_leaves(variables), authors.without_unused(tensors)
    else:
        return _with_backbone(variables, tensors, path, arch)
    classifiers = {name for name, leaf in leaves.items() if leaf.path[1].endswith("_classifier")}
    card = _card(path)
    if card is not None:
        has_other_ids = card["data_fingerprint"] != data_fingerprint or not card["num_classes"]
    else:
        has_other_ids = any(name in tensors and tensors[name].shape != leaves[name].torch_shape for name in classifiers)
    if has_other_ids:
        leaves = {name: leaf for name, leaf in leaves.items() if name not in classifiers}
        tensors = {name: tensor for name, tensor in tensors.items() if name not in classifiers}
    fitting = check(tensors, leaves, path, "the network of config.model")
    if has_other_ids and (card is None or card["num_classes"]):
        tell(f"{pretrained}: its classifiers are for other identities and are initialised anew")
    if is_shared(tensors):
        return _replaced(variables, {leaf.path: fitting[name] for name, leaf in leaves.items()})
    return _replaced(variables, flatten_dict(to_variables(fitting, leaves)))


def data_sets_before(config: ConfigDict, data_fingerprint: str) -> list[str]:
    """Returns the data sets that `config.pretrained` was trained on; it may know identities that a run holds out.

    `data_fingerprint` is that of the run's training images. Empty for a file without a card.
    """
    card = _card(_path(config.pretrained)) if config.pretrained else None
    return sorted(data_sets_behind(card, data_fingerprint)) if card else []


def data_sets_behind(card: Mapping[str, Any], data_fingerprint: str) -> set[str]:
    """Returns the data sets behind a model, without its last one if it held the same identities out."""
    held_out_the_same = card["data_fingerprint"] == data_fingerprint
    return set(card.get("pretrained_on", ())) | set(() if held_out_the_same else sources(card["trained_on"]))


def _missing(path: str, arch: str) -> str:
    name = TORCHVISION_FILES.get(arch)
    source = f"torchvision's {name} from https://download.pytorch.org/models/{name} or " if name else ""
    return (
        f"config.pretrained: no file {path}; get {source}timm's model.safetensors from "
        f"https://huggingface.co/timm/{arch}.tv_in1k, give a pretrained model ({', '.join(shipped_networks())}), "
        "or start from scratch with --config.pretrained=''"
    )


def _path(pretrained: str | Path) -> Path:
    """Returns the file of the weights, also for the path of a card."""
    path = shipped_weights(pretrained) or local_path(pretrained)
    return path.with_suffix(WEIGHTS) if path.suffix == CARD else path


def _card(path: Path) -> dict[str, Any] | None:
    """Reads the card next to the weights of a shared model; None for other files."""
    file = path.with_suffix(CARD)
    if path.suffix != WEIGHTS or not file.is_file():
        return None
    try:
        card = json.loads(file.read_text())
        _ = (
            from_json(card["config"]).model.to_dict(),
            card["data_fingerprint"],
            card["trained_on"],
        )  # the fields we read
    except (ValueError, TypeError, AttributeError, LookupError):
        card = None
    if card is None:
        raise ValueError(f"{file} is not the card of {path.name}; get both files again, or move it away")
    return card


def _replaced(variables: dict[str, Any], weights: dict[tuple[str, ...], Any]) -> tuple[dict, dict]:
    """Returns (params, batch_stats) of `variables`, with the arrays of `weights`, by path, in their place."""
    replaced = unflatten_dict(flatten_dict(variables) | weights)
    return replaced["params"], replaced["batch_stats"]


def _with_backbone(variables, tensors, path, arch):
    weights = to_variables(fit_backbone(tensors, path, arch), backbone_leaves(arch))
    initial = flatten_dict(variables)
    backbone = {(collection, "backbone", *rest): leaf for (collection, *rest), leaf in flatten_dict(weights).items()}
    if any(name not in initial or initial[name].shape != leaf.shape for name, leaf in backbone.items()):
        raise ValueError(
            f"{path} has a {arch} of base width 64, and the network has another backbone; set config.model.arch and "
            "config.model.width = 64, or start from scratch with --config.pretrained=''"
        )
    return _replaced(variables, backbone)
