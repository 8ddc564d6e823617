"""The numbers of shared networks: those that come with the package, and files of `mancs export-network`."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict

from mancs_jax.weights.state_dict import Tensors

SHIPPED = Path(__file__).parents[1] / "networks"
CARD, WEIGHTS = ".json", ".safetensors"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def shipped_networks() -> list[str]:
    """Returns the names of the networks that come with the package, sorted."""
    return sorted(card.stem for card in SHIPPED.glob(f"*{CARD}") if NAME.fullmatch(card.stem))


def shipped_weights(source: str | Path) -> Path | None:
    """Returns the .safetensors of a network of the package; None where `source` is no such name.

    A folder or file of such a name is meant by a `Path`, or by "./market1501".
    """
    return SHIPPED / f"{source}{WEIGHTS}" if isinstance(source, str) and source in shipped_networks() else None


def variables_of(tensors: Tensors) -> dict[str, Any] | None:
    """Returns {"params", "batch_stats"}, NumPy float32, of a shared network's tensors; None of other tensors."""
    if {name.partition(".")[0] for name in tensors} != {"params", "batch_stats"}:
        return None
    return unflatten_dict({tuple(name.split(".")): np.asarray(array, np.float32) for name, array in tensors.items()})
