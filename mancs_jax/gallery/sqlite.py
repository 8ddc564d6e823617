"""A gallery in one SQLite file, with a memory-mapped cache of its embeddings next to it.

The file is in WAL mode: one process writes at a time, and readers continue. `secure_delete` overwrites what is deleted.
SQLite comes with Python, and documents its file format and its promise to read it
(https://www.sqlite.org/lts.html, https://www.sqlite.org/appfileformat.html).
"""

import errno
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from mancs_jax.common.quoted import reason_of
from mancs_jax.gallery import approximate, traces
from mancs_jax.gallery.approximate import Covering
from mancs_jax.gallery.cache import Cache, State, flush, shred
from mancs_jax.gallery.entry import Facts, Match
from mancs_jax.gallery.filters import Filter
from mancs_jax.gallery.store import SCHEMA, Change, Proof, Store
from mancs_jax.inference import exact
from mancs_jax.inference.exact import Block

APPLICATION = 0x4D616E63  # "Manc", in the file's header
PAGE = 8192  # bytes of a page
LOG_PAGES = 64 * 2**20 // PAGE  # the log is brought into the file when it is longer
CACHE_KILOBYTES = 64 * 1024  # of pages in memory
PATIENCE_S = 60.0  # that a second writer waits
READERS_S = 5.0  # that `forget` waits for readers of an old state
TRIES = 100  # of a search, where others erase rows while it computes
FEW_LEFT = 2  # of a cache's rows, one in so many: if fewer are left, it is written anew
OUT_OF_REACH = (
    "No program can reach backups and other copies, snapshots of the file system and spare blocks of an SSD: delete "
    "those by their own means."
)
TABLES = """
CREATE TABLE gallery (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE folder (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE);
CREATE TABLE image (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  person TEXT,
  camera TEXT,
  time REAL,
  folder INTEGER REFERENCES folder,
  hash BLOB NOT NULL
);
CREATE INDEX image_person ON image (person);
CREATE INDEX image_camera ON image (camera, time);
CREATE INDEX image_time ON image (time);
CREATE TABLE embedding (id INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE change (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  at REAL NOT NULL,
  kind TEXT NOT NULL,
  added INTEGER NOT NULL,
  removed INTEGER NOT NULL,
  token TEXT NOT NULL
);
CREATE TABLE pending (
  change INTEGER PRIMARY KEY, at REAL NOT NULL, images INTEGER NOT NULL, traces BLOB NOT NULL
);
"""
CANNOT_WRITE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
NO_DATABASE = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


