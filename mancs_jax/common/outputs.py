"""Checks that no output of a command replaces an input or another output."""

import os
from collections.abc import Mapping
from pathlib import Path

from mancs_jax.common.atomic_write import is_opened
from mancs_jax.common.image_suffixes import SUFFIXES
from mancs_jax.common.local_path import local_path


def check_outputs(
    outputs: Mapping[str, str | os.PathLike[str]],
    inputs: Mapping[str, str | os.PathLike[str]],
    folders: Mapping[str, str | os.PathLike[str]] | None = None,
) -> None:
    """Refuses (ValueError, one line) outputs that would replace an input or each other, also through links.

    Devices, pipes and sockets, as /dev/null, are not replaced, and may be named twice. All arguments map a name for the
    message, as "--json=g.npz", to a path; missing inputs are ignored. An input that is a folder keeps its images, by
    their names, and in `folders` nothing may be written.
    """
    read = {_identity(path): name for name, path in inputs.items() if _real(path).exists()}
    written: dict[tuple[int, int] | str, str] = {}
    for name, path in outputs.items():
        if is_opened(local_path(path)):
            continue
        identity = _identity(path)
        if identity in read:
            raise ValueError(f"{name} is the file of {read[identity]}: an output may not replace an input")
        if identity in written:
            raise ValueError(f"{name} is the file of {written[identity]}: give each output its own file")
        written[identity] = name
        for folder, place in inputs.items():
            if _is_image_of(path, place):
                raise ValueError(f"{name} is an image of {folder}, which is read: an output may not replace an input")
        for folder, place in (folders or {}).items():
            if _real(path).is_relative_to(_real(place)):
                raise ValueError(f"{name} is in the folder of {folder}, which is read: choose another folder")


def _is_image_of(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> bool:
    """Whether a path is, or links to, an existing file in a folder, or is a link in it, with the name of an image."""
    whole = local_path(path)
    names = {_real(whole), _real(whole.parent) / whole.name}
    return local_path(folder).is_dir() and any(
        name.exists() and name.name.lower().endswith(SUFFIXES) and name.is_relative_to(_real(folder)) for name in names
    )


def _identity(path: str | os.PathLike[str]) -> tuple[int, int] | str:
    """Identifies a file by device and inode, or by its real path where it does not exist."""
    real = _real(path)  # the file that is replaced, also for a path through a folder that does not exist
    try:
        status = real.stat()
    except OSError:
        return str(real)
    return status.st_dev, status.st_ino


def _real(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.realpath(local_path(path)))
