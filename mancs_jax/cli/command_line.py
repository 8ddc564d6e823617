"""What scripts share: a mistake on the command line ends with one line, nothing is compiled twice, memory is kept."""

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the flags, for `app.run(main, flags_parser=parse_flags)`; a mistake in one of them, or in a field or file
    of the configuration, exits with status 1 and one line."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        sys.exit(f"{Path(argv[0]).stem}: {last_line(error)}")


def last_line(error: Exception) -> str:
    """What is wrong, without the history that ml_collections puts in front of it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def keep_compiled_programs() -> None:
    """Lets JAX find what it has compiled before: a second start takes seconds. In ~/.cache/mancs_jax, or where
    JAX_COMPILATION_CACHE_DIR or XDG_CACHE_HOME say."""
    import jax  # not at the top: a mistyped flag should not wait for it

    if not jax.config.jax_compilation_cache_dir:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "mancs_jax"))


def keep_freed_memory() -> None:
    """Lets a network on CPU use the memory of its last step again.

    glibc gives large blocks back to the kernel, which has to clear each page once more for the next step: a twelfth of
    it (docs/performance.md). To be called before JAX starts its threads. Of no effect without glibc.
    """
    max_arenas, max_mmaps, trim_threshold = -8, -4, -1  # M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option, value in ((max_arenas, 1), (max_mmaps, 0), (trim_threshold, -1)):  # -1: never
        mallopt(option, value)
