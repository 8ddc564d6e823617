"""A network that can be used: its configuration, its size and its numbers."""

from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from mancs_jax.common.fingerprint import fingerprint


class Network(NamedTuple):
    """A network that can be used."""

    config: ConfigDict  # of the run that made it
    num_classes: int  # identities of its classifiers
    variables: dict[str, Any]  # "params" and "batch_stats"


def fingerprint_of(variables: dict[str, Any]) -> str:
    """Returns 32 hex digits that depend on every name and number of the parameters and statistics."""
    parts: list[str | np.ndarray] = []
    for path, leaf in jax.tree.leaves_with_path(variables):
        parts += [f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}", np.asarray(leaf)]
    return fingerprint(*parts)


def embedding_width(network: Network) -> int:
    """Returns D, the width of an embedding, from the shapes of the heads."""
    params = network.variables["params"]
    # Without a layer of its own, f_rank is what the identity head takes in.
    return params["rank_fc"]["bias"].shape[0] if "rank_fc" in params else params["cls_fc"]["kernel"].shape[0]
