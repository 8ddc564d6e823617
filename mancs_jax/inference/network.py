"""A network that can be used: its configuration, its size and its numbers."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Int, Shaped
from ml_collections import ConfigDict

from mancs_jax.common.fingerprint import fingerprint
from mancs_jax.common.screen import tell
from mancs_jax.data.sources.labels import Camera, camera_name
from mancs_jax.data.sources.source import name_some
from mancs_jax.weights.shared import CAMERAS


class Network(NamedTuple):
    """A network that can be used."""

    config: ConfigDict  # of the run that made it
    num_classes: int  # identities of its classifiers; 0: it has none, see `without_classifiers`
    variables: dict[str, Any]  # "params" and "batch_stats"
    cameras: Mapping[str, dict[str, Any]] = MappingProxyType({})  # name -> "batch_stats"; see `inference.adaptation`


def camera_names(camera: Shaped[np.ndarray, " N"]) -> Shaped[np.ndarray, " N"]:
    """Returns the names, text, of cameras that are integers or text, see `camera_name`."""
    cameras, row = np.unique(camera, return_inverse=True)
    return np.array([camera_name(each) for each in cameras.tolist()], np.str_)[row]


def network_of_camera(network: Network, camera: Camera | None) -> Network:
    """Returns the network with the BatchNorm statistics of one camera; None, or a camera it does not have: its own."""
    name = "" if camera is None else camera_name(camera)
    if name not in network.cameras:
        return network._replace(cameras={})
    return network._replace(variables=network.variables | {"batch_stats": network.cameras[name]}, cameras={})


def network_for_file(network: Network, camera: Camera | None) -> Network:
    """Returns the network for a file that has the statistics of one camera; None: it is not adapted.

    Raises ValueError, one line: an adapted network needs one of its cameras, and no other network has one.
    """
    if network.cameras and (camera is None or camera_name(camera) not in network.cameras):
        given = "" if camera is None else f", not {camera}"
        known = name_some(list(network.cameras))
        raise ValueError(f"the model is adapted to cameras, and a file has the statistics of one: {known}{given}")
    if camera is not None and not network.cameras:
        raise ValueError(f"camera {camera}: the model is not adapted to cameras; leave it out, or run mancs adapt")
    return network_of_camera(network, camera)


def stored_variables(network: Network) -> dict[str, Any]:
    """Returns everything that is stored of a network: its variables and, where it is adapted, those of "cameras", by
    `camera_key`."""
    cameras = {camera_key(name): statistics for name, statistics in network.cameras.items()}
    return network.variables | ({CAMERAS: cameras} if cameras else {})


def camera_key(name: str) -> str:
    """Returns the name of a camera as files have it, in which letters outside a-z, A-Z, 0-9, _ and - are %XX."""
    return quote(name, safe="").replace(".", "%2E").replace("~", "%7E")


def camera_groups(
    known: Sequence[str], camera: Shaped[np.ndarray, " N"]
) -> Iterator[tuple[str | None, Int[np.ndarray, " n"]]]:
    """Groups images by camera, integers or text, since all images of a batch share statistics.

    A line on stderr says, once for networks with the `known` cameras, that there are images of other cameras; not for
    -1 and "", cameras that are not known. Yields (camera, rows of its images); last (None, rows of the images of all
    unknown cameras). No group is empty.
    """
    names = camera_names(camera)
    is_known = np.isin(names, np.array(known, np.str_))
    for name in np.unique(names[is_known]).tolist():
        yield name, np.flatnonzero(names == name)
    if not is_known.all():
        if other := max(names[~is_known].tolist()):
            _say_unknown(tuple(known), other)
        yield None, np.flatnonzero(~is_known)


@lru_cache(maxsize=4096)  # so that it is said once for each camera
def _say_unknown(known: tuple[str, ...], camera: str) -> None:
    if known:
        line = f"camera {camera} is not one of this model's cameras ({name_some(known)}): "
        line += "images of cameras that it does not know are embedded with the model's own statistics"
    else:
        line = f"camera {camera} makes no difference: this model is not adapted to cameras; mancs adapt does that"
    tell(line)


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


def without_classifiers(network: Network) -> Network:
    """Removes the classifiers of the training identities, which an embedding does not depend on."""
    leaves = flatten_dict(network.variables)
    leaves = {path: leaf[..., :0] if path[1].endswith("_classifier") else leaf for path, leaf in leaves.items()}
    return network._replace(num_classes=0, variables=unflatten_dict(leaves))


def averaged(network: Network, other: Network, share: float) -> Network:
    """Averages the parameters and statistics of two networks of one shape; `share`, 0 to 1, is that of `other`.

    Classifiers are averaged only where both networks have as many identities. Elsewhere they stay those of `network`,
    since the rows of the two are different people. Raises ValueError, one line, for another share, or where the
    networks differ in a name or a shape.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of the other model is {share}: it has to be from 0 to 1")
    own_leaves, other_leaves = (flatten_dict(each.variables) for each in (network, other))
    if network.num_classes != other.num_classes:
        other_leaves |= {path: leaf for path, leaf in own_leaves.items() if path[1].endswith("_classifier")}
    shapes = [{"/".join(path): leaf.shape for path, leaf in leaves.items()} for leaves in (own_leaves, other_leaves)]
    names = shapes[0].keys() | shapes[1].keys()
    if wrong := sorted(name for name in names if shapes[0].get(name) != shapes[1].get(name)):
        raise ValueError(f"the models cannot be averaged: {wrong[0]} and {len(wrong) - 1} more are not of one shape")
    mean = {
        path: np.asarray((1 - share) * np.float64(leaf) + share * np.float64(other_leaves[path]), np.float32)
        for path, leaf in own_leaves.items()
    }
    return network._replace(variables=unflatten_dict(mean))
