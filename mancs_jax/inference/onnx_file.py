"""A network as an ONNX file: written, checked before anything of it runs, and run by ONNX Runtime.

A file from elsewhere may name other files, hold operations of its own, or shapes that fill the memory. `read_onnx`
takes none of these: a few plain operations, all numbers inside, every intermediate array of a known size.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mancs_jax.common.fingerprint import fingerprint
from mancs_jax.common.quoted import reason_of, shortened
from mancs_jax.inference.contract import ONNX, check_card, check_exported
from mancs_jax.inference.network import Network
from mancs_jax.inference.onnx_graph import INPUT, OUTPUT, build_graph

try:
    import onnx
    import onnxruntime
    from google.protobuf.message import DecodeError
except ImportError as error:
    raise ImportError('ONNX files need two libraries: pip install "mancs_jax[onnx]"') from error

OPSET, IR_VERSION = 17, 8  # of 2022; ONNX Runtime 1.12 and later
CONTRACT = "mancs_jax.contract"  # key in metadata_props
OPERATIONS = frozenset(
    {"Add", "Cast", "Concat", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "Identity", "InstanceNormalization"}
    | {"MaxPool", "Mul", "PRelu", "Relu", "Sigmoid", "Slice", "Split", "Transpose"}
)
ATTRIBUTES = (onnx.AttributeProto.FLOAT, onnx.AttributeProto.INT, onnx.AttributeProto.INTS)
SIZES = {onnx.TensorProto.FLOAT: 4, onnx.TensorProto.FLOAT16: 2, onnx.TensorProto.INT64: 8}
MOST_BYTES = 2**31 - 1  # of a file: the limit of its format
MOST_NUMBERS = 2**27  # of an intermediate array, for one image
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")  # in this order, where ONNX Runtime has them
REFUSED = "; nothing of it was run"

Run = Callable[[np.ndarray], np.ndarray]


def onnx_content(network: Network, card: dict[str, Any], *, input: str, flip: bool, dtype: str) -> bytes:
    """Makes the bytes of an ONNX file; arguments as `build_graph`, and the card, which the digest of the graph joins.

    Raises ValueError where a number is too large for `dtype`, or the file for its format.
    """
    from mancs_jax.version import __version__

    graph = build_graph(network, input=input, flip=flip, dtype=dtype)
    model = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="mancs_jax",
        producer_version=__version__,
        doc_string=card["use"],
    )
    exported = card["exported"] | {"opset": OPSET, "file": digest(graph)}
    onnx.helper.set_model_props(model, {CONTRACT: json.dumps(card | {"exported": exported}, allow_nan=False)})
    if model.ByteSize() > MOST_BYTES:
        raise ValueError(f"the model has {model.ByteSize():,} bytes, more than an ONNX file holds")
    return model.SerializeToString()


def digest(graph: onnx.GraphProto) -> str:
    """Returns 32 hex digits that depend on every operation and every number of a graph."""
    parts: list[str | np.ndarray] = [repr(node.SerializeToString(deterministic=True)) for node in graph.node]
    for tensor in graph.initializer:
        parts += [f"{tensor.name} {list(tensor.dims)} {tensor.data_type}", np.frombuffer(tensor.raw_data, np.uint8)]
    return fingerprint(*parts)


def read_onnx(path: str | Path) -> tuple[bytes, dict[str, Any]]:
    """Reads an ONNX file that `mancs export` wrote, and checks it; nothing of it is run. Returns (its bytes, its card).

    Raises ValueError, one line, where it is damaged, of another origin, or not as its card says, and OSError.
    """
    path = Path(path)
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, more than an ONNX file can have")
    content = path.read_bytes()
    try:
        model = onnx.ModelProto.FromString(content)
    except (DecodeError, ValueError, RecursionError):
        raise ValueError(f"{path}: not an ONNX file, or damaged at {size:,} bytes; get the file again") from None
    card = _card(model, path)
    if reason := _refusal(model, card):
        raise ValueError(f"{path}: {shortened(reason)}{REFUSED}")
    if digest(model.graph) != card["exported"]["file"]:
        raise ValueError(f"{path} has other numbers or operations than its card says{REFUSED}")
    try:
        onnx.checker.check_model(model, full_check=True)
        too_large = _too_large(model)
    except Exception as error:  # the checker's errors have no common class
        raise ValueError(f"{path}: {reason_of(error)}{REFUSED}") from None
    if too_large:
        raise ValueError(f"{path}: {too_large} has no size, or more numbers than {MOST_NUMBERS:,}{REFUSED}")
    return content, card


def open_onnx(content: bytes, where: str | Path) -> Run:
    """Makes a function of the bytes that `read_onnx` returned: an array of the file's input -> float32 [N, D].

    Raises ValueError, one line, where ONNX Runtime does not take it, now or when it runs.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors come as exceptions
    providers = [name for name in PROVIDERS if name in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # its errors have no common class
        raise ValueError(f"{where}: ONNX Runtime refuses it ({reason_of(error)})") from None

    def run(images: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(session.run([OUTPUT], {INPUT: images})[0])
        except Exception as error:
            raise ValueError(f"{where}: ONNX Runtime failed ({reason_of(error)})") from None

    return run


def _card(model: onnx.ModelProto, path: Path) -> dict[str, Any]:
    cards = [entry.value for entry in model.metadata_props if entry.key == CONTRACT]
    if len(cards) != 1:
        raise ValueError(f"{path}: an ONNX file without a card, or no ONNX file; mancs export writes one")
    card = check_card(cards[0], path)
    check_exported(card, ONNX, path)
    return card


def _refusal(model: onnx.ModelProto, card: dict[str, Any]) -> str:
    """Why a file is not taken; "" where nothing speaks against it."""
    graph = model.graph
    # onnx takes "" and "ai.onnx" for one domain; files of mancs export have only the first.
    if any(entry.domain or entry.version > OPSET for entry in model.opset_import) or model.functions:
        return "it asks for operations of another library"
    if model.training_info or graph.sparse_initializer or graph.quantization_annotation:
        return "it holds more than a model"
    for node in graph.node:
        if node.op_type not in OPERATIONS or node.domain:
            return f"it asks for the operation {node.domain[:40]}.{node.op_type[:40]}".replace(" .", " ")
        if any(attribute.type not in ATTRIBUTES or attribute.ref_attr_name for attribute in node.attribute):
            return f"an attribute of {node.name[:80]} is no number"
    for tensor in graph.initializer:
        if tensor.external_data or tensor.data_location != onnx.TensorProto.DEFAULT:
            return f"the numbers of {tensor.name[:80]} lie in another file"
        numbers = math.prod(tensor.dims) if all(side >= 0 for side in tensor.dims) else -1
        if tensor.data_type not in SIZES or numbers * SIZES[tensor.data_type] != len(tensor.raw_data):
            return f"{tensor.name[:80]} has another shape than its numbers"
    if (signature := _signature(graph)) != (expected := _expected(card)):
        return f"it takes and gives {signature[:300]}, but its card says {expected}"
    return ""


def _signature(graph: onnx.GraphProto) -> str:
    """`images UINT8 [batch, 64, 32, 3] -> embeddings FLOAT [batch, 32]`."""

    def text(value: onnx.ValueInfoProto) -> str:
        tensor = value.type.tensor_type
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type) if tensor.elem_type in range(1, 17) else "?"
        sides = [
            "batch" if i == 0 and side.dim_param else str(side.dim_value) for i, side in enumerate(tensor.shape.dim)
        ]
        return f"{value.name} {kind} [{', '.join(sides)}]"

    return " -> ".join(", ".join(map(text, values)) for values in (graph.input, graph.output))


def _expected(card: dict[str, Any]) -> str:
    taken = card["input"]
    sides = [taken["height"], taken["width"]]
    sides = ["batch", *sides, 3] if taken["layout"] == "NHWC" else ["batch", 3, *sides]
    kind = {"uint8": "UINT8", "float32": "FLOAT"}[taken["dtype"]]
    return f"{INPUT} {kind} [{', '.join(map(str, sides))}] -> {OUTPUT} FLOAT [batch, {card['embedding']['width']}]"


def _too_large(model: onnx.ModelProto) -> str:
    """The first intermediate array whose size for one image is not known, or too large; "" if there is none."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    known = {value.name: value.type.tensor_type.shape.dim for value in (*inferred.value_info, *inferred.output)}
    for name in (name for node in model.graph.node for name in node.output):
        # A first side that is known counts: it is not the batch.
        sides = [side.dim_value or int(axis == 0) for axis, side in enumerate(known.get(name, ()))]
        if not sides or not all(sides) or math.prod(sides) > MOST_NUMBERS:
            return shortened(name)
    return ""
