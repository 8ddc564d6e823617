"""The files of a gallery: nothing of deleted images is left, caches may go, and damage gets one line."""

import errno
import os
import shutil
import sqlite3
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from gallery_stores import NETWORK, WIDTH, by_loops, drawn, files_of, fill, left_of, names_of
from gallery_stress import work_together

from mancs_jax.gallery import sqlite, traces
from mancs_jax.gallery.gallery import Gallery
from mancs_jax.gallery.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "people.gallery"


def right(gallery: Gallery, embedding: np.ndarray, keep: np.ndarray, query: np.ndarray) -> bool:
    """Whether a search gives what loops give."""
    [matches] = gallery.search(query[None], 500)
    expected = [names_of(len(embedding))[row] for row, _ in by_loops(query, embedding, keep, 500)]
    return [match.image.name for match in matches] == expected


def odd_names(number: int, rng: np.random.Generator) -> list[str]:
    """Names in no order, so that pages of the index of names are split."""
    return [f"{rng.integers(2**40):x}/person_{i:05d}_{rng.integers(2**30):x}.jpg" for i in range(number)]


@pytest.mark.parametrize("width", [WIDTH, 320])
def test_200_of_2000_deleted_leave_no_bytes(path, width):
    rng = np.random.default_rng(width)
    embedding, names = drawn(2000, width=width), odd_names(2000, rng)
    with Gallery(path) as gallery:
        for start in range(0, 2000, 250):
            block = slice(start, start + 250)
            people = [f"person-{i % 400:03d}" for i in range(start, start + 250)]
            gallery.add(embedding[block], names[block], person=people, network=NETWORK)
            gallery.search(embedding[:1], 1)  # writes the cache
        gone = rng.choice(400, 40, replace=False)
        receipt = gallery.forget(person=[f"person-{i:03d}" for i in gone])
        assert receipt.images == 200 and receipt.is_proved
        rows = np.flatnonzero(np.isin(np.arange(2000) % 400, gone))
        contents = files_of(path.parent)
        assert left_of(contents, [names[row] for row in rows], embedding[rows]) == []
        assert left_of(contents, [f"person-{i:03d}" for i in gone], embedding[:0]) == []
        assert len(left_of(contents, names[:20], embedding[:20])) >= 30  # of others all is there
        assert gallery.check() == [] and len(gallery) == 1800


def test_200_of_2000_deleted_leave_no_bytes_in_the_files_of_postgresql(server):
    import psycopg

    url, data = server
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute("DROP SCHEMA IF EXISTS mancs CASCADE")
    rng = np.random.default_rng(5)
    embedding, names = drawn(2000), odd_names(2000, rng)
    with Gallery(url) as gallery:
        gallery.add(embedding, names, person=[f"person-{i % 400:03d}" for i in range(2000)], network=NETWORK)
        gallery.build_index()
        gallery.store.run("ANALYZE")  # statistics hold values, too
        gone = rng.choice(400, 40, replace=False)
        people = [f"person-{i:03d}" for i in gone]
        rows = np.flatnonzero(np.isin(np.arange(2000) % 400, gone))
        gallery.store.run("CHECKPOINT")
        assert len(left_of(files_of(data / "base"), [names[row] for row in rows], embedding[rows])) == 400
        receipt = gallery.forget(person=people)
        assert receipt.images == 200 and receipt.is_proved
        assert left_of(files_of(data / "base"), [names[row] for row in rows] + people, embedding[rows]) == []
        assert gallery.check() == [] and len(gallery) == 1800
        assert len(gallery.search(embedding[:1], 10, index=True)[0]) == 10


def test_copies_in_the_gaps_of_pages_are_found_and_removed(path, monkeypatch):
    looks = []
    look = SqliteStore._look
    monkeypatch.setattr(SqliteStore, "_look", lambda self, wanted: looks.append(look(self, wanted)) or looks[-1])
    with Gallery(path) as gallery:
        fill(gallery)
        secret = drawn(1, seed=7)
        gallery.add(secret, ["secret/name.jpg"])
        # As a page that was split: bytes of a row between those that count.
        gallery.store.run("CREATE TABLE gap (text TEXT)")
        gallery.store.run("INSERT INTO gap VALUES ('secret/name.jpg')")
        gallery.store.run("PRAGMA secure_delete = OFF")
        gallery.store.run("DELETE FROM gap")
        gallery.store.run("PRAGMA secure_delete = ON")
        receipt = gallery.forget(name="secret/*")
        assert receipt.is_proved and [int(found.sum()) for _, found in looks] == [1, 0]
    assert left_of(files_of(path.parent), ["secret/name.jpg"], secret) == []


