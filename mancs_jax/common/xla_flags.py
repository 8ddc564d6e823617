"""Whether the installed XLA knows a flag: it ends the process where XLA_FLAGS has one that it does not know."""

import os
import subprocess
import sys
from contextlib import suppress
from importlib import metadata

from mancs_jax.common.atomic_write import write_text
from mancs_jax.common.local_path import cache_folder

# The module in which XLA is, without the rest of JAX: it starts in a tenth of a second, and reads its flags here.
PROGRAM = "from jaxlib import _jax; _jax.CompileOptions().executable_build_options.debug_options"
KNOWN, UNKNOWN = "known", "unknown"


def is_known(flag: str) -> bool:
    """Tells whether XLA takes a flag with its value, as "--xla_backend_optimization_level=2".

    A child process tries it once for each version of jaxlib. The answer is kept in the cache folder. Where none can be
    written, each start asks again: it then compiles all programs again, too, which takes a hundred times as long.
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
    if answer and status in (0, 1):  # else something killed the child, which says nothing of the flag
        with suppress(OSError):
            write_text(answer, KNOWN if status == 0 else UNKNOWN)
    return status == 0


def _try(flag: str) -> int:
    """Returns the exit status of a process whose XLA reads the flag: 0, or XLA's 1 where it ends the process."""
    try:
        command = [sys.executable, "-c", PROGRAM]
        return subprocess.run(command, env=os.environ | {"XLA_FLAGS": flag}, capture_output=True).returncode
    except OSError:
        return -1
