"""The embeddings of a gallery as memory-mapped files: a copy of the database, in a folder next to it.

The folder may be deleted at any time; the next search writes it again. Its files are

- `state.json`: of which gallery and up to which change the others are a copy. It is replaced atomically, last.
- `rows.BUILD` (float32 [N, D]), `ids.BUILD` (int64 [N]) and `norms.BUILD` (float32 [N], half the squared norms).
- `index-DISTANCE-BUILD-N.faiss`: an approximate index of the first N rows, see `approximate`.

Rows are appended and overwritten with zeros, but never moved; a new build has files of new names. No file is shortened,
because that would end processes that have it mapped. A writer holds the database's write lock. Readers take no
lock: they compare the state before and after they used the rows, since a writer announces in it that it erases.
"""

import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mancs_jax.common.atomic_write import write_json
from mancs_jax.inference.exact import Block, half_squared_norms

FORMAT = 1
KINDS: dict[str, Any] = {"rows": np.dtype("<f4"), "ids": np.dtype("<i8"), "norms": np.dtype("<f4")}
ZEROS = bytes(2**20)


@dataclass(frozen=True)
class State:
    """What the files of a cache hold."""

    format: int
    gallery: str  # identity of the database, 32 hex digits
    width: int  # of an embedding
    build: str  # ending of the files' names
    change: int  # last change of the database that the rows contain
    token: str  # of that change: a database restored from a backup has other ones
    rows: int  # number, erased ones included
    erased: int  # number of them
    last_id: int  # of the last row, erased or not
    is_erasing: bool  # rows are being overwritten now, or were when the process was killed


class Cache:
    """The cache of one gallery. All methods that write need the database's write lock."""

    def __init__(self, folder: Path, gallery: str, width: int):
        """Reads nothing yet."""
        self.folder, self.gallery, self.width = folder, gallery, width

    def state(self) -> State | None:
        """The state; None without a cache, and for that of another gallery or format."""
        try:
            state = State(**json.loads((self.folder / "state.json").read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        return state if (state.format, state.gallery, state.width) == (FORMAT, self.gallery, self.width) else None

    def mapped(self, state: State) -> Block | None:
        """Maps the files; None where one is missing or too short."""
        shapes = {"rows": (state.rows, self.width), "ids": (state.rows,), "norms": (state.rows,)}
        if not state.rows:
            return Block(*(np.empty(shapes[name], KINDS[name]) for name in ("ids", "rows", "norms")))
        try:
            maps = {name: np.memmap(self._file(name, state), KINDS[name], "r", shape=shapes[name]) for name in KINDS}
        except (OSError, ValueError):
            return None
        return Block(*(np.asarray(maps[name]) for name in ("ids", "rows", "norms")))

    def build(self, batches: Iterable[tuple[np.ndarray, np.ndarray]], change: int, token: str) -> None:
        """Writes a new cache of all (ids, rows) in the place of an old one."""
        self.remove()
        self.folder.mkdir(parents=True, exist_ok=True)
        state = State(FORMAT, self.gallery, self.width, secrets.token_hex(4), change, token, 0, 0, 0, False)
        self._append(state, batches, change, token)

    def append(self, batches: Iterable[tuple[np.ndarray, np.ndarray]], change: int, token: str) -> None:
        """Appends rows of higher ids."""
        state = self.state()
        assert state is not None
        self._append(state, batches, change, token)

    def _append(self, state: State, batches: Iterable[tuple[np.ndarray, np.ndarray]], change: int, token: str) -> None:
        rows, last_id = state.rows, state.last_id
        files = {name: os.open(self._file(name, state), os.O_WRONLY | os.O_CREAT, 0o666) for name in KINDS}
        try:
            for ids, block in batches:
                parts = {"rows": block, "ids": ids, "norms": half_squared_norms(block)}
                for name, part in parts.items():
                    content = np.ascontiguousarray(part, KINDS[name])
                    _write(files[name], content.data.cast("B"), rows * content[:1].nbytes)
                rows, last_id = rows + len(ids), int(ids[-1])
            for file in files.values():
                os.fsync(file)
        finally:
            for file in files.values():
                os.close(file)
        self._write(replace(state, change=change, token=token, rows=rows, last_id=last_id))

    def erase(self, live: np.ndarray) -> None:
        """Overwrites with zeros the rows whose ids are not among the live ones, int64, increasing."""
        state = self.state()
        assert state is not None
        self._write(replace(state, is_erasing=True))
        mapped = self.mapped(state)
        assert mapped is not None
        is_dead = ~np.isin(mapped.ids, live, assume_unique=True)
        dead = np.flatnonzero(is_dead)
        dead = dead[np.isfinite(mapped.half_squared[dead]) | mapped.rows[dead].any(axis=1)]  # others are erased already
        infinite = np.float32(np.inf).astype(KINDS["norms"])
        with self._file("rows", state).open("r+b") as rows, self._file("norms", state).open("r+b") as norms:
            for row in dead.tolist():
                _write(rows.fileno(), bytes(4 * self.width), row * 4 * self.width)
                _write(norms.fileno(), infinite.tobytes(), row * 4)
            os.fsync(rows.fileno())
            os.fsync(norms.fileno())
        self._write(replace(state, erased=int(np.count_nonzero(is_dead)), is_erasing=False))

    def remove(self) -> None:
        """Overwrites every file with zeros and deletes it, and the folder."""
        (self.folder / "state.json").unlink(missing_ok=True)  # first: no process maps the others any more
        for path in self.files():
            shred(path)
        if self.folder.is_dir():
            self.folder.rmdir()

    def index_files(self, distance: str = "") -> list[Path]:
        """Files of approximate indexes, for one distance or for all."""
        return [path for path in self.files() if path.name.startswith(f"index-{distance}")]

    def remove_index(self) -> None:
        """Overwrites the approximate indexes with zeros and deletes them."""
        for path in self.files():
            if "index-" in path.name:  # half-written ones, too
                shred(path)

    def remove_leftovers(self, state: State) -> None:
        """Deletes what a killed process has left: files of other builds, and half-written ones."""
        for path in self.files():
            is_of_build = path.suffix == f".{state.build}"
            if not is_of_build and path.name != "state.json" and not path.name.startswith("index-"):
                shred(path)

    def files(self) -> list[Path]:
        """All files of the folder, sorted."""
        return sorted(path for path in self.folder.iterdir() if path.is_file()) if self.folder.is_dir() else []

    def _file(self, name: str, state: State) -> Path:
        return self.folder / f"{name}.{state.build}"

    def _write(self, state: State) -> None:
        write_json(self.folder / "state.json", asdict(state))


def shred(path: Path) -> None:
    """Overwrites a file with zeros, waits until they are on the disk, and deletes it.

    Of a file that has another name, too, only this name is deleted: a process that was killed while it made a gallery
    may have left a second one.
    """
    if path.stat().st_nlink > 1:
        path.unlink()
        return
    with path.open("r+b") as file:
        left = path.stat().st_size
        while left > 0:
            left -= file.write(ZEROS[:left])
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


def flush(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _write(file: int, content: bytes | memoryview, offset: int) -> None:
    """Writes all of it; a write may stop short."""
    left = memoryview(content)
    while len(left):
        written = os.pwrite(file, left, offset)
        left, offset = left[written:], offset + written
