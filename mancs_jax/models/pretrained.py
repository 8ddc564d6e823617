"""ImageNet weights for the backbone, from the files of torchvision, timm and Hugging Face, read without PyTorch."""

import json
import re
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from mancs_jax.models.resnet import BASIC_BLOCK, STAGE_SIZES, ResNet
from mancs_jax.models.torch_file import read_torch_file

Tensors = dict[str, np.ndarray]

TORCHVISION_FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
}
SAFETENSORS_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
TORCH_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
IGNORED = re.compile(r"(fc|classifier)\..*|.*\.num_batches_tracked")


def missing_file(path: str | Path, arch: str) -> str:
    """The line for weights that are not there: where to get them, and how to do without."""
    name = TORCHVISION_FILES.get(arch)
    where = f"torchvision's {name} from https://download.pytorch.org/models/{name} or " if name else ""
    return (
        f"config.pretrained: no file {path}; get {where}timm's model.safetensors from "
        f"https://huggingface.co/timm/{arch}.tv_in1k, or start from scratch with --config.pretrained=''"
    )


def load_imagenet(path: str | Path, arch: str) -> dict[str, Any]:
    """ImageNet weights as trees of the backbone.

    Args:
      path: `.pth` (zip format) or `.safetensors`; told apart by content, not by name.
      arch: key of `STAGE_SIZES`.

    Returns:
      `{"params": ..., "batch_stats": ...}` as `ResNet` has them, NumPy float32; convolutions are
      [kh, kw, Cin, Cout]. The PReLU slope of the last activation is not part of it.

    Raises:
      FileNotFoundError: no such file.
      ValueError: the file cannot be read, or does not fit `arch`: the message lists every tensor that is
        missing, left over or wrong.
    """
    trees = {"params": {}, "batch_stats": {}}
    tensors = read_backbone(path, arch)
    leaves = _backbone_leaves(arch)
    for name, array in tensors.items():
        collection, *leaf = leaves[name][0]
        order = (2, 3, 1, 0) if array.ndim == 4 else range(array.ndim)
        trees[collection][tuple(leaf)] = np.ascontiguousarray(array.transpose(order))
    return {collection: unflatten_dict(flat) for collection, flat in trees.items()}


def load_into(params: dict, batch_stats: dict, path: str | Path, arch: str) -> tuple[dict, dict]:
    """Replaces the backbone of a state by ImageNet weights; all else, FABs and the PReLU slope too, stays as it is.

    Args:
      params, batch_stats: of `Mancs`, with a subtree "backbone".
      path, arch: as in `load_imagenet`.

    Returns:
      (params, batch_stats), new dictionaries of the same structure.

    Raises:
      FileNotFoundError, ValueError: as in `load_imagenet`; and ValueError where the backbone is not that of ImageNet.
    """
    weights = load_imagenet(path, arch)
    replaced = []
    for tree, collection in ((params, "params"), (batch_stats, "batch_stats")):
        old, new = flatten_dict(tree["backbone"]), flatten_dict(weights[collection])
        kept = {leaf: value for leaf, value in old.items() if leaf[-1] == "slope"}
        shapes = {leaf: value.shape for leaf, value in old.items() if leaf not in kept}
        if shapes != {leaf: value.shape for leaf, value in new.items()}:
            raise ValueError(
                f"{path} holds a {arch} 64 channels wide, and the network's backbone is another one; "
                "set config.model.arch and config.model.width = 64, or start from scratch with --config.pretrained=''"
            )
        replaced.append({**tree, "backbone": unflatten_dict({**new, **kept})})
    return tuple(replaced)


def read_backbone(path: str | Path, arch: str) -> Tensors:
    """The backbone's tensors of a file: torchvision names and layouts, float32, complete and of the right shapes.

    Raises:
      FileNotFoundError, ValueError: as in `load_imagenet`.
    """
    if arch not in TORCHVISION_FILES:
        raise ValueError(f"no ImageNet weights for arch {arch!r}; there are for {', '.join(TORCHVISION_FILES)}")
    if not Path(path).exists():
        raise FileNotFoundError(missing_file(path, arch))
    found = {}
    for name, array in read_tensors(path).items():
        name_here = torchvision_name(name)
        if IGNORED.fullmatch(name_here):
            continue
        if name_here in found:
            raise ValueError(f"{path}: two tensors are {name_here}, one of them under the name {name}")
        found[name_here] = array

    shapes = {name: shape for name, (_, shape) in _backbone_leaves(arch).items()}
    common = shapes.keys() & found.keys()
    wrong = [
        f"{name} {found[name].dtype}{list(found[name].shape)} instead of float{list(shapes[name])}"
        for name in sorted(common)
        if found[name].shape != shapes[name] or not jnp.issubdtype(found[name].dtype, jnp.floating)
    ]
    problems = {
        "missing": sorted(shapes.keys() - common),
        "left over": sorted(found.keys() - common),
        "wrong": wrong,
    }
    if any(problems.values()):
        lists = [f"{len(names)} {problem}: {', '.join(names)}" for problem, names in problems.items() if names]
        raise ValueError(f"{path} does not fit {arch}: {'; '.join(lists)}")
    return {name: found[name].astype(np.float32) for name in shapes}


