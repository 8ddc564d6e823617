"""Sources of data sets, laid out byte for byte as the official ones but with a handful of images, and the script."""

import zipfile
from importlib import import_module
from pathlib import Path

import cv2
import h5py
import numpy as np
import scipy.io

from mancs_jax.cli.command_line import run

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"  # official files of labels, not part of the project

MARKET = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0002_c2s1_000551_01.jpg", "0007_c3s1_000001_01.jpg"],
    "query": ["0001_c1s1_001051_00.jpg", "1488_c1s6_023021_00.jpg.jpg"],
    "bounding_box_test": [
        "-1_c1s1_000401_03.jpg",
        "0000_c1s1_000151_01.jpg",
        "0001_c2s1_001051_01.jpg",
        "1488_c2s6_023021_02.jpg.jpg",
    ],
    "gt_bbox": ["0001_c1s1_001051_00.jpg"],
}
DUKE = {
    "bounding_box_train": ["0001_c2_f0046182.jpg", "0001_c1_f0044158.jpg"],
    "query": ["0005_c2_f0046985.jpg"],
    "bounding_box_test": ["0005_c5_f0051981.jpg", "7139_c2_f0160815.jpg"],
}


def jpeg(seed: int, height: int = 16, width: int = 8) -> bytes:
    """A JPEG file of noise."""
    return cv2.imencode(".jpg", noise(seed, height, width))[1].tobytes()


def noise(seed: int, height: int = 16, width: int = 8) -> np.ndarray:
    """An image of noise, uint8 [height, width, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def image_files(folders: dict[str, list[str]]) -> dict[str, bytes]:
    """Path -> JPEG file, for each name in each folder."""
    paths = [f"{folder}/{name}" for folder, names in folders.items() for name in names]
    return {path: jpeg(seed) for seed, path in enumerate(paths)}


def market_files() -> dict[str, bytes]:
    """Every file of a tiny Market-1501, with what surrounds the images in the published one."""
    return image_files(MARKET) | {
        "readme.txt": b"text",
        "gt_query/0001_c1s1_001051_00_good.mat": b"mat",
        "query/Thumbs.db": b"db",
    }


# Two people of CUHK01: two images under camera 1, then two under camera 2.
CUHK01_NAMES = [f"{pid:04d}00{image}.png" for pid in (1, 971) for image in (1, 2, 3, 4)]
CUHK01_FILES = {
    f"campus/{name}": cv2.imencode(".png", noise(seed)[..., ::-1])[1].tobytes()
    for seed, name in enumerate(CUHK01_NAMES)
}


def write(path: Path, files: dict[str, bytes], as_zip: bool, top: str = "") -> Path:
    """Writes files into a zip or a folder, below the folder `top` ("" or with a slash at its end)."""
    if as_zip:
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(top + name, data)
        return path
    for name, data in files.items():
        (path / top / name).parent.mkdir(parents=True, exist_ok=True)
        (path / top / name).write_bytes(data)
    return path


# CUHK03 in miniature: people of each camera pair -> filled slots. Person 2 of pair 1 has no image of the second view.
CUHK03_SLOTS = [[(1, 2, 6), (1, 3), (2, 6, 10)], [(1, 6), (5, 7)]]
CUHK03_NAMES = [
    f"{name}.png"
    for name in [
        "1_001_1_01",
        "1_001_1_02",
        "1_001_2_06",
        "1_002_1_01",
        "1_002_1_03",
        "1_003_1_02",
        "1_003_2_06",
        "1_003_2_10",
    ]
    + ["2_001_1_01", "2_001_2_06", "2_002_1_05", "2_002_2_07"]
]
CUHK03_PIDS = [1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 5, 5]
CUHK03_CAMIDS = [1, 1, 2, 1, 1, 1, 2, 2, 1, 2, 1, 2]
CUHK03_TESTSETS = [[(1, 3), (2, 1)], [(2, 2)]]  # (camera pair, person): pids 3 and 4, and 5


def write_cuhk03(path: Path, boxes=("labeled", "detected"), testsets=CUHK03_TESTSETS, image=None) -> Path:
    """Writes `cuhk-03.mat` as MATLAB 7.3 does: a head of 512 bytes, arrays by columns, cells as references."""
    with h5py.File(path, "w", userblock_size=512) as mat:
        refs = mat.create_group("#refs#")

        def add(array, matlab_class, **attributes):
            node = refs.create_dataset(f"node{len(refs)}", data=array)
            node.attrs["MATLAB_class"] = np.bytes_(matlab_class)
            node.attrs.update(attributes)
            return node.ref

        def cell(references, parent, name):
            node = parent.create_dataset(name, data=np.array(references, h5py.ref_dtype))
            node.attrs["MATLAB_class"] = np.bytes_("cell")
            return node.ref

        for kind in boxes:
            pairs = []
            for pair, people in enumerate(CUHK03_SLOTS, 1):
                slots = np.empty((10, len(people)), h5py.ref_dtype)
                for person, filled in enumerate(people, 1):
                    for slot in range(1, 11):
                        if slot in filled:
                            pixels = cuhk03_image(kind, pair, person, slot) if image is None else image
                            slots[slot - 1, person - 1] = add(pixels.T, "uint8")
                        else:
                            empty = np.zeros(2, np.uint64)  # the size of the empty array
                            slots[slot - 1, person - 1] = add(empty, "double", MATLAB_empty=np.uint8(1))
                pairs.append(cell(slots, refs, f"{kind}{pair}"))
            cell([pairs], mat, kind)
        if testsets is not None:
            cell([[add(np.array(people, np.float64).T, "double") for people in testsets]], mat, "testsets")
    head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(124) + b"\x00\x02IM"
    with path.open("r+b") as file:
        file.write(head)
    return path


def cuhk03_image(boxes: str, pair: int, person: int, slot: int) -> np.ndarray:
    """The image in a slot, its size its own."""
    return noise(1000 * pair + 100 * person + slot + (boxes == "labeled") * 10_000, 12 + slot, 5 + person)


def write_protocol(path: Path, **changed) -> Path:
    """Writes a file of a 767/700 protocol for `write_cuhk03`: pids 1 and 2 are for training, indices are 1-based."""
    fields = {
        "filelist": np.array([[name] for name in CUHK03_NAMES], object),
        "labels": np.array(CUHK03_PIDS, np.uint16)[:, None],
        "camId": np.array(CUHK03_CAMIDS, np.uint8)[:, None],
        "train_idx": np.array([[1], [2], [3], [4], [5]], np.uint16),
        "query_idx": np.array([[6], [10], [11]], np.uint16),
        "gallery_idx": np.array([[7], [8], [9], [12]], np.uint16),
    }
    scipy.io.savemat(path, {name: value for name, value in (fields | changed).items() if value is not None})
    return path


def run_script(name: str, *arguments: str) -> str:
    """Runs a command in this process; returns the line with which it exits, "" for success."""
    try:
        run(import_module(f"mancs_jax.cli.{name.replace('-', '_')}"), [name, *map(str, arguments)])
    except SystemExit as error:
        return str(error.code or "")
    return ""
