"""Exported files that are damaged, hostile or of other people: each gets one line, and nothing of it is run."""

import json
import shutil

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from refusals import refused
from tiny_exports import write_exports
from tiny_workdir import WIDTH

import mancs_jax
from mancs_jax.inference.exported import digest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from mancs_jax.inference import onnx_file  # noqa: E402


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write_exports(tmp_path_factory.mktemp("place"))


@pytest.fixture
def pair(place, tmp_path):
    """Copies of n.jax and its card."""
    for name in ("n.jax", "n.jax.json"):
        shutil.copy(place / name, tmp_path)
    return tmp_path / "n.jax"


def seal(path, content, **fields):
    """Writes a file with a card whose digest is right."""
    path.write_bytes(content)
    file = path.with_name("n.jax.json")
    card = json.loads(file.read_text())
    card["exported"]["file"] = digest(content)
    file.write_text(json.dumps(card | fields))


def test_a_card_that_is_missing_or_of_another_file(place, pair):
    content = pair.read_bytes()
    pair.write_bytes(content[:-1])
    assert "n.jax is damaged, or n.jax.json is the card of another file" in refused(mancs_jax.load, pair)
    pair.write_bytes(content)
    shutil.copy(place / "n.json", pair.with_name("n.jax.json"))  # the card of the weights
    assert "not the card of a file that mancs export wrote as jax.export" in refused(mancs_jax.load, pair)
    pair.with_name("n.jax.json").write_text("{")
    assert "n.jax.json: not JSON, or cut off" in refused(mancs_jax.load, pair)
    pair.with_name("n.jax.json").unlink()
    line = refused(mancs_jax.load, pair, error=FileNotFoundError)
    assert "n.jax: no model in it: it is no ONNX file, and n.jax.json, the card of a jax.export file" in line


def test_programs_that_are_not_taken(place, pair):
    content = pair.read_bytes()
    seal(pair, content[: len(content) // 2])
    assert "this JAX cannot read it (" in refused(mancs_jax.load, pair)
    seal(pair, b"\x00" * 64)
    assert "this JAX cannot read it (" in refused(mancs_jax.load, pair)

    def exported(function, shape=(64, 32, 3), dtype=np.uint8, **options):
        batch = jax.export.symbolic_shape("batch")[0]
        argument = jax.ShapeDtypeStruct((batch, *shape), dtype)
        return bytes(jax.export.export(jax.jit(function), **options)(argument).serialize())

    def means(image):
        return jnp.broadcast_to(jnp.mean(image, (1, 2, 3))[:, None], (image.shape[0], WIDTH))

    seal(pair, exported(means))
    assert mancs_jax.load(pair)(np.full((1, 64, 32, 3), 3, np.uint8)).tolist() == [[3.0] * WIDTH]
    seal(pair, exported(means, shape=(32, 64, 3)))
    assert "but its card says" in refused(mancs_jax.load, pair)
    seal(pair, exported(means, dtype=np.float32))
    assert "but its card says" in refused(mancs_jax.load, pair)
    seal(pair, exported(means, platforms=["tpu"]))
    assert "exported for tpu, and this device is cpu" in refused(mancs_jax.load, pair)
    calls = lambda image: means(image) + jnp.linalg.cholesky(jnp.eye(3))[0, 0]  # noqa: E731
    seal(pair, exported(calls, disabled_checks=[jax.export.DisabledSafetyCheck.custom_call("lapack_spotrf_ffi")]))
    assert "n.jax: refused, nothing of it was run: it calls lapack_spotrf_ffi" in refused(mancs_jax.load, pair)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda card: card["exported"].update(flip="yes"), "no usable exported.flip in its card"),
        (lambda card: card["input"].update(height=2**40), "no usable size in its card"),
        (lambda card: card["input"].update(dtype="int64"), "no usable input in its card"),
        (lambda card: card["input"].update(height=32, width=64), "its card names two sizes of images"),
        (lambda card: card["config"]["model"].update(arch="resnet19"), "card is not valid (config.model.arch"),
        (lambda card: card["embedding"].update(width=7), "but its card says"),
        (lambda card: card["embedding"].pop("width"), "no usable size in its card"),
        (lambda card: card.update(format=2), "not the card of a model (format 1)"),
        (lambda card: card.update(num_classes=2**40), "no usable num_classes in it"),
    ],
)
def test_wrong_metadata(place, pair, tmp_path, change, line):
    card = json.loads(pair.with_name("n.jax.json").read_text())
    change(card)
    pair.with_name("n.jax.json").write_text(json.dumps(card))
    assert line in refused(mancs_jax.load, pair)
    model = onnx.load(place / "n.onnx")
    card = json.loads(model.metadata_props[0].value)
    change(card)
    model.metadata_props[0].value = json.dumps(card)
    onnx.save(model, tmp_path / "n.onnx")
    assert line in refused(mancs_jax.load, tmp_path / "n.onnx")


