"""The inference network as one file that runs without this package: ONNX, or a `jax.export` file for JAX."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from mancs_jax.common.atomic_write import atomic_write, check_writable, write_json
from mancs_jax.common.local_path import local_path
from mancs_jax.data.sources.labels import Camera, camera_name
from mancs_jax.inference import contract
from mancs_jax.inference.contract import JAX, ONNX, UINT8, exported_card
from mancs_jax.inference.exported import JAX_SUFFIX, ONNX_SUFFIX, card_path, digest, open_exported
from mancs_jax.inference.forward import create_forward, embed
from mancs_jax.inference.network import Network, network_for_file
from mancs_jax.inference.trained import load_trained
from mancs_jax.kernels.convolution import for_unknown_processors
from mancs_jax.models.mancs import create_model
from mancs_jax.weights.shared import CARD, WEIGHTS

PLATFORMS = ("cpu", "cuda", "tpu")
# Largest difference from the model, as a part of the largest number of the embeddings.
TOLERANCE = {"float32": 1e-5, "float16": 5e-3}
CHECKED_BATCHES = (1, 3)
SOURCE_FILES = "jax_hlo_source_file_canonicalization_regex"

USE = """\
import jax
import jax.export
import numpy as np

network = jax.export.deserialize(open("{path}", "rb").read())
embed = jax.jit(network.call)  # compiles once for each number of images

# RGB, resized by you to {height} x {width} (height x width)
image = np.zeros((2, {height}, {width}, 3), np.uint8)
embedding = np.asarray(embed(image))  # float32 [2, {dim}]
print(embedding.shape)
"""
USE_ONNX = """\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{path}", providers=["CPUExecutionProvider"])

