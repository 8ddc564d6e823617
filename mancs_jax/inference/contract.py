"""The model card: the JSON that describes a model, read from any file that contains it.

The same card travels in three places: next to shared weights (NAME.json), next to a `jax.export` file (FILE.json), and
inside an ONNX file (its metadata). The card of an exported file has one field more, `exported`.
"""

import json
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from mancs_jax.common.quoted import reason_of
from mancs_jax.config import checks
from mancs_jax.data.augment import MEAN, STD
from mancs_jax.version import __version__

FORMAT = 1  # of a card; a reader refuses others
ONNX, JAX = "onnx", "jax.export"
UINT8, FLOAT = "uint8", "float"  # inputs of an exported file
RESIZE = "area (cv2.INTER_AREA); linear (cv2.INTER_LINEAR) where the image is smaller on a side"
FIELDS: dict[str, tuple[type, ...]] = {
    "input": (dict,),
    "embedding": (dict,),
    "network": (str,),
    "num_classes": (int,),
    "step": (int,),
    "best": (float, type(None)),
    "data_fingerprint": (str,),
    "config": (dict,),
}
OF_EXPORTED: dict[str, type] = {"format": str, "date": str, "flip": bool, "dtype": str, "file": str}
OF_EMBEDDINGS = ("scores", "thresholds", "calibration")  # that hold only for embeddings without mirror images
LARGEST = 2**24  # of every number in a card that becomes a size


def read_json_card(path: Path) -> dict[str, Any]:
    """Reads a card from a file of its own, and checks it.

    Raises:
      ValueError: one line: no card, or no usable one.
      OSError: cannot be read.
    """
    return check_card(path.read_bytes(), path)


def check_card(text: str | bytes, where: str | Path) -> dict[str, Any]:
    """Parses and checks a card.

    Args:
      text: JSON.
      where: the file that it comes from, for the error.

    Raises:
      ValueError: one line: not JSON, another format, or a field is missing or of another type.
    """
    try:
        card = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON, or cut off ({reason_of(error)})") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ValueError(
            f"{where}: not the card of a model (format {FORMAT}), which `mancs export --format=weights` writes"
        )
    wrong = [name for name, kind in FIELDS.items() if type(card.get(name, ...)) not in kind]
    if wrong or not 0 <= card["num_classes"] < LARGEST:
        raise ValueError(f"{where}: no usable {', '.join(wrong) or 'num_classes'} in it; get the file again")
    return card


def check_exported(card: dict[str, Any], kind: str, where: str | Path) -> None:
    """Refuses a card that is none of an exported file of this kind (ValueError, one line)."""
    exported = card.get("exported")
    if not isinstance(exported, dict) or exported.get("format") != kind:
        raise ValueError(f"{where}: not the card of a file that mancs export wrote as {kind}")
    wrong = [f"exported.{name}" for name, type_ in OF_EXPORTED.items() if type(exported.get(name)) is not type_]
    wrong += ["camera"] if type(card.get("camera", "")) not in (str, int) else []
    size = [card["input"].get("height"), card["input"].get("width"), card["embedding"].get("width")]
    if not all(type(side) is int and 1 <= side < LARGEST for side in size):
        wrong.append("size")
    known = [described_input(pixels, *size[:2]) for pixels in ((UINT8,) if kind == JAX else (UINT8, FLOAT))]
    if [card["input"].get(name) for name in ("dtype", "layout", "values")] not in [
        [each[name] for name in ("dtype", "layout", "values")] for each in known
    ]:
        wrong.append("input")
    if wrong:
        raise ValueError(f"{where}: no usable {', '.join(wrong)} in its card; export the model again")
    try:
        config = checks.from_json(card["config"])
        checks.validate(config, num_devices=1)
        fits = list(config.data.image_size) == size[:2]
    except (ValueError, TypeError, OverflowError, ArithmeticError, AttributeError) as error:
        raise ValueError(f"{where}: the configuration in its card is not valid ({reason_of(error)})") from None
    if not fits:
        raise ValueError(f"{where}: its card names two sizes of images; export the model again")


def described_input(kind: str, height: int, width: int) -> dict[str, Any]:
    """Describes the images that an exported file takes.

    Args:
      kind: UINT8: pixels as they are, and the file normalises them; FLOAT: normalised by the caller.
      height: of each image, in pixels.
      width: likewise.
    """
    plain = kind == UINT8
    return {
        "height": height,
        "width": width,
        "channels": "RGB",
        "dtype": "uint8" if plain else "float32",
        "layout": "NHWC" if plain else "NCHW",
        "values": "0 to 255, normalised inside" if plain else "(pixel / 255 - mean) / std, normalised outside",
        "resize": RESIZE,
        "mean": list(MEAN),
        "std": list(STD),
    }


def exported_card(card: dict[str, Any], *, kind: str, input: str, flip: bool, dtype: str, **more: Any) -> dict:
    """Makes the card of an exported file from that of its network.

    Args:
      card: see `network_file.card_of`; scores, thresholds and calibration stay, unless `flip` gives other embeddings
        than theirs.
      kind: ONNX or JAX.
      input: UINT8 or FLOAT.
      flip: whether the file averages the embeddings of an image and of its mirror image.
      dtype: of the computation, as "float32".
      more: further fields of `exported`.
    """
    image_size = card["input"]["height"], card["input"]["width"]
    exported = {
        "format": kind,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "flip": flip,
        "dtype": dtype,
        "versions": {"mancs_jax": __version__} | {name: metadata.version(name) for name in _packages(kind)},
    }
    kept = {name: value for name, value in card.items() if not (flip and name in OF_EMBEDDINGS)}
    return kept | {"input": described_input(input, *image_size), "exported": exported | more}


def _packages(kind: str) -> tuple[str, ...]:
    return ("onnx", "onnxruntime") if kind == ONNX else ("jax", "jaxlib")
