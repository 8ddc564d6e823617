"""The inference network as an ONNX graph, made from its parameters.

BatchNorm is folded into the convolution before it, so the graph has convolutions with a bias. Only the way to the
embedding is there: the identity and attention heads are only for training. Paddings are those of PyTorch and of
`kernels/convolution.py`: the same number of zeros on all four sides.
"""

from typing import Any, NamedTuple

import numpy as np

from mancs_jax.config.names import BASIC_BLOCK, STAGE_SIZES
from mancs_jax.data.augment import MEAN, STD
from mancs_jax.inference.contract import UINT8
from mancs_jax.inference.network import Network, embedding_width
from mancs_jax.kernels.conv_norm import EPSILON
from mancs_jax.models.resnet import STAGES, block_stride

try:
    import onnx
    from onnx import helper, numpy_helper
except ImportError as error:
    raise ImportError('ONNX files need two libraries: pip install "mancs_jax[onnx]"') from error

INPUT, OUTPUT, BATCH = "images", "embeddings", "batch"
FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


class Graph(NamedTuple):
    """A graph under construction: `add` and `constant` append to it."""

    nodes: list[onnx.NodeProto]
    tensors: dict[str, onnx.TensorProto]
    dtype: np.dtype  # of backbone and attention


def build_graph(network: Network, *, input: str, flip: bool, dtype: str) -> onnx.GraphProto:
    """Builds the graph of a network, from `images` [batch, ...] to `embeddings` float32 [batch, D].

    Args:
      network: any recipe; it is computed in `dtype`, whatever the training was.
      input: see `contract.described_input`.
      flip: average the embeddings of an image and of its mirror image.
      dtype: "float32"; or "float16" (ValueError: a number is too large) for backbone and attention, whose input and
        output stay float32. Means and the head are computed in float32, as everywhere.
    """
    graph = Graph([], {}, np.dtype(dtype))
    embedding = _embedding(graph, network, _pixels(graph, input, mirrored=False), "image/")
    if flip:
        mirrored_embedding = _embedding(graph, network, _pixels(graph, input, mirrored=True), "mirror/")
        total = add(graph, "Add", "flip/sum", embedding, mirrored_embedding)
        embedding = add(graph, "Mul", "flip/mean", total, constant(graph, "half", np.array([0.5], np.float32)))
    add(graph, "Identity", OUTPUT, embedding)
    height, width = network.config.data.image_size
    shape = [BATCH, height, width, 3] if input == UINT8 else [BATCH, 3, height, width]
    input_dtype = onnx.TensorProto.UINT8 if input == UINT8 else FLOAT
    return helper.make_graph(
        graph.nodes,
        "mancs",
        [helper.make_tensor_value_info(INPUT, input_dtype, shape)],
        [helper.make_tensor_value_info(OUTPUT, FLOAT, [BATCH, embedding_width(network)])],
        list(graph.tensors.values()),
    )


def add(graph: Graph, op: str, name: str, *inputs: str, **attributes: Any) -> str:
    """Appends a node; returns the name of its output, which is its own."""
    graph.nodes.append(helper.make_node(op, list(inputs), [name], name, **attributes))
    return name


