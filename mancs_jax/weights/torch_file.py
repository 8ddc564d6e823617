"""Reads the tensors of a PyTorch zip file without PyTorch; the pickle in it cannot execute anything."""

import io
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from mancs_jax.common.quoted import reason_of, shortened
from mancs_jax.common.screen import tell

# PyTorch names the type of a tensor by a storage class, or by the type itself; here both are only text.
DTYPES = {
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
    "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128,
} | {
    name: np.dtype(name).type
    for name in (
        "float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2",
        "float8_e5m2fnuz", "float8_e8m0fnu", "complex64", "complex128", "uint8", "uint16", "uint32", "uint64", "int8",
        "int16", "int32", "int64", "bool",
    )
}  # fmt: skip
# Types that NumPy does not have, ways to quantize, and names of types in older versions of PyTorch.
OTHER_TYPES = re.compile(
    r"half|float|double|short|int|long|complex32|float4_e2m1fn_x2|u?int[1-7]|bits\d+(x\d)?|qu?int\d(x\d)?\d?|"
    r"per_(tensor|channel)_\w+|QU?Int\d+(x\d)?Storage"
)
REBUILD = "torch._utils"
# Names under `REBUILD` -> kinds of tensors that are not dense arrays of numbers.
NO_ARRAYS = {
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_qtensor": "quantized",
    "_rebuild_meta_tensor_no_storage": "without numbers (meta)",
    "_rebuild_nested_tensor": "nested",
    "_rebuild_wrapper_subclass": "of a class of its own",
}
# Other names that `torch.load(weights_only=True)` accepts, too, and that are no weights: NumPy numbers (such as a best
# score), types and devices.
SKIPPED = (
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    ("torch", "device"),
    ("torch.serialization", "_get_layout"),
    ("builtins", "bytearray"),
    ("__builtin__", "bytearray"),
    ("torch", "Tensor"),
    ("torch.nn.parameter", "Parameter"),
)
CONTAINERS = {"set": set, "frozenset": frozenset, "complex": complex}
SHOWN = 5  # names in a message; more are only counted
# Entries of a checkpoint that contain its network, the likeliest first.
WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "network")


class _Tensor(NamedTuple):
    """The location of a tensor according to the pickle, checked when it is read; `offset` and `strides` in elements.

    A tensor that is not a dense array of numbers has only `kind`, in words.
    """

    storage: Any = None  # (word of its type, name of its member)
    offset: Any = 0
    shape: Any = ()
    strides: Any = ()
    kind: str = ""


class _Dictionary(dict):
    """Stands for OrderedDict and Counter; ignores the attributes (`_metadata`) that PyTorch adds."""

    def __setstate__(self, state):
        pass


class _Skipped:
    """Stands for a value that is no weight."""

    def __init__(self, *_):
        pass

    def __setstate__(self, state):
        pass


class _Forbidden(ValueError):
    pass


class _Several(ValueError):
    """Names of the entries that hold tensors."""


class _TensorUnpickler(pickle.Unpickler):
    """Makes only dictionaries, lists, tuples, numbers, strings and `_Tensor`s."""

    def find_class(self, module: str, name: str) -> Any:
        # New functions at each call: a hostile pickle could set attributes of a shared one.
        if module == "torch" and (name in DTYPES or OTHER_TYPES.fullmatch(name)):
            return name
        if (module, name) == ("torch.storage", "UntypedStorage"):
            return name
        if module == REBUILD and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return lambda *arguments: _typed(*arguments)
        if (module, name) == (REBUILD, "_rebuild_tensor_v3"):
            return lambda *arguments: _untyped(*arguments)
        if module == REBUILD and name in NO_ARRAYS:
            return lambda *_: _Tensor(kind=NO_ARRAYS[name])
        if module == REBUILD and name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            return lambda tensor, *_: tensor
        if (module, name) == ("torch._tensor", "_rebuild_from_type_v2"):
            return lambda rebuild, _, arguments, *__: rebuild(*arguments)
        if (module, name) in (("collections", "OrderedDict"), ("collections", "Counter")):
            return _Dictionary
        if (module, name) == ("torch", "Size"):
            return lambda sides=(): tuple(sides)
        if module in ("builtins", "__builtin__") and name in CONTAINERS:
            kind = CONTAINERS[name]
            return lambda *arguments: kind(*arguments)
        if (module, name) in SKIPPED:
            return _Skipped
        raise _Forbidden(f"{module}.{name}"[:80])

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        kind, dtype, key, *_ = pid
        if kind != "storage":
            raise ValueError(f"storage of kind {kind}")
        return dtype, key


