"""Adding to a gallery, opening it, and searching it with and without a filter, beside NumPy, FAISS flat and pgvector.

    python benchmarks/gallery.py [--images=1000000] [--width=320] [--folder=DIR] [--postgres | --postgres_url=URL]

Embeddings are drawn as in benchmarks/search.py, and written to a .npy file in a temporary folder, or in DIR. A million
of width 320 takes 1.3 GB, and a gallery of them twice as much, with its cache. The filter is one camera of a hundred,
whose images are spread over the gallery. Each round has another query and another camera; the implementations are
asked one after the other, each in a process of its own.

NumPy and FAISS flat hold all embeddings in memory. Memory of the gallery is that of its process beyond the mapped files
(RssAnon of /proc/self/status). --postgres starts a server as the tests do. --postgres_url takes one that is running;
a gallery of so many images in it is used as it is, and the tables of any other are deleted.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from measure import in_fresh_process, measured, megabytes, report, taking_turns
from search import draw, write

from mancs_jax.gallery.gallery import Gallery

K, CAMERAS, AT_ONCE, IMAGES_A_PERSON = 10, 100, 50_000, 20
LEAST_ROWS_PER_S, LONGEST_OPENING_S, SLOWEST, SHARE_OF_FILTER, MOST_BYTES = 50_000, 0.1, 1.2, 0.1, 200 * 10**6


def names_of(rows: range) -> list[str]:
    """Names as of a folder a camera and an hour."""
    return [f"camera{i % CAMERAS:02d}/{i // 3600:05d}/{i:09d}.jpg" for i in rows]


def add_all(place: str, embeddings: Path) -> dict[str, float]:
    """Adds all embeddings to a new gallery; to be called in a fresh process.

    Returns:
      add_s, of the transactions alone, and prepare_s, until it can be searched.
    """
    embedding, seconds = np.load(embeddings, mmap_mode="r"), 0.0
    with Gallery(place) as gallery:
        for start in range(0, len(embedding), AT_ONCE):
            rows = range(start, min(start + AT_ONCE, len(embedding)))
            block, names = np.array(embedding[start : rows.stop]), names_of(rows)
            people, cameras = [i // IMAGES_A_PERSON for i in rows], [i % CAMERAS for i in rows]
            times = [1.7e9 + i for i in rows]
            begin = time.perf_counter()
            gallery.add(block, names, person=people, camera=cameras, time=times, network="drawn")
            seconds += time.perf_counter() - begin
        begin = time.perf_counter()
        gallery.refresh()
        return {"add_s": seconds, "prepare_s": time.perf_counter() - begin}


def opening(place: str) -> float:
    """Seconds, a median, until a gallery is open and its facts are read; to be called in a fresh process."""
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        with Gallery(place) as gallery:
            assert gallery.facts.width
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def memory(place: str, query: np.ndarray) -> int | None:
    """The most memory without a file behind it that searches take; to be called in a fresh process."""

    def search() -> None:
        with Gallery(place) as gallery:
            for number, of_query in enumerate(query):
                gallery.search(of_query[None], K)
                gallery.search(of_query[None], K, camera=number % CAMERAS)

    return measured(search, anonymous=True)[1]["peak_bytes"]


def asked(query: np.ndarray, find_all, find_filtered, find_together):
    """A function that asks the next query: seconds of it, of it with a filter, and of all together; the answers."""
    count = iter(range(10**9))

    def ask() -> dict[str, Any]:
        number = next(count)
        of_query, camera = query[number % len(query)][None], (7 * number) % CAMERAS
        times, answers = [], []
        for find in (lambda: find_all(of_query), lambda: find_filtered(of_query, camera), find_together):
            begin = time.perf_counter()
            answers.append(find())
            times.append(time.perf_counter() - begin)
        return {"times": times, "answers": answers[:2]}

    return ask


def ask_gallery(place: str, query: np.ndarray):
    """A gallery in a file or a server; answers are the numbers in names."""
    gallery = Gallery(place)

    def numbers(found) -> list[int]:
        return [int(match.image.name[-13:-4]) for match in found[0]]

    return asked(
        query,
        lambda of: numbers(gallery.search(of, K)),
        lambda of, camera: numbers(gallery.search(of, K, camera=camera)),
        lambda: gallery.search(query, K),
    )


def ask_numpy(embeddings: Path, query: np.ndarray):
    """Embeddings and cameras in memory."""
    held = np.load(embeddings)
    half_squared, cameras = np.vecdot(held, held) / 2, np.arange(len(held)) % CAMERAS

    def nearest(of: np.ndarray, rows: np.ndarray, half: np.ndarray) -> np.ndarray:
        values = half - of @ rows.T
        near = np.argpartition(values, min(K, len(rows) - 1), axis=1)[:, :K]
        return np.take_along_axis(near, np.argsort(np.take_along_axis(values, near, axis=1), axis=1), axis=1)

    def filtered(of: np.ndarray, camera: int) -> list[int]:
        chosen = np.flatnonzero(cameras == camera)
        return chosen[nearest(of, held[chosen], half_squared[chosen])[0]].tolist()

    return asked(
        query,
        lambda of: nearest(of, held, half_squared)[0].tolist(),
        filtered,
        lambda: nearest(query, held, half_squared),
    )


def ask_faiss(embeddings: Path, query: np.ndarray):
    """A flat index in memory; the filter is a bitmap of its own."""
    import faiss

    held = np.load(embeddings)
    index, cameras = faiss.IndexFlatL2(held.shape[1]), np.arange(len(held)) % CAMERAS
    index.add(held)
    del held

    def filtered(of: np.ndarray, camera: int) -> list[int]:
        bitmap = np.packbits(cameras == camera, bitorder="little")
        selector = faiss.IDSelectorBitmap(bitmap)
        return index.search(of, K, params=faiss.SearchParameters(sel=selector))[1][0].tolist()

    return asked(query, lambda of: index.search(of, K)[1][0].tolist(), filtered, lambda: index.search(query, K))


def row_of(
    way: str, turns: list[dict], exact: list[dict], queries: int, added: dict | None = None, **more: Any
) -> dict:
    """A row of the table, of the times of all rounds."""
    one, filtered, together = (1e3 * statistics.median(turn["times"][i] for turn in turns) for i in range(3))
    pairs = [(a, b) for turn, right in zip(turns, exact) for a, b in zip(turn["answers"], right["answers"])]
    return {
        "way": way,
        "rows/s, added": None if added is None else round(added["rows"] / added["add_s"]),
        "s to prepare": None if added is None else added["prepare_s"],
        "ms to open": more.get("open_ms"),
        "ms, one query": one,
        "ms, 1 % of it": filtered,
        f"ms a query, {queries} together": together / queries,
        "MB beyond the file": more.get("memory"),
        "equal answers": f"{np.mean([a == b for a, b in pairs]):.3f}",
    }


def measure(folder: Path, flags: argparse.Namespace, stack: ExitStack) -> tuple[list[dict], dict[str, float]]:
    """The rows of the table, and what the aims are about."""
    embeddings = folder / f"embeddings_{flags.images}_{flags.width}.npy"
    if not embeddings.exists():
        write(embeddings, flags.images, flags.width, 1.0)
    people = np.random.default_rng(1).integers(0, max(flags.images // IMAGES_A_PERSON, 1), flags.queries)
    query = draw(people, flags.width, 1.0, seed=1)
    place = str(folder / f"{flags.images}_{flags.width}.gallery")
    added = of_server = None  # of a gallery that is there already
    if not Path(place).exists():
        added = {"rows": flags.images} | in_fresh_process(add_all, place, embeddings)
    open_s = in_fresh_process(opening, place)
    most = in_fresh_process(memory, place, query[:5])
    sides: dict[str, tuple] = {
        "NumPy, in memory": (ask_numpy, embeddings, query),
        "Gallery, a file": (ask_gallery, place, query),
        "FAISS flat, in memory": (ask_faiss, embeddings, query),
    }
    if flags.postgres or flags.postgres_url:
        url = flags.postgres_url or stack.enter_context(server())
        if number_of_images(url) != flags.images:
            empty(url)
            of_server = {"rows": flags.images} | in_fresh_process(add_all, url, embeddings)
        sides["Gallery, PostgreSQL"] = (ask_gallery, url, query)
    turns = taking_turns(sides, flags.rounds)
    exact = turns["NumPy, in memory"]
    known = {
        "Gallery, a file": {"added": added, "open_ms": 1e3 * open_s, "memory": megabytes(most)},
        "Gallery, PostgreSQL": {"added": of_server},
    }
    rows = [row_of(way, of_way, exact, flags.queries, **known.get(way, {})) for way, of_way in turns.items()]
    numpy_ms, ours = rows[0]["ms, one query"], rows[1]
    return rows, {
        "rows_per_s": flags.images / added["add_s"] if added else math.inf,
        "open_s": open_s,
        "of_numpy": ours["ms, one query"] / numpy_ms,
        "of_unfiltered": ours["ms, 1 % of it"] / ours["ms, one query"],
        "bytes": most or 0,
    }


def server():
    """A PostgreSQL server as the tests start one: a context that gives its URL."""
    from contextlib import contextmanager

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from postgres_server import running_server

    @contextmanager
    def url():
        with running_server({"shared_buffers": "2GB", "max_wal_size": "4GB"}) as (found, _):
            yield found

    return url()


def number_of_images(url: str) -> int:
    """Images of the gallery in a database; 0 where there is none."""
    with Gallery(url) as gallery:
        return len(gallery)


def empty(url: str) -> None:
    """Deletes the tables of a gallery."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute("DROP SCHEMA IF EXISTS mancs CASCADE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=320, help="of the embeddings")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folder", type=Path, help="keeps embeddings and gallery for the next run")
    parser.add_argument("--postgres", action="store_true", help="measure a gallery in PostgreSQL, too")
    parser.add_argument("--postgres_url", help="of a database whose gallery may be deleted")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    flags = parser.parse_args()
    if flags.images < CAMERAS * K or min(flags.width, flags.queries, flags.rounds) < 1:
        parser.error(f"--images must be at least {CAMERAS * K}, the other numbers at least 1")
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = flags.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            rows, figures = measure(folder, flags, stack)
        except (ValueError, OSError, ImportError) as error:
            sys.exit(f"gallery: {error}")
    report(rows, flags.json, images=flags.images, width=flags.width, queries=flags.queries, **figures)
    missed = [
        f"{name} is {figures[name]:.3g}, not {'at least' if least else 'at most'} {limit:g}"
        for name, limit, least in (
            ("rows_per_s", LEAST_ROWS_PER_S, True),
            ("open_s", LONGEST_OPENING_S, False),
            ("of_numpy", SLOWEST, False),
            ("of_unfiltered", SHARE_OF_FILTER, False),
            ("bytes", MOST_BYTES, False),
        )
        if (figures[name] < limit if least else figures[name] > limit)
    ]
    if missed:
        sys.exit(f"gallery: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
