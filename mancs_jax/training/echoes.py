"""Notes of Orbax and tensorstore that say again, over pages, what an error of theirs says as well."""

import sys
from collections.abc import Callable
from functools import partial
from logging import ERROR, LogRecord, getLogger
from typing import Any

from absl import logging

# Orbax on a file that holds times alone: without it a checkpoint is whole, and damage elsewhere has a line of its own.
ON_TIMES = ("Metadata file does not exist: ", "Failed to json parse Metadata file: ", "Failed to read Metadata file: ")


def leave_out_echoes() -> None:
    """Keeps off stderr what Orbax and tensorstore print of an error that they also raise: pages before our line."""
    leave_out_notes()
    getLogger("asyncio").addFilter(is_no_echo)
    if getattr(sys.unraisablehook, "func", None) is not _report:
        sys.unraisablehook = partial(_report, sys.unraisablehook)


def leave_out_notes() -> None:
    """As `leave_out_echoes`, for whoever reads alone."""
    logging.get_absl_logger().addFilter(is_no_echo)


def is_no_echo(record: LogRecord) -> bool:
    """Tells if a record is no error of orbax with its traceback, which it raises as well, and no note on times."""
    if "_CHECKPOINT_METADATA" in record.getMessage() and record.getMessage().startswith(ON_TIMES):
        return False
    where = f"{record.pathname} {record.getMessage()}"  # asyncio tells of tasks that nobody waits for any more
    return record.levelno < ERROR or not record.exc_info or not any(name in where for name in ("/orbax/", "OCDBT"))


def _report(before: Callable[[Any], Any], unraisable: Any) -> None:
    """Reports an error as before, but for the many of writes that end after a failed save has closed their loop."""
    if str(unraisable.exc_value) != "Event loop is closed":
        before(unraisable)
