"""The exported file: the network's numbers, on three platforms, where only jax, flatbuffers and numpy are."""

from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest
from drawn_network import drawn_network
from programs import run_python
from tiny_workdir import WIDTH, write_workdir

import mancs_jax
from mancs_jax.inference.export import check, export, jax_content
from mancs_jax.inference.forward import embed
from mancs_jax.inference.network_file import card_of, write_network
from mancs_jax.inference.trained import load_trained
from mancs_jax.kernels import convolution
from mancs_jax.training.description import Description

REPOSITORY = Path(__file__).parents[1]
# Put in front of the printed lines: to them, nothing else is installed.
WITHOUT_THE_REST = """
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

class Only(PathFinder):
    THERE = {"jax", "jaxlib", "numpy", "flatbuffers", "ml_dtypes", "opt_einsum", "scipy"} | sys.stdlib_module_names

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        is_there = name.partition(".")[0] in cls.THERE or name.startswith("_sysconfigdata")
        return super().find_spec(name, path, target) if is_there else None

sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Only]
try:
    import mancs_jax
except ModuleNotFoundError:
    pass
else:
    raise AssertionError("the package is still there")
"""
OUR_IMAGES = """
image = np.load("images.npy")
np.save("embeddings.npy", np.asarray(embed(image)))
np.save("one.npy", np.asarray(embed(image[:1])))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    write_workdir(path)
    return path, path / "out" / "network.jax", export(path, path / "out" / "network.jax")


def images():
    return np.random.default_rng(1).integers(0, 256, (5, 64, 32, 3), dtype=np.uint8)


def assert_same(found, expected):
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_what_is_in_the_file(exported):
    network = jax.export.deserialize(exported[1].read_bytes())
    assert network.platforms == ("cpu", "cuda", "tpu")
    (image,), (embedding,) = network.in_avals, network.out_avals
    assert image.dtype == np.uint8 and image.shape[1:] == (64, 32, 3) and not isinstance(image.shape[0], int)
    assert embedding.dtype == np.float32 and embedding.shape[1:] == (WIDTH,)
    assert sorted(file.name for file in exported[1].parent.iterdir()) == ["network.jax", "network.jax.json"]
    # JAX writes the source lines of a program into it: without the folders of this machine.
    assert b"resnet.py" in exported[1].read_bytes() and str(REPOSITORY).encode() not in exported[1].read_bytes()


def test_the_file_does_not_depend_on_the_processor(exported, monkeypatch):
    contents = []
    for rows in (0, 1):
        monkeypatch.setattr(convolution, "_EXTRA_ROWS", rows)
        contents.append(jax_content(load_trained(exported[0]).network, flip=False))
        assert rows == convolution._EXTRA_ROWS
    assert contents[0] == contents[1]


def test_the_printed_lines_need_only_jax_flatbuffers_and_numpy(exported):
    workdir, file, lines = exported
    assert len([line for line in lines.splitlines() if line and line[0] != "#"]) <= 9
    np.save(file.parent / "images.npy", images())
    code = WITHOUT_THE_REST + lines + OUR_IMAGES
    result = run_python(code, cwd=file.parent)
    assert (result.returncode, result.stdout) == (0, f"(2, {WIDTH})\n"), result.stderr
    expected = mancs_jax.load(workdir)(images())
    assert expected.std(axis=0).max() > 0.05
    assert_same(np.load(file.parent / "embeddings.npy"), expected)
    assert_same(np.load(file.parent / "one.npy"), expected[:1])


@pytest.mark.parametrize("input", ["uint8", "float"])
def test_the_printed_lines_need_only_onnxruntime_and_numpy(exported, tmp_path, input):
    pytest.importorskip("onnxruntime")
    lines = export(exported[0], tmp_path / "network.onnx", input=input)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    given = images() if input == "uint8" else ((images() / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    np.save(tmp_path / "images.npy", given)
    run = 'np.save("embeddings.npy", session.run(None, {"images": np.load("images.npy")})[0])\n'
    code = WITHOUT_THE_REST.replace('"jax", "jaxlib",', '"onnxruntime",') + lines + run
    result = run_python(code, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, f"(2, {WIDTH})\n"), result.stderr
    assert_same(np.load(tmp_path / "embeddings.npy"), mancs_jax.load(exported[0])(images()))


@pytest.mark.parametrize("suffix", ["jax", "onnx"])
def test_mixstyle_is_a_layer_of_training_only(tmp_path, suffix):
    """The file gives the embeddings of the embedder, and of the same network without this layer."""
    from mancs_jax.inference.embedder import load

    if suffix == "onnx":
        pytest.importorskip("onnxruntime")
    drawn = drawn_network("small", mixstyle_stages=(2, 3), mixstyle=1.0)
    card = card_of(drawn, 1, Description(drawn.config.to_dict(), drawn.num_classes, "f"))
    write_network(tmp_path, "mixed", drawn, card, "float32")
    export(tmp_path, tmp_path / f"mixed.{suffix}")
    found = load(tmp_path / f"mixed.{suffix}")(images())
    assert_same(found, load(tmp_path)(images()))
    plain = drawn_network("small")
    assert jax.tree.structure(plain.variables) == jax.tree.structure(drawn.variables)
    assert_same(found, embed(plain._replace(variables=drawn.variables), images()))


def test_flip(exported, tmp_path):
    export(exported[0], tmp_path / "flip.jax", flip=True)
    call = jax.export.deserialize((tmp_path / "flip.jax").read_bytes()).call
    assert_same(np.asarray(jax.jit(call)(images())), mancs_jax.load(exported[0], flip=True)(images()))


def test_other_numbers_are_refused_and_nothing_is_written(exported, tmp_path, monkeypatch):
    embed = mancs_jax.load(exported[0])
    assert check(exported[1], embed) < 1e-6
    with pytest.raises(ValueError, match="off by .* of its largest number, more than 1e-05"):
        check(exported[1], lambda image: embed(image) * 1.001)
    with pytest.raises(ValueError, match="off by nan"):
        check(exported[1], lambda image: embed(image) * np.float32(np.nan))

    def differs(*_):
        raise ValueError("off")

    monkeypatch.setattr("mancs_jax.inference.export.check", differs)
    for name in ("network.jax", "network.onnx"):
        with pytest.raises(ValueError, match="off"):
            export(exported[0], tmp_path / name)
    assert list(tmp_path.iterdir()) == []
