"""Writes files atomically: whenever a process is killed, a file is either the old one or the complete new one."""

import errno
import json
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from mancs_jax.common.local_path import local_path
from mancs_jax.common.quoted import reason_of
from mancs_jax.common.screen import encodable, tell

FULL = (errno.ENOSPC, errno.EDQUOT)
NO_SYNC_OF_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)  # of some network disks
MOUNTED = (errno.EBUSY, errno.EXDEV)  # a single file that is mounted into a container cannot be replaced
# Files that are open already: opening them again by name would overwrite their content.
DESCRIPTOR = re.compile(r"/dev/std(?:out|err)|(?:/dev|/proc/self)/fd/(\d+)")
STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}
NAME_KEPT = 40  # characters of a name in its temporary name: file systems allow 255 bytes


@contextmanager
def naming_full_disk(path: str | os.PathLike[str]) -> Iterator[None]:
    """Adds the file and the remedy to the error of a full disk (OSError, one line)."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(
            f"{path} cannot be written ({error.strerror}); free disk space, and run the same command again: a training "
            "run resumes"
        ) from error


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path next to `path`, which is renamed to `path` when the block ends without an error.

    Parent folders are made, and the file is flushed to the disk first. The target of a link is replaced, not the link;
    a replaced file keeps its mode and owner. Devices, pipes and sockets are opened at the end, and written. Raises
    OSError where a folder or the file cannot be written, and ValueError for a remote path, see `local_path`.
    """
    path = local_path(path)
    _refuse_read_only(path)
    if is_opened(path):
        with tempfile.TemporaryDirectory() as folder, _naming(path, Path(folder)):
            yield Path(folder, path.name)
            _pour(Path(folder, path.name), path)
        return
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name[:NAME_KEPT]}.{os.getpid()}")
    with _naming(path, temporary):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _keep_mode(target, temporary)
            _flush(temporary)
            try:
                temporary.replace(target)
            except OSError as error:
                if error.errno not in MOUNTED:
                    raise
                _pour(temporary, target)
            _flush_names(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str], *, folder: bool = False) -> None:
    """Refuses a file, or with `folder` a folder for files, that could not be written later; leaves nothing behind.

    Raises OSError, one line, where the file is a folder or read-only, or the nearest existing parent folder is not
    writable, and ValueError for a remote path, see `local_path`.
    """
    path = local_path(path)
    if not folder:
        _refuse_read_only(path)
    try:
        if not folder and stat.S_ISDIR(_mode(path)):
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if not folder and is_opened(path):
            return
        whole = Path(os.path.realpath(path))
        folders = (whole, *whole.parents) if folder else whole.parents
        nearest = next(path for path in folders if path.exists())
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise OSError(
            f"{path} cannot be written ({error.strerror or reason_of(error)}): choose another place"
        ) from None


def _refuse_read_only(path: Path) -> None:
    mode = _mode(path)
    if not mode or stat.S_ISDIR(mode):  # other checks report what is missing
        return
    # Root may write all files, and would replace a protected one.
    if not mode & 0o222 or not os.access(path if path.exists() else os.path.realpath(path), os.W_OK):
        raise PermissionError(f"{path} is read-only: choose another place, or allow writing (chmod u+w)")


def is_opened(path: Path) -> bool:
    """Returns whether a path is written by opening it, not replaced: a device, pipe, socket, or an open file."""
    if DESCRIPTOR.fullmatch(str(path.absolute())):
        return True
    mode = _mode(path)
    return bool(mode) and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _mode(path: Path) -> int:
    """The mode of what is written at a path; 0 where nothing is there.

    A path through a folder that does not exist leads nowhere until the parent folders are made: "no/../g.npz" is g.npz.
    """
    for name in (path, Path(os.path.realpath(path))):
        try:
            return name.stat().st_mode
        except OSError:
            pass
    return 0


def _pour(source: Path, target: Path) -> None:
    """Copies the content of a file into another file, device, pipe or socket."""
    with source.open("rb") as file, _opened(target) as sink:
        shutil.copyfileobj(file, sink)


def _opened(target: Path) -> IO[bytes]:
    if descriptor := DESCRIPTOR.fullmatch(str(target.absolute())):
        number = int(descriptor[1]) if descriptor[1] else STANDARD[descriptor[0]]
        return os.fdopen(os.dup(number), "wb")
    if target.is_socket():
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(target))
            return connection.makefile("wb")
    return target.open("wb")


@contextmanager
def _naming(path: Path, temporary: Path) -> Iterator[None]:
    """Makes errors name the requested file, not the temporary one."""
    with naming_full_disk(path):
        try:
            yield
        except OSError as error:
            is_temporary = str(error.filename or "").startswith(str(temporary))
            if error.errno in FULL or not (is_temporary or error.filename == str(path)):
                raise
            raise type(error)(f"{path} cannot be written ({error.strerror}): choose another place") from error


def _keep_mode(target: Path, temporary: Path) -> None:
    """Gives a file the mode and owner of the one that it replaces."""
    try:
        before = target.stat()
    except OSError:
        return
    with suppress(OSError):  # only root may give a file away
        os.chown(temporary, before.st_uid, before.st_gid)
    temporary.chmod(stat.S_IMODE(before.st_mode) & 0o777)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file atomically; errors as `atomic_write`."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes text as UTF-8 atomically; errors as `atomic_write`. Bytes of names that are not UTF-8 become \\xff."""
    write_bytes(path, encodable(text, "utf-8").encode())


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes JSON atomically; ValueError for what is not JSON, as NaN and infinity, other errors as `atomic_write`."""
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"result for {path} is not plain JSON: {reason_of(error)}") from error
    write_text(path, text + "\n")


def read_list(path: str | os.PathLike[str], key: str) -> list[Any]:
    """Reads the list under a key of a run's own JSON file; [] without the file.

    A damaged file is renamed to NAME.damaged, a line on stderr says so, and the list is [].
    """
    path = Path(path)
    if not path.exists():
        return []
    try:
        entries = json.loads(path.read_bytes())[key]
        if not isinstance(entries, list):
            raise TypeError(f"{key} is no list")
        return entries
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        tell(f"{path} is damaged ({reason_of(error)}) and was renamed to {aside.name}")
        return []


def _flush_names(folder: Path) -> None:
    """Flushes the names in a folder to the disk, where the file system supports it."""
    try:
        _flush(folder)
    except OSError as error:
        if error.errno not in NO_SYNC_OF_FOLDERS:
            raise


def _flush(path: Path) -> None:
    """Flushes a file, or the names in a folder, to the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
