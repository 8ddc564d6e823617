"""Exported files for the fuzz: a file to damage, all files of the case, and the reader."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mancs_jax.inference import exported
from mancs_jax.inference.export import export

Case = tuple[str, dict[str, bytes], Callable[[Path], object]]


def cases(place: Path) -> dict[str, Case]:
    """Exported files of the tiny network in place/w; once as they come, and once with a digest that is mended."""
    export(place / "w", place / "n.jax")
    good = {name: (place / name).read_bytes() for name in ("n.jax", "n.jax.json")}

    def seal(at: Path) -> object:
        try:
            card = json.loads((at / "n.jax.json").read_bytes())
            card["exported"]["file"] = exported.digest((at / "n.jax").read_bytes())
            (at / "n.jax.json").write_text(json.dumps(card))
        except (ValueError, TypeError, KeyError, RecursionError):
            pass  # no card any more
        return open_jax(at)

    def open_jax(at: Path) -> object:
        return exported.open_exported(at / "n.jax", batch=1)

    found = {
        "jax.export": ("n.jax", good, open_jax),
        "jax.export, sealed": ("n.jax", good, seal),
        "card": ("n.jax.json", good, seal),
    }
    try:
        from mancs_jax.inference import onnx_file
    except ImportError:
        return found
    export(place / "w", place / "n.onnx")

    def open_onnx(at: Path) -> object:
        image = np.zeros((1, 64, 32, 3), np.uint8)
        return list(exported.open_exported(at / "n.onnx", batch=1).run_batches([image]))

    def sealed_onnx(at: Path) -> object:
        digest, onnx_file.digest = onnx_file.digest, lambda graph: sealed
        try:
            return open_onnx(at)
        finally:
            onnx_file.digest = digest

    onnx_good = {"n.onnx": (place / "n.onnx").read_bytes()}
    sealed = exported.open_exported(place / "n.onnx", batch=1).card["exported"]["file"]
    return found | {"onnx": ("n.onnx", onnx_good, open_onnx), "onnx, sealed": ("n.onnx", onnx_good, sealed_onnx)}
