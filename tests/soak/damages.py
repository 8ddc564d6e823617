"""Ways to damage the bytes of a file, for the fuzz."""

from collections.abc import Callable

import numpy as np

Damage = Callable[[np.random.Generator, bytes], bytes]


def flip(rng: np.random.Generator, content: bytes) -> bytes:
    """Changes one to sixteen bytes."""
    damaged = bytearray(content)
    for at in rng.integers(0, max(len(damaged), 1), rng.integers(1, 17)):
        if damaged:
            damaged[at] = rng.integers(0, 256)
    return bytes(damaged)


def cut(rng: np.random.Generator, content: bytes) -> bytes:
    """Drops the end."""
    return content[: rng.integers(0, len(content) + 1)]


def drop(rng: np.random.Generator, content: bytes) -> bytes:
    """Drops a piece."""
    start, end = sorted(rng.integers(0, len(content) + 1, 2))
    return content[:start] + content[min(end, start + 64) :]


def zero(rng: np.random.Generator, content: bytes) -> bytes:
    """Writes zeros over a piece, as a file system does after a crash."""
    start = int(rng.integers(0, len(content) + 1))
    length = int(rng.integers(1, 65))
    return content[:start] + bytes(len(content[start : start + length])) + content[start + length :]


def repeat(rng: np.random.Generator, content: bytes) -> bytes:
    """Writes a piece twice."""
    start, end = sorted(rng.integers(0, len(content) + 1, 2))
    return content[:end] + content[start:end][:4096] + content[end:]


def number(rng: np.random.Generator, content: bytes) -> bytes:
    """Puts another number in the place of one that is text, as in JSON, CSV and the heads of arrays."""
    places = [i for i, byte in enumerate(content) if 48 <= byte <= 57]
    if not places:
        return flip(rng, content)
    at = int(rng.choice(places))
    new = rng.choice([b"-1", b"0", b"9" * 30, b"1e999", b"null", b"[]", b"'", b"2147483648", b"NaN", b'{"a": 1}'])
    return content[:at] + bytes(new) + content[at + 1 :]


DAMAGES: tuple[Damage, ...] = (flip, cut, drop, zero, repeat, number)