class SqliteStore(Store):
    """See the module."""

    out_of_reach = OUT_OF_REACH

    def __init__(self, path: Path):
        """Opens the file, where there is one.

        Raises:
          ValueError: one line: it is no gallery, is damaged, or was written by a newer version.
          OSError: it cannot be read.
        """
        self.path, self.place = path, str(path)
        self.folder = path.with_name(f"{path.name}.cache")
        self.connection: sqlite3.Connection | None = None
        self._is_closed = False
        self._mapped: tuple[State, Block] | None = None
        self._index: tuple[Path, Covering] | None = None
        self.recall: dict[str, float] = {}
        self.exists()

    def exists(self) -> bool:  # noqa: D102
        is_there = self.path.exists()
        if is_there and self.connection is None and not self._is_closed:  # another object may have made it
            self._open()
        return is_there

    def _open(self) -> None:
        if self.path.is_dir():
            raise ValueError(f"{self.place} is a folder: give the file of a gallery, as people.gallery")
        with naming(self.place):
            try:
                self.connection = self._connected()
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_NOTADB:
                    raise ValueError(self._no_gallery()) from None
                raise
            [[application]] = self.connection.execute("PRAGMA application_id")
            [[schema]] = self.connection.execute("PRAGMA user_version")
        if application != APPLICATION:
            self.connection.close()
            self.connection = None
            is_empty = self.path.stat().st_size == 0
            raise ValueError(
                self._no_gallery() if is_empty else f"{self.place} is a database of another program, no gallery"
            )
        if schema > SCHEMA:
            self.connection.close()
            self.connection = None
            raise ValueError(
                f"{self.place} was written by a newer version of mancs_jax (schema {schema}; this one reads {SCHEMA}): "
                "install that version"
            )

    def _no_gallery(self) -> str:
        """The line for a file that is no database, and so has no locks of SQLite, see `kept_open`."""
        with self.path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                return f"{self.place} is no gallery, or is damaged"
        return (
            f"{self.place} is a file of mancs embed: mancs gallery add {self.place} --gallery=people.gallery makes a "
            "gallery of it, and mancs search searches it as it is"
        )

    def _connected(self) -> sqlite3.Connection:
        """Connects for reading and writing; read-only where the disk allows no more."""
        connection = sqlite3.connect(_uri(self.path, "rw"), uri=True, isolation_level=None, timeout=PATIENCE_S)
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # reads the log, too
        except sqlite3.OperationalError as error:
            connection.close()
            if error.sqlite_errorcode & 0xFF not in (*CANNOT_WRITE, sqlite3.SQLITE_IOERR):
                raise
            log = self.path.with_name(f"{self.path.name}-wal")
            if log.exists() and log.stat().st_size:
                raise OSError(
                    f"{self.place}: its disk is read-only or full, and changes in {log.name} are not in the file yet: "
                    "free some space, or copy both to another disk"
                ) from None
            # Without a log, the file is all there is. On a read-only or full disk SQLite cannot make the log's index.
            connection = sqlite3.connect(_uri(self.path, "ro&immutable=1"), uri=True, isolation_level=None)
        for pragma in (
            "secure_delete = ON",
            "foreign_keys = ON",
            "synchronous = FULL",
            f"cache_size = -{CACHE_KILOBYTES}",
            f"wal_autocheckpoint = {LOG_PAGES}",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        return connection

    def create(self, facts: Facts) -> None:  # noqa: D102
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with naming(self.place):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                temporary.unlink(missing_ok=True)
                self._write_empty(temporary, facts)
                with suppress(FileExistsError):  # another process was faster: its gallery counts
                    os.link(temporary, self.path)
                flush(self.path.parent)
            except OSError as error:
                raise OSError(
                    f"{self.place} cannot be made ({error.strerror or reason_of(error)}): choose another place"
                ) from None
            finally:
                for end in ("", "-wal", "-shm", "-journal"):
                    with suppress(OSError):
                        temporary.with_name(f"{temporary.name}{end}").unlink()
        self._open()

    def _write_empty(self, path: Path, facts: Facts) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.execute(f"PRAGMA page_size = {PAGE}")
            connection.executescript(f"BEGIN; {TABLES} COMMIT;")
            self.connection = connection
            self.write_facts(facts)
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
            # Last: all is in the file by now. What a log had, a full disk could keep out of the file when it is closed.
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
        finally:
            self.connection = None
            connection.close()

    def close(self) -> None:  # noqa: D102
        if self.connection is not None:
            self.connection.close()
        self._is_closed = True
        self.connection, self._mapped, self._index = None, None, None

    @contextmanager
    def reading(self) -> Iterator[None]:  # noqa: D102
        with naming(self.place):
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("ROLLBACK")

    @contextmanager
    def writing(self, patience: float = PATIENCE_S) -> Iterator[None]:  # noqa: D102
        with naming(self.place):
            with self._patience(patience):
                self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:  # a full disk ends it by itself
                    self._connection.execute("ROLLBACK")

    @contextmanager
    def _patience(self, seconds: float) -> Iterator[None]:
        """Waits less for other processes, or longer."""
        self._connection.execute(f"PRAGMA busy_timeout = {round(1000 * seconds)}").fetchall()
        try:
            yield
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {round(1000 * PATIENCE_S)}").fetchall()

    @property
    def _connection(self) -> sqlite3.Connection:
        if self.connection is None and not (self.exists() and self.connection):
            raise ValueError(f"{self.place}: the gallery is closed")
        return self.connection

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:  # noqa: D102
        with naming(self.place):
            return self._connection.execute(sql, parameters).rowcount

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple]:  # noqa: D102
        with naming(self.place):
            return self._connection.execute(sql, parameters).fetchall()  # all: an open query would keep its snapshot

    def like(self, pattern: str) -> tuple[str, str]:  # noqa: D102
        return "GLOB ?", pattern.replace("[", "[[]")

    def is_one_of(self, column: str, values: Sequence[Any]) -> tuple[str, Any]:  # noqa: D102
        return f"{column} IN (SELECT value FROM json_each(?))", json.dumps(list(values), ensure_ascii=False)

    def new_ids(self, number: int) -> list[int]:  # noqa: D102
        row = self.first("SELECT seq FROM sqlite_sequence WHERE name = 'image'")
        first = 1 + (row[0] if row else 0)
        return list(range(first, first + number))

    def insert_images(self, images: Iterable[tuple]) -> None:  # noqa: D102
        with naming(self.place):
            self._connection.executemany("INSERT INTO image VALUES (?, ?, ?, ?, ?, ?, ?)", images)

    def insert_embeddings(self, ids: Sequence[int], embedding: np.ndarray, table: str = "embedding") -> None:  # noqa: D102
        content, width = np.ascontiguousarray(embedding, "<f4").data.cast("B"), 4 * embedding.shape[1]
        vectors = (content[start : start + width] for start in range(0, len(content), width))
        with naming(self.place):
            self._connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", zip(ids, vectors, strict=True))

    def create_embedding(self, table: str, width: int) -> None:  # noqa: D102
        self.run(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, vector BLOB NOT NULL)")

    def embedding_of(self, value: Any) -> np.ndarray:  # noqa: D102
        return np.frombuffer(value, "<f4")

    # The cache.

    @property
    def cache(self) -> Cache:
        """The cache of the gallery as it is now."""
        facts = dict(self.rows("SELECT key, value FROM gallery WHERE key IN ('identity', 'width')"))
        return Cache(self.folder, facts["identity"], int(facts["width"]))

    def refresh(self, patience: float = PATIENCE_S) -> bool:
        """Brings the cache up to the last change.

        Args:
          patience: seconds to wait for a writer.

        Returns:
          Whether it is up to date; False where a writer holds the gallery, or where nothing can be written.
        """
        if self._is_current(self.cache, self.last_change()):
            return True
        try:
            with self.writing(patience):
                self._refresh(self.cache, self.last_change())
            return True
        except OSError:
            return False

    def _is_current(self, cache: Cache, change: Change) -> bool:
        state = cache.state()
        if state is None or (state.change, state.token, state.is_erasing) != (*change, False):
            return False
        return self._map(cache, state) is not None

    def _refresh(self, cache: Cache, change: Change) -> None:
        """Brings the cache up to a change, which is the last one: the caller has the write lock."""
        state = cache.state()
        if state is not None and (not self._is_ancestor(state) or cache.mapped(state) is None):
            state = None
        if state is not None and (state.is_erasing or self._removed_since(state)):
            live = np.array([i for (i,) in self.rows("SELECT id FROM embedding ORDER BY id")], np.int64)
            if FEW_LEFT * len(live) < state.rows:
                state = None
            else:
                cache.erase(live)
        if state is None:
            cache.build(self.embeddings(), *change)
        else:
            cache.remove_leftovers(state)
            cache.append(self.embeddings(after=state.last_id), *change)

    def _is_ancestor(self, state: State) -> bool:
        """Tells whether the gallery was once as the cache is."""
        if state.change == 0:
            return state.rows == 0
        return self.first("SELECT token FROM change WHERE number = ?", (state.change,)) == (state.token,)

    def _removed_since(self, state: State) -> bool:
        sql = "SELECT 1 FROM change WHERE number > ? AND removed > 0 LIMIT 1"
        return self.first(sql, (state.change,)) is not None

    def _blocks(self, cache: Cache, change: Change) -> tuple[State | None, Iterator[Block]]:
        """All embeddings of a snapshot: the state of the cache that they come from, if any, and the embeddings."""
        state = cache.state()
        if (
            state is None
            or state.is_erasing
            or state.change > change.number
            or not self._is_ancestor(state)
            or self._removed_since(state)
            or (mapped := self._map(cache, state)) is None
        ):
            return None, (Block(ids, rows, exact.half_squared_norms(rows)) for ids, rows in self.embeddings())

        def blocks():
            yield mapped
            if state.change < change.number:
                for ids, rows in self.embeddings(after=state.last_id):
                    yield Block(ids, rows, exact.half_squared_norms(rows))

        return state, blocks()

    def _map(self, cache: Cache, state: State) -> Block | None:
        if self._mapped is None or self._mapped[0] != state:
            mapped = cache.mapped(state)
            self._mapped = None if mapped is None else (state, mapped)
        return None if self._mapped is None else self._mapped[1]

    def nearest(  # noqa: D102
        self, query: np.ndarray, k: int, filter: Filter, distance: str, *, index: bool = False
    ) -> list[list[Match]]:
        self.refresh(patience=0)
        usable = self._usable_index(distance) if index and filter == Filter() else None
        self.recall = {} if usable is None else usable.index.recall
        for _ in range(TRIES):
            with self.reading():
                cache, change = self.cache, self.last_change()
                chosen = self._chosen(filter)
                number = min(k, self.count() if chosen is None else len(chosen))
                if number == 0:
                    return [[] for _ in query]
                state, blocks = self._blocks(cache, change)
                if usable is not None and state is not None and state.build == usable.build:
                    found = approximate.nearest(query, blocks, number, distance, usable)
                else:
                    found = exact.nearest(query, blocks, number, distance, chosen)
                images = self.images_by_id(np.unique(found.ids[found.ids >= 0]).tolist())
                after = cache.state()
            # Rows may have been erased while they were compared, though not in this snapshot.
            if state is None or (after is not None and _erased(after) == _erased(state)):
                return [
                    [Match(at, images[i]) for i, at in zip(ids, distances, strict=True) if i >= 0]
                    for ids, distances in zip(found.ids.tolist(), found.distance.tolist(), strict=True)
                ]
        raise OSError(f"{self.place}: other processes delete without a pause: search again later")

    # The index.

    def build_index(self, distance: str) -> dict[str, float]:  # noqa: D102
        self.recall = self._built_index(distance).index.recall
        return self.recall

    def _usable_index(self, distance: str) -> Covering:
        """The index of the cache's rows, made anew where too many have changed since."""
        state = self.cache.state()
        if state is not None and (mapped := self._map(self.cache, state)) is not None:
            for path in self.cache.index_files(distance):
                if self._index is None or self._index[0] != path:
                    with suppress(OSError, ValueError):  # removed meanwhile, or damaged
                        self._index = (path, approximate.load(path))
                if self._index is not None and self._index[0] == path:
                    covering = self._index[1]
                    if covering.build == state.build and not approximate.is_outdated(covering, mapped):
                        return covering
        return self._built_index(distance)

    def _built_index(self, distance: str) -> Covering:
        for _ in range(TRIES):
            with self.writing():
                cache, change = self.cache, self.last_change()
                self._refresh(cache, change)
                state = cache.state()
                if state is not None and state.erased:
                    cache.build(self.embeddings(), *change)  # an index has to have no erased rows
                    state = cache.state()
            mapped = None if state is None else self._map(cache, state)
            if state is None or mapped is None or not len(mapped.ids):
                raise ValueError(f"{self.place}: there is nothing to make an index of")
            covering = approximate.build(mapped, state.build, distance)
            with self.writing():
                # What was deleted meanwhile may be in the index, which is to hold nothing of it.
                if not self._removed_since(state) and self.cache.gallery == cache.gallery:
                    self._index = (approximate.write(covering, cache), covering)
                    return covering
        raise OSError(f"{self.place}: other processes delete without a pause: make the index later")

    def _chosen(self, filter: Filter) -> np.ndarray | None:
        """The ids that meet a filter, increasing; None for all."""
        where, parameters = self._where(filter)
        if not where:
            return None
        # As one text, which is read twice as fast as a row for each id.
        ((ids,),) = self.rows(f"SELECT group_concat(id) FROM image{where}", parameters)
        return np.sort(np.fromstring(ids or "", np.int64, sep=","))

    # Forgetting, and the check.

    def prove(self, wanted: np.ndarray) -> Proof:  # noqa: D102
        notes = self._clean()
        files, is_found = self._look(wanted)
        is_shared = self.is_shared(wanted, is_found)
        if not notes and (is_found & ~is_shared).any():
            # Pages that were split or merged keep copies of rows in their gaps.
            with naming(self.place):
                self._connection.execute("VACUUM")
            notes = self._clean()
            files, is_found = self._look(wanted)
            is_shared = self.is_shared(wanted, is_found)
        left = int(np.count_nonzero(is_found & ~is_shared))
        return Proof(files, traces.counted(wanted), int(np.count_nonzero(is_shared)), left, not notes, notes)

    def _clean(self) -> list[str]:
        """Erases the cache's rows, removes indexes, and empties the log; says what stands in the way."""
        notes = []
        with self.writing():
            cache, change = self.cache, self.last_change()
            cache.remove_index()
            try:
                self._refresh(cache, change)
            except OSError:  # a full disk: deleting takes no room
                cache.remove()
        self._mapped = self._index = None
        if not self._empty_log(READERS_S):
            notes.append(
                "another process still reads an older state, so the log keeps the deleted bytes: "
                "end that process, and run the same command again"
            )
        for path in self._leftovers():
            shred(path)
        return notes

    def _empty_log(self, patience: float) -> bool:
        """Brings the log into the file and shortens it to nothing; False where a reader needs it."""
        with naming(self.place), self._patience(patience):
            [[is_busy, _, _]] = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return not is_busy

    def settle(self, changes: Sequence[int]) -> None:  # noqa: D102
        super().settle(changes)
        self._empty_log(0)

    def _leftovers(self) -> list[Path]:
        """Files that killed processes left while they made a gallery of this name."""
        return [path for path in self.path.parent.glob(f".{self.path.name}.*") if path.is_file()]

    def _files(self) -> list[Path]:
        logs = [self.path.with_name(f"{self.path.name}-{end}") for end in ("wal", "shm", "journal")]
        return [self.path, *filter(Path.exists, logs), *self._leftovers(), *Cache(self.folder, "", 0).files()]

    def _look(self, wanted: np.ndarray) -> tuple[list[dict[str, Any]], np.ndarray]:
        files, is_found = [], np.zeros(len(wanted), bool)
        for path in self._files():
            try:
                file = kept_open(path)
            except FileNotFoundError:
                continue
            size = os.fstat(file).st_size
            blocks = (os.pread(file, traces.BLOCK, start) for start in range(0, size, traces.BLOCK))
            is_found |= traces.find(blocks, wanted)
            files.append({"file": path.relative_to(self.path.parent).as_posix(), "bytes": size})
        return files, is_found

    def find_faults(self) -> list[str]:  # noqa: D102
        with naming(self.place):
            faults = [line for (line,) in self._connection.execute("PRAGMA integrity_check(20)") if line != "ok"]
            if self._connection.execute("PRAGMA foreign_key_check").fetchall():
                faults.append("images have folders that are not there")
        if faults:
            return faults
        faults = super().find_faults()
        with self.reading():
            cache, change = self.cache, self.last_change()
            wrong = self.first("SELECT count(*) FROM embedding WHERE length(vector) != ?", (4 * cache.width,))[0]
            if wrong:
                return [*faults, f"{wrong:,} embeddings have another width than {cache.width}"]
            state = cache.state()
            if state is None or not self._is_current(cache, change):
                return faults
            mapped = cache.mapped(state)
            if mapped is None:
                return [*faults, f"{self.folder.name} is damaged: delete it, the next search writes it again"]
            is_live, position = np.isfinite(mapped.half_squared), 0
            live = np.flatnonzero(is_live)
            for ids, rows in self.embeddings():
                at = live[position : position + len(ids)]
                position += len(ids)
                if len(at) < len(ids) or (mapped.ids[at] != ids).any() or (mapped.rows[at] != rows).any():
                    return [
                        *faults,
                        f"{self.folder.name} differs from the gallery: delete it, a search writes it again",
                    ]
            if position != len(live) or mapped.rows[~is_live].any():
                faults.append(f"{self.folder.name} has rows of deleted images: delete it, a search writes it again")
        return faults


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Turns errors of SQLite into one line that names the gallery (OSError or ValueError)."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise OSError(errno.EBUSY, f"{place}: another process has been writing for long: try again later") from None
        if code == sqlite3.SQLITE_FULL:
            text = f"{place}: the disk is full. What was confirmed is kept; free some space, and start again"
            raise OSError(text) from None
        if code in CANNOT_WRITE:
            raise OSError(
                f"{place} cannot be written ({reason_of(error)}): its disk or its folder is read-only or full"
            ) from None
        if code == sqlite3.SQLITE_IOERR:
            raise OSError(
                f"{place} cannot be read or written ({reason_of(error)}): is the disk full or damaged?"
            ) from None
        if code in NO_DATABASE:
            raise ValueError(f"{place} is damaged ({reason_of(error)}): restore it from a backup") from None
        raise


_kept_open: dict[tuple[int, int], int] = {}  # (device, inode) -> descriptor


def kept_open(path: Path) -> int:
    """Opens a file for reading, and never closes it: a descriptor.

    POSIX drops all locks that a process has on a file as soon as it closes any descriptor of that file. SQLite's locks
    would be gone, and databases of other objects in this process could be destroyed
    (https://www.sqlite.org/howtocorrupt.html, 2.2).
    """
    status = path.stat()
    key = status.st_dev, status.st_ino
    if key not in _kept_open:
        _kept_open[key] = os.open(path, os.O_RDONLY)
    return _kept_open[key]


def _erased(state: State) -> tuple:
    return state.build, state.erased, state.is_erasing


def _uri(path: Path, mode: str) -> str:
    return f"file:{quote(os.fspath(path.absolute()))}?mode={mode}"
