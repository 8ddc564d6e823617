"""Reads the tensors of a PyTorch zip file without PyTorch; the pickle inside can name tensors, but run nothing."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

# PyTorch names the type of a tensor by a class; here it is only a word.
STORAGE_DTYPES = {
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "DoubleStorage": np.float64,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
TENSOR_TYPES = (
    "float16",
    "float32",
    "float64",
    "bfloat16",
    "half",
    "float",
    "double",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "short",
    "int",
    "long",
    "bool",
)
# Names beside those of tensors that `torch.load(weights_only=True)` reads, too. No weight is one: NumPy numbers (a
# best score, say), types and places of tensors.
SKIPPED = (
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    ("torch", "device"),
    ("torch.serialization", "_get_layout"),
    ("builtins", "bytearray"),
    ("__builtin__", "bytearray"),
)
CONTAINERS = {"set": set, "frozenset": frozenset, "complex": complex}
# Entries of a checkpoint that hold its network, the likeliest first.
WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "network")


class _Tensor(NamedTuple):
    """Where a tensor lies, as the pickle says; checked when it is read. `offset` and `strides` count elements."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


class _Dictionary(dict):
    """Stands for OrderedDict and Counter; leaves out the attributes (`_metadata`) that PyTorch adds."""

    def __setstate__(self, state):
        pass


class _Skipped:
    """Stands for a NumPy number, which is no weight."""

    def __init__(self, *_):
        pass

    def __setstate__(self, state):
        pass


class _Forbidden(ValueError):
    pass


class _TensorUnpickler(pickle.Unpickler):
    """Makes dictionaries, lists, tuples, numbers, strings and `_Tensor`s only."""

    def find_class(self, module: str, name: str) -> Any:
        # New functions at each call: a hostile pickle could set attributes of a lasting one.
        if module == "torch" and name in STORAGE_DTYPES:
            return name
        if (module, name) in (("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor")):
            return lambda storage, offset, shape, strides, *_: _Tensor(storage, offset, shape, strides)
        if (module, name) in (
            ("torch._utils", "_rebuild_parameter"),
            ("torch._utils", "_rebuild_parameter_with_state"),
        ):
            return lambda tensor, *_: tensor
        if (module, name) in (("collections", "OrderedDict"), ("collections", "Counter")):
            return _Dictionary
        if (module, name) == ("torch", "Size"):
            return lambda sides=(): tuple(sides)
        if module in ("builtins", "__builtin__") and name in CONTAINERS:
            kind = CONTAINERS[name]
            return lambda *arguments: kind(*arguments)
        if (module, name) in SKIPPED or (module == "torch" and name in TENSOR_TYPES):
            return _Skipped
        raise _Forbidden(f"{module}.{name}"[:80])

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        kind, dtype, key, *_ = pid
        if kind != "storage":
            raise ValueError(f"storage of kind {kind}")
        return dtype, key


def read_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict that `torch.save` wrote (PyTorch 1.6 or later), by name, with the dtypes of the file.

    A state dict inside a checkpoint is found by the names in `WRAPPERS`, or as its only dictionary.

    Raises:
      ValueError: the file is damaged, cut short, no such file, or asks for anything but tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive)
    except _Forbidden as error:
        raise ValueError(
            f"{path}: refused, nothing of it was run: it asks for {str(error)!r}, and only tensors, dictionaries, "
            "lists, numbers and text are read; save the weights alone: torch.save(model.state_dict(), NEW)"
        ) from None
    except zipfile.BadZipFile as error:
        size = Path(path).stat().st_size
        raise ValueError(f"{path}: cut short or damaged at {size:,} bytes ({error}); get the file again") from None
    except Exception as error:  # a pickle of unknown origin can fail in any way
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise ValueError(f"{path}: no state dict that torch.save wrote, or a damaged one ({reason})") from None


def _read_archive(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"{len(pickles)} members named data.pkl instead of 1")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
        raise ValueError("written on a big-endian machine")
    tree = _TensorUnpickler(io.BytesIO(archive.read(pickles[0]))).load()
    tensors = _tensors_of(tree)

    storages = {}
    for _, key in (tensor.storage for tensor in tensors.values()):
        if key not in storages:
            storages[key] = archive.read(f"{folder}data/{key}")
    return {str(name): _view(tensor, storages) for name, tensor in tensors.items()}


def _tensors_of(tree: Any) -> dict[Any, _Tensor]:
    """The tensors of a state dict, or of the one that a checkpoint holds."""
    if not isinstance(tree, dict):
        raise ValueError(f"{type(tree).__name__.strip('_')} instead of a state dict")
    inner = {name: entry for name, entry in tree.items() if isinstance(entry, dict) and entry}
    if likely := [name for name in WRAPPERS if name in inner]:
        return _tensors_of(inner[likely[0]])
    if tensors := {name: entry for name, entry in tree.items() if isinstance(entry, _Tensor)}:
        return tensors
    if len(inner) == 1:
        return _tensors_of(*inner.values())
    raise ValueError(f"no tensors, only {', '.join(map(str, tree)) or 'nothing'}")


def _view(tensor: _Tensor, storages: dict[str, bytes]) -> np.ndarray:
    type_name, key = tensor.storage
    dtype = np.dtype(STORAGE_DTYPES[type_name])
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    # NumPy checks that shape, offset and strides stay inside the buffer.
    return np.ndarray(tensor.shape, dtype, storages[key], tensor.offset * dtype.itemsize, strides)
