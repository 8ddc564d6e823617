"""Images of a folder on their way into a gallery: which are new or changed, and who and when they show."""

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mancs_jax.common.local_path import local_path
from mancs_jax.common.screen import bar
from mancs_jax.data import images
from mancs_jax.data.sources.source import name_some
from mancs_jax.gallery.entry import Added, Image, Record, hash_of
from mancs_jax.gallery.filters import Label, Moment, label_of, seconds_of
from mancs_jax.gallery.store import Store
from mancs_jax.inference.gallery import find_images, labels_of

TRANSACTION = 256  # images that are embedded and added together: a killed process loses at most these
COLUMNS = ("path", "person", "camera", "time")  # of a CSV
OF_TRAINING = {"pid": "person", "camid": "camera"}  # columns of the CSV for training, whose `split` is not read
Embed = Callable[[list[Path], list[str | None]], np.ndarray]  # files and their cameras to float32 [N, D]
MODIFIED = "modified"  # as a time: of the file's last change


class Labels(NamedTuple):
    """What is known of an image besides its pixels."""

    person: str | None = None
    camera: str | None = None
    time: float | None = None


class FolderAdded(NamedTuple):
    """What adding a folder did."""

    added: Added
    damaged: dict[str, str]  # name -> fault of the images that are skipped
    not_images: list[str]  # files that are no images by name


def read_csv(path: str | Path) -> dict[str, Labels]:
    """Reads labels: a CSV file with the columns path, and person, camera and time where they are known; or the CSV for
    training, with pid (0 and -1 are no people) and camid.

    Returns:
      Path, with /, -> labels.

    Raises:
      FileNotFoundError: no such file.
      ValueError: one line: the header, a line or a time is not as it should be, or a path is there twice.
    """
    labels_by_name: dict[str, Labels] = {}
    path = local_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        is_training = "pid" in (reader.fieldnames or []) and not {"person", "camera"} & set(reader.fieldnames or [])
        header = [OF_TRAINING.get(name, name) if is_training else name for name in reader.fieldnames or []]
        reader.fieldnames = header
        known = {*COLUMNS, "split"} if is_training else set(COLUMNS)
        if "path" not in header or (unknown := sorted(set(header) - known)):
            extra = f", not {', '.join(unknown)}" if "path" in header else ""
            raise ValueError(f"{path}: its header has to be path and some of {', '.join(COLUMNS[1:])}{extra}")
        for row in reader:
            where = f"{path} line {reader.line_num}"
            if None in row or None in row.values():
                raise ValueError(f"{where} has another number of cells than the header")
            name = row["path"].removeprefix("./")
            if name in labels_by_name:
                raise ValueError(f"{where}: {name} was there before")
            cell = {column: (row.get(column) or "").strip() or None for column in COLUMNS[1:]}
            if is_training and cell["person"] in ("0", "-1"):
                cell["person"] = None
            time = cell["time"]
            try:
                labels_by_name[name] = Labels(cell["person"], cell["camera"], None if time is None else _time(time))
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
    return labels_by_name


def add_folder(
    store: Store,
    embed: Embed,
    folder: str | Path,
    *,
    relative_to: str | Path | None = None,
    csv_file: str | Path | None = None,
    person: Label | None = None,
    camera: Label | None = None,
    time: Moment | None = None,
    replace: bool = False,
    by_camera: bool = False,
    progress: bool = True,
) -> FolderAdded:
    """Adds the images of a folder and its subfolders; see `Gallery.add_folder`.

    With `by_camera` the embedding of an image depends on its camera: another camera makes it another image.
    """
    folder = local_path(folder).absolute()  # names below it that begin with ~ are no home directories
    top = folder if relative_to is None else local_path(relative_to).absolute()
    if not folder.resolve().is_relative_to(top.resolve()):
        raise ValueError(f"{folder} is not below {top}, which names are to be relative to")
    csv_labels = read_csv(csv_file) if csv_file is not None else {}
    given = Labels(label_of(person, "person"), label_of(camera, "camera"), None)
    seconds = None if time in (None, MODIFIED) else seconds_of(time, "time")  # type: ignore[arg-type]
    names, not_images = find_images(folder)
    below = folder.resolve().relative_to(top.resolve())
    names = [(below / name).as_posix() for name in names]
    damaged = {name: "its name is not UTF-8: rename it" for name in names if not _is_text(name)}
    names = [name for name in names if name not in damaged]
    if missing := sorted(set(csv_labels) - set(names)):
        raise ValueError(f"{csv_file} has {len(missing):,} paths that are no images of {top}: {name_some(missing)}")

    def labels(name: str) -> Labels:
        at = (top / name).stat().st_mtime if time == MODIFIED else seconds
        return _first_known(csv_labels.get(name, Labels()), given._replace(time=at))

    new, changed, unchanged = _compare(store, top, names, labels, replace, by_camera, progress)
    added = Added(unchanged=unchanged)
    with bar(desc="adding", unit="image", total=len(new) + len(changed), delay=1, disable=not progress) as progress_bar:
        for block in _blocks(changed, 16 * TRANSACTION):
            added = _sum(added, store.relabel(block))
            progress_bar.update(len(block))
        for block in _blocks(new, TRANSACTION):
            faults = _faults(top, [record.name for record in block])
            damaged |= faults
            whole = [record for record in block if record.name not in faults]
            if whole:
                files, cameras = [top / record.name for record in whole], [record.camera for record in whole]
                added = _sum(added, store.add(whole, embed(files, cameras)))
            progress_bar.update(len(block))
    return FolderAdded(added, damaged, not_images)


