"""Work that runs ahead of the reader of its results."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def pipelined(started: Iterable[T], ahead: int = 1) -> Iterator[T]:
    """Yields the items in their order, each only after the next `ahead` have been taken from `started`.

    JAX returns before a computation ends. An iterable that starts one computation for each item therefore keeps the
    device busy while the reader waits for the item before, and holds no more than `ahead` + 1 of them in memory.
    """
    running: deque[T] = deque()
    for item in started:
        running.append(item)
        if len(running) > ahead:
            yield running.popleft()
    yield from running
