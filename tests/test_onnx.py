"""The ONNX file: the numbers of the network for every architecture, recipe, input and dtype."""

import jax
import numpy as np
import pytest
from drawn_network import NUM_CLASSES, drawn_images, drawn_network

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
import cv2  # noqa: E402

from mancs_jax.inference.contract import ONNX, exported_card  # noqa: E402
from mancs_jax.inference.export import TOLERANCE  # noqa: E402
from mancs_jax.inference.forward import embed  # noqa: E402
from mancs_jax.inference.network_file import card_of  # noqa: E402
from mancs_jax.inference.onnx_file import OPSET, onnx_content, read_onnx  # noqa: E402
from mancs_jax.inference.onnx_graph import folded  # noqa: E402
from mancs_jax.training.description import Description  # noqa: E402

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
ARCHITECTURES = [("resnet18", ""), ("resnet34", "authors"), ("resnet50", ""), ("resnet50", "authors")]
DEEPEST = [("resnet101", "authors"), ("resnet152", "")]


def content_of(network, input="uint8", flip=False, dtype="float32"):
    description = Description(network.config.to_dict(), NUM_CLASSES, "f")
    options = {"input": input, "flip": flip, "dtype": dtype}
    card = exported_card(card_of(network, 7, description), kind=ONNX, **options)
    return onnx_content(network, card, **options)


def run(content, image):
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": image})[0]


def as_a_tracker_gives(image):
    """Normalised float32 [N, 3, H, W], in float64 on the way."""
    return np.ascontiguousarray(((image / 255.0 - MEAN) / STD).transpose(0, 3, 1, 2), np.float32)


def ours(network, image, flip=False):
    found = embed(network, image, devices=jax.devices()[:1], flip=flip)
    assert found.std(axis=0).max() > 0.02 * np.abs(found).max()  # the images do differ
    return found


def off(found, expected):
    assert found.shape == expected.shape and found.dtype == np.float32
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(("arch", "variant"), ARCHITECTURES + DEEPEST)
def test_the_numbers_of_every_architecture(arch, variant):
    network, image = drawn_network(variant, arch=arch), drawn_images(32)
    expected, content = ours(network, image), content_of(network)
    for batch in (1, 3, 32):
        assert off(run(content, image[:batch]), expected[:batch]) < 1e-5
    half = content_of(network, dtype="float16", input="float")
    assert 1e-6 < off(run(half, as_a_tracker_gives(image)), expected) < 5e-3
    assert len(half) < 0.7 * len(content)


@pytest.mark.parametrize(
    "fields",
    [
        {"last_activation": "relu", "last_stride": 1, "fab_stages": (), "rank_head": "pool"},
        {"last_activation": "prelu_shared", "fab_stages": (5, 2), "fab_squeeze": 3, "fab_activation": "prelu"},
        {"arch": "resnet50", "last_activation": "prelu_shared", "last_stride": 1, "rank_head": "pool"},
        {"ibn_stages": (2, 3, 4), "stem_norm": "instance", "rank_head": "pool"},
        {"arch": "resnet50", "ibn_stages": (3, 5), "mixstyle_stages": (2, 3)},
        {"arch": "resnet50", "width": 5, "fab_stages": (2, 3, 4, 5), "fab_squeeze": 16},
    ],
)
def test_every_field_of_the_model(fields):
    network, image = drawn_network(**{"arch": "resnet10"} | fields), drawn_images(3)
    assert off(run(content_of(network), image), ours(network, image)) < 1e-5


def test_inputs_flip_and_half():
    network, image = drawn_network("authors", arch="resnet10"), drawn_images(3)
    for flip in (False, True):
        expected = ours(network, image, flip)
        for input, given in (("uint8", image), ("float", as_a_tracker_gives(image))):
            for dtype, tolerance in TOLERANCE.items():
                assert off(run(content_of(network, input, flip, dtype), given), expected) < tolerance


def test_what_is_in_the_file(tmp_path):
    network = drawn_network(arch="resnet18")
    (tmp_path / "a.onnx").write_bytes(content_of(network, input="float", dtype="float16"))
    model = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(str(tmp_path / "a.onnx"), full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)] and OPSET == 17
    assert not {node.op_type for node in model.graph.node} & {"BatchNormalization", "Dropout"}
    kept = {tensor.name for tensor in model.graph.initializer}
    assert "rank_fc/kernel" in kept and not [name for name in kept if "cls" in name or "att" in name]
    [image], [embedding] = model.graph.input, model.graph.output
    shape = [side.dim_param or side.dim_value for side in image.type.tensor_type.shape.dim]
    assert (image.name, image.type.tensor_type.elem_type, shape) == ("images", 1, ["batch", 3, 64, 32])
    shape = [side.dim_param or side.dim_value for side in embedding.type.tensor_type.shape.dim]
    assert (embedding.name, embedding.type.tensor_type.elem_type, shape) == ("embeddings", 1, ["batch", 24])
    card = read_onnx(tmp_path / "a.onnx")[1]
    assert card["use"] == model.doc_string and card["step"] == 7
    values = "(pixel / 255 - mean) / std, normalised outside"  # the rest is as in tests/test_network_file.py
    assert {"dtype": "float32", "layout": "NCHW", "values": values}.items() <= card["input"].items()


def test_folding_by_hand():
    kernel = np.float32([[[[2.0, 10.0]]]])  # 1x1, one channel to two
    norm = {"scale": np.float32([3.0, 1.0]), "bias": np.float32([0.5, 0.0])}
    stats = {"mean": np.float32([4.0, 5.0]), "var": np.float32([4.0 - 1e-5, 1.0 - 1e-5])}
    folded_kernel, bias = folded(kernel, norm, stats)
    np.testing.assert_allclose(folded_kernel.ravel(), [3.0, 10.0], rtol=1e-6)  # 2 * 3 / 2, 10 * 1 / 1
    np.testing.assert_allclose(bias, [0.5 - 4.0 * 1.5, -5.0], rtol=1e-6)
    assert folded_kernel.shape == (2, 1, 1, 1)


def test_a_number_too_large_for_float16():
    network = drawn_network(arch="resnet10")
    params = network.variables["params"]
    params["fab2"]["squeeze"]["bias"] = np.full_like(params["fab2"]["squeeze"]["bias"], 1e6)
    with pytest.raises(ValueError, match=r"^image/fab2/squeeze/bias is too large for float16: use float32$"):
        content_of(network, dtype="float16")


@pytest.mark.parametrize("input", ["uint8", "float"])
def test_opencv_opens_it(tmp_path, input):
    network, image = drawn_network("authors", arch="resnet18"), drawn_images(3)
    (tmp_path / "a.onnx").write_bytes(content_of(network, input))
    opened = cv2.dnn.readNetFromONNX(str(tmp_path / "a.onnx"))
    opened.setInput(image if input == "uint8" else as_a_tracker_gives(image))
    assert off(opened.forward(), ours(network, image)) < 1e-5
