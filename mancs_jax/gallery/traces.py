"""Looks for the bytes of deleted images in files: the proof that a gallery has forgotten them.

A trace is a digest of some bytes, so traces can be kept while the bytes themselves are already gone. Of an embedding
there is one trace of 16 bytes in every 64, so that any fragment of 80 bytes is found. Texts and hashes are searched as
a whole. The last 8 bytes of a trace (4 of short ones), multiplied, are its key: a file is looked through at every
offset for the keys, and the digest decides.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np

TEXT, HASH, EMBEDDING = range(3)  # kinds
TRACE = np.dtype([("key", "<u8"), ("length", "<u4"), ("kind", "u1"), ("digest", "V16")])
PIECE, STEP = 16, 64  # bytes of an embedding that are a trace, and from one to the next
MOST_PIECES = 2**20  # of all embeddings together; of more images, fewer pieces each
SHORTEST = 4  # bytes of a text that is searched for
LONG = 8  # bytes of one that may be a number: shorter numbers are in every file, as counts, dates and tokens
NUMBER = re.compile(rb"[0-9a-f]*")
NOT_SEARCHED_FOR = f"texts below {SHORTEST} bytes, and numbers below {LONG} bytes, which are in every file by chance"
BLOCK = 4 * 2**20  # bytes that are looked through at a time
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # makes keys out of bytes (Fibonacci hashing): no two of one


def traces_of(
    texts: Iterable[str], hashes: Iterable[bytes], embeddings: Iterable[np.ndarray], number: int
) -> np.ndarray:
    """Makes traces, TRACE [T], sorted by key.

    Args:
      texts: names of the images, and their labels and folders; without `NOT_SEARCHED_FOR`.
      hashes: of their sources.
      embeddings: float32 [D] each. Pieces with two equal numbers have no trace, since zeros are everywhere.
      number: of embeddings.
    """
    contents = [(TEXT, text.encode()) for text in texts] + [(HASH, digest) for digest in hashes]
    contents = [each for each in contents if len(each[1]) >= (LONG if NUMBER.fullmatch(each[1]) else SHORTEST)]
    for row in embeddings:
        content = row.astype("<f4").tobytes()
        starts = range(0, max(len(content) - PIECE, 0) + 1, STEP)
        for start in starts[:: max(-(-len(starts) * number // MOST_PIECES), 1)]:
            if len(set(row[start // 4 : (start + PIECE) // 4].tolist())) == PIECE // 4:
                contents.append((EMBEDDING, content[start : start + PIECE]))
    traces = [(_key(content), len(content), kind, _digest(content)) for kind, content in dict.fromkeys(contents)]
    return np.sort(np.array(traces, TRACE), order="key")


def from_bytes(content: bytes) -> np.ndarray:
    """Traces that were kept as the bytes of their array."""
    return np.frombuffer(content, TRACE)


def counted(traces: np.ndarray) -> dict[str, int]:
    """Number of traces of each kind."""
    kinds = {"texts": TEXT, "hashes": HASH, "pieces_of_embeddings": EMBEDDING}
    return {name: int(np.count_nonzero(traces["kind"] == kind)) for name, kind in kinds.items()}


def find(blocks: Iterable[bytes], traces: np.ndarray) -> np.ndarray:
    """Looks through consecutive blocks of bytes.

    Args:
      blocks: the parts of one content, in order.
      traces: TRACE [T], sorted by key.

    Returns:
      bool [T], whether each trace is there.
    """
    is_found = np.zeros(len(traces), bool)
    if not len(traces):
        return is_found
    overlap = int(traces["length"].max()) - 1
    searches = [
        _Search(traces, np.flatnonzero(is_of_kind), width)
        for width, is_of_kind in ((8, traces["length"] >= 8), (4, traces["length"] < 8))  # as `_key`
        if is_of_kind.any()
    ]

    def overlapping():
        before = b""
        for block in _joined(blocks):
            yield before + block
            before = (before + block)[-overlap:] if overlap else b""

    parts, workers = overlapping(), os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        while several := list(islice(parts, workers)):  # a pool's own map would read the whole file ahead
            for found_by_search in pool.map(lambda part: [search(part) for search in searches], several):
                for numbers in found_by_search:
                    is_found[numbers] = True
    return is_found


def _joined(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same content in blocks of at least BLOCK bytes."""
    parts, size = [], 0
    for block in blocks:
        parts.append(block)
        size += len(block)
        if size >= BLOCK:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


class _Search:
    """Traces whose keys have 8 bytes, or 4, as a function of bytes to the traces in them."""

    def __init__(self, traces: np.ndarray, of_width: np.ndarray, width: int):
        self.width, self.kind = width, np.dtype(f"<u{width}")
        self.traces, self.of_width = traces, of_width
        self.keys = traces["key"][of_width].astype(np.uint64)
        bits = min(max(len(of_width).bit_length() + 6, 12), 24)
        self.shift = np.uint64(64 - bits)
        self.may_be = np.zeros(2**bits, bool)  # by the first bits of a key
        self.may_be[self.keys >> self.shift] = True

    def __call__(self, content: bytes) -> list[int]:
        found = []
        for shift in range(self.width):
            number = (len(content) - shift) // self.width
            if number <= 0:
                break
            keys = np.frombuffer(content[shift : shift + number * self.width], self.kind).astype(np.uint64) * FACTOR
            hits = np.flatnonzero(self.may_be[keys >> self.shift])
            first = np.searchsorted(self.keys, keys[hits])
            last = np.searchsorted(self.keys, keys[hits], side="right")
            for hit, i, j in zip(hits[first < last].tolist(), first[first < last], last[first < last]):
                end = shift + (hit + 1) * self.width
                found += [t for t in self.of_width[i:j].tolist() if self._is_at(content, end, t)]
        return found

    def _is_at(self, content: bytes, end: int, trace: int) -> bool:
        start = end - int(self.traces["length"][trace])
        return start >= 0 and _digest(content[start:end]) == self.traces["digest"][trace].tobytes()


def _key(content: bytes) -> int:
    last = content[-8:] if len(content) >= 8 else content[-4:]
    return int.from_bytes(last, "little") * int(FACTOR) % 2**64


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).digest()