def test_a_jax_file_takes_pixels_alone(pair):
    """Its program has one signature: a card that says float would end in an error of JAX's own."""
    card = json.loads(pair.with_name("n.jax.json").read_text())
    card["input"].update(dtype="float32", layout="NCHW", values="(pixel / 255 - mean) / std, normalised outside")
    pair.with_name("n.jax.json").write_text(json.dumps(card))
    assert "no usable input in its card" in refused(mancs_jax.load, pair)


def test_names_of_a_file_stay_on_one_line(place, tmp_path):
    model = onnx.load(place / "n.onnx")
    model.graph.node[0].op_type = "Sh\x1b[31m\nell"
    (tmp_path / "n.onnx").write_bytes(model.SerializeToString())
    assert r"it asks for the operation Sh\x1b[31m\nell" in refused(mancs_jax.load, tmp_path / "n.onnx")


def changed(place, path, change, sealed=True):
    """Writes n.onnx with something changed, its digest right again."""
    model = onnx.load(place / "n.onnx")
    change(model)
    if sealed and model.metadata_props:
        card = json.loads(model.metadata_props[0].value)
        card["exported"]["file"] = onnx_file.digest(model.graph)
        model.metadata_props[0].value = json.dumps(card)
    path.write_bytes(model.SerializeToString())


def external(model):
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def custom(model):
    model.graph.node[0].op_type = "Shell"


def custom_domain(model):
    model.graph.node[0].domain = "com.example"
    model.opset_import.add(domain="com.example", version=1)


def loop(model):
    body = onnx.helper.make_graph([], "body", [], [])
    model.graph.node.append(onnx.helper.make_node("Loop", [], ["x"], "loop", body=body))


def huge_dims(model):
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend([2**40, 2**40])


def huge_product(model):
    """Two small parameters whose product has 2^40 numbers; it has no batch."""
    for name, sides in (("tall", (2**20, 1)), ("broad", (1, 2**20))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(sides, np.float32), name))
    model.graph.node.insert(0, onnx.helper.make_node("Gemm", ["tall", "broad"], ["product"], name="product"))


def huge_map(model):
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    next(attribute for attribute in node.attribute if attribute.name == "pads").ints[:] = [2**20] * 4


def more_numbers(model):
    tensor = next(tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT)
    tensor.raw_data = tensor.raw_data + b"\0\0\0\0"


def other_numbers(model):
    tensor = next(tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT)
    tensor.raw_data = b"\0" * len(tensor.raw_data)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (external, "lie in another file; nothing of it was run"),
        (custom, "it asks for the operation Shell; nothing of it was run"),
        (custom_domain, "it asks for operations of another library; nothing of it was run"),
        (loop, "it asks for the operation Loop; nothing of it was run"),
        (huge_dims, "has another shape than its numbers; nothing of it was run"),
        (huge_product, "has no size, or more numbers than 134,217,728; nothing of it was run"),
        (huge_map, "has no size, or more numbers than 134,217,728; nothing of it was run"),
        (more_numbers, "has another shape than its numbers"),
        (lambda model: model.graph.node.pop(), "nothing of it was run"),
        (lambda model: model.graph.node[5].ClearField("input"), "nothing of it was run"),
        (lambda model: model.graph.input[0].type.tensor_type.shape.dim[1].CopyFrom(
            onnx.TensorShapeProto.Dimension(dim_value=96)), "it takes and gives images UINT8 [batch, 96, 32, 3]"),
        (lambda model: model.ClearField("metadata_props"), "an ONNX file without a card"),
        (lambda model: model.metadata_props.add().CopyFrom(model.metadata_props[0]), "file without a card"),
        (lambda model: setattr(model.opset_import[0], "version", 99), "it asks for operations of another library"),
    ],
)  # fmt: skip
def test_hostile_onnx_files(place, tmp_path, change, line):
    changed(place, tmp_path / "n.onnx", change)
    found = refused(mancs_jax.load, tmp_path / "n.onnx")
    assert found.startswith(f"{tmp_path / 'n.onnx'}") and line in found
    assert [file.name for file in tmp_path.iterdir()] == ["n.onnx"]


def test_onnx_files_that_are_none(place, tmp_path):
    path = tmp_path / "n.onnx"
    changed(place, path, other_numbers, sealed=False)
    assert "has other numbers or operations than its card says; nothing of it was run" in refused(mancs_jax.load, path)
    content = (place / "n.onnx").read_bytes()
    for wrong in (content[: len(content) // 2], b"PK\x03\x04" + b"\0" * 100, b"", b"\x1f\x8b\x08" + b"\0" * 999):
        path.write_bytes(wrong)
        assert "not an ONNX file, or damaged at" in (line := refused(mancs_jax.load, path)) or "no ONNX file" in line
    with path.open("wb") as file:
        file.truncate(2**31 + 1)  # a sparse file: it takes no room here
    assert "more than an ONNX file can have" in refused(mancs_jax.load, path)
