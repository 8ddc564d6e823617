"""A zip or a folder of images: listed, read, and searched for images that are not whole."""

import hashlib
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mancs_jax.data.images import find_fault

# Made by file managers, macOS and network disks beside the files of people.
PASSED_OVER = ("Thumbs.db", "desktop.ini", "@eaDir", "#recycle", "__MACOSX")
# Raised by zipfile and the disk where a file cannot be read.
UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError)


class Source(NamedTuple):
    """A zip, which is not unpacked, or a folder."""

    path: Path
    top: str  # the folder that encloses the others and is passed through; "" where there is none
    list: Callable[[str], list[str]]  # folder -> names of its files, sorted; none where there is no such folder
    has: Callable[[str], bool]  # path inside, with / -> whether a file lies there, and not elsewhere through a link
    read: Callable[[str], bytes]  # path inside -> bytes of the file


@contextmanager
def open_source(path: str | Path, top_folder: str = "", folders: Collection[str] = ()) -> Iterator[Source]:
    """Opens a zip or a folder. Hidden files and those of `PASSED_OVER` are passed over.

    Args:
      path: the zip or the folder.
      top_folder: folder that may enclose the others; paths start below it. Without it, paths start below the only
        folder that holds one of `folders`, or a folder that encloses everything, whatever its name is.
      folders: names of folders that hold files, and so enclose no others.

    Raises:
      FileNotFoundError: there is nothing at `path`.
      ValueError: it is no zip, or holds links or paths that lead elsewhere. `list` raises it for a folder with
        something else than files in it.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_dir():
        yield _folder(path, top_folder, folders)
        return
    with open_zip(path) as archive:
        yield _zip(archive, path, top_folder, folders)


def open_zip(path: Path) -> zipfile.ZipFile:
    """Opens a zip; raises ValueError where it is none or is cut off."""
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"{path} is not a zip file, or is cut off ({error})") from error


def find_unreadable(files: Iterable[str], read: Callable[[str], bytes]) -> dict[str, str]:
    """Reads and decodes every image.

    Returns:
      The file and the fault of each image that is not whole.
    """
    files, unreadable = list(files), dict[str, str]()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), 4096):  # hundreds of thousands at once would take memory
            block = files[start : start + 4096]
            wrong = pool.map(lambda file: _what_is_wrong(file, read), block)
            unreadable |= {file: text for file, text in zip(block, wrong) if text}
    return unreadable


def md5(path: Path) -> str:
    """Returns the md5 of a file, 32 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def name_faults(unreadable: Mapping[str, str]) -> str:
    """Returns the first five of the files of `find_unreadable` with their faults, and how many more there are."""
    return name_some([f"{file} ({fault})" for file, fault in unreadable.items()])


def name_some(items: Sequence[str]) -> str:
    """Returns the first five of the items, and how many more there are, as text."""
    return ", ".join(items[:5]) + (f" and {len(items) - 5:,} more" if len(items) > 5 else "")


def is_passed_over(path: PurePosixPath) -> bool:
    """Tells if a file is hidden or of `PASSED_OVER`, or lies in such a folder."""
    return any(part in PASSED_OVER or (part.startswith(".") and part != "..") for part in path.parts)


def _folder(path, top_folder, folders):
    top, enclosing = path.resolve(), ""
    if top_folder and (top / top_folder).is_dir():
        top, enclosing = (top / top_folder).resolve(), top_folder
    elif only := _enclosing(_names_at(top), folders, lambda folder: (top / folder).is_dir()):
        top, enclosing = top / only, only

    def names(folder):
        if not (top / folder).is_dir():
            return []
        with os.scandir(top / folder) as entries:
            entries = [entry for entry in entries if not is_passed_over(PurePosixPath(entry.name))]
        _refuse(path, [f"{folder}/{entry.name}" for entry in entries if not entry.is_file()])
        return sorted(entry.name for entry in entries)

    def has(file):
        try:
            target = (top / file).resolve()
            return target.is_relative_to(top) and target.is_file()
        except (OSError, ValueError):  # no disk has such a name: it is too long, or has a NUL
            return False

    return Source(path, enclosing, names, has, lambda file: (top / file).read_bytes())


def _names_at(path):
    """Names of folders at the top, and "" where there is something else, too."""
    with os.scandir(path) as entries:
        entries = [entry for entry in entries if not is_passed_over(PurePosixPath(entry.name))]
    return {entry.name if entry.is_dir(follow_symlinks=False) else "" for entry in entries}


def _enclosing(tops, folders, is_folder):
    """The folder of `tops` that encloses the others, see `open_source`; "" where none does."""
    if any(is_folder(folder) for folder in folders):
        return ""
    holding = [top for top in tops if top and any(is_folder(f"{top}/{folder}") for folder in folders)]
    found = holding if folders and holding else tops
    return next(iter(found)) if len(found) == 1 else ""


def _zip(archive, path, top_folder, folders):
    infos = [info for info in archive.infolist() if info.filename and not info.is_dir()]
    named = [(info, PurePosixPath(info.filename)) for info in infos]
    named = [(info, name) for info, name in named if name.parts and not is_passed_over(name)]
    tops = {name.parts[0] if len(name.parts) > 1 else "" for _, name in named}  # "": files beside the folders
    inside = {"/".join(name.parts[:depth]) for _, name in named for depth in (1, 2) if len(name.parts) > depth}
    enclosing = top_folder if top_folder in tops else _enclosing(tops, folders, inside.__contains__)
    members, odd = {}, []
    for info, name in named:
        file = "/".join(name.parts[1:] if name.parts[0] == enclosing else name.parts)
        if _is_odd(info, name.parts) or file in members:
            odd.append(info.filename)
        members[file] = info
    _refuse(path, odd)

    def names(folder):
        inside = [file.removeprefix(f"{folder}/") for file in members if file.startswith(f"{folder}/")]
        _refuse(path, [f"{folder}/{name}" for name in inside if "/" in name])
        return sorted(inside)

    return Source(path, enclosing, names, members.__contains__, lambda file: archive.read(members[file]))


def _refuse(path, odd):
    if odd:
        raise ValueError(
            f"{path}: {name_some(odd)}: links, folders, copies, encrypted members and paths that lead "
            "elsewhere do not belong there; fetch it again"
        )


def _is_odd(info, parts):
    is_link = stat.S_ISLNK(info.external_attr >> 16)
    is_encrypted = info.flag_bits & 1
    return is_link or is_encrypted or info.filename.startswith("/") or ".." in parts or "\\" in info.filename


def _what_is_wrong(file, read):
    try:
        encoded = read(file)
    except UNREADABLE as error:
        return f"cannot be read: {error}"
    return find_fault(encoded)
