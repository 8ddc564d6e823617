"""A model as two files to share: NAME.safetensors has its weights, NAME.json, the model card, all else.

The card says which images the network takes and what it returns. Reading executes nothing.
"""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jax
import numpy as np
from flax import traverse_util

from mancs_jax.common.atomic_write import write_json
from mancs_jax.common.fingerprint import fingerprint
from mancs_jax.common.local_path import local_path
from mancs_jax.common.quoted import reason_of, shortened
from mancs_jax.config import checks, defaults
from mancs_jax.data.augment import MEAN, STD
from mancs_jax.inference.contract import FORMAT, RESIZE, read_json_card
from mancs_jax.inference.network import Network, embedding_width, fingerprint_of, stored_variables
from mancs_jax.models.mancs import init_variables
from mancs_jax.training.description import Description
from mancs_jax.weights.safetensors_file import read_safetensors, write_safetensors
from mancs_jax.weights.shared import CAMERAS, CARD, WEIGHTS

USE = (
    "For research only. The model was trained on images of people who did not give individual consent. The terms of "
    "its training data also apply to its weights. Do not use it to make decisions about a person."
)
CAMERA_LEAF = re.compile(rf"{CAMERAS}\.([\w%-]+)\.", re.ASCII)  # begins the names of statistics; see `camera_key`


def card_of(network: Network, step: int, description: Description) -> dict[str, Any]:
    """Describes a network: its input, its output and its training.

    Returns:
      Plain values: `format`, `use`, `input` (the images that it takes), `embedding` (its output), `network` (see
      `fingerprint_of`), `recipe`, `seed`, `step`, `best` (the score on held-out identities that chose the step, or
      None), `trained_on`, `data_fingerprint`, `pretrained_on` (see `weights.start`), `num_classes`, `config` and `fits`
      (see `digest_of`); `scores`, `thresholds` and `calibration` (see `evaluation.calibration`), which `mancs export
      --format=weights` fills in, and None until then. `mancs adapt` adds `adapted`, see `adaptation.adapt`. The
      configuration names no path of the machine of the training.
    """
    config = network.config.copy_and_resolve_references()
    with config.unlocked():
        config.data.root, config.pretrained = defaults.get_config().data.root, Path(config.pretrained).name
    height, width = config.data.image_size
    card = {
        "format": FORMAT,
        "use": USE,
        "input": {
            "height": height,
            "width": width,
            "channels": "RGB",
            "dtype": "uint8",
            "resize": RESIZE,
            "mean": list(MEAN),
            "std": list(STD),
        },
        "embedding": {"width": embedding_width(network), "dtype": "float32", "distance": "euclidean"},
        "network": fingerprint_of(stored_variables(network)),
        "recipe": config.recipe,
        "seed": config.seed,
        "step": step,
        "best": description.best,
        "trained_on": config.data.name,
        "data_fingerprint": description.data_fingerprint,
        "pretrained_on": list(description.pretrained_on),
        "num_classes": network.num_classes,
        "scores": None,
        "thresholds": None,
        "calibration": None,
        "config": config.to_dict(),
    }
    return card | {"fits": digest_of(card)}


def digest_of(card: dict[str, Any]) -> str:
    """Returns 32 hex digits that depend on the configuration of a card, its number of identities and its network.

    They are the field `fits`, written where the three are known to belong together. While it is right, reading needs
    not trace the network for the shapes of its parameters, which takes as long as importing JAX. So a change of the
    network that gives one configuration other parameters needs another `FORMAT`.
    """
    return fingerprint(json.dumps([card[name] for name in ("config", "num_classes", "network")], sort_keys=True))


def rounded(network: Network, dtype: str) -> Network:
    """Rounds the kernels to numbers that a file of `dtype` holds; the rest, a few numbers, stays float32.

    Raises:
      ValueError: a number is too large for `dtype`.
    """

    def rounded_leaf(path, leaf):
        numbers = np.asarray(leaf, np.float32)
        if numbers.ndim < 2:
            return numbers
        with np.errstate(over="ignore"):
            small = numbers.astype(dtype).astype(np.float32)
        if not np.isfinite(small).all():
            raise ValueError(f"{jax.tree_util.keystr(path)} is too large for {dtype}: use float32")
        return small

    return network._replace(variables=jax.tree_util.tree_map_with_path(rounded_leaf, network.variables))


