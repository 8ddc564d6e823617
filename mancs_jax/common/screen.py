"""Prints to stdout and stderr, whose failures end no work.

The reader of a pipe may end (`| head`), the disk of a log may be full, and a terminal may be unable to show a letter:
each of these would raise in `print`.
"""

import re
import sys
from typing import Any, TextIO

from tqdm import tqdm

# Bytes of a file name that are not UTF-8, as Python represents them in text (PEP 383).
NO_UTF8 = re.compile("[\udc80-\udcff]")
# File names may contain any of these; tabs and line ends are our own.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Steady:
    """A text stream that ignores failures and escapes what it cannot encode."""

    def __init__(self, stream: TextIO):
        """Writes to `stream`, and delegates everything else to it."""
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(encodable(text, getattr(self._stream, "encoding", None) or "utf-8"))
        except Exception:  # also at the end of a process, when Python has cleared this module
            return len(text)

    def writelines(self, lines) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except Exception:
            return


def keep_going() -> None:
    """Makes stdout and stderr of this process `Steady`, also for libraries and at the end of the process."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Steady):
            setattr(sys, name, Steady(stream))


def show(text: str) -> None:
    """Prints a text, line ends included, on stdout."""
    _print(sys.stdout, text)


def tell(text: str) -> None:
    """Prints a text on stderr: progress, warnings and notes."""
    _print(sys.stderr, text)


def bar(*arguments: Any, **options: Any) -> tqdm:
    """Makes a progress bar on stderr; arguments as tqdm's."""
    return tqdm(*arguments, file=Steady(sys.stderr), **options)


def escaped(name: str) -> str:
    """Returns a name on one line: control characters as \\x1b, \\n and the like."""
    return CONTROL.sub(_code, name).replace("\n", "\\n").replace("\t", "\\t")


def encodable(text: str, encoding: str) -> str:
    """Returns a text that an encoding has: bytes of names that are not UTF-8 as \\xff, other letters as \\u2026."""
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        text = NO_UTF8.sub(lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", text)
        return text.encode(encoding, "backslashreplace").decode(encoding)


def _print(stream: TextIO | None, text: str) -> None:
    if stream is not None:
        steady = stream if isinstance(stream, Steady) else Steady(stream)
        steady.write(f"{CONTROL.sub(_code, text)}\n")
        steady.flush()


def _code(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"
