"""What all data sets share on their way from a zip or a folder to TFDS records.

A source is listed, every image of it is decoded once, and the data set is written completely or not at all.
"""

import contextlib
import io
import os
import shutil
import stat
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np
import tensorflow_datasets as tfds
from absl import logging

VERSION = "1.0.0"
_SCRATCH = ".building-"


class Source(NamedTuple):
    """A zip or a folder of images, listed but not read yet."""

    path: Path
    folders: Mapping[str, str]  # split -> folder
    names: dict[str, list[str]]  # split -> file names, sorted; splits without files are left out
    read: Callable[[str, str], bytes]  # (folder, name) -> bytes of the file


class Example(NamedTuple):
    """One image, as a builder writes it."""

    name: str  # the file's name, unique in its split
    pid: int  # > 0 a person, 0 a distractor, -1 junk
    camid: int  # 1-based
    jpeg: bytes  # the file as it is, not encoded again


def open_source(path: str | Path, folders: Mapping[str, str], top_folder: str) -> Source:
    """Lists the images of a zip, which is not unpacked, or of a folder.

    `Thumbs.db` and hidden files are passed over, as is everything outside the named folders.

    Args:
      path: the zip or the folder.
      folders: split -> name of its folder.
      top_folder: folder that may enclose the others.

    Raises:
      FileNotFoundError: there is nothing at `path`.
      ValueError: it is no zip, or none of the folders has files in it, or something else than files.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    wanted = set(folders.values())
    found, odd, read = _list_folder(path, wanted, top_folder) if path.is_dir() else _list_zip(path, wanted, top_folder)
    if odd:
        raise ValueError(
            f"{path}: {name_some(odd)}: links, folders, copies, encrypted members and paths that lead "
            "elsewhere do not belong there; fetch it again"
        )
    names = {split: sorted(found[folder]) for split, folder in folders.items() if found.get(folder)}
    if not names:
        raise ValueError(
            f"{path}: no images in a folder {', '.join(folders.values())}, neither at the top nor in {top_folder}"
        )
    return Source(path, folders, names, read)


def list_files(source: Source) -> list[tuple[str, str]]:
    """Returns (folder, name) of every file of a source."""
    return [(source.folders[split], name) for split, names in source.names.items() for name in names]


def find_unreadable(source: Source) -> list[str]:
    """Reads and decodes every image.

    Returns:
      A text "folder/name (what is wrong)" for each image that is not a whole JPEG.
    """
    files = list_files(source)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        wrong = pool.map(lambda file: _what_is_wrong(source.read, *file), files)
        return [f"{folder}/{name} ({text})" for (folder, name), text in zip(files, wrong, strict=True) if text]


def name_some(items: Sequence[str]) -> str:
    """Returns the first five of the items, and how many more there are, as text."""
    return ", ".join(items[:5]) + (f" and {len(items) - 5:,} more" if len(items) > 5 else "")


def prepared_path(root: str | Path, dataset: str) -> Path:
    """Returns where a data set lies under `root` once it is built: `root/<dataset>/<version>`."""
    return Path(root).expanduser().absolute() / dataset / VERSION


def is_prepared(root: str | Path, dataset: str) -> bool:
    """Tells whether a data set lies, complete, under `root`."""
    return (prepared_path(root, dataset) / "dataset_info.json").is_file()


def person_info(
    builder: tfds.core.DatasetBuilder,
    *,
    description: str,
    homepage: str | None = None,
    citation: str | None = None,
) -> tfds.core.DatasetInfo:
    """Returns the TFDS description that all data sets share.

    Features: `image` (JPEG file; decoded uint8 [H, W, 3] RGB), `pid` int32, `camid` int32, `name` text. The
    records keep the order in which the builder yields them.
    """
    return tfds.core.DatasetInfo(
        builder=builder,
        description=description,
        homepage=homepage,
        citation=citation,
        disable_shuffling=True,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                "pid": np.int32,
                "camid": np.int32,
                "name": tfds.features.Text(),
            }
        ),
    )


def records(examples: Iterable[Example]) -> Iterator[tuple[str, dict]]:
    """Yields (key, features) of each example, as TFDS wants them from a builder."""
    for name, pid, camid, jpeg in examples:
        yield name, {"image": jpeg, "pid": pid, "camid": camid, "name": name}


def build(create_builder: Callable[..., tfds.core.DatasetBuilder], root: str | Path, overwrite: bool = False) -> Path:
    """Builds a data set under `root`, completely or not at all.

    TFDS writes into a temporary directory in `root`, which is moved to its place once it is complete. A build
    that is to be overwritten stays in its place until then.

    Args:
      create_builder: called with `data_dir` and `file_format`, returns the builder.
      root: directory of all data sets, made if missing.
      overwrite: replace the data set where it exists.

    Returns:
      The data set's directory.

    Raises:
      FileExistsError: the data set exists and is not to be overwritten.
      ValueError, OSError: from the builder, about its source; `root` is then as it was.
    """
    root = Path(root).expanduser().absolute()
    scratch = root / f"{_SCRATCH}{uuid.uuid4().hex[:8]}"
    builder = create_builder(data_dir=scratch, file_format="array_record")
    built = Path(builder.data_dir)
    target = root / built.relative_to(scratch)
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists; overwrite replaces it")
    for leftover in root.glob(f"{_SCRATCH}*"):
        logging.warning("%s is of a build that was killed, or that runs now: delete it if none runs", leftover)
    new_folders = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        _write(builder)
        _move_in(built, target, aside=scratch / "replaced")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        with contextlib.suppress(OSError):  # after a success they are not empty
            for folder in new_folders:
                folder.rmdir()
    return target


def _list_folder(path, wanted, top_folder):
    top = path / top_folder if (path / top_folder).is_dir() else path
    found, odd = {}, []
    for folder in wanted:
        if (top / folder).is_dir():
            with os.scandir(top / folder) as entries:
                entries = [entry for entry in entries if not _is_passed_over(entry.name)]
            odd += [f"{folder}/{entry.name}" for entry in entries if not entry.is_file()]
            found[folder] = [entry.name for entry in entries]
    return found, odd, lambda folder, name: (top / folder / name).read_bytes()


def _list_zip(path, wanted, top_folder):
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is not a zip file, or is cut off ({error})") from error
    members, odd = {}, []
    for info in archive.infolist():
        parts = PurePosixPath(info.filename).parts
        if info.is_dir() or not parts or _is_passed_over(parts[-1]):
            continue
        inner = parts[1:] if parts[0] == top_folder else parts
        is_wanted = len(inner) > 1 and inner[0] in wanted
        if _is_odd(info, parts) or (is_wanted and (len(inner) > 2 or inner in members)):
            odd.append(info.filename)
        elif is_wanted:
            members[inner] = info
    found = {folder: [name for where, name in members if where == folder] for folder in wanted}
    return found, odd, lambda folder, name: archive.read(members[folder, name])


def _is_odd(info, parts):
    is_link = stat.S_ISLNK(info.external_attr >> 16)
    is_encrypted = info.flag_bits & 1
    return is_link or is_encrypted or info.filename.startswith("/") or ".." in parts or "\\" in info.filename


def _is_passed_over(name):
    return name == "Thumbs.db" or name.startswith(".")


def _what_is_wrong(read, folder, name):
    try:
        jpeg = read(folder, name)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        return f"cannot be read: {error}"
    if not jpeg.startswith(b"\xff\xd8"):
        return "empty" if not jpeg else "not a JPEG"
    # Asked for here because some decoders fill up a file that was cut off, and do not complain.
    if b"\xff\xd9" not in jpeg[-1024:]:
        return "cut off"
    return None if cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) is not None else "damaged"


def _write(builder):
    # TFDS prints, on stdout, that it downloads, and where to: neither is so here.
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))


def _move_in(built, target, aside):
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(aside)
    try:
        built.rename(target)
    except BaseException:
        if aside.exists():
            aside.rename(target)
        raise
