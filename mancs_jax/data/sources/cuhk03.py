"""CUHK03 (Li et al., CVPR 2014) out of its `cuhk-03.mat`, with the 767/700 protocol (Zhong et al., CVPR 2017).

Two data sets: boxes drawn by hand ("labeled") or by a detector ("detected"). Each of five camera pairs has its own
people, with up to five images per view. The pid runs over the pairs, from 1 to 1,467, and the camid is the view, 1 or
2, as in the files of the protocol, and so are names: `1_001_2_06.png` is pair, person in the pair, view, image.
"""

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import cv2
import h5py
import numpy as np

from mancs_jax.common.local_path import local_path
from mancs_jax.common.quoted import reason_of
from mancs_jax.config.names import NUM_TESTSETS
from mancs_jax.data.prepared import ALL_IMAGES
from mancs_jax.data.sources.cuhk03_protocol import PROTOCOL_PAGE, Protocol, read_protocol
from mancs_jax.data.sources.items import About, Contents, Counts, Item, saying_how_to_get
from mancs_jax.data.sources.source import open_zip

HOMEPAGE = "https://www.ee.cuhk.edu.hk/~xgwang/CUHK_identification.html"
MD5 = "728939e58ad9f0ff53e521857dd8fb43"  # of cuhk03_release.zip
MAT = "cuhk-03.mat"
TOP_FOLDER = "cuhk03_release"
PROTOCOL_FILE = "cuhk03_new_protocol_config_{boxes}.mat"
SLOTS = 10  # of a person: 5 of the first view, 5 of the second; some are empty
VIEWS = (1, 2)
TESTSET_IDS = 100  # people in a test set of the classic protocol
COUNTS = {
    "labeled": {
        "train": Counts(7368, 767, 0, 0, VIEWS),
        "query": Counts(1400, 700, 0, 0, VIEWS),
        "gallery": Counts(5328, 700, 0, 0, VIEWS),
        ALL_IMAGES: Counts(14096, 1467, 0, 0, VIEWS),
    },
    "detected": {
        "train": Counts(7365, 767, 0, 0, VIEWS),
        "query": Counts(1400, 700, 0, 0, VIEWS),
        "gallery": Counts(5332, 700, 0, 0, VIEWS),
        ALL_IMAGES: Counts(14097, 1467, 0, 0, VIEWS),
    },
}
ABOUT = About(
    title="CUHK03",
    description="CUHK03: 1,467 people, each under the two views of one of five camera pairs. For research only.",
    homepage=HOMEPAGE,
    citation="""@inproceedings{li2014deepreid,
  title={DeepReID: Deep Filter Pairing Neural Network for Person Re-identification},
  author={Li, Wei and Zhao, Rui and Xiao, Tong and Wang, Xiaogang},
  booktitle={CVPR},
  year={2014}
}""",
    how_to_get=(
        f"CUHK03 has to be asked for at {HOMEPAGE}: cuhk03_release.zip, md5 {MD5}, with {MAT} in it; for research "
        "only, not to be passed on"
    ),
    md5=MD5,
)


@contextmanager
def open_source(path: str | Path, boxes: str, protocol_file: str | Path | None = None) -> Iterator[Contents]:
    """Opens `cuhk-03.mat`, or the zip or folder that contains it; out of a zip, almost 2 GB are unpacked temporarily.

    Splits: "all_images", and with its file "train", "query" and "gallery" of the 767/700 protocol. The metadata has
    `testsets`: the pids of each test set of the classic protocol. Images are read as PNG. `boxes` is "labeled" or
    "detected"; `protocol_file` is `cuhk03_new_protocol_config_labeled.mat` or `..._detected.mat`, None: next to `path`.
    Raises FileNotFoundError for a missing file, and ValueError where they are other files or do not belong together.
    """
    path = local_path(path)
    with ExitStack() as stack:
        with saying_how_to_get(ABOUT):
            mat = stack.enter_context(_open_mat(path))
            with _naming_damage(path):
                cells = _read_cells(mat, boxes, path)
                images = _name_images(mat, cells)
                testsets = _read_testsets(mat, [len(cell) for cell in cells], path)
        everything = number(images, [len(cell) for cell in cells])
        splits, notes = {ALL_IMAGES: everything}, []
        if file := protocol_file or _find_protocol(path, boxes):
            splits = split_by(read_protocol(file), everything, file) | splits
        else:
            notes = [
                f"no {PROTOCOL_FILE.format(boxes=boxes)} is next to it or named by --protocol_file: only the classic "
                f"protocol was prepared; see {PROTOCOL_PAGE}"
            ]
        yield Contents(
            name=f"cuhk03_{boxes}",
            about=ABOUT._replace(counts={split: COUNTS[boxes][split] for split in splits}),
            splits=splits,
            read=lambda name: encode_png(mat[images[name]][()].T),
            metadata={"testsets": testsets},
            differences=_count_testsets(testsets),
            notes=notes,
        )


