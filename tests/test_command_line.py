"""One line for a mistake, and where compiled programs are kept."""

import os
import subprocess
import sys

import pytest

from mancs_jax.command_line import last_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one"), "one"),
        (ValueError("history\n\n  what is wrong \n"), "what is wrong"),
        (OSError(), "OSError"),
    ],
)
def test_last_line(error, line):
    assert last_line(error) == line


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"XDG_CACHE_HOME": "/x"}, "/x/mancs_jax"),
        ({"HOME": "/h"}, "/h/.cache/mancs_jax"),
        ({"HOME": "/h", "JAX_COMPILATION_CACHE_DIR": "/own"}, "/own"),
    ],
)
def test_compiled_programs_are_kept_where_users_keep_caches(environment, expected):
    code = (
        "import jax; from mancs_jax.command_line import keep_compiled_programs; keep_compiled_programs();"
        "print(jax.config.jax_compilation_cache_dir)"
    )
    others = {n: v for n, v in os.environ.items() if n not in ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR")}
    run = subprocess.run(
        [sys.executable, "-c", code], env=others | environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == expected
