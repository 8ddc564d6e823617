"""The database of a gallery: all that SQLite and PostgreSQL do alike."""

import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np

from mancs_jax.gallery import traces
from mancs_jax.gallery.entry import Added, Facts, Image, Match, Person, Record
from mancs_jax.gallery.filters import Filter, condition

SCHEMA = 1  # a reader refuses newer ones
COLUMNS = "image.id, image.name, image.person, image.camera, image.time, folder.path, image.hash"
FROM = "image LEFT JOIN folder ON folder.id = image.folder"
FETCHED = 4096  # rows that are fetched at a time
ADD, FORGET, EMBED_AGAIN = "add", "forget", "embed again"  # kinds of changes


class Change(NamedTuple):
    """The last change of a gallery."""

    number: int
    token: str  # random: a database restored from a backup has other ones under the same numbers


class Proof(NamedTuple):
    """The search for the bytes of forgotten images."""

    files: list[dict[str, Any]]  # name and bytes of each file that was read
    searched: dict[str, int]  # kind -> number of byte sequences
    shared: int  # of them, that images which stay have, too
    found: int  # of them, that are left where no image has them
    is_complete: bool  # every file could be cleaned and read
    notes: list[str]  # what stands in the way


class Pending(NamedTuple):
    """Images that are deleted, and not proved to be gone."""

    change: int  # in which they were deleted
    at: float
    images: int
    traces: np.ndarray  # see `traces`