def encode_png(image: np.ndarray) -> bytes:
    """Encodes an image without loss (ValueError: it is not uint8 [H, W, 3], RGB)."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"{image.dtype} {list(image.shape)} is not an RGB image")
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def split_by(protocol: Protocol, everything: Sequence[Item], path: str | Path) -> dict[str, list[Item]]:
    """Returns the splits train, query and gallery of `everything`, which is sorted by name.

    Raises ValueError where the protocol's file `path` lists other images, or other labels.
    """
    labels = [(item.name, item.pid, item.camid) for item in everything]
    if labels != protocol.labels:
        first = next((wants for wants, label in zip_longest(protocol.labels, labels) if wants != label), None)
        raise ValueError(
            f"{path} does not belong to these images: it lists {len(protocol.labels):,}, there are "
            f"{len(labels):,}, and the first to differ is {first}; there is one file for labeled and "
            "one for detected boxes"
        )
    return {split: [everything[row] for row in rows] for split, rows in protocol.rows.items()}


def _find_protocol(path: Path, boxes: str) -> Path | None:
    folder = path if path.is_dir() else path.parent
    name = PROTOCOL_FILE.format(boxes=boxes)
    return next((file for file in (folder / name, folder / TOP_FOLDER / name) if file.is_file()), None)


@contextmanager
def _open_mat(path: Path) -> Iterator[h5py.File]:
    with ExitStack() as stack:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        file: Path | BinaryIO | None = path
        if path.is_dir():
            file = next((file for file in (path / MAT, path / TOP_FOLDER / MAT) if file.is_file()), None)
            if file is None:
                raise ValueError(f"{path}: there is no {MAT} in it, nor in a folder {TOP_FOLDER}")
        elif zipfile.is_zipfile(path):
            file = stack.enter_context(_unpacked(path))
        try:
            mat = stack.enter_context(h5py.File(file, "r"))
        except OSError as error:
            raise ValueError(
                f"{path}: not an HDF5 file (MATLAB v7.3), as {MAT} is, nor a zip with it, or cut off "
                f"({reason_of(error)})"
            ) from error
        yield mat


@contextmanager
def _unpacked(path: Path) -> Iterator[BinaryIO]:
    with open_zip(path) as archive, tempfile.TemporaryFile() as file:
        member = next((info for info in archive.infolist() if PurePosixPath(info.filename).name == MAT), None)
        if member is None:
            raise ValueError(f"{path}: there is no {MAT} in it")
        try:
            with archive.open(member) as packed:
                shutil.copyfileobj(packed, file, 1 << 20)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise ValueError(f"{path}: {MAT} in it is damaged, or encrypted ({reason_of(error)})") from error
        except OSError as error:
            raise OSError(
                f"{path} cannot be unpacked into {tempfile.gettempdir()} (see TMPDIR): {reason_of(error)}"
            ) from error
        yield file


@contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, RuntimeError, TypeError, OSError) as error:  # errors of h5py for a damaged file
        raise ValueError(f"{path}: damaged inside ({type(error).__name__}: {reason_of(error)})") from error


def _read_cells(mat: h5py.File, boxes: str, path: Path) -> list[np.ndarray]:
    """Returns references to the images of each camera pair, [people, SLOTS]."""
    cells = [_cell(mat, reference, path).T for reference in _cell(mat, boxes, path).ravel()]
    if any(cell.ndim != 2 or cell.shape[1] != SLOTS for cell in cells):
        raise ValueError(f"{path}: {boxes!r} does not have {SLOTS} images a person")
    return cells


def _cell(mat: h5py.File, key: str | h5py.Reference, path: Path) -> np.ndarray:
    """Returns a MATLAB cell array: references [...], transposed, because MATLAB stores arrays by columns."""
    node = mat.get(key) if isinstance(key, str) else mat[key]
    if not isinstance(node, h5py.Dataset) or h5py.check_ref_dtype(node.dtype) is not h5py.Reference:
        what = f"cell {key!r}" if isinstance(key, str) else "cell in a cell"
        raise ValueError(f"{path}: there is no {what} as in {MAT}, but {', '.join(mat) or 'nothing'}")
    return node[()]


def _name_images(mat: h5py.File, cells: Sequence[np.ndarray]) -> dict[str, h5py.Reference]:
    """Maps the name of each image, sorted, to its reference. An empty slot has no array of three axes."""
    return {
        f"{pair}_{person:03d}_{VIEWS[slot >= SLOTS // 2]}_{slot + 1:02d}.png": reference
        for pair, cell in enumerate(cells, 1)
        for person, slots in enumerate(cell, 1)
        for slot, reference in enumerate(slots)
        if getattr(mat[reference], "ndim", 0) == 3
    }


def number(names: Iterable[str], sizes: Sequence[int]) -> list[Item]:
    """Numbers the people over pairs of the given sizes, and takes the view as camid."""
    items = []
    for name in names:
        pair, person, view, _ = name.split("_")
        items.append(Item(name, sum(sizes[: int(pair) - 1]) + int(person), int(view), name))
    return items


def _read_testsets(mat: h5py.File, sizes: Sequence[int], path: Path) -> list[list[int]]:
    """Returns the pids of each test set, sorted; the file has (pair, person in the pair)."""
    testsets = []
    for number, reference in enumerate(_cell(mat, "testsets", path).ravel(), 1):
        people = np.asarray(mat[reference][()]).T.astype(np.int64)
        if people.ndim != 2 or people.shape[1] != 2:
            raise ValueError(f"{path}: test set {number} is no table of (pair, person)")
        wrong = [(a, b) for a, b in people.tolist() if not (1 <= a <= len(sizes) and 1 <= b <= sizes[a - 1])]
        if wrong:
            raise ValueError(f"{path}: test set {number} has (pair, person) {wrong[0]}, whom it has no images of")
        testsets.append(sorted(sum(sizes[: pair - 1]) + person for pair, person in people.tolist()))
    return testsets


def _count_testsets(testsets: Sequence[Sequence[int]]) -> list[str]:
    sizes = {len(set(testset)) for testset in testsets}
    if (len(testsets), sizes) == (NUM_TESTSETS, {TESTSET_IDS}):
        return []
    numbers = " or ".join(map(str, sorted(sizes)))
    return [f"testsets: {len(testsets)} of {numbers} people (published: {NUM_TESTSETS} of {TESTSET_IDS})"]
