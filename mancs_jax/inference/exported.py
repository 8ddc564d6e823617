"""Exported files, ONNX and `jax.export`, opened by their card: functions from pixels to embeddings."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import stablehlo
from jax.interpreters.mlir import make_ir_context
from jaxtyping import Float32, UInt8
from ml_collections import ConfigDict

from mancs_jax.common.fingerprint import fingerprint
from mancs_jax.common.pipelined import pipelined
from mancs_jax.common.quoted import reason_of
from mancs_jax.config.checks import from_json
from mancs_jax.data.augment import MEAN, STD
from mancs_jax.inference.contract import JAX, check_exported, read_json_card
from mancs_jax.inference.forward import AHEAD

CONTRACT = ".json"  # next to a `jax.export` file, after its whole name
JAX_SUFFIX, ONNX_SUFFIX = ".jax", ".onnx"
ONNX_START = b"\x08"  # the first field of an ONNX file is its version
# Calls into jaxlib that the program of a network has: a check that a batch is not empty.
CALLS = frozenset({"shape_assertion"})


class Exported(NamedTuple):
    """An exported file as a function."""

    card: dict[str, Any]
    config: ConfigDict  # of the training
    run_batches: Callable[[Iterable[UInt8[np.ndarray, "B H W 3"]]], Iterator[Float32[np.ndarray, "B D"]]]


def open_exported(
    path: Path, *, batch: int, flip: bool = False, devices: Sequence[jax.Device] | None = None
) -> Exported:
    """Opens a file of `mancs export`; everything that can be checked is checked before anything of it runs.

    Args:
      path: of the file.
      batch: images that go through a `jax.export` file together; an ONNX file takes any number.
      flip: whether the embeddings of mirror images have to be averaged with; a file that does so does it always.
      devices: for a `jax.export` file one device, the first local one by default; for an ONNX file none.

    Raises:
      FileNotFoundError: a `jax.export` file without its card.
      ValueError: one line: damaged, not as its card says, or an argument that does not apply.
      ImportError: ONNX, and its libraries are not installed.
    """
    if is_onnx(path):
        if devices is not None:
            raise ValueError(f"{path}: ONNX Runtime chooses its device; leave devices out")
        # Not at the top: the libraries are an extra.
        from mancs_jax.inference.onnx_file import open_onnx, read_onnx

        content, card = read_onnx(path)
        _check_flip(card, flip, path)
        run = open_onnx(content, path)
        return Exported(card, from_json(card["config"]), lambda batches: (run(_input(x, card)) for x in batches))
    content, card = read_jax(path)
    _check_flip(card, flip, path)
    call, device = open_jax(content, card, path, devices)
    return Exported(card, from_json(card["config"]), lambda batches: _run_jax(call, device, batches, batch, card))


def is_onnx(path: Path) -> bool:
    """Returns whether a file is read as ONNX: by its suffix, or by its first byte where no card is next to it."""
    if path.suffix == ONNX_SUFFIX or card_path(path).is_file():
        return path.suffix == ONNX_SUFFIX
    with path.open("rb") as file:
        return file.read(1) == ONNX_START


def card_path(path: Path) -> Path:
    """The path of the card of a `jax.export` file: mancs.jax has mancs.jax.json."""
    return path.with_name(f"{path.name}{CONTRACT}")


def read_jax(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Reads a `jax.export` file and its card; nothing of it is parsed before its digest is right.

    Raises FileNotFoundError without a card next to it, and ValueError where the card is damaged or of another file.
    """
    if not card_path(path).is_file():
        raise FileNotFoundError(
            f"{path}: no model in it: it is no ONNX file, and {card_path(path).name}, the card of a jax.export "
            "file, is not next to it; mancs export writes both"
        )
    card = read_json_card(card_path(path))
    check_exported(card, JAX, card_path(path))
    content = path.read_bytes()
    if digest(content) != card["exported"]["file"]:
        raise ValueError(f"{path} is damaged, or {card_path(path).name} is the card of another file; get both again")
    return content, card


def digest(content: bytes) -> str:
    """Returns 32 hex digits that depend on every byte."""
    return fingerprint(np.frombuffer(content, np.uint8))


