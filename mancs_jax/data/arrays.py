"""Reads a prepared data set into arrays: images decoded and resized once, sorted by file name."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mancs_jax.common.fingerprint import fingerprint as digest_of
from mancs_jax.common.local_path import local_path
from mancs_jax.config.checks import suggest
from mancs_jax.config.names import DATASETS
from mancs_jax.data.cameras import each_its_own
from mancs_jax.data.images import checked_size, decode_image
from mancs_jax.data.prepared import ALL_IMAGES, is_prepared, prepared_path

_BLOCK = 4096  # images whose files are in memory at a time
_CLASSIC_VIEW = {"query": 1, "gallery": 2}  # CUHK03's classic protocol


class Split(NamedTuple):
    """The images and labels of a split, in the order of the file names."""

    image: np.ndarray  # uint8 [N, H, W, 3], RGB
    pid: np.ndarray  # int32 [N]: > 0 a person, 0 a distractor, -1 junk
    camid: np.ndarray  # int32 [N]: from 1 in the data sets with their own reader, as in their file names
    name: np.ndarray  # str [N]


class Records(NamedTuple):
    """The labels of a split and the positions of its images on disk, in the order of the names."""

    stored: Sequence[dict]  # TFDS data source of encoded images
    row: np.ndarray  # int [N], into `stored`
    pid: np.ndarray  # int32 [N]
    camid: np.ndarray  # int32 [N]
    name: np.ndarray  # str [N]


def load_split(dataset: str, root: str | Path, split: str, image_size: tuple[int, int], testset: int = 0) -> Split:
    """Reads a split of a prepared data set, with every image decoded and resized.

    Images shrink by averaging over areas and grow bilinearly (OpenCV `INTER_AREA`, `INTER_LINEAR`), regardless of their
    aspect ratio. Market-1501's files are all 128 x 64 (height x width).

    Args:
      dataset: "market1501", "walkers", ...: the data set's directory under `root`.
      root: directory of all data sets, the `--root` of `mancs prepare-data`.
      split: one of `split_names`; with a `testset`, "train", "query" or "gallery".
      image_size: (height, width) in pixels.
      testset: 0: the splits as stored. From 1: a test set of CUHK03's classic protocol, where "train" has all other
        identities, "query" the first view of the test identities and "gallery" the second.

    Raises:
      FileNotFoundError: the data set is not prepared under `root`.
      ValueError: no such split or test set, a wrong `image_size`, or an image that cannot be decoded.
    """
    height, width = checked_size(image_size)
    records = open_split(dataset, root, split, testset)
    image = np.empty((len(records.row), height, width, 3), np.uint8)
    for rows in _blocks(len(image), _BLOCK):
        _decode_into(image[rows], records, rows)
    return Split(image, records.pid, records.camid, records.name)


def iterate_split(
    dataset: str, root: str | Path, split: str, image_size: tuple[int, int], block: int = 4096, testset: int = 0
) -> Iterator[Split]:
    """Reads a split as `load_split`, but `block` (>= 1) images at a time, for splits that do not fit into memory.

    Raises errors as `load_split`, all except damaged images before the first block.
    """
    height, width = checked_size(image_size)
    if block < 1:
        raise ValueError(f"block is {block}; it has to be at least 1")
    records = open_split(dataset, root, split, testset)

    def read(rows: slice) -> Split:
        pid, camid, name = records.pid[rows], records.camid[rows], records.name[rows]
        image = np.empty((len(pid), height, width, 3), np.uint8)
        _decode_into(image, records, rows)
        return Split(image, pid, camid, name)

    return map(read, _blocks(len(records.row), block))


def open_split(dataset: str, root: str | Path, split: str, testset: int = 0) -> Records:
    """Reads the labels of a split, sorted by name; arguments and errors as in `load_split`."""
    import tensorflow_datasets as tfds  # takes a second, which embedding and searching do not need

    builder = _open_prepared(dataset, root)
    test_pids = _test_pids(builder, dataset, split, testset) if testset else None
    stored_split = ALL_IMAGES if testset else split
    if stored_split not in builder.info.splits:
        raise ValueError(f"{dataset} under {root} has no split {split!r}, only {', '.join(builder.info.splits)}")
    stored = builder.as_data_source(split=stored_split, decoders={"image": tfds.decode.SkipDecoding()})
    labels = [
        (record["name"].decode(), row, record["pid"], record["camid"])
        for rows in _blocks(len(stored), _BLOCK)
        for row, record in zip(range(rows.start, rows.stop), stored.__getitems__(range(rows.start, rows.stop)))
    ]
    name, row, pid, camid = zip(*sorted(labels))
    records = Records(
        stored, np.array(row), np.array(pid, np.int32), np.array(camid, np.int32), np.array(name, np.str_)
    )
    if test_pids is None:
        return records
    is_test = np.isin(records.pid, test_pids)
    kept = ~is_test if split == "train" else is_test & (records.camid == _CLASSIC_VIEW[split])
    return Records(stored, *(field[kept] for field in records[1:]))


def split_names(dataset: str, root: str | Path) -> list[str]:
    """Returns the names of the splits of a prepared data set (FileNotFoundError: it is not prepared)."""
    return list(_open_prepared(dataset, root).info.splits)


def names_of(dataset: str, root: str | Path) -> tuple[dict[int, str], dict[int, str]]:
    """Returns (pid -> name, camid -> name) of a prepared data set whose CSV has text for them; else ({}, {})."""
    names = _open_prepared(dataset, root).info.metadata or {}
    people, cameras = ({int(i): str(name) for i, name in names.get(kind, {}).items()} for kind in ("people", "cameras"))
    return people, cameras


def hold_out(split: Split, num_ids: int, seed: int) -> tuple[Split, Split, Split]:
    """Holds `num_ids` identities out of a training split, for validation, depending only on `seed` and the labels.

    They are sampled from the identities with at least two images under each of at least two cameras, so that each query
    has a match in the gallery. One random image of each (identity, camera) is a query, as in Market-1501; the remaining
    images are the gallery. Where each image is its own camera, two images of an identity are enough, and one of them is
    a query.

    Returns (train, query, gallery), disjoint and together the split, each in its order. Raises ValueError where
    `num_ids` is below 1 or too large.
    """
    has_cameras = not each_its_own(split.camid)
    camid = split.camid if has_cameras else np.zeros_like(split.camid)
    eligible, most = eligible_to_hold_out(split.pid, split.camid)
    if not 1 <= num_ids <= most:
        raise ValueError(
            f"hold_out: num_ids is {num_ids}; it has to be from 1 to {most}"
            f" (of {len(np.unique(split.pid[split.pid > 0]))} identities, {len(eligible)} have two images"
            f"{' under each of two cameras' if has_cameras else ''})"
        )
    rng = np.random.default_rng(seed)
    is_held_out = np.isin(split.pid, rng.choice(eligible, num_ids, replace=False))
    shuffled = rng.permutation(np.flatnonzero(is_held_out))
    # The first image of each (identity, camera) in random order.
    _, first = np.unique(np.stack([split.pid[shuffled], camid[shuffled]]), axis=1, return_index=True)
    is_query = np.zeros(len(split.pid), bool)
    is_query[shuffled[first]] = True
    return take(split, ~is_held_out), take(split, is_query), take(split, is_held_out & ~is_query)


def eligible_to_hold_out(pid: np.ndarray, camid: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns the identities that `hold_out` samples from, and how many at most, so that one is left to train on."""
    order = np.argsort(pid, kind="stable")
    order = order[pid[order] > 0]
    people, first = np.unique(pid[order], return_index=True)
    has_cameras = not each_its_own(camid)

    def is_eligible(camid: np.ndarray) -> bool:
        return bool(np.sum(np.unique(camid, return_counts=True)[1] >= 2) >= 2) if has_cameras else len(camid) >= 2

    rows_by_person = zip(people, np.split(order, first[1:]), strict=True) if len(people) else ()
    eligible = np.array([person for person, rows in rows_by_person if is_eligible(camid[rows])], np.int32)
    return eligible, max(min(len(eligible), len(people) - 1), 0)


