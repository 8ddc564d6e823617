"""Files of CUHK03's 767/700 protocol (Zhong et al., CVPR 2017)."""

import io
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from mancs_jax.common.local_path import local_path
from mancs_jax.common.quoted import shortened

PROTOCOL_PAGE = "https://github.com/zhunzhong07/person-re-ranking"
PROTOCOL_SPLITS = ("train", "query", "gallery")


class Protocol(NamedTuple):
    """The 767/700 protocol of one kind of boxes."""

    labels: list[tuple[str, int, int]]  # (name, pid, camid) of every image
    rows: dict[str, np.ndarray]  # split -> int [n], 0-based, into the labels


def read_protocol(path: str | Path) -> Protocol:
    """Reads a file of the 767/700 protocol (MATLAB v5).

    Raises FileNotFoundError where `path` does not exist, and ValueError where it is another file.
    """
    path = local_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; the files of the 767/700 protocol are at {PROTOCOL_PAGE}")
    # In its own process: for damaged files, SciPy raises any error, and some files crash the process.
    command = [sys.executable, "-m", __name__, str(path)]
    result = subprocess.run(command, capture_output=True, check=False)
    if result.returncode:
        reason = shortened((result.stderr.decode(errors="replace").splitlines() or ["the file is damaged"])[-1])
        raise ValueError(
            f"{path} is not a file of the 767/700 protocol (MATLAB v5; {reason}); they are at {PROTOCOL_PAGE}"
        )
    with np.load(io.BytesIO(result.stdout), allow_pickle=False) as arrays:
        labels = list(zip(*(arrays[field].tolist() for field in ("filelist", "labels", "camId")), strict=True))
        return Protocol(labels, {split: arrays[f"{split}_idx"] for split in PROTOCOL_SPLITS})


def write_arrays(path: str, output: BinaryIO) -> None:
    """Reads a file of the protocol and writes its arrays as .npz, with indices from 0."""
    import scipy.io  # only the other process needs it

    content = scipy.io.loadmat(path)
    names = np.array([str(name.item()) for name in content["filelist"].ravel()])
    arrays = {field: content[field].ravel() for field in ("labels", "camId")}
    if any(len(column) != len(names) for column in arrays.values()):
        raise ValueError("filelist, labels and camId differ in length")
    for split in PROTOCOL_SPLITS:
        rows = np.sort(content[f"{split}_idx"].ravel().astype(np.int64)) - 1
        if rows.size and not 0 <= rows[0] <= rows[-1] < len(names):
            raise ValueError("an index is out of range")
        arrays[f"{split}_idx"] = rows
    np.savez(output, filelist=names, **arrays)


if __name__ == "__main__":
    write_arrays(sys.argv[1], sys.stdout.buffer)
