"""Starts work before its results are read."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def pipelined(started: Iterable[T], ahead: int = 1) -> Iterator[T]:
    """Yields the items in order, each only after the next `ahead` have been taken from `started`.

    JAX returns before a computation ends. An iterable that starts a computation per item therefore keeps the device
    busy while the reader waits, with at most `ahead` + 1 results in memory.
    """
    running: deque[T] = deque()
    for item in started:
        running.append(item)
        if len(running) > ahead:
            yield running.popleft()
    yield from running