def leave_out(split: Split, num_ids: int, seed: int) -> Split:
    """Removes random identities from a training split, depending only on `seed` and the labels.

    Raises ValueError where `num_ids` is below 1, or leaves no identity.
    """
    people = np.unique(split.pid[split.pid > 0])
    if not 1 <= num_ids < len(people):
        raise ValueError(f"leave_out: num_ids is {num_ids}; it has to be from 1 to {len(people) - 1}")
    # Another generator than that of `hold_out`, which would sample the same identities.
    left_out = np.random.default_rng([seed, 1]).choice(people, num_ids, replace=False)
    return take(split, ~np.isin(split.pid, left_out))


def take(split: Split, rows: np.ndarray) -> Split:
    """Selects rows of a split by an index or a mask [N]."""
    return Split(*(field[rows] for field in split))


def relabel(pid: np.ndarray) -> np.ndarray:
    """Numbers identities 0..C-1 in the order of their ids, int32 [N]."""
    return np.unique(pid, return_inverse=True)[1].astype(np.int32)


def fingerprint(split: Split) -> str:
    """Returns 32 hex digits of every name, pid, camid and pixel of a split and their order."""
    labels = np.ascontiguousarray(split.pid, "<i4"), np.ascontiguousarray(split.camid, "<i4")
    return digest_of(repr(split.image.shape), "\0".join(split.name.tolist()), *labels, split.image)


