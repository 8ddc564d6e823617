"""Exported files of the tiny network."""

from pathlib import Path

from tiny_workdir import copy_written, write_workdir

from mancs_jax.inference.export import export
from mancs_jax.publish import export_network


def write_exports(place: Path) -> Path:
    """Writes a workdir w, and files of every kind made of it."""
    copy_written(_write_exports, place)
    return place


def _write_exports(place: Path) -> None:
    write_workdir(place / "w")
    export(place / "w", place / "n.jax")
    export(place / "w", place / "n.onnx")
    export(place / "w", place / "float.onnx", input="float")
    export(place / "w", place / "flip.onnx", flip=True, format="onnx")
    export_network(place / "w", "n", place, dtype="float32", scores=False)