def read_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a state dict that `torch.save` (PyTorch 1.6 or later) wrote, by name, with the dtypes of the file.

    In a checkpoint, the state dict is the entry of a name in `WRAPPERS`, or the only dictionary. Tensors that are not
    dense arrays of numbers are skipped; a line on stderr names them. Raises ValueError where the file is damaged, of
    another format, contains anything but tensors, or has tensors in several entries.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            tensors, skipped = _read_archive(archive)
    except _Forbidden as error:
        raise ValueError(
            f"{path}: refused, nothing of it was run: it asks for {shortened(str(error))!r}, and only tensors, "
            "dictionaries, lists, numbers and text are read; save only the weights: torch.save(model.state_dict(), NEW)"
        ) from None
    except _Several as error:
        first, *_ = error.args[0]
        names = shortened(", ".join(map(repr, error.args[0])))
        raise ValueError(
            f"{path}: {names} in it hold tensors, and none of them has a name such as state_dict or model; save the "
            f"one that you mean: torch.save(torch.load({str(path)!r}, 'cpu')[{shortened(repr(first))}], NEW)"
        ) from None
    except zipfile.BadZipFile as error:
        size = Path(path).stat().st_size
        raise ValueError(
            f"{path}: cut short or damaged at {size:,} bytes ({reason_of(error)}); get the file again"
        ) from None
    except Exception as error:  # a hostile pickle can fail in any way
        raise ValueError(
            f"{path}: no state dict that torch.save wrote, or a damaged one "
            f"({type(error).__name__}: {reason_of(error)})"
        ) from None
    if skipped:
        more = f" and {len(skipped) - SHOWN} more" if len(skipped) > SHOWN else ""
        tell(f"{path}: cannot be used and skipped: {', '.join(map(shortened, skipped[:SHOWN]))}{more}")
    return tensors


def _typed(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> _Tensor:
    """Makes a tensor of a typed storage; `rest` is requires_grad, hooks and metadata."""
    is_lazy = len(rest) > 2 and rest[2]  # its values still have to be conjugated or negated
    if storage[0] not in DTYPES or is_lazy:
        return _Tensor(kind="conjugated or negated" if is_lazy else f"{storage[0]}")
    return _Tensor(storage, offset, shape, strides)


def _untyped(storage: Any, offset: Any, shape: Any, strides: Any, _: Any, __: Any, dtype: Any, *rest: Any) -> _Tensor:
    """Makes a tensor with a type of its own."""
    return _typed((dtype, storage[1]), offset, shape, strides, None, None, *rest)


def _read_archive(archive: zipfile.ZipFile) -> tuple[dict[str, np.ndarray], list[str]]:
    """Returns the arrays, and descriptions of the other tensors."""
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"{len(pickles)} members named data.pkl instead of 1")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
        raise ValueError("written on a big-endian machine")
    tree = _TensorUnpickler(io.BytesIO(archive.read(pickles[0]))).load()
    descriptions = _tensors_of(tree)
    skipped = [f"{name} ({tensor.kind})" for name, tensor in descriptions.items() if tensor.kind]
    tensors = {name: tensor for name, tensor in descriptions.items() if not tensor.kind}
    if not tensors:
        raise ValueError(f"no tensor that is an array of numbers, only {', '.join(skipped)}")

    storages = {}
    for _, key in (tensor.storage for tensor in tensors.values()):
        if key not in storages:
            storages[key] = archive.read(f"{folder}data/{key}")
    return {str(name): _view(tensor, storages) for name, tensor in tensors.items()}, skipped


def _tensors_of(tree: Any) -> dict[Any, _Tensor]:
    """Returns the tensors of a state dict, or of the one in a checkpoint."""
    if not isinstance(tree, dict):
        raise ValueError(f"{type(tree).__name__.strip('_')} instead of a state dict")
    inner = {name: entry for name, entry in tree.items() if isinstance(entry, dict) and entry}
    if likely := [name for name in WRAPPERS if name in inner]:
        return _tensors_of(inner[likely[0]])
    if tensors := {name: entry for name, entry in tree.items() if isinstance(entry, _Tensor)}:
        return tensors
    if len(inner) == 1:
        return _tensors_of(*inner.values())
    if holding := [name for name, entry in tree.items() if _holds_tensors(entry)]:
        raise _Several(holding)
    raise ValueError(f"no tensors, only {', '.join(map(str, tree)) or 'nothing'}")


def _holds_tensors(entry: Any) -> bool:
    if isinstance(entry, _Tensor):
        return True
    parts = entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list | tuple) else ()
    return any(_holds_tensors(part) for part in parts)


def _view(tensor: _Tensor, storages: dict[str, bytes]) -> np.ndarray:
    type_name, key = tensor.storage
    dtype = np.dtype(DTYPES[type_name])
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    # NumPy checks that shape, offset and strides stay inside the buffer.
    return np.ndarray(tensor.shape, dtype, storages[key], tensor.offset * dtype.itemsize, strides)
