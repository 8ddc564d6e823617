"""Lists and reads a zip or a folder of images, and finds damaged images."""

import hashlib
import os
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from mancs_jax.common.local_path import local_path
from mancs_jax.common.quoted import reason_of, shortened
from mancs_jax.data.images import find_fault

# Files that file managers, macOS and network disks add.
SKIPPED = ("Thumbs.db", "desktop.ini", "@eaDir", "#recycle", "__MACOSX")
LONGEST_NAME, LONGEST_ITEM = 180, 420  # characters of a name, and of a name with its fault, in a message
# Errors of zipfile and the disk for a file that cannot be read.
UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError)


class Source(NamedTuple):
    """A zip, which is not unpacked, or a folder. Paths in it have `/`, and are relative to `root`."""

    path: Path
    top: str  # the folder that encloses the others; "" without one
    root: Path | zipfile.Path

    def list(self, folder: str) -> list[str]:
        """Returns the sorted names of a folder's files, none without the folder (ValueError: not only files)."""
        if not (self.root / folder).is_dir():
            return []
        entries = _entries(self.root / folder)
        _refuse(self.path, [f"{folder}/{entry.name}" for entry in entries if not entry.is_file()])
        return sorted(entry.name for entry in entries)

    def has(self, path: str) -> bool:
        """Returns whether a path is a file in the source, and no link that leads elsewhere."""
        try:
            file = self.root / path
            if isinstance(self.root, Path):
                file = (self.root / path).resolve()
                return file.is_relative_to(self.root) and file.is_file()
            return file.is_file()
        except (OSError, ValueError):  # a name that no disk allows: too long, or with a NUL
            return False

    def read(self, path: str) -> bytes:
        """Returns the bytes of a file."""
        return (self.root / path).read_bytes()


@contextmanager
def open_source(path: str | Path, top_folder: str = "", folders: Collection[str] = ()) -> Iterator[Source]:
    """Opens a zip or a folder; hidden files and those of `SKIPPED` are skipped.

    Paths start below `top_folder` where there is one. Otherwise they start below the only folder that has one of
    `folders`, names of folders with files, which enclose no others; or below a folder of any name that encloses
    everything. Raises FileNotFoundError where `path` does not exist, and ValueError where it is no zip, or has links or
    paths that lead elsewhere.
    """
    path = local_path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_dir():
        yield _source(path, path.resolve(), top_folder, folders)
        return
    with open_zip(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        infos = [info for info in infos if not is_skipped(PurePosixPath(info.filename))]
        copies = [name for name, count in Counter(info.filename for info in infos).items() if count > 1]
        _refuse(path, [info.filename for info in infos if _is_odd(info)] + copies)
        yield _source(path, zipfile.Path(archive), top_folder, folders)


def open_zip(path: Path) -> zipfile.ZipFile:
    """Opens a zip (ValueError: it is not one, or is incomplete)."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"{path} is not a zip file, or is cut off ({reason_of(error)})") from error
    if not all(archive.namelist()):
        archive.close()
        raise ValueError(f"{path} is damaged: a file in it has no name; fetch it again")
    return archive


def find_unreadable(files: Iterable[str], read: Callable[[str], bytes]) -> dict[str, str]:
    """Reads and decodes every image; returns the file and the fault of each damaged one."""
    files, unreadable = list(files), dict[str, str]()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), 4096):  # all tasks of a large data set at once would take memory
            block = files[start : start + 4096]
            wrong = pool.map(lambda file: _what_is_wrong(file, read), block)
            unreadable |= {file: text for file, text in zip(block, wrong) if text}
    return unreadable


def md5(path: Path) -> str:
    """Returns the md5 of a file, 32 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def name_faults(unreadable: Mapping[str, str]) -> str:
    """Names the first five files of `find_unreadable` with their faults, and counts the others."""
    return name_some([f"{shortened(file, LONGEST_NAME)} ({fault})" for file, fault in unreadable.items()])


def name_some(items: Sequence[str]) -> str:
    """Names the first five items, and counts the others."""
    named = ", ".join(shortened(item, LONGEST_ITEM) for item in items[:5])
    return f"{named} and {len(items) - 5:,} more" if len(items) > 5 else named


def is_skipped(path: PurePosixPath | str) -> bool:
    """Returns whether a file (text: its name) is hidden or of `SKIPPED`, or in such a folder."""
    parts = (path,) if isinstance(path, str) else path.parts
    return any(part in SKIPPED or (part.startswith(".") and part != "..") for part in parts)


def _source(path: Path, root: Path | zipfile.Path, top_folder: str, folders: Collection[str]) -> Source:
    root = root / "." if (root / ".").is_dir() else root  # some programs write members of a zip as ./query/a.jpg
    top = top_folder if top_folder and (root / top_folder).is_dir() else _enclosing(root, folders)
    inside = root / top if top else root
    return Source(path, top, inside.resolve() if isinstance(inside, Path) else inside)


def _enclosing(root: Path | zipfile.Path, folders: Collection[str]) -> str:
    """Returns the folder that encloses the others, see `open_source`; "" without one."""
    if any((root / folder).is_dir() for folder in folders):
        return ""
    entries = _entries(root)
    holding = [entry for entry in entries if any((entry / folder).is_dir() for folder in folders)]
    candidates = holding or entries
    return candidates[0].name if len(candidates) == 1 and candidates[0].is_dir() else ""


def _entries(folder: Path | zipfile.Path) -> list[Any]:
    """Returns the files and folders in a folder, except skipped ones."""
    return [entry for entry in folder.iterdir() if not is_skipped(PurePosixPath(entry.name))]


def _refuse(path: Path, odd: Sequence[str]) -> None:
    if odd:
        raise ValueError(
            f"{path}: {name_some(odd)}: links, folders, copies, encrypted members and paths that lead "
            "elsewhere do not belong there; fetch it again"
        )


def _is_odd(info: zipfile.ZipInfo) -> bool:
    is_link = stat.S_ISLNK(info.external_attr >> 16)
    is_encrypted = bool(info.flag_bits & 1)
    leads_elsewhere = info.filename.startswith("/") or ".." in PurePosixPath(info.filename).parts
    return is_link or is_encrypted or leads_elsewhere or "\\" in info.filename


def _what_is_wrong(file, read):
    try:
        encoded = read(file)
    except UNREADABLE as error:
        return f"cannot be read: {reason_of(error)}"
    return find_fault(encoded)