def embed_again(
    store: Store, embed: Embed, images_left: Sequence[Image], folder: str | Path | None, progress: bool = True
) -> None:
    """Embeds images of a gallery by another network, out of `folder` or the folders that they were added from.

    Raises:
      ValueError: one line: images are missing, or are others by now.
    """
    files = [_file_of(image, folder) for image in images_left]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        is_same = list(pool.map(_has_content, files, [image.hash for image in images_left]))
    if wrong := [image.name for image, same in zip(images_left, is_same, strict=True) if not same]:
        raise ValueError(
            f"{len(wrong):,} images are not in their folder any more, or have changed: {name_some(wrong)}; "
            "name the folder that has them, or forget them first"
        )
    with bar(desc="embedding again", unit="image", total=len(files), delay=1, disable=not progress) as progress_bar:
        for start in range(0, len(files), TRANSACTION):
            block = slice(start, start + TRANSACTION)
            cameras = [image.camera for image in images_left[block]]
            store.add_next(images_left[block], embed([file for file in files[block] if file is not None], cameras))
            progress_bar.update(len(files[block]))


def _file_of(image: Image, folder: str | Path | None) -> Path | None:
    """The file of an image: below a folder, or where it was added from; None where there is none."""
    places = [local_path(place).absolute() / image.name for place in (folder, image.folder) if place is not None]
    return next(filter(Path.is_file, places), None)


def _has_content(file: Path | None, hash: bytes) -> bool:
    return file is not None and hash_of(file.read_bytes()) == hash


def _compare(
    store: Store,
    top: Path,
    names: Sequence[str],
    labels: Callable[[str], Labels],
    replace: bool,
    by_camera: bool,
    progress: bool,
) -> tuple[list[Record], list[Record], int]:
    """Reads all files: (images with a new content, images with new labels, number of all others)."""
    new, changed, unchanged, clashes = [], [], 0, []
    path = str(top.resolve())
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        bar(desc="comparing", unit="image", total=len(names), delay=1, disable=not progress) as progress_bar,
    ):
        for block in _blocks(names, 4 * TRANSACTION):
            hashes = pool.map(lambda name: hash_of((top / name).read_bytes()), block)
            known = store.known(block)
            for name, digest in zip(block, hashes, strict=True):
                before = known.get(name)
                kept = Labels(*((before.person, before.camera, before.time) if before else ()))
                record = Record(name, *_first_known(labels(name), kept, _labels_of_name(name)), path, digest)
                if before is None or before.hash != digest or (by_camera and before.camera != record.camera):
                    new.append(record)
                    if before is not None and before.folder not in (None, path):
                        clashes.append(f"{name} (of {before.folder})")
                elif tuple(before[1:]) != tuple(record):
                    changed.append(record)
                else:
                    unchanged += 1
            progress_bar.update(len(block))
    if clashes and not replace:
        raise ValueError(
            f"{len(clashes):,} other images of these names are in the gallery, from another folder: "
            f"{name_some(clashes)}; give --relative_to=FOLDER, a folder above both, so that names differ, or --replace"
        )
    return new, changed, unchanged


def _faults(top: Path, names: Sequence[str]) -> dict[str, str]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        faults = pool.map(lambda name: images.find_fault((top / name).read_bytes()), names)
        return {name: fault for name, fault in zip(names, faults, strict=True) if fault}


def _first_known(*several: Labels) -> Labels:
    """Each label from the first that has it."""
    found: list[Any] = [next((value for value in values if value is not None), None) for values in zip(*several)]
    return Labels(*found)


def _labels_of_name(name: str) -> Labels:
    """Person and camera of a name like those of Market-1501; its distractors (0) and junk (-1) are no people."""
    found = labels_of(name)
    if found is None:
        return Labels()
    return Labels(str(found[0]) if found[0] > 0 else None, str(found[1]))


def _time(text: str) -> float:
    try:
        return seconds_of(float(text), "time")
    except ValueError:
        return seconds_of(text, "time")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _blocks(items: Sequence, size: int) -> Iterator[Sequence]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _sum(one: Added, other: Added) -> Added:
    return Added(*(a + b for a, b in zip(one, other, strict=True)))