def constant(graph: Graph, name: str, value: np.ndarray) -> str:
    """Keeps an array under a name, once; returns the name."""
    if name not in graph.tensors:
        graph.tensors[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
    return name


def folded(kernel: np.ndarray, norm: dict[str, Any], stats: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Folds BatchNorm (scale, bias, running mean, var: [Cout] each) into the kernel [kh, kw, Cin, Cout] before it.

    Returns (kernel [Cout, Cin, kh, kw], bias [Cout]), float64.
    """
    factor = np.float64(norm["scale"]) / np.sqrt(np.float64(stats["var"]) + EPSILON)
    bias = np.float64(norm["bias"]) - np.float64(stats["mean"]) * factor
    return (np.float64(kernel) * factor).transpose(3, 2, 0, 1), bias


def _pixels(graph: Graph, input: str, *, mirrored: bool) -> str:
    """The images as [batch, 3, H, W], normalised, in the dtype of the graph."""
    x, prefix = INPUT, "mirror/" if mirrored else "image/"
    if input == UINT8:
        x = add(graph, "Transpose", f"{prefix}nchw", x, perm=[0, 3, 1, 2])
    if mirrored:
        places = {"starts": -1, "ends": np.iinfo(np.int64).min, "axes": 3, "steps": -1}
        slices = [constant(graph, f"mirror/{name}", np.array([place], np.int64)) for name, place in places.items()]
        x = add(graph, "Slice", f"{prefix}mirrored", x, *slices)
    if input == UINT8:
        mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)
        scale, shift = 1 / (255 * std), -mean / std  # as `augment.normalize`
        x = add(graph, "Cast", f"{prefix}float", x, to=FLOAT)
        x = add(graph, "Mul", f"{prefix}scaled", x, constant(graph, "scale", scale.reshape(1, 3, 1, 1)))
        x = add(graph, "Add", f"{prefix}normalized", x, constant(graph, "shift", shift.reshape(1, 3, 1, 1)))
    return add(graph, "Cast", f"{prefix}half", x, to=HALF) if graph.dtype == np.float16 else x


def _embedding(graph: Graph, network: Network, x: str, prefix: str) -> str:
    """`f_rank` of normalised pixels, float32 [batch, D]."""
    model, params = network.config.model, network.variables["params"]
    backbone, stats = params["backbone"], network.variables["batch_stats"]["backbone"]
    at = f"{prefix}backbone"
    x = _conv_norm(graph, backbone, stats, "conv1", "bn1", x, at, stride=2)
    x = add(graph, "Relu", f"{at}/relu", x)
    x = add(graph, "MaxPool", f"{at}/pool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    bottleneck = model.arch not in BASIC_BLOCK
    for stage, size in zip(STAGES, STAGE_SIZES[model.arch], strict=True):
        for i in range(size):
            name, stride = f"layer{stage - 1}_{i}", block_stride(stage, i, model.last_stride)
            activation = model.last_activation if (stage, i) == (5, size - 1) else "relu"
            x = _block(graph, backbone[name], stats[name], x, f"{at}/{name}", bottleneck, stride, activation)
        if stage in model.fab_stages:
            x = _fab(graph, params[f"fab{stage}"], x, f"{prefix}fab{stage}")
    return _rank_head(graph, params, x, prefix)


def _block(graph, params, stats, x, at, bottleneck, stride, activation) -> str:
    """A residual block, see `models.resnet.Block`."""
    slope = _slope(graph, params["prelu"], at) if activation != "relu" else ""
    strides = (1, stride, 1) if bottleneck else (stride, 1)
    y = x
    for i, step in enumerate(strides, start=1):
        y = _conv_norm(graph, params, stats, f"conv{i}", f"bn{i}", y, at, stride=step)
        if i < len(strides):
            y = _activate(graph, f"{at}/act{i}", y, slope if activation == "prelu_shared" else "")
    if "downsample_conv" in params:
        x = _conv_norm(graph, params, stats, "downsample_conv", "downsample_bn", x, at, stride=stride)
    return _activate(graph, f"{at}/act", add(graph, "Add", f"{at}/sum", x, y), slope)


def _fab(graph, params, x, at) -> str:
    """The fully attentional block: x * mask + x, see `models.fab`."""
    slope = _slope(graph, params["prelu"], at) if "prelu" in params else ""
    y = _activate(graph, f"{at}/act", _dense_conv(graph, params["squeeze"], x, f"{at}/squeeze"), slope)
    mask = add(graph, "Sigmoid", f"{at}/mask", _dense_conv(graph, params["excite"], y, f"{at}/excite"))
    return add(graph, "Add", f"{at}/out", add(graph, "Mul", f"{at}/masked", x, mask), x)


def _rank_head(graph, params, x, prefix) -> str:
    """Means over all positions, and the layer of `rank_head="fc"`, in float32."""
    if graph.dtype == np.float16:
        x = add(graph, "Cast", f"{prefix}map", x, to=FLOAT)
    x = add(graph, "Flatten", f"{prefix}pooled", add(graph, "GlobalAveragePool", f"{prefix}means", x), axis=1)
    if "rank_fc" not in params:
        return x
    kernel, bias = (np.asarray(params["rank_fc"][name], np.float32) for name in ("kernel", "bias"))
    return add(
        graph,
        "Gemm",
        f"{prefix}rank_fc",
        x,
        constant(graph, "rank_fc/kernel", kernel),
        constant(graph, "rank_fc/bias", bias),
    )


def _conv_norm(graph, params, stats, conv, norm, x, at, *, stride) -> str:
    """A convolution and what normalises it: BatchNorm, InstanceNorm (without statistics), or IBN-a, which has both."""
    kernel, norms = np.asarray(params[conv]["kernel"]), params[norm]
    name = f"{at}/{conv}"
    if "IN" in norms:
        half = kernel.shape[-1] // 2
        instance, batch = _plain(kernel[..., :half]), folded(kernel[..., half:], norms["BN"], stats[norm]["BN"])
        weights, bias = (np.concatenate(parts) for parts in zip(instance, batch, strict=True))
        y = _conv(graph, weights, bias, x, name, stride)
        sizes = constant(graph, f"{_shared(name)}/halves", np.array([half, kernel.shape[-1] - half], np.int64))
        halves = [f"{name}/instance", f"{name}/batch"]
        graph.nodes.append(helper.make_node("Split", [y, sizes], halves, f"{name}/split", axis=1))
        return add(
            graph, "Concat", f"{name}/ibn", _instance_norm(graph, norms["IN"], halves[0], name), halves[1], axis=1
        )
    if norm not in stats:
        return _instance_norm(graph, norms, _conv(graph, *_plain(kernel), x, name, stride), name)
    return _conv(graph, *folded(kernel, norms, stats[norm]), x, name, stride)


def _plain(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A convolution that nothing is folded into, as `folded` gives it."""
    return kernel.astype(np.float64).transpose(3, 2, 0, 1), np.zeros(kernel.shape[-1])


def _instance_norm(graph, params, x, at) -> str:
    weights = [_number(graph, f"{at}/IN/{name}", np.asarray(params[name])) for name in ("scale", "bias")]
    return add(graph, "InstanceNormalization", f"{at}/IN", x, *weights, epsilon=EPSILON)


def _dense_conv(graph, params, x, at) -> str:
    """A dense layer over the channels: a 1x1 convolution."""
    kernel = np.asarray(params["kernel"]).T[:, :, None, None]
    return _conv(graph, kernel, np.asarray(params["bias"]), x, at, stride=1)


def _conv(graph, kernel, bias, x, at, stride) -> str:
    size = kernel.shape[2]
    weights = [_number(graph, f"{at}/{name}", value) for name, value in (("kernel", kernel), ("bias", bias))]
    padding = (size - 1) // 2
    return add(graph, "Conv", at, x, *weights, kernel_shape=[size, size], strides=[stride, stride], pads=[padding] * 4)


def _activate(graph, name, x, slope) -> str:
    return add(graph, "PRelu", name, x, slope) if slope else add(graph, "Relu", name, x)


def _slope(graph, params, at) -> str:
    return _number(graph, f"{at}/slope", np.asarray(params["slope"]).reshape(1, 1, 1))


def _number(graph: Graph, name: str, value: np.ndarray) -> str:
    """A parameter in the dtype of the graph; both passes of `flip` share it."""
    if not np.isfinite(value).all():
        raise ValueError(f"{name} has NaN or infinite numbers: the model cannot be exported")
    with np.errstate(over="ignore"):
        small = value.astype(graph.dtype)
    if not np.isfinite(small).all():
        raise ValueError(f"{name} is too large for {graph.dtype}: use float32")
    return constant(graph, _shared(name), small)


def _shared(name: str) -> str:
    """The name of a tensor that both passes of `flip` take."""
    return name.removeprefix("image/").removeprefix("mirror/")
