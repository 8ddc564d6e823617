"""Weights of shared models: the pretrained ones, and files of `mancs export --format=weights`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # commands ask for names before they wait for JAX
    from mancs_jax.weights.state_dict import Tensors

SHIPPED = Path(__file__).parents[1] / "networks"
CARD, WEIGHTS = ".json", ".safetensors"
CAMERAS = "cameras"  # statistics of each camera, in a model of `mancs adapt`
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def shipped_networks() -> list[str]:
    """Returns the names of the pretrained models, sorted."""
    return sorted(card.stem for card in SHIPPED.glob(f"*{CARD}") if NAME.fullmatch(card.stem))


def shipped_weights(source: str | Path) -> Path | None:
    """Returns the .safetensors of a pretrained model; None where `source` is not the name of one.

    A `Path`, or "./market1501", means a folder or file of that name.
    """
    return SHIPPED / f"{source}{WEIGHTS}" if isinstance(source, str) and source in shipped_networks() else None


def is_shared(tensors: "Tensors") -> bool:
    """Returns whether these are the tensors of a shared model, which are named by the paths of its variables."""
    return {name.partition(".")[0] for name in tensors} - {CAMERAS} == {"params", "batch_stats"}
