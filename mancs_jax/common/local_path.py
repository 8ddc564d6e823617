"""Expands and checks paths from users, and finds the cache folder."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from mancs_jax.common.quoted import reason_of

REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
LOCAL = re.compile(r"file://(?:localhost)?(/.*)", re.IGNORECASE | re.DOTALL)


def local_path(path: str | os.PathLike[str]) -> Path:
    """Replaces a leading `~` by the home directory and removes `file://`, in all paths of commands and of Python calls.

    "./~name" is a file whose name begins with `~`. Applying the function again changes nothing. Raises ValueError, one
    line, for a remote path, as gs://bucket/run: locks and atomic writes need a local file system.
    """
    given = os.fspath(path)
    if local := LOCAL.match(given):
        return Path(unquote(local[1]))
    if REMOTE.match(given):
        raise ValueError(f"{path}: remote paths are not supported; mount it, or give a local path and copy it later")
    if given.startswith("./") and str(Path(given)).startswith("~"):
        return Path(given).absolute()  # pathlib drops "./", and the next call would expand the name
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # no such user
        raise ValueError(f"{path}: {reason_of(error)}") from None


def cache_folder() -> Path | None:
    """Returns the cache folder of this package; None where a user has no home directory."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mancs_jax"
    except RuntimeError:  # in a container with an unknown user
        return None