def torchvision_name(name: str) -> str:
    """torchvision's name of a tensor: strips `module.` and translates Hugging Face's names; timm's are the same."""
    name = re.sub(r"^(module\.)+", "", name)
    stem = re.fullmatch(r"(?:resnet\.)?embedder\.embedder\.(convolution|normalization)\.(\w+)", name)
    if stem:
        return f"{'conv1' if stem[1] == 'convolution' else 'bn1'}.{stem[2]}"
    block = re.fullmatch(
        r"(?:resnet\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\."
        r"(?:shortcut|layer\.(\d+))\.(convolution|normalization)\.(\w+)",
        name,
    )
    if not block:
        return name
    stage, index, layer, kind, leaf = block.groups()
    if layer is None:
        module = "downsample.0" if kind == "convolution" else "downsample.1"
    else:
        module = f"{'conv' if kind == 'convolution' else 'bn'}{int(layer) + 1}"
    return f"layer{int(stage) + 1}.{index}.{module}.{leaf}"


@cache
def _backbone_leaves(arch: str) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """torchvision name -> (collection and path in the trees, shape in torch's order) of every tensor of a backbone."""
    model = ResNet(STAGE_SIZES[arch], arch not in BASIC_BLOCK, partial(nn.BatchNorm, momentum=0.9))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))
    leaves = {}
    for path, leaf in flatten_dict(variables).items():
        _, *modules, last = path
        shape = tuple(leaf.shape[axis] for axis in (3, 2, 0, 1)) if last == "kernel" else leaf.shape
        module = ".".join(modules).replace("downsample_conv", "downsample.0").replace("downsample_bn", "downsample.1")
        leaves[f"{module.replace('_', '.')}.{TORCH_LEAVES[last]}"] = (path, shape)
    return leaves


def read_tensors(path: str | Path) -> Tensors:
    """All tensors of a PyTorch zip file or a safetensors file, under the names and with the dtypes of the file.

    Raises:
      ValueError: neither of the two, or damaged.
      OSError: cannot be read.
    """
    with Path(path).open("rb") as file:
        head = file.read(262)
    if head.startswith(b"PK\x03\x04"):
        return read_torch_file(path)
    if head[8:9] == b"{":
        return _read_safetensors(path)
    is_tar = head[257:262] == b"ustar"
    if is_tar or head.startswith(b"\x80"):
        trust = ", weights_only=False" if is_tar else ""
        raise ValueError(
            f"{path}: in the format that PyTorch wrote before 1.6; convert it where PyTorch is installed: "
            f"torch.save(torch.load({str(path)!r}, map_location='cpu'{trust}), NEW)"
        )
    raise ValueError(f"{path}: neither a PyTorch zip file nor safetensors, it begins with {head[:16]!r}")


def _read_safetensors(path: str | Path) -> Tensors:
    """Layout: 8 bytes little-endian length of the header, the header in JSON, the tensors' bytes in C order."""
    content = Path(path).read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    if start > len(content):
        raise ValueError(f"{path}: cut short at {len(content):,} bytes; get the file again")
    tensors, ends = {}, [0]
    try:
        header = json.loads(content[8:start])
        header.pop("__metadata__", None)
        for name, entry in header.items():
            dtype = np.dtype(SAFETENSORS_DTYPES[entry["dtype"]])
            begin, end = entry["data_offsets"]
            if not 0 <= begin <= end:
                raise ValueError(f"{name} lies at {begin} to {end}")
            ends.append(end)
            if start + end <= len(content):
                tensors[name] = np.frombuffer(content[start + begin : start + end], dtype).reshape(entry["shape"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise ValueError(f"{path}: damaged safetensors file ({reason})") from None
    if start + max(ends) > len(content):
        missing = start + max(ends) - len(content)
        raise ValueError(f"{path}: cut short at {len(content):,} bytes, {missing:,} are missing; get the file again")
    return tensors


def write_safetensors(tensors: Tensors, path: str | Path) -> None:
    """Writes float32 tensors as safetensors, completely or not at all.

    Raises:
      OSError: cannot be written.
    """
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, array in tensors.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the data are to begin at a multiple of 8
    temporary = Path(f"{path}.part")
    with temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array, "<f4").data)
    temporary.replace(path)
