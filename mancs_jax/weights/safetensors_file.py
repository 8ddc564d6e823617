"""Reads and writes safetensors: the length of a header in 8 bytes, the header in JSON, the tensors in C order."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np

from mancs_jax.common.atomic_write import atomic_write

DTYPES = {
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


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name, with the dtypes of the file; read-only arrays.

    Raises:
      ValueError: the file is damaged or cut short.
      OSError: cannot be read.
    """
    content = memoryview(Path(path).read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    if start > len(content):
        raise ValueError(f"{path}: cut short at {len(content):,} bytes; get the file again")
    tensors, ends = {}, [0]
    try:
        header = json.loads(bytes(content[8:start]))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            dtype = np.dtype(DTYPES[entry["dtype"]])
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


def write_safetensors(tensors: dict[str, np.ndarray], path: str | Path) -> None:
    """Writes float32 tensors, completely or not at all.

    Raises:
      OSError: cannot be written.
    """
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, array in tensors.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the data are to begin at a multiple of 8
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array, "<f4").data)
