"""Log records of Orbax and tensorstore that repeat, over pages, an error that they also raise."""

import sys
from collections.abc import Callable
from functools import partial
from logging import ERROR, LogRecord, getLogger
from traceback import walk_tb
from typing import Any

from absl import logging

# Orbax about a file that holds only times; a checkpoint is whole without it.
ON_TIMES = ("Metadata file does not exist: ", "Failed to json parse Metadata file: ", "Failed to read Metadata file: ")
# Orbax about a directory that is opened to read, as it is meant to be.
ON_READING = ("CheckpointManagerOptions.read_only=True", "Given directory is read")


def leave_out_echoes() -> None:
    """Keeps repeated errors of Orbax and tensorstore off stderr, where our one line would be lost among them."""
    for logger in (logging.get_absl_logger(), getLogger("asyncio")):
        logger.addFilter(is_no_echo)
    if getattr(sys.unraisablehook, "func", None) is not _report:
        sys.unraisablehook = partial(_report, sys.unraisablehook)


def is_no_echo(record: LogRecord) -> bool:
    """Returns whether a record is neither an Orbax error that is also raised, nor a note on times or on reading."""
    message = record.getMessage()
    if message.startswith(ON_READING) or ("_CHECKPOINT_METADATA" in message and message.startswith(ON_TIMES)):
        return False
    if record.levelno < ERROR or not record.exc_info:
        return True
    # asyncio reports tasks that nobody waits for any more: Orbax may stand only in the traceback of their error.
    raised_in = (frame.f_code.co_filename for frame, _ in walk_tb(record.exc_info[2]))
    origin = " ".join((record.pathname, message, *raised_in))
    return not any(name in origin for name in ("/orbax/", "OCDBT"))


def _report(before: Callable[[Any], Any], unraisable: Any) -> None:
    """Reports an error as before, except those of writes that end after a failed save has closed their loop."""
    if str(unraisable.exc_value) != "Event loop is closed":
        before(unraisable)