def test_bytes_that_cannot_be_removed_are_told(path, monkeypatch):
    with Gallery(path) as gallery:
        fill(gallery)
        (path.parent / "people.gallery.cache").mkdir(exist_ok=True)
        gallery.search(drawn(1), 1)
        monkeypatch.setattr(sqlite.Cache, "remove_leftovers", lambda *_: None)
        (path.parent / "people.gallery.cache" / "stray").write_bytes(b"xx" + names_of(200)[3].encode() + b"yy")
        receipt = gallery.forget(person=3)
        assert not receipt.is_proved and receipt.found == 1 and receipt.values["proved"] is False
        assert gallery.check()[-1].startswith("5 images deleted on ")
        (path.parent / "people.gallery.cache" / "stray").unlink()
        receipt = gallery.forget()
        assert receipt.is_proved and receipt.images == 0
        assert receipt.values["forgotten"][0] | {"date": ""} == {
            "conditions": "of an earlier call",
            "images": 5,
            "date": "",
        }
        assert gallery.check() == []


def test_a_reader_of_an_older_state_delays_the_proof(path, monkeypatch):
    monkeypatch.setattr(sqlite, "READERS_S", 0.05)
    with Gallery(path) as gallery, Gallery(path) as reader:
        embedding = fill(gallery)
        with reader.store.reading():
            assert len(reader) == 200
            receipt = gallery.forget(person=3)
            assert not receipt.is_proved and "another process still reads an older state" in receipt.notes[0]
            assert len(reader) == 200 and len(gallery) == 195  # each its own state
        again = gallery.forget(person=3)
        assert again.is_proved and again.images == 0 and again.values["forgotten"][0]["images"] == 5
        rows = np.arange(3, 200, 40)
        assert left_of(files_of(path.parent), [names_of(200)[row] for row in rows], embedding[rows]) == []


def test_traces_at_every_offset_and_across_blocks(monkeypatch):
    monkeypatch.setattr(traces, "BLOCK", 64)
    embedding = drawn(2, width=64)
    wanted = traces.traces_of(["name/of.jpg", "a.jp", "abc"], [b"h" * 16], embedding, 2)
    assert traces.counted(wanted) == {"texts": 2, "hashes": 1, "pieces_of_embeddings": 8}
    rng = np.random.default_rng(0)
    for offset in range(70):
        noise = rng.integers(0, 256, offset, dtype=np.uint8).tobytes()
        content = noise + b"name/of.jpg" + b"?" + embedding[1, 16:40].tobytes() + noise + b"za.jpg"
        blocks = [content[start : start + 13] for start in range(0, len(content), 13)]
        found = wanted[traces.find(blocks, wanted)]
        assert sorted(found["kind"].tolist()) == [traces.TEXT, traces.TEXT, traces.EMBEDDING, traces.EMBEDDING]
    assert not traces.find([b"name/og.jpg" * 50, bytes(1000), embedding[0, 1:].tobytes()[:14]], wanted).any()
    assert traces.find([], wanted).sum() == 0


def test_numbers_and_short_texts_are_no_traces():
    texts = ["7", "1021", "0123abc", "01234567", "bob", "ellen", "añb"]
    assert traces.counted(traces.traces_of(texts, [], [], 0))["texts"] == 3  # 01234567, ellen and añb


def test_zeros_are_no_traces():
    embedding = np.zeros((1, 64), np.float32)
    embedding[0, :4] = [1, 2, 3, 4]
    assert traces.counted(traces.traces_of([], [], embedding, 1))["pieces_of_embeddings"] == 1


def test_a_deleted_cache_loses_nothing(path):
    with Gallery(path) as gallery:
        embedding, everything = fill(gallery), np.ones(200, bool)
        assert right(gallery, embedding, everything, embedding[3])
        shutil.rmtree(f"{path}.cache")
        assert right(gallery, embedding, everything, embedding[4])
        shutil.rmtree(f"{path}.cache")
    with Gallery(path) as gallery:
        assert right(gallery, embedding, everything, embedding[5]) and gallery.check() == []


@pytest.mark.parametrize("damage", ["state", "cut", "empty", "other", "rows gone"])
def test_a_damaged_cache_is_written_again(path, damage):
    with Gallery(path) as gallery:
        embedding = fill(gallery)
        gallery.search(embedding[:1], 1)
    cache = path.parent / "people.gallery.cache"
    rows = next(cache.glob("rows.*"))
    if damage == "state":
        (cache / "state.json").write_text("{")
    elif damage == "cut":
        os.truncate(rows, 4000)
    elif damage == "empty":
        (cache / "state.json").write_bytes(b"")
    elif damage == "rows gone":
        rows.unlink()
    else:  # that of another gallery, which has the same name and other embeddings
        with Gallery(path.parent / "other.gallery") as other:
            fill(other, seed=3)
            other.search(embedding[:1], 1)
        shutil.rmtree(cache)
        shutil.copytree(path.parent / "other.gallery.cache", cache)
    with Gallery(path) as gallery:
        assert right(gallery, embedding, np.ones(200, bool), embedding[3]) and gallery.check() == []