def open_jax(
    content: bytes, card: dict[str, Any], path: Path, devices: Sequence[jax.Device] | None
) -> tuple[Callable, jax.Device]:
    """Makes a compiled function of the bytes that `read_jax` returned, and the device that it runs on.

    Raises ValueError, one line, where it is not a program of `mancs export` for this device, or there are several
    devices.
    """
    devices = jax.local_devices()[:1] if devices is None else devices
    if len(devices) != 1:
        raise ValueError(
            f"{path}: an exported file runs on one device, not {len(devices)}: give one, or load a workdir"
        )
    try:
        exported = jax.export.deserialize(bytearray(content))
        calls = _calls(exported.mlir_module_serialized)
        inputs, outputs = [
            [(str(each.dtype), each.shape[1:]) for each in avals] for avals in (exported.in_avals, exported.out_avals)
        ]
    except Exception as error:  # of flatbuffers, MLIR and JAX, which have no common class
        raise ValueError(
            f"{path}: this JAX cannot read it ({reason_of(error)}); it was exported on "
            f"{card['exported']['date'][:10]}, see docs/export.md for how long such a file lives"
        ) from None
    if calls - CALLS:
        raise ValueError(f"{path}: refused, nothing of it was run: it calls {', '.join(sorted(calls - CALLS))[:200]}")
    height, width = card["input"]["height"], card["input"]["width"]
    expected = [("uint8", (height, width, 3))], [("float32", (card["embedding"]["width"],))]
    if (inputs, outputs) != expected or exported.nr_devices != 1:
        raise ValueError(f"{path}: it takes {inputs} and gives {outputs}, but its card says {expected}"[:500])
    if devices[0].platform not in (names := [{"cuda": "gpu"}.get(name, name) for name in exported.platforms]):
        raise ValueError(f"{path}: exported for {', '.join(names)}, and this device is {devices[0].platform}")
    return jax.jit(exported.call), devices[0]


def _calls(program: bytes) -> set[str]:
    """Names of the functions outside StableHLO that a program calls; it is parsed, not run."""
    names: set[str] = set()
    with make_ir_context() as context:
        context.attach_diagnostic_handler(lambda _: True)  # MLIR would print pages
        module = stablehlo.deserialize_portable_artifact(context, program)

        def visit(operation: Any) -> Any:
            if operation.name == "stablehlo.custom_call":
                names.add(ir.StringAttr(operation.attributes["call_target_name"]).value)
            return ir.WalkResult.ADVANCE

        module.operation.walk(visit)
    return names


def _run_jax(
    call: Callable, device: jax.Device, batches: Iterable[np.ndarray], batch: int, card: dict[str, Any]
) -> Iterator[np.ndarray]:
    def start(image: np.ndarray) -> tuple[int, jax.Array]:
        filled = np.zeros((batch, *image.shape[1:]), image.dtype)  # one size is compiled
        filled[: len(image)] = image
        return len(image), call(jax.device_put(_input(filled, card), device))

    for number, embedding in pipelined(map(start, batches), AHEAD):
        yield np.asarray(embedding)[:number]


def _input(image: np.ndarray, card: dict[str, Any]) -> np.ndarray:
    """uint8 [B, H, W, 3] as the file takes it; ValueError, one line, for another dtype or size."""
    inputs = card["input"]
    if image.dtype != np.uint8 or image.shape[1:] != (inputs["height"], inputs["width"], 3):
        raise ValueError(
            f"images are {image.dtype} {list(image.shape)}, but the card of the file says uint8 "
            f"[N, {inputs['height']}, {inputs['width']}, 3], RGB"
        )
    if inputs["dtype"] == "uint8":
        return image
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)
    return np.ascontiguousarray((image * (1 / (255 * std)) - mean / std).transpose(0, 3, 1, 2), np.float32)


def _check_flip(card: dict[str, Any], flip: bool, path: Path) -> None:
    if flip and not card["exported"]["flip"]:
        raise ValueError(f"{path}: exported without flip; export it with --flip, or leave flip out")
