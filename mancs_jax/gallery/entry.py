"""The values that travel between a gallery and its user: images, matches, and the facts of the gallery itself."""

import hashlib
from typing import Any, NamedTuple

HASH_BYTES = 16


class Facts(NamedTuple):
    """A gallery's own facts. Embeddings of another network, or made in another way, cannot be compared with its own."""

    network: str  # fingerprint of the network, 32 hex digits
    width: int  # of an embedding, D
    flip: bool  # embeddings are means over an image and its mirror image
    normalize: bool  # embeddings have norm 1
    card: dict[str, Any]  # model card of the network; {} if not given


class Image(NamedTuple):
    """An image of the gallery."""

    id: int  # never used twice: another embedding or other labels make it another number
    name: str  # path relative to `folder`; unique
    person: str | None
    camera: str | None
    time: float | None  # seconds since 1970-01-01 UTC
    folder: str | None  # absolute path; None where embeddings came without images
    hash: bytes  # of the source, 16 bytes: of the file, or of the embedding where there was no file


class Record(NamedTuple):
    """An image to be added."""

    name: str
    person: str | None
    camera: str | None
    time: float | None
    folder: str | None
    hash: bytes


class Match(NamedTuple):
    """A result of a query."""

    distance: float
    image: Image


class Added(NamedTuple):
    """Numbers of images, by what adding them did."""

    new: int = 0
    replaced: int = 0  # had the name, with another content or other labels
    unchanged: int = 0


class Person(NamedTuple):
    """A person of the gallery, or its images without one (`person` None)."""

    person: str | None
    images: int
    cameras: int  # number of different cameras
    first: float | None  # earliest time
    last: float | None


def hash_of(content: bytes) -> bytes:
    """The hash of an image's source, HASH_BYTES."""
    return hashlib.blake2b(content, digest_size=HASH_BYTES).digest()
