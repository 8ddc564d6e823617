"""Files that are either the old one or the whole new one, whenever somebody looks or a process is killed."""

import errno
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT)
NO_SYNC_OF_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)  # of some network disks


@contextmanager
def naming_full_disk(path: str | os.PathLike[str]) -> Iterator[None]:
    """Names the file, and the way on, where a full disk does not take it (OSError, one line)."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(
            f"{path} cannot be written ({error.strerror}); free the disk, and start the same command again: a training "
            "goes on"
        ) from error


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to; the file takes the name `path` when the block ends.

    Folders on the way are made. The file reaches the disk before it takes its name. Where the block raises, nothing
    new is left behind.

    Raises:
      OSError: a folder or the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with naming_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _flush(temporary)
            temporary.replace(path)
            _flush_names(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str], *, folder: bool = False) -> None:
    """Refuses a file that could not be written later, before the work is done; it leaves nothing behind.

    Args:
      path: the file.
      folder: `path` is a folder instead, in which files are to be made.

    Raises:
      OSError: one line: the file is a folder, or no file can be made in its folder, or in the nearest folder above
        that is there.
    """
    whole = Path(path).absolute()
    try:
        if not folder and whole.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        folders = (whole, *whole.parents) if folder else whole.parents
        nearest = next(path for path in folders if path.exists())
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror or error}): choose another place") from None


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file atomically; errors as `atomic_write`."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes text as UTF-8 atomically; errors as `atomic_write`."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes JSON atomically.

    Args:
      path: the file; its folders are made.
      value: plain dicts, lists, text and finite numbers.

    Raises:
      ValueError: a value is not JSON, NaN and infinity included; the file stays as it was.
      OSError: as `atomic_write`.
    """
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"result for {path} is not plain JSON: {error}") from error
    write_text(path, text + "\n")


def read_list(path: str | os.PathLike[str], key: str) -> list[Any]:
    """Reads the list under a key of a JSON file that a run keeps for itself.

    Returns:
      The list; [] without the file. A damaged file gives [], too: it is put aside as NAME.damaged, and a line on stderr
      says so.
    """
    path = Path(path)
    if not path.exists():
        return []
    try:
        found = json.loads(path.read_bytes())[key]
        if not isinstance(found, list):
            raise TypeError(f"{key} is no list")
        return found
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        print(f"{path} is damaged ({' '.join(str(error).split())[:80]}); it is {aside.name} now", file=sys.stderr)
        return []


def _flush_names(folder: Path) -> None:
    """Waits until the names in a folder are on the disk, where its file system can: the file is whole in any case."""
    try:
        _flush(folder)
    except OSError as error:
        if error.errno not in NO_SYNC_OF_FOLDERS:
            raise


def _flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
