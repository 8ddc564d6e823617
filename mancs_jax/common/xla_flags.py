"""Finds out whether the installed XLA knows a flag; XLA ends a process whose XLA_FLAGS has an unknown one."""

import os
import subprocess
import sys
from contextlib import suppress
from importlib import metadata

from mancs_jax.common.atomic_write import write_text
from mancs_jax.common.local_path import cache_folder

# Loads XLA without the rest of JAX in a tenth of a second, and makes it read its flags.
# XLA ends it with status 1 at a flag that it does not know. Python's own errors, as of a damaged installation, get 2.
PROGRAM = """
try:
    from jaxlib import _jax
    _jax.CompileOptions().executable_build_options.debug_options
except BaseException:
    raise SystemExit(2)
"""
KNOWN, UNKNOWN = "known", "unknown"


def is_known(flag: str) -> bool:
    """Returns whether XLA accepts a flag with its value, as "--xla_backend_optimization_level=2".

    A child process tries it once for each version of jaxlib, and the cache folder keeps the answer. Without a cache
    folder each start tries again, which takes a hundredth of the time to compile all programs again.
    """
    folder = cache_folder()
    answer = folder and folder / "xla_flags" / f"jaxlib-{metadata.version('jaxlib')} {flag.lstrip('-')}"
    try:
        kept = answer.read_text() if answer else ""
    except OSError:
        kept = ""
    if kept in (KNOWN, UNKNOWN):
        return kept == KNOWN
    status = _try(flag)
    if answer and status in (0, 1):  # otherwise the child was killed or failed, which proves nothing
        with suppress(OSError):
            write_text(answer, KNOWN if status == 0 else UNKNOWN)
    return status == 0


def _try(flag: str) -> int:
    """Returns the exit status of a process whose XLA reads the flag: 0, or 1 where XLA ends it."""
    try:
        command = [sys.executable, "-c", PROGRAM]
        return subprocess.run(command, env=os.environ | {"XLA_FLAGS": flag}, capture_output=True).returncode
    except OSError:
        return -1
