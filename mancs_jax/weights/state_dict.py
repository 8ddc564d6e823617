"""Reads PyTorch's state dicts, checks them against a network, and converts them to Flax's layout and back."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mancs_jax.common.local_path import local_path
from mancs_jax.common.quoted import shortened
from mancs_jax.common.screen import tell
from mancs_jax.weights.safetensors_file import read_safetensors
from mancs_jax.weights.torch_file import read_torch_file

Tensors = dict[str, np.ndarray]

LEAF_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "slope": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


COUNTERS = ("n_averaged",)  # of torch.optim.swa_utils.AveragedModel; not a weight
# The first convolution in the names of torchvision, the release or Hugging Face, with the prefix of the network.
FIRST_CONVOLUTION = re.compile(
    r"((?:.*?\.)??)(?:base\.)?conv1\.weight|((?:.*?\.)??)(?:resnet\.)?embedder\.embedder\.convolution\.weight"
)
FIRST_BLOCK = ("layer1.0.", "base.layer1.0.", "encoder.stages.0.", "resnet.encoder.stages.0.")
RELEASED_BACKBONE = {"base"}  # the release's name of its backbone, which may be all that a file has
SHOWN = 8  # names in a message; more are only counted


class Leaf(NamedTuple):
    """The path of a tensor in the variables of a network, and its shapes in Flax and in PyTorch.

    |                | Flax              | PyTorch                      |
    | convolution    | [kh, kw, in, out] | [out, in, kh, kw]            |
    | dense layer    | [in, out]         | [out, in], or [out, in, 1, 1] |
    | slope of PReLU | []                | [1]                          |
    """

    path: tuple[str, ...]  # collection, modules, name
    shape: tuple[int, ...]
    torch_shape: tuple[int, ...]


def leaf_at(path: tuple[str, ...], shape: tuple[int, ...], is_conv: bool = False) -> Leaf:
    """Makes the `Leaf` of a path; with `is_conv`, a dense layer is a 1x1 convolution in PyTorch."""
    torch_shape: tuple[int, ...]
    if len(shape) == 4:
        torch_shape = (shape[3], shape[2], *shape[:2])
    elif len(shape) == 2:
        torch_shape = shape[::-1] + ((1, 1) if is_conv else ())
    else:
        torch_shape = shape or (1,)
    return Leaf(path, shape, torch_shape)


def backbone_name(modules: tuple[str, ...], leaf: str) -> str:
    """Returns torchvision's name: ("layer2_0", "downsample_conv"), "kernel" -> "layer2.0.downsample.0.weight".

    The PReLU of the last block is "layer4.2.relu.weight", as in the release.
    """
    module = ".".join(modules).replace("downsample_conv", "downsample.0").replace("downsample_bn", "downsample.1")
    return f"{module.replace('_', '.').replace('prelu', 'relu')}.{LEAF_NAMES[leaf]}"


def read_tensors(path: str | Path) -> Tensors:
    """Reads all tensors of a PyTorch zip file or a safetensors file, with the dtypes of the file.

    Removes the parts of names that wrappers add: a leading `module.` of DataParallel, `_orig_mod.` of torch.compile,
    and any other prefix of all names, or of those of the network. A line on stderr names the latter, and the tensors
    that do not belong to the network. Raises ValueError where the file is of neither format or damaged, and OSError.
    """
    tensors = {name: array for name, array in read_all(path).items() if name not in COUNTERS}
    tensors = rename(tensors, lambda name: re.sub(r"^(module\.)+", "", name.replace("_orig_mod.", "")), path)
    while (
        len(tensors) > 1
        and len(first := {name.partition(".")[0] for name in tensors}) == 1
        and first != RELEASED_BACKBONE
    ):
        [prefix] = first
        tell(f"{path}: every name begins with {prefix}., which is removed")
        tensors = {name.removeprefix(f"{prefix}."): array for name, array in tensors.items()}
    if prefix := _prefix_of_network(tensors):
        inner = {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
        skipped = sorted(name for name in tensors if not name.startswith(prefix))
        tell(f"{path}: the model is below {prefix}; skipped: {_first_names(skipped)}")
        return inner
    return tensors


def _prefix_of_network(tensors: Tensors) -> str:
    """Returns the prefix of the only network among tensors; "" where there are several, or none."""
    matches = [match for name in tensors if (match := FIRST_CONVOLUTION.fullmatch(name))]
    # Blocks, and other modules, have a conv1, too.
    prefixes = {
        prefix
        for prefix in {match[1] or match[2] or "" for match in matches}
        if any(name.startswith(f"{prefix}{block}") for name in tensors for block in FIRST_BLOCK)
    }
    return prefixes.pop() if len(prefixes) == 1 else ""


def rename(tensors: Tensors, name_of: Callable[[str], str], path: str | Path) -> Tensors:
    """Renames tensors by `name_of` (ValueError: two of them would have one name)."""
    renamed = {}
    for name, array in tensors.items():
        if name_of(name) in renamed:
            raise ValueError(
                f"{path}: two tensors are {shortened(name_of(name))}, one of them under the name {shortened(name)}"
            )
        renamed[name_of(name)] = array
    return renamed


def check(tensors: Tensors, leaves: dict[str, Leaf], path: str | Path, network: str) -> Tensors:
    """Returns the tensors as float32, in the order of `leaves`.

    Raises ValueError where they are not those of `leaves`: the message counts those that are missing, left over or
    wrong, and names the first of them.
    """
    common = leaves.keys() & tensors.keys()
    wrong = [
        f"{name} {tensors[name].dtype}{list(tensors[name].shape)} instead of float{list(leaves[name].torch_shape)}"
        for name in sorted(common)
        if tensors[name].shape != leaves[name].torch_shape or not jnp.issubdtype(tensors[name].dtype, jnp.floating)
    ]
    problems = {"missing": sorted(leaves.keys() - common), "left over": sorted(tensors.keys() - common), "wrong": wrong}
    if any(problems.values()):
        lists = [f"{len(names)} {problem}: {_first_names(names)}" for problem, names in problems.items() if names]
        is_cut = max(map(len, problems.values())) > SHOWN
        hint = f"; mancs import-weights --source={path} --names prints all names" if is_cut else ""
        raise ValueError(f"{path} does not fit {network}: {'; '.join(lists)}{hint}")
    return {name: tensors[name].astype(np.float32) for name in leaves}


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(map(shortened, names[:SHOWN])) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def to_variables(tensors: Tensors, leaves: dict[str, Leaf]) -> dict[str, Any]:
    """Converts checked tensors to {"params", "batch_stats"}, NumPy arrays."""

    def to_flax(array, shape):
        if len(shape) == 4:
            array = array.transpose(2, 3, 1, 0)
        elif len(shape) == 2:
            array = array.reshape(array.shape[:2]).T
        return np.ascontiguousarray(array).reshape(shape)

    return unflatten_dict({leaf.path: to_flax(tensors[name], leaf.shape) for name, leaf in leaves.items()})


def to_tensors(variables: dict[str, Any], leaves: dict[str, Leaf]) -> Tensors:
    """Converts variables to float32 tensors with PyTorch's shapes, in the order of `leaves`."""
    flat = flatten_dict(variables)

    def to_torch(array, shape):
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        return np.ascontiguousarray(array).reshape(shape)

    return {name: to_torch(np.asarray(flat[leaf.path], np.float32), leaf.torch_shape) for name, leaf in leaves.items()}


def read_all(path: str | Path) -> Tensors:
    """Reads all tensors under the names of the file; errors as `read_tensors`."""
    path = local_path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    with path.open("rb") as file:
        head = file.read(262)
    if head.startswith(b"PK\x03\x04"):
        return read_torch_file(path)
    if head[8:9] == b"{":
        return read_safetensors(path)
    if head[257:262] == b"ustar" or head.startswith(b"\x80"):
        raise ValueError(
            f"{path}: in the format that PyTorch wrote before 1.6; if you trust its origin, convert it where PyTorch "
            f"is installed: torch.save(torch.load({str(path)!r}, 'cpu', encoding='latin1', weights_only=False), NEW)"
        )
    raise ValueError(f"{path}: neither a PyTorch zip file nor safetensors, it begins with {head[:16]!r}")
