"""Versions, devices and git revision, which every result records."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from mancs_jax.version import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy", "scipy")


def environment(devices: list[jax.Device]) -> dict[str, Any]:
    """Returns time, versions, devices and git revision."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), "mancs_jax": __version__}
        | {name: version_of(name) for name in PACKAGES},
        "devices": [device.device_kind for device in devices],
        "git": git_revision(),
    }


def git_revision() -> str:
    """Returns the commit of this package's checkout, with "+changes" where files differ; "" without a checkout."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments):
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # The package may be installed inside another project's checkout.
        if Path(git("rev-parse", "--show-toplevel")) != root:
            return ""
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def version_of(package: str) -> str:
    """Returns the version of an installed package; "" without its metadata."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