def check_dataset(dataset: str, root: str | Path) -> None:
    """Refuses a data set that has no reader and is not prepared under `root` (ValueError, one line)."""
    if dataset not in DATASETS and not is_prepared(root, dataset):
        prepared = [path.name for path in sorted(local_path(root).glob("*")) if is_prepared(root, path.name)]
        suggestion = suggest(dataset, [*DATASETS, *prepared])
        remedy = "" if suggestion else f"prepare it ({_prepare_command(dataset, root)}), "
        raise ValueError(
            f"config.data.name is {dataset!r}, and no such data set is prepared under config.data.root={root}, which "
            f"has {', '.join(prepared) or 'none'}; {remedy}set --config.data.root, or choose one of "
            f"{', '.join(DATASETS)}.{suggestion}"
        )


def _prepare_command(dataset, root):
    arguments = f"--dataset={dataset} --source=ZIP_OR_FOLDER"
    if dataset == "walkers":
        arguments = "--dataset=walkers"
    elif dataset not in DATASETS:
        arguments = f"--dataset=folder --name={dataset} --source=ZIP_OR_FOLDER"
    return f"mancs prepare-data {arguments} --root={root}"


def _open_prepared(dataset, root):
    if not is_prepared(root, dataset):
        raise FileNotFoundError(f"{dataset} is not prepared under {root}; run: {_prepare_command(dataset, root)}")
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(prepared_path(root, dataset))


def _test_pids(builder, dataset, split, testset):
    testsets = (builder.info.metadata or {}).get("testsets", [])
    if not testsets:
        raise ValueError(f"testset is {testset}, but {dataset} has none: only CUHK03 has; set it to 0")
    if not 1 <= testset <= len(testsets):
        raise ValueError(f"testset is {testset}; {dataset} has 1 to {len(testsets)}, and 0 for its own splits")
    if split not in ("train", *_CLASSIC_VIEW):
        raise ValueError(f"a test set of {dataset} has no split {split!r}, only train, query, gallery")
    return testsets[testset - 1]


def _blocks(count, size):
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _decode_into(image, records, rows):
    height, width = image.shape[1:3]
    encoded = records.stored.__getitems__(records.row[rows].tolist())

    def decode(row: int) -> None:
        image[row] = decode_image(encoded[row]["image"], (height, width), encoded[row]["name"].decode())

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(decode, range(len(encoded))):  # consumed, so that an error is raised here
            pass
