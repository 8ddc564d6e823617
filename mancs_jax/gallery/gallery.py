"""`mancs_jax.Gallery`: a gallery in a file or a database, which grows, forgets and is searched with filters."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mancs_jax.common.atomic_write import check_writable, write_json
from mancs_jax.common.local_path import local_path
from mancs_jax.evaluation.labelled import checked_embedding
from mancs_jax.evaluation.threshold import Limit, checked_limit
from mancs_jax.gallery import filters
from mancs_jax.gallery.entry import HASH_BYTES, Added, Facts, Image, Match, Person, Record, hash_of
from mancs_jax.gallery.filters import Label, Moment, make_filter
from mancs_jax.gallery.sqlite import SqliteStore
from mancs_jax.gallery.store import Store
from mancs_jax.gallery.traces import NOT_SEARCHED_FOR
from mancs_jax.version import __version__

if TYPE_CHECKING:
    from mancs_jax.gallery.folder import FolderAdded
    from mancs_jax.inference.embedder import Embedder

POSTGRES = ("postgresql://", "postgres://")
GROWTH = 4  # of the number of neighbours, where too many of them do not count
AT_ONCE = 65536  # images of a .npz file that are added together


class Receipt(NamedTuple):
    """What `Gallery.forget` did."""

    images: int  # deleted now
    is_proved: bool  # every file was cleaned and read, and none holds anything of the images any more
    found: int  # byte sequences of them that are left
    notes: list[str]  # what stands in the way of the proof
    values: dict[str, Any]  # all of it as plain values, for JSON


class Gallery:
    """A gallery of embeddings with names, people, cameras and times.

    It is one SQLite file, or a PostgreSQL database with pgvector. Several processes may use it at a time: one writes,
    a second writer waits, and readers continue. An object belongs to one thread.
    """

    def __init__(self, place: str | Path, network: "Embedder | str | Path | None" = None):
        """Opens a gallery. A new one is made by the first images that are added.

        Args:
          place: a file, as "people.gallery", or "postgresql://USER@HOST/DATABASE".
          network: that embeds images: an embedder of `mancs_jax.load`, or what `load` takes, as "market1501", which is
            loaded when it is first needed. None where embeddings are given.

        Raises:
          ValueError: one line: the file is no gallery, is damaged, was written by a newer version, or has embeddings of
            another network.
          OSError: it cannot be read.
          ImportError: PostgreSQL, and the extra `postgres` is not installed.
        """
        self.store = _open_store(place)
        self._network = network
        try:
            if self.store.exists() and not isinstance(network, str | Path | None):
                self._check(network)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Gallery":
        """The gallery itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes it."""
        self.close()

    def close(self) -> None:
        """Closes the gallery."""
        self.store.close()

    def __len__(self) -> int:
        """Number of images."""
        return self.store.count() if self.store.exists() else 0

    @property
    def facts(self) -> Facts:
        """Network, width and kind of the embeddings; FileNotFoundError without a gallery."""
        return self._existing.facts()

    @cached_property
    def embedder(self) -> "Embedder":
        """The network. ValueError where none was given, or where the gallery is of another one."""
        network = self._network
        if network is None:
            raise ValueError(f"{self.store.place}: images need a model: Gallery(..., network='market1501')")
        if isinstance(network, str | Path):
            from mancs_jax.inference.embedder import load  # not at the top: it imports jax

            options: dict[str, Any] = {}
            if self.store.exists():
                facts = self.store.facts()
                options = {"flip": facts.flip, "normalize": facts.normalize}
            network = load(network, **options)
        if self.store.exists():
            self._check(network)
        return network

    def add(
        self,
        embedding: np.ndarray,
        names: Sequence[str],
        *,
        person: Label | Sequence[Label | None] | None = None,
        camera: Label | Sequence[Label | None] | None = None,
        time: Moment | Sequence[Moment | None] | None = None,
        hashes: Sequence[bytes] | None = None,
        network: str = "",
    ) -> Added:
        """Adds embeddings in one transaction. An image of a known name is replaced if anything of it differs.

        Args:
          embedding: float32 [N, D]; no row may be zero.
          names: of the images, all different.
          person: label of each image or of all; None where it is unknown.
          camera: likewise.
          time: likewise, see `filters.seconds_of`.
          hashes: of the images' files, 16 bytes each; those of the embeddings by default.
          network: fingerprint of the network (`Embedder.network`), for a new gallery without `network`.

        Raises:
          ValueError: one line: the arguments do not go together, or the gallery is of another network.
          OSError: the disk is full or read-only, or another process has been writing for a minute.
        """
        from mancs_jax.evaluation.distances import checked_norms  # not at the top: it imports jax

        embedding = checked_embedding("gallery", embedding)
        checked_norms("gallery", embedding, "cosine")
        number = len(names)
        if len(embedding) != number or len(set(names)) != number:
            raise ValueError(f"{len(embedding):,} embeddings need as many different names, not {len(set(names)):,}")
        if wrong := [name for name in names if not isinstance(name, str) or not name or "\0" in name]:
            raise ValueError(f"{wrong[0]!r} is no name of an image")
        columns = [_column(values, number) for values in (person, camera, time)]
        rows = np.ascontiguousarray(embedding, "<f4")
        hashes = [hash_of(row.tobytes()) for row in rows] if hashes is None else hashes
        if len(hashes) != number or any(len(each) != HASH_BYTES for each in hashes):
            raise ValueError(f"hashes has to have {number:,} entries of {HASH_BYTES} bytes")
        labels = [
            {value: filters.label_of(value, what) for value in dict.fromkeys(column)}
            for what, column in zip(("person", "camera"), columns)
        ]
        records = [
            Record(
                str(name),
                labels[0][raw_person],
                labels[1][raw_camera],
                None if raw_time is None else filters.seconds_of(raw_time, "time"),
                None,
                bytes(digest),
            )
            for name, raw_person, raw_camera, raw_time, digest in zip(names, *columns, hashes, strict=True)
        ]
        self._create(embedding.shape[1], network)
        return self.store.add(records, embedding)

    def add_folder(
        self,
        folder: str | Path,
        *,
        relative_to: str | Path | None = None,
        csv_file: str | Path | None = None,
        person: Label | None = None,
        camera: Label | None = None,
        time: Moment | None = None,
        replace: bool = False,
        progress: bool = True,
    ) -> "FolderAdded":
        """Embeds the images of a folder that are new or changed, and adds them, a few hundred in a transaction.

        Names are paths relative to the folder. Labels of an image come from the CSV, else from the arguments, else
        from names like Market-1501's (0002_c1s1_000451_03.jpg). An image without new labels keeps those it has.

        Args:
          folder: of the images; subfolders are searched, too.
          relative_to: a folder above it, for names to be relative to.
          csv_file: with the columns path, and person, camera and time where they are known.
          person: of all images.
          camera: of all images.
          time: of all images; "modified" for the time of each file's last change.
          replace: images of a known name replace those of another folder, instead of being refused.
          progress: whether a bar is shown.

        Raises:
          FileNotFoundError: no such folder.
          ValueError: one line: no images in it, or the arguments do not go together.
          OSError: as `add`.
        """
        from mancs_jax.gallery.folder import add_folder

        embedder = self.embedder
        self._create(embedder.width)
        added = add_folder(
            self.store,
            partial(_embed_files, embedder),
            folder,
            relative_to=relative_to,
            csv_file=csv_file,
            person=person,
            camera=camera,
            time=time,
            replace=replace,
            by_camera=bool(embedder.cameras),
            progress=progress,
        )
        self.store.refresh()
        return added

    def embed_again(self, folder: str | Path | None = None, *, progress: bool = True) -> int:
        """Replaces all embeddings by those of this object's network, which may be another one.

        A process that is killed loses little: the next call resumes. Searches use the old embeddings until all new
        ones are there.

        Args:
          folder: that has the images; by default each is read where it was added from.
          progress: whether a bar is shown.

        Returns:
          Number of images.

        Raises:
          ValueError: one line: images are missing or have changed, or no network was given.
        """
        from mancs_jax.gallery.folder import embed_again

        store = self._existing
        if isinstance(self._network, str | Path):
            from mancs_jax.inference.embedder import load  # not at the top: it imports jax

            self._network = load(self._network)
        if self._network is None:
            raise ValueError(f"{store.place}: images need a model: Gallery(..., network='market1501')")
        embedder = self._network
        facts = _facts_of(embedder)
        while True:
            left = store.embed_again(facts)
            embed_again(store, partial(_embed_files, embedder), left, folder, progress)
            if not store.finish_embedding_again(facts):
                break
        self.__dict__.pop("embedder", None)
        store.refresh()
        return len(self)

    def add_file(self, path: str | Path) -> Added:
        """Adds the embeddings of a file of `mancs embed` (.npz).

        Raises:
          FileNotFoundError, ValueError: one line: no such file, or its network is another one.
        """
        from mancs_jax.inference.gallery import load_gallery

        read = load_gallery(path)
        self._create(read.embedding.shape[1], read.network, flip=read.flip, normalize=read.normalize)
        people: list[str | None] | None = None
        cameras: list[str | None] | None = None
        if read.pid is not None:
            shown = [read.shown(i) or ("", "") for i in range(len(read.name))]
            people = [person if pid > 0 else None for (person, _), pid in zip(shown, read.pid, strict=True)]
            cameras = [camera or None for _, camera in shown]
        added = Added()
        for start in range(0, len(read.name), AT_ONCE):
            block = slice(start, start + AT_ONCE)
            added_block = self.add(
                read.embedding[block],
                read.name[block].tolist(),
                person=people and people[block],
                camera=cameras and cameras[block],
            )
            added = Added(*(a + b for a, b in zip(added, added_block, strict=True)))
        self.store.refresh()
        return added

    def search(
        self,
        query: Any,
        k: int = 10,
        *,
        person: Label | Iterable[Label] | None = None,
        camera: Label | Iterable[Label] | None = None,
        name: str | None = None,
        since: Moment | None = None,
        before: Moment | None = None,
        distance: str = "euclidean",
        max_distance: Limit = None,
        by_person: bool = False,
        index: bool = False,
        leave_out: Callable[[Image], bool] | None = None,
        query_camera: int | str | None = None,
    ) -> list[list[Match]]:
        """Finds the nearest images of each query, among those that match the filters.

        Filters are applied before distances are computed, so there are k results if k images match them.

        Args:
          query: embeddings float32 [Q, D], or images, as `Embedder` takes them.
          k: results of a query, at least 1.
          person: label, or several of which any one holds.
          camera: likewise.
          name: pattern of names: `*` stands for any text, `?` for one letter.
          since: earliest time, as "2026-11-30", "2026-11-30T14:05", a datetime or seconds since 1970 UTC.
          before: images have to be older.
          distance: "euclidean" or "cosine".
          max_distance: images beyond it are not returned; None for no limit. A threshold of
            `mancs_jax.threshold_of` has to belong to this distance and to the embeddings of the gallery.
          by_person: only the nearest image of each person is returned; an image without a person counts for itself.
          index: use an approximate index, which is made, or made again, if it is missing or too old; with filters the
            search is exact.
          leave_out: images for which this is true are not returned.
          query_camera: of query images, for a network that is adapted to cameras, see `Embedder`.

        Returns:
          Of each query, its results, nearest first.

        Raises:
          FileNotFoundError, ValueError: one line: no gallery, or the arguments are not as above.
        """
        from mancs_jax.evaluation.distances import check_distance  # not at the top: it imports jax

        check_distance(distance)
        if k < 1:
            raise ValueError(f"k is {k}: it must be at least 1")
        filter = make_filter(person, camera, name, since, before)
        store, number = self._existing, k
        facts = self.facts
        limit = checked_limit(max_distance, distance, normalize=facts.normalize, flip=facts.flip, network=facts.network)
        embedding = self._embedded(query, query_camera, distance)
        while True:
            found = store.nearest(embedding, number, filter, distance, index=index)
            kept, is_enough = [], True
            for matches in found:
                near = [match for match in matches if limit is None or match.distance <= limit]
                answers = [match for match in near if leave_out is None or not leave_out(match.image)]
                answers = _nearest_of_each(answers) if by_person else answers
                kept.append(answers[:k])
                is_enough &= len(answers) >= k or len(near) < number
            if is_enough:
                return kept
            number *= GROWTH

    def forget(
        self,
        *,
        person: Label | Iterable[Label] | None = None,
        camera: Label | Iterable[Label] | None = None,
        name: str | None = None,
        since: Moment | None = None,
        before: Moment | None = None,
        receipt: str | Path | None = None,
    ) -> Receipt:
        """Deletes images, and verifies that no file of the gallery contains anything of them.

        Their rows are deleted in one transaction, and overwritten in every file: the database, its log and the cache.
        The approximate indexes are removed. Then all files are searched for the bytes of the embeddings, names, labels
        and hashes. Without filters, it only completes a deletion that an earlier call could not verify.

        Args:
          person: as for `search`; an image has to match all filters.
          camera: likewise.
          name: likewise.
          since: likewise.
          before: likewise; an image without a time is neither before nor after anything.
          receipt: JSON file to write.

        Raises:
          FileNotFoundError: no gallery.
          ValueError: one line: a filter is not as above.
          OSError: as `add`; or the receipt cannot be written, and nothing was deleted.
        """
        filter = make_filter(person, camera, name, since, before)
        store = self._existing
        if receipt is not None:
            receipt = local_path(receipt)
            check_writable(receipt)
        now = store.forget(filter) if filter != filters.Filter() else None
        pending = store.pending()
        proof = store.prove(np.sort(np.concatenate([of.traces for of in pending]), order="key")) if pending else None
        is_proved = proof is None or (proof.is_complete and not proof.found)
        if is_proved:
            store.settle([of.change for of in pending])
        values: dict[str, Any] = {
            "gallery": store.place,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "mancs_jax": __version__,
            "forgotten": [
                {
                    "conditions": filters.described(filter)
                    if now and of.change == now.change
                    else "of an earlier call",
                    "images": of.images,
                    "date": _date(of.at),
                }
                for of in pending
            ],
            "images_left": len(self),
        }
        if proof is not None:
            values |= {
                "searched_for": proof.searched,
                "not_searched_for": NOT_SEARCHED_FOR,
                "files": proof.files,
                "found": proof.found,
                "shared_with_images_that_stay": proof.shared,
                "proved": is_proved,
                "notes": proof.notes,
                "out_of_reach": store.out_of_reach,
            }
        if receipt is not None:
            write_json(receipt, values)
        return Receipt(
            now.images if now else 0, is_proved, proof.found if proof else 0, proof.notes if proof else [], values
        )

    def images(self, **conditions: Any) -> Iterator[Image]:
        """Yields the images that match filters, see `search`, by their names."""
        filter = make_filter(**conditions)
        return self._existing.images(filter)

    def people(self, **conditions: Any) -> list[Person]:
        """The people of the images that match filters, see `search`, most images first."""
        filter = make_filter(**conditions)
        return self._existing.people(filter)

    def cameras(self, **conditions: Any) -> dict[str | None, int]:
        """Camera -> number of images that match filters, see `search`; None for images without a camera."""
        filter = make_filter(**conditions)
        return self._existing.cameras(filter)

    def export(self, path: str | Path, **conditions: Any) -> int:
        """Writes a file as of `mancs embed` (.npz) of the images that match filters, see `search`.

        It has pid and camid if all people and cameras are whole numbers.

        Returns:
          The number of images.

        Raises:
          ValueError: one line: no image matches the filters, or a filter cannot be read.
        """
        from mancs_jax.inference.gallery import Gallery as Embeddings
        from mancs_jax.inference.gallery import write_gallery

        filter, store = make_filter(**conditions), self._existing
        path = local_path(path)
        check_writable(path)
        with store.reading():
            facts = store.facts()
            images = {image.id: image for image in store.images(filter)}
            blocks = list(store.embeddings(filter))
        if not blocks:
            raise ValueError(f"{store.place}: no image matches these filters")
        ordered = [images[i] for ids, _ in blocks for i in ids.tolist()]
        pid, camid = (_whole_numbers([getattr(of, name) for of in ordered]) for name in ("person", "camera"))
        if pid is None or camid is None:
            pid = camid = None
        write_gallery(
            path,
            Embeddings(
                np.concatenate([rows for _, rows in blocks]),
                np.array([of.name for of in ordered]),
                facts.network,
                facts.flip,
                facts.normalize,
                pid,
                camid,
            ),
        )
        return len(ordered)

    def check(self) -> list[str]:
        """Checks all files of the gallery; a line for each fault, none where it is sound."""
        store = self._existing
        faults = store.find_faults()
        for of in store.pending():
            faults.append(
                f"{of.images:,} images deleted on {_date(of.at)} are not verified to be gone: run mancs gallery "
                "forget without filters"
            )
        return faults

    def build_index(self, distance: str = "euclidean") -> dict[str, float]:
        """Makes the approximate index of `search(..., index=True)` anew, which does so by itself where it is needed.

        Returns:
          Its recall@10, with images of the gallery as queries ("entries"), and with new "queries".

        Raises:
          ValueError: one line: the gallery is empty, or the distance is none.
          ImportError: FAISS is not installed.
        """
        from mancs_jax.evaluation.distances import check_distance  # not at the top: it imports jax

        check_distance(distance)
        return self._existing.build_index(distance)

    def refresh(self) -> bool:
        """Prepares the next search: brings the cache up to date. False where that is not possible now."""
        return self._existing.refresh()

    @property
    def _existing(self) -> Store:
        if not self.store.exists():
            raise FileNotFoundError(
                f"{self.store.place}: no such gallery; mancs gallery add FOLDER --gallery={self.store.place} makes one"
            )
        return self.store

    def _create(self, width: int, network: str = "", *, flip: bool = False, normalize: bool = False) -> None:
        """Makes the gallery, where there is none, and refuses embeddings that do not belong into it."""
        embedder = self.embedder if self._network is not None else None
        wanted = Facts(network, width, flip, normalize, {}) if embedder is None else _facts_of(embedder)
        if embedder is not None and network:
            _check_same(self.store.place, wanted, Facts(network, width, flip, normalize, {}))
        if not self.store.exists():
            self.store.create(wanted)
        facts = self.store.facts()
        if width != facts.width:
            raise ValueError(f"{self.store.place} has embeddings {facts.width} wide, and these are {width} wide")
        if embedder is not None or network:
            _check_same(self.store.place, facts, wanted)

    def _check(self, embedder: "Embedder") -> None:
        _check_same(self.store.place, self.store.facts(), _facts_of(embedder))

    def _embedded(self, query: Any, camera: int | str | None, distance: str) -> np.ndarray:
        from mancs_jax.evaluation.distances import checked_norms  # not at the top: it imports jax

        if isinstance(query, np.ndarray) and query.dtype.kind == "f":
            query = checked_embedding("query", query)
        else:
            query = self.embedder(query, camera=camera)
        checked_norms("query", query, distance)
        width = self.store.facts().width
        if query.shape[1] != width:
            raise ValueError(
                f"{self.store.place} has embeddings {width} wide, and the query's is {query.shape[1]} wide"
            )
        return query


def _embed_files(embedder: "Embedder", files: list[Path], cameras: list[str | None]) -> np.ndarray:
    """Embeds files, by an adapted network with the statistics of their cameras, where it knows them."""
    known = set(embedder.cameras)
    camera = [label if label in known else "" for label in cameras] if known else None
    return embedder(files, camera=camera, progress=False)


def _open_store(place: str | Path) -> Store:
    if isinstance(place, str) and place.startswith(POSTGRES):
        from mancs_jax.gallery.postgres import PostgresStore  # needs the extra

        return PostgresStore(place)
    return SqliteStore(local_path(place))


def _facts_of(embedder: "Embedder") -> Facts:
    return Facts(embedder.network, embedder.width, embedder.flip, embedder.normalize, embedder.card)


def _check_same(place: str, facts: Facts, other: Facts) -> None:
    if facts.network != other.network:
        raise ValueError(
            f"{place} was embedded by another model, or by another step of its training: take that one, or embed "
            "the images again (mancs gallery add FOLDER --embed_again)"
        )
    if (facts.flip, facts.normalize) != (other.flip, other.normalize):
        raise ValueError(
            f"{place} was embedded with flip={facts.flip}, normalize={facts.normalize}, and this model has "
            f"flip={other.flip}, normalize={other.normalize}"
        )


def _nearest_of_each(matches: list[Match]) -> list[Match]:
    """The first match of each person; all of those without one."""
    seen: set[str] = set()
    kept = []
    for match in matches:
        if match.image.person not in seen:
            kept.append(match)
        if match.image.person is not None:
            seen.add(match.image.person)
    return kept


def _column(values: Any, number: int) -> list:
    """A value for each of so many images, of one for all or of one for each."""
    if values is None or isinstance(values, str) or not hasattr(values, "__len__"):
        return [values] * number
    if len(values) != number:
        raise ValueError(f"{len(values):,} labels or times do not go with {number:,} images")
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def _whole_numbers(labels: Sequence[str | None]) -> np.ndarray | None:
    try:
        return np.array([int(label) for label in labels if label is not None], np.int32) if None not in labels else None
    except (ValueError, OverflowError):
        return None


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
