"""TensorBoard's event files, written by the thread that trains: a full disk is an error there, in one line.

tensorboardX's own writer has a thread and a hook at the end of the process. Both end in pages of traceback.
"""

import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar


def open_board(folder: Path, step: int) -> EventsWriter:
    """Opens an event file of a run that stands at `step`; TensorBoard hides later steps of files before it.

    Raises:
      OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    board = EventsWriter(str(folder / "events"))
    start = SessionLog(status=SessionLog.START)
    board.write_event(Event(wall_time=time.time(), step=step + 1, session_log=start))
    return board


def add_scalar(board: EventsWriter, name: str, value: float, step: int) -> None:
    """Adds a number to an event file; `flush` or `close` of the file takes it to the disk.

    Raises:
      OSError: it cannot be written.
    """
    board.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