class Store(ABC):
    """A database with the tables of a gallery. It belongs to one thread.

    `gallery` has the facts, `image` a row an image, `embedding` its embedding under the same id, `folder` paths,
    `change` a row a transaction, and `pending` what is deleted and not proved to be gone. Ids are never used twice, and
    what lies under an id never changes: an image that is replaced gets a new one.
    """

    place: str  # path or URL without password, for messages
    out_of_reach: str  # what `prove` cannot clean
    recall: dict[str, float]  # of the index that was used or made last, see `build_index`

    # What the two do differently.

    @abstractmethod
    def exists(self) -> bool:
        """Tells whether there is a gallery."""

    @abstractmethod
    def create(self, facts: Facts) -> None:
        """Creates the tables if they do not exist."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[None]:
        """All queries inside see one state of the database, whatever others write."""

    @abstractmethod
    def writing(self) -> AbstractContextManager[None]:
        """A transaction; a second writer waits."""

    @abstractmethod
    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Executes a statement with `?` for its parameters; returns the number of rows that it changed."""

    @abstractmethod
    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple]:
        """The rows of a query."""

    @abstractmethod
    def like(self, pattern: str) -> tuple[str, str]:
        """A pattern of names as a comparison of the database and its parameter, see `filters.condition`."""

    @abstractmethod
    def is_one_of(self, column: str, values: Sequence[Any]) -> tuple[str, Any]:
        """The condition that a column has one of many values, and its parameter."""

    @abstractmethod
    def insert_images(self, images: Iterable[tuple]) -> None:
        """Inserts rows (id, name, person, camera, time, folder, hash)."""

    @abstractmethod
    def insert_embeddings(self, ids: Sequence[int], embedding: np.ndarray, table: str = "embedding") -> None:
        """Inserts embeddings float32 [N, D]."""

    @abstractmethod
    def new_ids(self, number: int) -> list[int]:
        """Ids that no image ever had, increasing."""

    @abstractmethod
    def embedding_of(self, value: Any) -> np.ndarray:
        """The column `vector` as float32 [D]."""

    @abstractmethod
    def nearest(
        self, query: np.ndarray, k: int, filter: Filter, distance: str, *, index: bool = False
    ) -> list[list[Match]]:
        """The k nearest images of each query that meet the filter, as far as there are so many."""

    @abstractmethod
    def build_index(self, distance: str) -> dict[str, float]:
        """Makes the approximate index anew; returns its recall@10 with images of the gallery, and with new queries."""

    @abstractmethod
    def prove(self, traces: np.ndarray) -> Proof:
        """Removes from the files what deletions have left there, and looks for the traces."""

    def find_faults(self) -> list[str]:
        """Checks the database; a line for each fault."""
        faults = []
        for one, other in (("image", "embedding"), ("embedding", "image")):
            sql = f"SELECT count(*) FROM {one} WHERE NOT EXISTS (SELECT 1 FROM {other} WHERE {other}.id = {one}.id)"
            if number := self.first(sql)[0]:
                faults.append(f"{number:,} rows of {one} have none of {other}")
        return faults

    @abstractmethod
    def refresh(self) -> bool:
        """Prepares the next search, as far as that is possible."""

    @abstractmethod
    def close(self) -> None:
        """Ends the connection."""

    # What both do alike.

    def first(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """The first row of a query; None without any."""
        return next(iter(self.rows(sql, parameters)), None)

    def facts(self) -> Facts:
        """The facts of the gallery."""
        values = dict(self.rows("SELECT key, value FROM gallery"))
        return Facts(
            network=values["network"],
            width=int(values["width"]),
            flip=values["flip"] == "1",
            normalize=values["normalize"] == "1",
            card=json.loads(values["card"]),
        )

    def write_facts(self, facts: Facts, identity: str = "") -> None:
        """Replaces the facts; with them, the identity that caches are made for."""
        values = {
            "identity": identity or secrets.token_hex(16),
            "network": facts.network,
            "width": str(facts.width),
            "flip": str(int(facts.flip)),
            "normalize": str(int(facts.normalize)),
            "card": json.dumps(facts.card),
        }
        self.run("DELETE FROM gallery")
        for key, value in values.items():
            self.run("INSERT INTO gallery (key, value) VALUES (?, ?)", (key, value))

    def last_change(self) -> Change:
        """The last change; number 0 before the first."""
        row = self.first("SELECT number, token FROM change ORDER BY number DESC LIMIT 1")
        return Change(*row) if row else Change(0, "")

    def count(self, filter: Filter = Filter()) -> int:  # noqa: B008  # immutable
        """The number of images that meet a filter."""
        where, parameters = self._where(filter)
        return self.first(f"SELECT count(*) FROM image{where}", parameters)[0]

    def images(self, filter: Filter = Filter()) -> Iterator[Image]:  # noqa: B008
        """The images that meet a filter, by their names."""
        where, parameters = self._where(filter)
        where, last = f"{where} AND name > ?" if where else " WHERE name > ?", ""
        sql = f"SELECT {COLUMNS} FROM {FROM}{where} ORDER BY name LIMIT {FETCHED}"
        while block := self.rows(sql, [*parameters, last]):
            yield from map(_image, block)
            last = block[-1][1]

    def people(self, filter: Filter = Filter()) -> list[Person]:  # noqa: B008
        """The people of the images that meet a filter, most images first; images without a person come last."""
        where, parameters = self._where(filter)
        sql = f"SELECT person, count(*), count(DISTINCT camera), min(time), max(time) FROM image{where} GROUP BY person"
        found = [Person(*row) for row in self.rows(sql, parameters)]
        return sorted(found, key=lambda of: (of.person is None, -of.images, of.person or ""))

    def cameras(self, filter: Filter = Filter()) -> dict[str | None, int]:  # noqa: B008
        """Camera -> number of its images that meet a filter, None for images without one."""
        where, parameters = self._where(filter)
        numbers = dict(self.rows(f"SELECT camera, count(*) FROM image{where} GROUP BY camera", parameters))
        return dict(sorted(numbers.items(), key=lambda of: (of[0] is None, of[0] or "")))

    def known(self, names: Sequence[str]) -> dict[str, Image]:
        """The images that have one of these names."""
        one_of, parameter = self.is_one_of("image.name", names)
        sql = f"SELECT {COLUMNS} FROM {FROM} WHERE {one_of}"
        return {image.name: image for image in map(_image, self.rows(sql, (parameter,)))}

    def images_by_id(self, ids: Sequence[int]) -> dict[int, Image]:
        """The images under these ids, as far as they are there."""
        one_of, parameter = self.is_one_of("image.id", ids)
        sql = f"SELECT {COLUMNS} FROM {FROM} WHERE {one_of}"
        return {image.id: image for image in map(_image, self.rows(sql, (parameter,)))}

    def embeddings(self, filter: Filter = Filter(), after: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:  # noqa: B008
        """Yields (ids int64 [n], float32 [n, D]) of the images that meet a filter, with ids above `after`, in order."""
        where, parameters = self._where(filter)
        where = f"{where} AND embedding.id > ?" if where else " WHERE embedding.id > ?"
        source = "embedding JOIN image ON image.id = embedding.id" if filter != Filter() else "embedding"
        sql = f"SELECT embedding.id, vector FROM {source}{where} ORDER BY embedding.id LIMIT {FETCHED}"
        while block := self.rows(sql, [*parameters, after]):
            yield np.array([row[0] for row in block]), np.stack([self.embedding_of(row[1]) for row in block])
            after = block[-1][0]

    def add(self, records: Sequence[Record], embedding: np.ndarray) -> Added:
        """Adds images in one transaction. Those of a known name are replaced where anything of them differs.

        Args:
          records: of different names.
          embedding: float32 [N, D].
        """
        with self.writing():
            known = self.known([record.name for record in records])
            kept, gone = records, list[int]()
            if known:
                is_new = [not _is_same(known.get(record.name), record) for record in records]
                kept = [record for record, new in zip(records, is_new, strict=True) if new]
                gone = [known[record.name].id for record in kept if record.name in known]
                embedding = embedding[np.array(is_new, bool)]
            if kept:
                self._delete(gone)
                self._insert(kept, embedding)
                self._note(ADD, len(kept), len(gone))
        return Added(len(kept) - len(gone), len(gone), len(records) - len(kept))

    def relabel(self, records: Sequence[Record]) -> Added:
        """Gives images that are there, with the same content, other labels; others are left out."""
        with self.writing():
            known = self.known([record.name for record in records])
            records = [of for of in records if of.name in known and known[of.name].hash == of.hash]
            ids = [known[record.name].id for record in records]
            if records:
                one_of, parameter = self.is_one_of("id", ids)
                vector_by_id = dict(self.rows(f"SELECT id, vector FROM embedding WHERE {one_of}", (parameter,)))
                vectors = np.stack([self.embedding_of(vector_by_id[i]) for i in ids])
                self._delete(ids)
                self._insert(records, vectors)
                self._note(ADD, len(ids), len(ids))
        return Added(replaced=len(ids))

    def forget(self, filter: Filter) -> Pending | None:
        """Deletes the images that meet a filter in one transaction, and keeps their traces for the proof.

        The conditions are not kept: they may hold a name or a person.
        """
        with self.writing():
            images = list(self.images(filter))
            if not images:
                return None
            texts = {text for of in images for text in (of.name, of.person, of.folder) if text}
            vectors = (vector for _, block in self.embeddings(filter) for vector in block)
            kept_traces = traces.traces_of(texts, (of.hash for of in images), vectors, len(images))
            self._delete([of.id for of in images])
            pending = Pending(self._note(FORGET, 0, len(images)), time.time(), len(images), kept_traces)
            sql = "INSERT INTO pending (change, at, images, traces) VALUES (?, ?, ?, ?)"
            self.run(sql, (*pending[:3], kept_traces.tobytes()))
        return pending

    def pending(self) -> list[Pending]:
        """What is deleted and not proved to be gone, oldest first."""
        rows = self.rows("SELECT change, at, images, traces FROM pending ORDER BY change")
        return [Pending(change, at, images, traces.from_bytes(bytes(of))) for change, at, images, of in rows]

    def settle(self, changes: Sequence[int]) -> None:
        """Deletes the traces of what is proved to be gone."""
        with self.writing():
            for number in changes:
                self.run("DELETE FROM pending WHERE change = ?", (number,))

    def is_shared(self, wanted: np.ndarray, is_found: np.ndarray) -> np.ndarray:
        """Tells which of the traces that were found belong to images that stay: copies, and names within names.

        Args:
          wanted: TRACE [T].
          is_found: bool [T].

        Returns:
          bool [T].
        """
        is_shared = np.zeros(len(wanted), bool)
        if is_found.any():
            is_shared[is_found] = traces.find(self._content(), wanted[is_found])
        return is_shared

    def _content(self) -> Iterator[bytes]:
        """All that the gallery has of its images, and of its network, as bytes."""
        yield "\0".join(value for (value,) in self.rows("SELECT value FROM gallery")).encode()
        for image in self.images():
            yield (
                "\0".join(filter(None, (image.name, image.person, image.camera, image.folder, ""))).encode()
                + image.hash
            )
        for _, block in self.embeddings():
            yield block.astype("<f4").tobytes()

    def embed_again(self, facts: Facts) -> "list[Image]":
        """Begins to replace all embeddings by those of another network, or resumes where another process stopped.

        Returns:
          The images that have no new embedding yet.
        """
        with self.writing():
            begun = self.first("SELECT value FROM gallery WHERE key = 'next'")
            if begun != (_next_of(facts),):
                self.run("DROP TABLE IF EXISTS next_embedding")
                self.create_embedding("next_embedding", facts.width)
                self.run("DELETE FROM gallery WHERE key = 'next'")
                self.run("INSERT INTO gallery (key, value) VALUES ('next', ?)", (_next_of(facts),))
            sql = f"SELECT {COLUMNS} FROM {FROM} WHERE image.id NOT IN (SELECT id FROM next_embedding) ORDER BY name"
            return [_image(row) for row in self.rows(sql)]

    @abstractmethod
    def create_embedding(self, table: str, width: int) -> None:
        """Makes a table of embeddings (id, vector)."""

    def add_next(self, images: Sequence[Image], embedding: np.ndarray) -> None:
        """Keeps new embeddings of images, float32 [N, D], next to the old ones."""
        with self.writing():
            remaining = self.images_by_id([image.id for image in images])  # others are forgotten meanwhile
            rows = [row for row, image in enumerate(images) if image.id in remaining]
            self.insert_embeddings([images[row].id for row in rows], embedding[rows], "next_embedding")

    def finish_embedding_again(self, facts: Facts) -> int:
        """Puts the new embeddings in the place of the old ones, in one transaction.

        Returns:
          The number of images that have no new embedding yet, where nothing was changed; else 0.
        """
        with self.writing():
            sql = "SELECT count(*) FROM image WHERE id NOT IN (SELECT id FROM next_embedding)"
            if missing := self.first(sql)[0]:
                return missing
            self.run("DELETE FROM next_embedding WHERE id NOT IN (SELECT id FROM image)")
            self.run("DROP TABLE embedding")
            self.run("ALTER TABLE next_embedding RENAME TO embedding")
            self.write_facts(facts)
            self._note(EMBED_AGAIN, self.count(), 0)
        return 0

    def _where(self, filter: Filter) -> tuple[str, list[Any]]:
        where, parameters = condition(filter, self.like)
        return (f" WHERE {where}" if where else ""), parameters

    def _insert(self, records: Sequence[Record], embedding: np.ndarray) -> None:
        folders = {path: self._folder_id(path) for path in {record.folder for record in records} if path}
        ids = self.new_ids(len(records))
        self.insert_images(
            (i, name, person, camera, time, folders.get(folder or ""), digest)
            for i, (name, person, camera, time, folder, digest) in zip(ids, records, strict=True)
        )
        self.insert_embeddings(ids, embedding)

    def _folder_id(self, path: str) -> int:
        self.run("INSERT INTO folder (path) VALUES (?) ON CONFLICT (path) DO NOTHING", (path,))
        return self.first("SELECT id FROM folder WHERE path = ?", (path,))[0]

    def _delete(self, ids: Sequence[int]) -> None:
        if not ids:
            return
        one_of, parameter = self.is_one_of("id", ids)
        for table in ("embedding", "image", *(["next_embedding"] if self._embeds_again() else [])):
            self.run(f"DELETE FROM {table} WHERE {one_of}", (parameter,))
        self.run("DELETE FROM folder WHERE NOT EXISTS (SELECT 1 FROM image WHERE image.folder = folder.id)")

    def _embeds_again(self) -> bool:
        return self.first("SELECT 1 FROM gallery WHERE key = 'next'") is not None

    def _note(self, kind: str, added: int, removed: int) -> int:
        """Writes a row about this transaction; returns its number."""
        values = (time.time(), kind, added, removed, secrets.token_hex(8))
        self.run("INSERT INTO change (at, kind, added, removed, token) VALUES (?, ?, ?, ?, ?)", values)
        return self.last_change().number


def _image(row: tuple) -> Image:
    return Image._make(row)._replace(hash=bytes(row[6]))


def _is_same(image: Image | None, record: Record) -> bool:
    return image is not None and tuple(image[1:]) == tuple(record)


def _next_of(facts: Facts) -> str:
    return json.dumps([facts.network, facts.width, facts.flip, facts.normalize])
