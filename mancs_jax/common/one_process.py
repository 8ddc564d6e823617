"""One line where a forked process would hang: neither JAX nor ONNX Runtime survives a fork, which copies no threads."""

import os

_computes: int | None = None  # the process that computes first; processes forked from it inherit the number


def check_not_forked() -> None:
    """Notes the process that computes.

    Raises:
      RuntimeError: one line: this process was forked from one that has computed already.
    """
    global _computes
    if _computes is None:
        _computes = os.getpid()
    if _computes != os.getpid():
        raise RuntimeError(
            f"process {os.getpid()} was forked from process {_computes}, which has loaded a network or searched, and "
            "would wait for ever: load the network in each worker (gunicorn without --preload), or start workers "
            "by spawn (DataLoader with multiprocessing_context='spawn')"
        )
