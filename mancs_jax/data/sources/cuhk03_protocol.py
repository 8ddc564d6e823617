"""Files of CUHK03's 767/700 protocol (Zhong et al., CVPR 2017)."""

import io
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

PROTOCOL_PAGE = "https://github.com/zhunzhong07/person-re-ranking"
PROTOCOL_SPLITS = ("train", "query", "gallery")
# A program: reads the .mat of its argument and writes its arrays, checked, as .npz. Indices become 0-based.
READ_PROTOCOL = """
import sys
import numpy as np
import scipy.io
found = scipy.io.loadmat(sys.argv[1])
names = np.array([str(name.item()) for name in found["filelist"].ravel()])
arrays = {field: found[field].ravel() for field in ("labels", "camId")}
for split in ("train", "query", "gallery"):
    arrays[f"{split}_idx"] = np.sort(found[f"{split}_idx"].ravel().astype(np.int64)) - 1
if len(arrays["labels"]) != len(names) or len(arrays["camId"]) != len(names):
    raise ValueError("filelist, labels and camId differ in length")
if any(row.size and not 0 <= row[0] <= row[-1] < len(names) for field, row in arrays.items() if field.endswith("_idx")):
    raise ValueError("an index is out of range")
np.savez(sys.stdout.buffer, filelist=names, **arrays)
"""


class Protocol(NamedTuple):
    """The 767/700 protocol of one kind of boxes."""

    labels: list[tuple[str, int, int]]  # (name, pid, camid) of every image
    rows: dict[str, np.ndarray]  # split -> int [n], 0-based, into the labels


def read_protocol(path: str | Path) -> Protocol:
    """Reads a file of the 767/700 protocol (MATLAB v5).

    Raises:
      FileNotFoundError: there is nothing at `path`.
      ValueError: it is something else.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; the files of the 767/700 protocol are at {PROTOCOL_PAGE}")
    # In a process of its own: SciPy raises whatever comes up in a damaged file, and some end the process.
    result = subprocess.run([sys.executable, "-c", READ_PROTOCOL, path], capture_output=True, check=False)
    if result.returncode:
        reason = (result.stderr.decode(errors="replace").splitlines() or ["the file is damaged"])[-1][:200]
        raise ValueError(
            f"{path} is not a file of the 767/700 protocol (MATLAB v5; {reason}); they are at {PROTOCOL_PAGE}"
        )
    with np.load(io.BytesIO(result.stdout), allow_pickle=False) as found:
        labels = list(zip(*(found[field].tolist() for field in ("filelist", "labels", "camId")), strict=True))
        return Protocol(labels, {split: found[f"{split}_idx"] for split in PROTOCOL_SPLITS})