def write_network(folder: str | Path, name: str, network: Network, card: dict[str, Any], dtype: str) -> Path:
    """Writes the two files, each completely or not at all.

    Args:
      folder: it is made.
      name: of the files.
      network: of `rounded` with the same `dtype`.
      card: of `card_of` for it, and whatever else is known.
      dtype: of the kernels, "float16" or "float32".

    Returns:
      The path of the card.

    Raises:
      OSError: cannot be written.
    """
    tensors = traverse_util.flatten_dict(stored_variables(network), sep=".")
    write_safetensors(
        {key: np.asarray(leaf, dtype if np.ndim(leaf) > 1 else np.float32) for key, leaf in tensors.items()},
        local_path(folder) / f"{name}{WEIGHTS}",
    )
    path = local_path(folder) / f"{name}{CARD}"
    write_json(path, card)
    return path


def read_network(path: str | Path) -> tuple[Network, dict[str, Any]]:
    """Reads a network and its card.

    Args:
      path: of either file; the other is next to it.

    Raises:
      FileNotFoundError: the other file is not there.
      ValueError: one line: a file is damaged, or the two do not belong together.
    """
    card_path, weights_path = (local_path(path).with_suffix(suffix) for suffix in (CARD, WEIGHTS))
    for file in (card_path, weights_path):
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file; a model is a pair of files, NAME.safetensors and NAME.json")
    card = read_json_card(card_path)
    leaves = {key: np.asarray(array, np.float32) for key, array in read_safetensors(weights_path).items()}
    shapes: Any = None
    try:
        config = checks.from_json(card["config"])
        checks.validate(config, num_devices=1)
        is_sound = all(map(CAMERA_LEAF.match, (key for key in leaves if key.startswith(CAMERAS))))
        if card.get("fits") != digest_of(card) or _fingerprint(leaves) != card["network"] or not is_sound:
            shapes = jax.eval_shape(lambda: init_variables(config, card["num_classes"]))
    except (ValueError, TypeError, OverflowError, ArithmeticError, AttributeError) as error:
        raise ValueError(
            f"{card_path}: its configuration is not valid ({reason_of(error)}); get the file again"
        ) from None
    if shapes is not None:
        _check(leaves, shapes, card, card_path, weights_path)
    variables = jax.device_put(traverse_util.unflatten_dict(leaves, sep="."), jax.local_devices()[0])
    cameras = {unquote(key): statistics for key, statistics in variables.pop(CAMERAS, {}).items()}
    names = sorted(cameras, key=lambda name: (len(name), name))  # integers ascending
    return Network(config, card["num_classes"], variables, {name: cameras[name] for name in names}), card


def _fingerprint(leaves: dict[str, np.ndarray]) -> str:
    try:
        variables = traverse_util.unflatten_dict(leaves, sep=".")
    except (IndexError, TypeError, ValueError):
        variables = {}
    # A name that goes on behind another hides it, or has no place.
    return fingerprint_of(variables) if len(jax.tree.leaves(variables)) == len(leaves) else ""


def _check(
    leaves: dict[str, np.ndarray], shapes: Any, card: dict[str, Any], card_path: Path, weights_path: Path
) -> None:
    expected = {key: leaf.shape for key, leaf in traverse_util.flatten_dict(shapes, sep=".").items()}
    stored = {key: array.shape for key, array in leaves.items()}
    for camera in {name[1] for name in map(CAMERA_LEAF.match, leaves) if name}:
        statistics = {key: shape for key, shape in expected.items() if key.startswith("batch_stats.")}
        expected |= {f"{CAMERAS}.{camera}{key.removeprefix('batch_stats')}": shape for key, shape in statistics.items()}
    if wrong := sorted(key for key in expected.keys() | stored.keys() if expected.get(key) != stored.get(key)):
        key, more = wrong[0], f", and {len(wrong) - 1} more differ" if len(wrong) > 1 else ""
        raise ValueError(
            f"{weights_path}: {shortened(key)} is {stored.get(key, 'missing')}, but {expected.get(key, 'missing')} in "
            f"the model that {card_path.name} describes{more}; get both files again"
        )
    if _fingerprint(leaves) != card["network"]:
        raise ValueError(f"{weights_path} has other numbers than {card_path.name} says; get both files again")
