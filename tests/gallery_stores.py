"""Galleries for tests: embeddings that are known, a network that is none, and both kinds of databases."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from postgres_server import NoServer, running_server

from mancs_jax.gallery.gallery import Gallery

WIDTH = 24
NETWORK = "0123456789abcdef0123456789abcdef"


class Pixels:
    """An embedder that takes the first bytes of a file for its embedding: files of one content have one embedding."""

    flip, normalize, image_size, card, cameras = False, False, (8, 4), {"use": "for tests"}, ()

    def __init__(self, network: str = NETWORK, width: int = WIDTH):
        """Another network gives other embeddings."""
        self.network, self.width, self.calls = network, width, []

    def __call__(self, images, camera=None, progress: bool = True) -> np.ndarray:
        """float32 [N, D]; a known camera adds its number."""
        files = [images] if isinstance(images, str | Path) else list(images)
        self.calls.append(len(files))
        embedding = np.stack([self.embed(Path(file).read_bytes()) for file in files])
        camera = np.broadcast_to("" if camera is None else np.array(camera, str), len(files))
        return embedding + np.float32([int(name) if name in self.cameras else 0 for name in camera])[:, None]

    def embed(self, content: bytes) -> np.ndarray:
        """The embedding of one file."""
        seed = list(content[-64:] + self.network.encode())
        return np.random.default_rng(seed).standard_normal(self.width, dtype=np.float32)


def drawn(number: int, seed: int = 0, width: int = WIDTH) -> np.ndarray:
    """Embeddings float32 [number, width]."""
    return np.random.default_rng(seed).standard_normal((number, width), dtype=np.float32)


def names_of(number: int, of: str = "2026-11") -> list[str]:
    """Names of images, all different."""
    return [f"{of}/cam{i % 5}/image_{i:06d}.jpg" for i in range(number)]


def fill(gallery: Gallery, number: int = 200, seed: int = 0) -> np.ndarray:
    """Adds images of 40 people under 5 cameras, one a minute; returns their embeddings."""
    embedding = drawn(number, seed)
    index = range(number)
    gallery.add(
        embedding,
        names_of(number),
        person=[i % 40 for i in index],
        camera=[i % 5 for i in index],
        time=[60.0 * i for i in index],
        network=NETWORK,
    )
    return embedding


def by_loops(query, embedding, keep, k, distance="euclidean") -> list[tuple[int, float]]:
    """(row, distance) of the k nearest in float64, of equal distances the lower row first."""
    query, embedding = query.astype(np.float64), embedding.astype(np.float64)
    found = []
    for row in np.flatnonzero(keep).tolist():
        if distance == "cosine":
            cosine = query @ embedding[row] / np.linalg.norm(query) / np.linalg.norm(embedding[row])
            found.append((1 - cosine, row))
        else:
            found.append((float(np.linalg.norm(query - embedding[row])), row))
    return [(row, at) for at, row in sorted(found)[:k]]


def files_of(place: Path) -> dict[Path, bytes]:
    """The content of every file below a folder, read by another process: closing a file here drops SQLite's locks."""
    files = [path for path in sorted(place.rglob("*")) if path.is_file()]
    return {path: subprocess.run(["cat", str(path)], capture_output=True, check=True).stdout for path in files}


def left_of(contents: dict[Path, bytes], names: list[str], embedding: np.ndarray, piece: int = 16) -> list[str]:
    """What is left in files of deleted images: each name as a whole, each embedding in pieces."""
    everything = b"\n\n\n\n".join(contents.values())
    found = [name for name in names if name.encode() in everything]
    width = 4 * embedding.shape[1]
    for row, content in enumerate(
        np.ascontiguousarray(embedding, "<f4").tobytes()[i * width : (i + 1) * width] for i in range(len(embedding))
    ):
        if any(content[start : start + piece] in everything for start in range(0, width - piece + 1, piece)):
            found.append(f"embedding {row}")
    return found


@pytest.fixture(scope="session")
def server() -> Iterator[tuple[str, Path]]:
    """A PostgreSQL server for all tests of a process: (URL, data directory)."""
    try:
        with running_server() as found:
            yield found
    except NoServer as reason:
        pytest.skip(f"no PostgreSQL with pgvector here: {reason}")


@pytest.fixture(params=["sqlite", "postgres"])
def place(request, tmp_path) -> str:
    """Where a gallery is to be made, in each kind of database."""
    if request.param == "sqlite":
        return str(tmp_path / "people.gallery")
    import psycopg

    url, _ = request.getfixturevalue("server")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute("DROP SCHEMA IF EXISTS mancs CASCADE")
    return url


@pytest.fixture
def gallery(place) -> Iterator[Gallery]:
    """An open gallery, still without images."""
    with Gallery(place) as found:
        yield found
