"""What a command writes is nothing that it reads, and no two of its files are one."""

import os
from collections.abc import Mapping
from pathlib import Path

from mancs_jax.common.atomic_write import is_opened
from mancs_jax.common.local_path import local_path


def check_outputs(
    outputs: Mapping[str, str | os.PathLike[str]],
    inputs: Mapping[str, str | os.PathLike[str]],
    folders: Mapping[str, str | os.PathLike[str]] | None = None,
) -> None:
    """Refuses outputs that would replace an input or each other, whatever links and spellings lead there.

    Devices, pipes and sockets, as /dev/null, are opened and not replaced, so they may be named twice.

    Args:
      outputs: a name for the message, as "--json=g.npz" -> the file.
      inputs: likewise, the files that are read. Those that are not there count for nothing.
      folders: likewise, folders that belong to what is read, below which nothing may be written.

    Raises:
      ValueError: one line, with the names of both.
    """
    read = {_identity(path): name for name, path in inputs.items() if Path(path).exists()}
    written: dict[tuple[int, int] | str, str] = {}
    for name, path in outputs.items():
        if is_opened(local_path(path)):
            continue
        identity = _identity(path)
        if identity in read:
            raise ValueError(f"{name} is the file of {read[identity]}: an output may not replace an input")
        if identity in written:
            raise ValueError(f"{name} is the file of {written[identity]}: give each output a file of its own")
        written[identity] = name
        for folder, place in (folders or {}).items():
            if _real(path).is_relative_to(_real(place)):
                raise ValueError(f"{name} lies in the folder of {folder}: choose a place outside, since it is read")


def _identity(path: str | os.PathLike[str]) -> tuple[int, int] | str:
    """Equal for two paths of one file: by its number on the disk, and by its real path where there is none yet."""
    try:
        found = local_path(path).stat()
    except OSError:
        return str(_real(path))
    return found.st_dev, found.st_ino


def _real(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.realpath(local_path(path)))