# {values}
image = np.zeros({shape}, np.{dtype})
[embedding] = session.run(None, {{"images": image}})  # float32 [2, {dim}]
print(embedding.shape)
"""
VALUES = {
    contract.UINT8: "RGB, 0 to 255, resized by you to {height} x {width} (height x width)",
    contract.FLOAT: "RGB, resized by you to {height} x {width} (height x width), then (pixel / 255 - mean) / std",
}


def export(
    source: str | Path,
    output: str | Path,
    *,
    flip: bool = False,
    format: str = "",
    input: str = UINT8,
    dtype: str = "float32",
    camera: Camera | None = None,
) -> str:
    """Writes a trained model with its parameters and its card as one file that runs without this package.

    An ONNX file has the card inside. A `jax.export` file has it next to itself: FILE.json. Images come resized:
    training averages over areas with OpenCV, which no operation of JAX or ONNX does to the last digit. The file has its
    name only once its numbers have been compared with the model's.

    Args:
      source: see `mancs_jax.load`.
      output: the file; its folder is made.
      flip: average the embeddings of an image and of its mirror image.
      format: "onnx" or "jax"; "" takes what `output` ends in, .onnx or .jax.
      input: "uint8": [N, H, W, 3], RGB, normalised inside; "float", only of ONNX: float32 [N, 3, H, W], normalised
        by the program that runs the file, as trackers do.
      dtype: of backbone and attention in an ONNX file, "float32" or "float16".
      camera: of an adapted network, the camera whose statistics the file has.

    Returns the lines to print: what to install, how long the file lives, and Python that runs it. Raises
    FileNotFoundError without a network, ImportError without the libraries of ONNX, OSError, and ValueError, one line,
    for options that do not go together, or where the file's numbers are not the model's.
    """
    output = local_path(output)
    kind = _kind(output, format, input, dtype)
    for path in (output, card_path(output)) if kind == JAX else (output,):
        check_writable(path)
    trained = load_trained(source)
    network = network_for_file(trained.network, camera)
    options = {"input": input, "flip": flip, "dtype": dtype if kind == ONNX else network.config.dtype}
    write = _write_onnx if kind == ONNX else _write_jax
    card = trained.card | ({} if camera is None else {"camera": camera_name(camera)})
    return write(output, network, card, options)


def check(path: Path, embed: Callable[[np.ndarray], np.ndarray], tolerance: float = TOLERANCE["float32"]) -> float:
    """Compares an exported file, read as `mancs_jax.load` reads it, with the model, for noise in batches of two sizes.

    Returns the largest difference, as a part of the largest number (ValueError: it is above `tolerance`).
    """
    largest = 0.0
    for batch in CHECKED_BATCHES:
        opened = open_exported(path, batch=batch)
        image_size = opened.card["input"]["height"], opened.card["input"]["width"]
        image = np.random.default_rng(batch).integers(0, 256, (batch, *image_size, 3), dtype=np.uint8)
        expected, [exported] = embed(image), opened.run_batches([image])
        difference = float(np.abs(exported - expected).max() / np.abs(expected).max())
        if not difference <= tolerance:
            raise ValueError(
                f"the exported model is off by {difference:.1e} of its largest number, more than {tolerance}: "
                "nothing was written"
            )
        largest = max(largest, difference)
    return largest


def _kind(output: Path, format: str, input: str, dtype: str) -> str:
    if output.suffix in (CARD, WEIGHTS):
        raise ValueError(f"--output={output}: {output.suffix} is the name of shared weights; take .onnx or .jax")
    is_onnx = format == "onnx" or (not format and output.suffix == ONNX_SUFFIX)
    if not is_onnx and output.suffix == ONNX_SUFFIX:
        raise ValueError(f"--output={output} and --format={format} do not go together: take another name")
    if is_onnx and output.suffix == JAX_SUFFIX:
        raise ValueError(f"--output={output} and --format={format} do not go together: take another name")
    if not format and not is_onnx and output.suffix != JAX_SUFFIX:
        raise ValueError(f"--output={output}: name it NAME.onnx or NAME.jax, or give --format=onnx or --format=jax")
    if not is_onnx and (input != UINT8 or dtype != "float32"):
        raise ValueError("--input and --dtype are for ONNX: give --output=NAME.onnx")
    return ONNX if is_onnx else JAX


def _write_onnx(output: Path, network: Network, card: dict[str, Any], options: dict[str, Any]) -> str:
    # Not at the top: the libraries are an extra.
    from mancs_jax.inference.onnx_file import OPSET, onnx_content

    card = exported_card(card, kind=ONNX, **options)
    # ONNX Runtime computes no bfloat16 on a CPU: the parameters are the same, the computation is float32.
    config = network.config.copy_and_resolve_references().unlock()
    config.dtype = "float32"
    network = network._replace(config=config.lock())
    if card_path(output).exists():
        raise ValueError(f"{card_path(output)} is in the way: it is the card of a jax.export file; remove it")
    with atomic_write(output) as temporary:
        temporary.write_bytes(onnx_content(network, card, **options))
        check(temporary, _embed_on_one_device(network, options["flip"]), TOLERANCE[options["dtype"]])
    inputs = card["input"]
    size = [inputs["height"], inputs["width"]]
    lines = USE_ONNX.format(
        path=output,
        values=VALUES[options["input"]].format(height=size[0], width=size[1]),
        shape=tuple([2, *size, 3] if options["input"] == UINT8 else [2, 3, *size]),
        dtype=inputs["dtype"],
        dim=card["embedding"]["width"],
    )
    return f"# {output} gives the model's embeddings (opset {OPSET}). pip install onnxruntime numpy, then:\n{lines}"


def jax_content(network: Network, flip: bool) -> bytes:
    """The network as a program of jax.export, the same one on every machine."""
    forward = create_forward(create_model(network.config, network.num_classes), flip)
    batch = jax.export.symbolic_shape("batch")[0]
    shape = jax.ShapeDtypeStruct((batch, *network.config.data.image_size, 3), np.uint8)
    program = jax.jit(lambda image: forward(network.variables, image)[0])
    with _without_folders(), for_unknown_processors():
        return bytes(jax.export.export(program, platforms=PLATFORMS)(shape).serialize())


def _write_jax(output: Path, network: Network, card: dict[str, Any], options: dict[str, Any]) -> str:
    if (weights := card_path(output).with_suffix(WEIGHTS)).exists():
        raise ValueError(f"--output={output}: {card_path(output)} is the card of {weights.name}; take another name")
    height, width = network.config.data.image_size
    content = jax_content(network, options["flip"])
    card = exported_card(card, kind=JAX, **options, platforms=list(PLATFORMS), file=digest(content))
    with atomic_write(output) as temporary:
        temporary.write_bytes(content)
        temporary_card = card_path(temporary)
        try:
            temporary_card.write_text(json.dumps(card, allow_nan=False))
            check(temporary, _embed_on_one_device(network, options["flip"]))
        finally:
            temporary_card.unlink(missing_ok=True)
    # After the file: until then its digest is wrong, and the two are refused.
    write_json(card_path(output), card)
    lines = USE.format(path=output, height=height, width=width, dim=card["embedding"]["width"])
    return (
        f"# {output} gives the model's embeddings, and {card_path(output).name} next to it says what it takes.\n"
        f"# JAX promises to read it for six months after the release of jaxlib {metadata.version('jaxlib')}.\n"
        "# To keep a model for longer, export ONNX or share its weights.\n"
        f"# To run it, pip install jax flatbuffers numpy, then:\n{lines}"
    )


@contextmanager
def _without_folders() -> Iterator[None]:
    """Keeps the folders of this machine out of the source lines that JAX writes into a program."""
    before = jax.config.values[SOURCE_FILES]
    jax.config.update(SOURCE_FILES, ".*/")
    try:
        yield
    finally:
        jax.config.update(SOURCE_FILES, before)


def _embed_on_one_device(network: Network, flip: bool) -> Callable[[np.ndarray], np.ndarray]:
    devices = jax.local_devices()[:1]
    return lambda image: embed(network, image, devices=devices, flip=flip)