def test_a_database_from_a_backup_beside_a_newer_cache(path):
    with Gallery(path) as gallery:
        embedding = fill(gallery, 100)
    backup = path.read_bytes()
    with Gallery(path) as gallery:
        gallery.add(drawn(100, seed=1), names_of(100, "lost"))
        gallery.search(embedding[:1], 1)
    path.write_bytes(backup)
    with Gallery(path) as gallery:
        gallery.add(drawn(100, seed=2), names_of(100, "other"))  # other embeddings under the ids of the lost ones
        [matches] = gallery.search(drawn(100, seed=2)[3:4], 1)
        assert (matches[0].image.name, matches[0].distance) == (names_of(100, "other")[3], 0.0)
        assert gallery.check() == []


def test_a_cache_that_cannot_be_written(path, monkeypatch):
    """As on a full or read-only disk: the embeddings come from the database."""

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Gallery(path) as gallery:
        embedding, everything = fill(gallery), np.ones(200, bool)
        gallery.search(embedding[:1], 1)
        monkeypatch.setattr(sqlite.Cache, "_write", refuse)
        gallery.add(drawn(3, seed=4), ["x", "y", "z"])
        [matches] = gallery.search(drawn(3, seed=4)[1:2], 1)
        assert matches[0].image.name == "y"  # of the rows that came since
        receipt = gallery.forget(name="?")
        assert receipt.is_proved and not list(path.parent.glob("*.cache/rows*"))  # cannot be overwritten: removed
        assert right(gallery, embedding, everything, embedding[3])
        assert left_of(files_of(path.parent), [], drawn(3, seed=4)) == []


def test_many_deletions_make_a_smaller_cache(path):
    with Gallery(path) as gallery:
        embedding = fill(gallery)
        gallery.search(embedding[:1], 1)
        gallery.forget(before=60.0 * 90)
        keep = np.arange(200) >= 90
        assert gallery.store.cache.state().rows == 200  # overwritten, not moved
        assert right(gallery, embedding, keep, embedding[3])
        gallery.forget(before=60.0 * 150)
        assert gallery.store.cache.state().rows == 50
        assert right(gallery, embedding, np.arange(200) >= 150, embedding[3])


def test_rows_that_are_erased_during_a_search_make_it_begin_again(path, monkeypatch):
    with Gallery(path) as gallery, Gallery(path) as other:
        embedding = fill(gallery)
        gallery.search(embedding[:1], 1)
        nearest, calls = sqlite.exact.nearest, []

        def slow(*arguments):
            found = nearest(*arguments)
            if not calls:
                calls.append(other.forget(person=3).images)
            return found

        monkeypatch.setattr(sqlite, "READERS_S", 0.01)
        monkeypatch.setattr(sqlite.exact, "nearest", slow)
        assert right(gallery, embedding, np.arange(200) % 40 != 3, embedding[3]) and calls == [5]


def test_an_index_holds_nothing_of_what_was_deleted_meanwhile(path, monkeypatch):
    from mancs_jax.gallery import approximate

    monkeypatch.setattr(sqlite, "READERS_S", 0.01)
    with Gallery(path) as gallery, Gallery(path) as other:
        embedding = fill(gallery)
        build, calls = approximate.build, []

        def slow(*arguments):
            found = build(*arguments)
            if not calls:
                calls.append(other.forget(person=3).is_proved)
            return found

        monkeypatch.setattr(approximate, "build", slow)
        gallery.build_index()
        assert calls == [True]
        rows = np.arange(3, 200, 40)
        assert left_of(files_of(path.parent), [], embedding[rows]) == []
        assert len(left_of(files_of(path.parent), [], embedding[:3])) == 3
        other.forget(person=4)
        assert not list(path.parent.glob("*.cache/index*"))


def write_foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE image (id)")
    connection.commit()
    connection.close()


def write_newer(path: Path) -> None:
    with Gallery(path) as gallery:
        fill(gallery, 5)
        gallery.store.run("PRAGMA user_version = 2")


def write_cut(path: Path) -> None:
    with Gallery(path) as gallery:
        fill(gallery)
    os.truncate(path, path.stat().st_size // 2)


def write_damaged(path: Path) -> None:
    with Gallery(path) as gallery:
        fill(gallery)
    content = bytearray(path.read_bytes())
    content[8192:] = np.random.default_rng(0).integers(0, 256, len(content) - 8192, dtype=np.uint8).tobytes()
    path.write_bytes(content)


def write_npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, embedding=np.ones(3))


