"""Lines for people to read, on stdout and stderr. A screen that fails ends no work.

The reader of a pipe may go away (`| head`), the disk of a log may be full, and a terminal may have no letter for a
name. Each of these raises in `print`.
"""

import re
import sys
from typing import Any, TextIO

from tqdm import tqdm

# Bytes of a file name that are no UTF-8, as Python keeps them in text (PEP 383).
NO_UTF8 = re.compile("[\udc80-\udcff]")
# A file name may hold any of these. Tabs and line ends are ours.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Steady:
    """A text stream whose failures are nobody's: it writes what it can, and escapes what it cannot encode."""

    def __init__(self, stream: TextIO):
        """Writes to `stream`, and is like it in all else."""
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes a text, or loses it."""
        try:
            return self._stream.write(encodable(text, getattr(self._stream, "encoding", None) or "utf-8"))
        except Exception:  # of the stream; at the end of a process, of this module, which Python has cleared
            return len(text)

    def writelines(self, lines) -> None:
        """Writes some texts, or loses them."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Writes out what is buffered, or loses it."""
        try:
            self._stream.flush()
        except Exception:
            return


def keep_going() -> None:
    """Makes stdout and stderr of this process `Steady`: for commands, also for what libraries print, and at the end."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Steady):
            setattr(sys, name, Steady(stream))


def show(text: str) -> None:
    """Prints a text, line ends included, on stdout."""
    _print(sys.stdout, text)


def tell(text: str) -> None:
    """Prints a text on stderr: progress, warnings, and what to know besides a result."""
    _print(sys.stderr, text)


def bar(*arguments: Any, **options: Any) -> tqdm:
    """Makes a progress bar on stderr; arguments as tqdm's."""
    return tqdm(*arguments, file=Steady(sys.stderr), **options)


def escaped(name: str) -> str:
    """Returns a name on one line: control characters as \\x1b, \\n and the like."""
    return CONTROL.sub(_code, name).replace("\n", "\\n").replace("\t", "\\t")


def encodable(text: str, encoding: str) -> str:
    """Returns a text that an encoding can take: bytes of names that are no UTF-8 as \\xff, other letters as \\u2026."""
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        text = NO_UTF8.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)
        return text.encode(encoding, "backslashreplace").decode(encoding)


def _print(stream: TextIO | None, text: str) -> None:
    if stream is not None:
        steady = stream if isinstance(stream, Steady) else Steady(stream)
        steady.write(f"{CONTROL.sub(_code, text)}\n")
        steady.flush()


def _code(found: re.Match[str]) -> str:
    return f"\\x{ord(found[0]):02x}"
