"""The one place that expands and judges paths from users, and knows where they keep caches."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
LOCAL = re.compile(r"file://(?:localhost)?(/.*)", re.IGNORECASE | re.DOTALL)


def local_path(path: str | os.PathLike[str]) -> Path:
    """Replaces a leading `~` by the home directory, and takes `file://` off: the rule for all paths, also in Python.

    A path that begins with `~` by name is meant by "./~name". Once more applied, the function changes nothing.

    Raises:
      ValueError: one line: the path is remote, as gs://bucket/run. Locks and atomic writes need a local file system.
    """
    given = os.fspath(path)
    if local := LOCAL.match(given):
        return Path(unquote(local[1]))
    if REMOTE.match(given):
        raise ValueError(f"{path}: remote paths are not supported; mount it, or give a local path and copy it later")
    if given.startswith("./") and str(Path(given)).startswith("~"):
        return Path(given).absolute()  # pathlib leaves "./" out, and the next call would expand the name
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # no such user
        raise ValueError(f"{path}: {error}") from None


def cache_folder() -> Path | None:
    """Returns this package's folder for what can be made again; None where a user has no home directory."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mancs_jax"
    except RuntimeError:  # a container whose user is in no list
        return None