@pytest.mark.parametrize(
    ("write", "line"),
    [
        (lambda path: path.write_bytes(b""), "is no gallery, or is damaged"),
        (lambda path: path.write_bytes(b"SQLite format 3"), "is no gallery, or is damaged"),
        (lambda path: path.write_text("path,person\n"), "is no gallery, or is damaged"),
        (lambda path: path.mkdir(), "is a folder: give the file of a gallery"),
        (write_npz, "is a file of mancs embed: mancs gallery add"),
        (write_foreign, "is a database of another program, no gallery"),
        (write_newer, r"was written by a newer version of mancs_jax \(schema 2; this one reads 1\)"),
        (write_cut, "is damaged .*: restore it from a backup"),
        (write_damaged, "is damaged .*: restore it from a backup"),
    ],
)
def test_files_that_are_no_gallery_stay_as_they_are(path, write, line):
    write(path)
    before = files_of(path.parent)
    with pytest.raises(ValueError, match=f"{path} {line}") as error, Gallery(path) as gallery:
        faults = gallery.check()
        if faults:
            raise ValueError(f"{path} is damaged ({faults[0]}): restore it from a backup")
    assert "\n" not in str(error.value)
    after = {
        file: content for file, content in files_of(path.parent).items() if not file.name.endswith(("-wal", "-shm"))
    }
    assert after == before


@contextmanager
def small_disk(folder: Path, size: int):
    """A file system in memory, which root alone can mount."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def test_a_full_disk_changes_nothing(tmp_path):
    with small_disk(tmp_path / "disk", 2**20) as disk, Gallery(disk / "people.gallery") as gallery:
        embedding = fill(gallery)
        for number in range(100):
            before = len(gallery)
            try:
                gallery.add(drawn(200, seed=number, width=WIDTH), names_of(200, f"more{number}"))
            except OSError as error:
                assert "the disk is full" in str(error) and "\n" not in str(error)
                break
        assert len(gallery) == before and gallery.check() == []
        [matches] = gallery.search(embedding[3:4], 1)
        assert matches[0].distance == 0
        shutil.rmtree(disk / "people.gallery.cache", ignore_errors=True)
        assert gallery.search(embedding[3:4], 1)[0] == matches
        with pytest.raises(OSError, match="No space left"):
            (disk / "filler").write_bytes(bytes(2**20))
        with pytest.raises(OSError, match="people2.gallery"), Gallery(disk / "people2.gallery") as other:
            fill(other, 5)
        assert not list(disk.glob("*people2*"))


@pytest.mark.parametrize("free", range(0, 400_000, 16384))
def test_a_gallery_is_made_as_a_whole_or_not_at_all(tmp_path, free):
    with small_disk(tmp_path / "disk", 2**20) as disk:
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - free))
        try:
            with Gallery(disk / "people.gallery") as gallery:
                fill(gallery, 5)
        except OSError as error:
            assert "\n" not in str(error)
        (disk / "filler").unlink()
        assert [path.name for path in disk.iterdir() if path.name.startswith(".")] == []
        with Gallery(disk / "people.gallery") as gallery:
            assert len(gallery) in (0, 5)
            fill(gallery, 5)
            assert len(gallery) == 5 and gallery.check() == []


def test_a_second_name_of_a_gallery_is_no_leftover_to_overwrite(path):
    with Gallery(path) as gallery:
        fill(gallery)
    os.link(path, path.with_name(f".{path.name}.12345"))  # as of a process that was killed while it made the gallery
    with Gallery(path) as gallery:
        assert gallery.forget(person=3).is_proved and gallery.check() == [] and len(gallery) == 195
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []


def test_a_read_only_disk_can_be_searched(tmp_path):
    with small_disk(tmp_path / "disk", 2**23) as disk:
        with Gallery(disk / "people.gallery") as gallery:
            embedding = fill(gallery)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        before = files_of(disk)
        with Gallery(disk / "people.gallery") as gallery:
            assert right(gallery, embedding, np.ones(200, bool), embedding[3])
            assert len(gallery.people()) == 40 and gallery.check() == []
            for act in (lambda: gallery.add(drawn(1), ["x"]), lambda: gallery.forget(person=3)):
                with pytest.raises(OSError, match="people.gallery cannot be written .*read-only") as error:
                    act()
                assert "\n" not in str(error.value)
        with pytest.raises(OSError, match="new.gallery cannot be made"), Gallery(disk / "new.gallery") as other:
            fill(other, 5)
        assert files_of(disk) == before


def test_two_writers_and_four_readers(path):
    work_together(path, 15)
