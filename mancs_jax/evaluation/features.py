"""Embeddings that some other program made: read from a file, checked, scored."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np

from mancs_jax.evaluation import inputs, protocols
from mancs_jax.evaluation.protocols import Embedded, Options

PARTS = ("query", "gallery", "multi_query")  # each with _pid and _camid; the last is optional


def load_features(path: str | Path) -> dict[str, Embedded]:
    """Reads embeddings and labels.

    Args:
      path: a .npz file with arrays `query` and `gallery` (floats [N, D]) and `query_pid`, `query_camid`, `gallery_pid`,
        `gallery_camid` (integers [N]), and for multi-query `multi_query`, `multi_query_pid`, `multi_query_camid`; or a
        folder with a .npy file for each of these, which are memory-mapped and may be larger than memory.

    Returns:
      "query", "gallery" and, where it is there, "multi_query"; embeddings float32.

    Raises:
      FileNotFoundError: there is nothing at `path`.
      ValueError: one line: no such file, arrays missing, of a wrong type or of lengths that do not fit.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give a .npz file, or a folder of .npy files")
    arrays = _mapped(path) if path.is_dir() else _unzipped(path)
    wanted = PARTS if "multi_query" in arrays else PARTS[:2]
    names = [f"{part}{label}" for part in wanted for label in ("", "_pid", "_camid")]
    if missing := [name for name in names if name not in arrays]:
        raise ValueError(f"{path} has no {', '.join(missing)}; it has {', '.join(sorted(arrays)) or 'no arrays'}")
    found = {}
    for part in wanted:
        embedding = arrays[part]
        if embedding.dtype.kind == "f" and embedding.dtype != np.float32:
            embedding = embedding.astype(np.float32)
        try:
            found[part] = Embedded(*inputs.checked(part, embedding, arrays[f"{part}_pid"], arrays[f"{part}_camid"]))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return found


def score(features: dict[str, Embedded], options: Options, *, progress: bool = False) -> dict:
    """Scores what `load_features` read, single query; multi-query, where it is there, under "multi_query_mean" and
    "multi_query_max"."""
    query, gallery = features["query"], features["gallery"]
    result = protocols.single_query(query, gallery, options, progress=progress)
    if "multi_query" in features:
        for pooling in protocols.POOLINGS:
            result[f"multi_query_{pooling}"] = protocols.multi_query(
                query, gallery, features["multi_query"], pooling, options, progress=progress
            )
    return result | {"fingerprint": {part: fingerprint(embedded) for part, embedded in features.items()}}


def fingerprint(embedded: Embedded) -> str:
    """Returns 32 hex digits that depend on every embedding and label."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr(embedded.embedding.shape).encode())
    for field, dtype in zip(embedded, ("<f4", "<i4", "<i4"), strict=True):
        digest.update(np.ascontiguousarray(field, dtype))
    return digest.hexdigest()


def _unzipped(path):
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream):  # which says what is wrong; a lone array is no zip
            stream.seek(0)
            file = np.load(stream, allow_pickle=False)
            return {name: file[name] for name in file.files if name.startswith(PARTS)}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a .npz file of plain arrays, or is cut off ({_first_line(error)})") from error


def _mapped(path):
    arrays = {}
    for file in sorted(path.glob("*.npy")):
        try:
            arrays[file.stem] = np.load(file, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{file} is not a .npy file of numbers, or is cut off ({_first_line(error)})") from error
    return arrays


def _first_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0]
