"""A prepared data set as arrays in memory: read, decoded and resized once, sorted by file name."""

import hashlib
import numbers
import operator
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import tensorflow_datasets as tfds

from mancs_jax.data.build import is_prepared, prepared_path


class Split(NamedTuple):
    """The images of one split and what is known of them, in the order of the file names."""

    image: np.ndarray  # uint8 [N, H, W, 3], RGB
    pid: np.ndarray  # int32 [N]: > 0 a person, 0 a distractor, -1 junk
    camid: np.ndarray  # int32 [N]: 1-based, as in the file names
    name: np.ndarray  # str [N]


def load_split(dataset: str, root: str | Path, split: str, image_size: tuple[int, int]) -> Split:
    """Reads a split of a prepared data set, every image decoded and resized.

    Images shrink by averaging over areas and grow bilinearly (OpenCV `INTER_AREA`, `INTER_LINEAR`), without
    regard to their aspect ratio. Market-1501's files are all 128 x 64 (height x width).

    Args:
      dataset: "market1501", "walkers", ...: the data set's directory under `root`.
      root: directory of all data sets, the `--root` of `scripts/prepare_data.py`.
      split: "train", "query", "gallery" or "gt_bbox", where the data set has it.
      image_size: (height, width) in pixels.

    Returns:
      The split, sorted by name.

    Raises:
      FileNotFoundError: the data set is not prepared under `root`.
      ValueError: no such split, a wrong `image_size`, or an image that cannot be decoded.
    """
    height, width = _checked_size(image_size)
    found = read_records(dataset, root, split)
    image = np.empty((len(found), height, width, 3), np.uint8)

    def decode_into(row: int) -> None:
        image[row] = decode_image(found[row]["image"], (height, width), found[row]["name"].decode())

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(decode_into, range(len(found))):  # consumed, so that an error is raised here
            pass
    return Split(image, *labels(found))


def read_records(dataset: str, root: str | Path, split: str) -> list[dict]:
    """Reads the records of a split as stored: `image` (bytes of a JPEG file), `pid`, `camid`, `name` (bytes).

    Returns:
      The records sorted by name.

    Raises:
      FileNotFoundError: the data set is not prepared under `root`.
      ValueError: the data set has no such split.
    """
    builder = _open_prepared(dataset, root)
    if split not in builder.info.splits:
        raise ValueError(f"{dataset} under {root} has no split {split!r}, only {', '.join(builder.info.splits)}")
    stored = builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    return sorted(stored.__getitems__(range(len(stored))), key=operator.itemgetter("name"))


def split_names(dataset: str, root: str | Path) -> list[str]:
    """Returns the names of the splits of a prepared data set.

    Raises:
      FileNotFoundError: the data set is not prepared under `root`.
    """
    return list(_open_prepared(dataset, root).info.splits)


def labels(found: Sequence[dict]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (pid int32 [N], camid int32 [N], name str [N]) of records."""
    return (
        np.array([record["pid"] for record in found], np.int32),
        np.array([record["camid"] for record in found], np.int32),
        np.array([record["name"].decode() for record in found], np.str_),
    )


def decode_image(encoded: bytes, image_size: tuple[int, int], name: str) -> np.ndarray:
    """Decodes and resizes one image file.

    Args:
      encoded: the bytes of the file.
      image_size: (height, width) in pixels.
      name: the file's name, for the error.

    Returns:
      uint8 [height, width, 3], RGB.

    Raises:
      ValueError: the bytes are not an image.
    """
    height, width = image_size
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB) if encoded else None
    if image is None:
        raise ValueError(f"{name}: cannot be decoded as an image")
    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def hold_out(split: Split, num_ids: int, seed: int) -> tuple[Split, Split, Split]:
    """Takes identities out of a training split, to validate on people that the training never sees.

    Identities are drawn from those with two images or more under each of at least two cameras: each query then
    has a match in the gallery, whichever images are drawn. Of each (identity, camera) one random image is a
    query, as in Market-1501; the others are the gallery. Labels stay as they are.

    Args:
      split: the training split.
      num_ids: identities to take out, >= 1.
      seed: the draw depends on this and on the labels alone.

    Returns:
      (train, query, gallery): disjoint, together the whole split, each in the split's order.

    Raises:
      ValueError: `num_ids` < 1, or more than can be drawn, or none would be left to train on.
    """
    people = np.unique(split.pid[split.pid > 0])
    eligible = np.array([pid for pid in people if _has_two_full_cameras(split.camid[split.pid == pid])], np.int32)
    if not 1 <= num_ids <= len(eligible) or num_ids == len(people):
        raise ValueError(
            f"hold_out: num_ids is {num_ids}; it has to be from 1 to {min(len(eligible), len(people) - 1)}"
            f" (of {len(people)} identities, {len(eligible)} have two images under each of two cameras)"
        )
    rng = np.random.default_rng(seed)
    held = np.isin(split.pid, rng.choice(eligible, num_ids, replace=False))
    order = rng.permutation(np.flatnonzero(held))
    _, first = np.unique(np.stack([split.pid[order], split.camid[order]]), axis=1, return_index=True)
    is_query = np.zeros(len(split.pid), bool)
    is_query[order[first]] = True
    return take(split, ~held), take(split, is_query), take(split, held & ~is_query)


def take(split: Split, rows: np.ndarray) -> Split:
    """Returns the rows of a split that an index or a mask [N] names."""
    return Split(*(field[rows] for field in split))


def relabel(pid: np.ndarray) -> np.ndarray:
    """Numbers identities 0..C-1 in the order of their ids, int32 [N]."""
    return np.unique(pid, return_inverse=True)[1].astype(np.int32)


def fingerprint(split: Split) -> str:
    """Returns 32 hex digits that depend on every name, pid, camid and pixel of a split and their order."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr(split.image.shape).encode())
    digest.update("\0".join(split.name.tolist()).encode())
    for field, dtype in ((split.pid, "<i4"), (split.camid, "<i4"), (split.image, "u1")):
        digest.update(np.ascontiguousarray(field, dtype))
    return digest.hexdigest()


def _open_prepared(dataset, root):
    if not is_prepared(root, dataset):
        source = "" if dataset == "walkers" else " --source=ZIP_OR_FOLDER"
        raise FileNotFoundError(
            f"{dataset} is not prepared under {root}; run: python scripts/prepare_data.py "
            f"--dataset={dataset}{source} --root={root}"
        )
    return tfds.builder_from_directory(prepared_path(root, dataset))


def _checked_size(image_size):
    is_pair = isinstance(image_size, tuple | list) and len(image_size) == 2
    if not is_pair or any(not isinstance(side, numbers.Integral) or side < 1 for side in image_size):
        raise ValueError(f"image_size is {image_size!r}; it has to be (height, width) in pixels, as (256, 128)")
    return image_size


def _has_two_full_cameras(camid):
    return np.sum(np.unique(camid, return_counts=True)[1] >= 2) >= 2
