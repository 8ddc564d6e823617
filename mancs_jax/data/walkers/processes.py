"""Renders with all cores: each process takes its share of the pictures, and they come in the order of `render`."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

from mancs_jax.data.walkers.dataset import render

MOST = 8  # processes: more would start for a few pictures each
SHARE = "from mancs_jax.data.walkers.processes import write_share; write_share({}, {}, {})"


def render_all(seed: int = 0, processes: int | None = None, **counts: int) -> Iterator[tuple[str, str, bytes]]:
    """Yields what `render` yields.

    The processes are started anew, not forked: this one may run JAX, whose threads do not outlive a fork. They end
    when nobody reads on.

    Args:
      seed: as `render`.
      processes: how many; one for each core by default, at most 8.
      **counts: as `render`.

    Raises:
      ChildProcessError: a process ended too early; what it printed stands on stderr.
    """
    shares = max(1, processes or min(os.cpu_count() or 1, MOST))
    package = str(Path(__file__).parents[3])  # where this one found it
    paths = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    children: list[subprocess.Popen] = []
    try:
        for first in range(shares):
            # -P: nothing in the current folder is imported.
            command = [sys.executable, "-P", "-c", SHARE.format((first, shares), int(seed), counts)]
            environment = os.environ | {"PYTHONPATH": paths}
            # A session of its own: Ctrl-C is for this process, which ends the others.
            child = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True)
            children.append(child)
        for child in cycle(children):
            assert child.stdout is not None
            try:
                picture = pickle.load(child.stdout)
            except EOFError:  # where all went well it had one picture fewer than the others, or all had as many
                if status := child.wait():
                    raise ChildProcessError(f"walkers: a process that renders ended with status {status}") from None
                return
            except pickle.UnpicklingError as error:  # cut off, or something else was printed
                raise ChildProcessError(f"walkers: a process that renders gave no picture ({error})") from None
            yield picture
    finally:
        for child in children:
            child.kill()
            child.communicate()


def write_share(share: tuple[int, int], seed: int, counts: dict[str, Any]) -> None:
    """Writes a share of the pictures to stdout, pickled; arguments as for `render`."""
    try:
        for picture in render(seed, **counts, share=share):
            pickle.dump(picture, sys.stdout.buffer)
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
