"""Refuses forked processes, which would hang: a fork copies no threads, and JAX and ONNX Runtime need theirs."""

import os

_computes: int | None = None  # pid of the process that computed first; forked processes inherit it


def check_not_forked() -> None:
    """Raises RuntimeError, one line, where this process was forked from one that has computed already."""
    global _computes
    if _computes is None:
        _computes = os.getpid()
    if _computes != os.getpid():
        raise RuntimeError(
            f"process {os.getpid()} was forked from process {_computes}, which has loaded a model or searched, and "
            "would hang: load the model in each worker (gunicorn without --preload), or start workers "
            "by spawn (DataLoader with multiprocessing_context='spawn')"
        )
