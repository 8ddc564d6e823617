"""Reads and writes safetensors files; reading executes nothing."""

from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from mancs_jax.common.atomic_write import write_bytes
from mancs_jax.common.quoted import reason_of, shortened

DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a file, with their dtypes, as read-only arrays.

    Raises ValueError where the file is damaged, or has a dtype that NumPy does not have, and OSError.
    """
    content = Path(path).read_bytes()
    try:
        entries = safetensors.deserialize(content)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path}: damaged safetensors file, or cut short at {len(content):,} bytes ({reason_of(error)}); get "
            "the file again"
        ) from None
    tensors = {}
    for name, entry in entries:
        if entry["dtype"] not in DTYPES:
            raise ValueError(f"{path}: tensor {shortened(name)} is {entry['dtype']}; convert it to float32 first")
        tensors[name] = np.frombuffer(entry["data"], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def write_safetensors(tensors: dict[str, np.ndarray], path: str | Path) -> None:
    """Writes tensors with their dtypes, completely or not at all (OSError)."""
    # The library copies the memory of an array, which has another order where the array is transposed.
    contiguous = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    write_bytes(path, safetensors.numpy.save(contiguous, metadata={"format": "pt"}))
