"""The numbers of shared networks: those that come with the package, and files of `mancs export --format=weights`."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # commands ask for names before they wait for JAX
    from mancs_jax.weights.state_dict import Tensors

SHIPPED = Path(__file__).parents[1] / "networks"
CARD, WEIGHTS = ".json", ".safetensors"
CAMERAS = "cameras"  # the statistics of each camera, in a network of `mancs adapt`
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def shipped_networks() -> list[str]:
    """Returns the names of the networks that come with the package, sorted."""
    return sorted(card.stem for card in SHIPPED.glob(f"*{CARD}") if NAME.fullmatch(card.stem))


def shipped_weights(source: str | Path) -> Path | None:
    """Returns the .safetensors of a network of the package; None where `source` is no such name.

    A folder or file of such a name is meant by a `Path`, or by "./market1501".
    """
    return SHIPPED / f"{source}{WEIGHTS}" if isinstance(source, str) and source in shipped_networks() else None


def is_shared(tensors: "Tensors") -> bool:
    """Tells if these are the tensors of a shared network: their names are the paths of its variables.

    One that is adapted to cameras has tensors under "cameras" too.
    """
    return {name.partition(".")[0] for name in tensors} - {CAMERAS} == {"params", "batch_stats"}
