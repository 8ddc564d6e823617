"""ImageNet weights: files written by PyTorch and safetensors give the same features; bad files get one clear line."""

import io
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from mancs_jax.models import pretrained
from mancs_jax.models.mancs import Mancs

torch = pytest.importorskip("torch")
import torch_resnet  # noqa: E402

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def reference():
    """A ResNet-18 with a classifier, every tensor drawn at random."""
    return torch_resnet.randomize(torch_resnet.create("resnet18", num_classes=10), seed=0).eval()


@pytest.fixture(scope="module")
def state_dict(reference):
    return reference.state_dict()


def hugging_face_name(name):
    """The name in `ResNetForImageClassification` of a tensor of torchvision."""
    name = re.sub(r"^conv1\.", "resnet.embedder.embedder.convolution.", name)
    name = re.sub(r"^bn1\.", "resnet.embedder.embedder.normalization.", name)
    name = re.sub(r"^fc\.", "classifier.1.", name)
    name = re.sub(r"^layer(\d)\.(\d+)\.", lambda m: f"resnet.encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.", name)
    name = name.replace("downsample.0", "shortcut.convolution").replace("downsample.1", "shortcut.normalization")
    kinds = {"conv": "convolution", "bn": "normalization"}
    return re.sub(r"(\.layers\.\d+)\.(conv|bn)(\d)\.", lambda m: f"{m[1]}.layer.{int(m[3]) - 1}.{kinds[m[2]]}.", name)


def assert_same_weights(path, reference, rtol=0.0):
    """The file `path` gives exactly the trees of the PyTorch network."""
    trees = pretrained.load_imagenet(path, "resnet18")
    params, batch_stats = torch_resnet.to_flax(reference.state_dict())
    expected = {"params": params, "batch_stats": batch_stats}
    assert jax.tree.structure(trees) == jax.tree.structure(expected)
    assert all(type(leaf) is np.ndarray and leaf.dtype == np.float32 for leaf in jax.tree.leaves(trees))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol), trees, expected)


def save_safetensors(tensors, path):
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def check_refused(path, words, arch="resnet18"):
    """Loading raises a ValueError of one line, which names the file and has `words`."""
    with pytest.raises(ValueError, match=words) as refusal:
        pretrained.load_imagenet(path, arch)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: tensors,
        lambda tensors: {
            "state_dict": tensors,
            "epoch": 3,
            "optimizer": {"lr": [0.1, (0.9, None)]},
            "name": "x",
        },
        lambda tensors: {"module." + name: tensor for name, tensor in tensors.items()},
        lambda tensors: {"model": {"module." + name: tensor for name, tensor in tensors.items()}},
        lambda tensors: {name: torch.nn.Parameter(t, t.is_floating_point() and False) for name, t in tensors.items()},
        lambda tensors: {hugging_face_name(name): tensor for name, tensor in tensors.items()},
        lambda tensors: {hugging_face_name(name).removeprefix("resnet."): t for name, t in tensors.items()},
        # The same numbers in another order in memory.
        lambda tensors: {
            n: t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t for n, t in tensors.items()
        },
        lambda tensors: {name: tensor.double() for name, tensor in tensors.items()},
    ],
    ids=[
        "plain",
        "state_dict",
        "module",
        "model",
        "parameters",
        "hugging_face",
        "hf_base",
        "strides",
        "float64",
    ],
)
def test_torch_files(tmp_path, reference, state_dict, wrap):
    path = tmp_path / "weights.pth"
    torch.save(wrap(state_dict), path)
    assert_same_weights(path, reference)


def test_tensors_in_one_storage(tmp_path, reference, state_dict):
    flat = torch.cat([tensor.float().flatten() for tensor in state_dict.values()])
    parts = torch.split(flat, [tensor.numel() for tensor in state_dict.values()])
    views = {name: part.view(t.shape) for (name, t), part in zip(state_dict.items(), parts, strict=True)}
    torch.save(views, tmp_path / "weights.pth")
    assert_same_weights(tmp_path / "weights.pth", reference)


@pytest.mark.parametrize("rename", [str, hugging_face_name])
def test_safetensors_files(tmp_path, reference, state_dict, rename):
    pytest.importorskip("safetensors")
    path = tmp_path / "named_as_nothing"
    save_safetensors({rename(name): tensor for name, tensor in state_dict.items()}, path)
    assert_same_weights(path, reference)


@pytest.mark.parametrize("dtype, rtol", [(torch.float16, 2**-11), (torch.bfloat16, 2**-8)])
@pytest.mark.parametrize("save", [torch.save, save_safetensors])
def test_half_precision_becomes_float32(tmp_path, reference, state_dict, save, dtype, rtol):
    pytest.importorskip("safetensors")
    low = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state_dict.items()}
    save(low, tmp_path / "weights")
    trees = pretrained.load_imagenet(tmp_path / "weights", "resnet18")
    kernel = low["layer3.0.conv2.weight"].float().numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(trees["params"]["layer3_0"]["conv2"]["kernel"], kernel)
    del kernel
    params, batch_stats = torch_resnet.to_flax(reference.state_dict())
    close = partial(np.testing.assert_allclose, rtol=rtol, atol=1e-7)
    jax.tree.map(close, trees, {"params": params, "batch_stats": batch_stats})


def test_mancs_with_loaded_weights_has_the_features_of_torch(tmp_path, reference, state_dict):
    path = tmp_path / "weights.pth"
    torch.save(state_dict, path)
    model = Mancs(num_classes=3, arch="resnet18", fab_stages=(2, 3, 4), rank_dim=8, cls_dim=8)
    x = np.random.default_rng(0).normal(size=(2, 64, 32, 3)).astype(np.float32)
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), x)
    params, batch_stats = pretrained.load_into(variables["params"], variables["batch_stats"], path, "resnet18")

    before, after = variables, {"params": params, "batch_stats": batch_stats}
    assert jax.tree.structure(after) == jax.tree.structure(before)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, before)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(after))
    for path, leaf in flatten_dict(params).items():
        if path[0] != "backbone" or "fab" in path[1]:
            assert leaf is flatten_dict(before["params"])[path]
    assert params["backbone"]["layer4_1"]["prelu"]["slope"] == 0.25
    assert before["batch_stats"]["backbone"]["bn1"]["mean"].sum() == 0  # the argument was not changed

    # Attention that lets everything pass: sigmoid(-inf) = 0, F * 0 + F. A slope of 0 makes the PReLU a ReLU.
    params = jax.tree.map(np.array, params)
    for path, leaf in flatten_dict(params).items():
        if path[-2:] == ("excite", "bias"):
            leaf[:] = -100
    params["backbone"]["layer4_1"]["prelu"]["slope"][...] = 0
    maps = jax.jit(partial(model.apply, train=False))({"params": params, "batch_stats": batch_stats}, x)["maps"]
    with torch.no_grad():
        stages = reference(torch.from_numpy(x.transpose(0, 3, 1, 2)))
    for stage, expected in enumerate(map(torch_resnet.nhwc, stages), start=2):
        assert np.abs(maps[stage] - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("arch", pretrained.TORCHVISION_FILES)
def test_names_and_shapes_of_every_architecture(arch):
    with torch.device("meta"):
        reference = torch_resnet.create(arch)
    expected = {
        name: tuple(tensor.shape)
        for name, tensor in reference.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    leaves = pretrained._backbone_leaves(arch)
    assert {name: shape for name, (_, shape) in leaves.items()} == expected
    assert {pretrained.torchvision_name(hugging_face_name(name)) for name in leaves} == set(expected)


def test_every_misfit_is_in_one_message(tmp_path, state_dict):
    tensors = dict(state_dict)
    del tensors["bn1.weight"], tensors["layer2.0.downsample.0.weight"]
    tensors["layer1.0.se.weight"] = torch.zeros(2)
    tensors["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    tensors["bn1.bias"] = torch.zeros(64, dtype=torch.int64)
    torch.save(tensors, tmp_path / "weights.pth")
    message = check_refused(tmp_path / "weights.pth", "does not fit resnet18")
    assert "2 missing: bn1.weight, layer2.0.downsample.0.weight;" in message
    assert "1 left over: layer1.0.se.weight;" in message
    assert "2 wrong: bn1.bias int64[64] instead of float[64], " in message
    assert "conv1.weight float32[64, 3, 3, 3] instead of float[64, 3, 7, 7]" in message


def test_other_architecture_is_refused(tmp_path, state_dict):
    torch.save(state_dict, tmp_path / "weights.pth")
    message = check_refused(tmp_path / "weights.pth", "does not fit resnet34", "resnet34")
    assert "layer3.5.bn2.running_var" in message and "left over" not in message
    with pytest.raises(ValueError, match="no ImageNet weights for arch 'resnet10'; there are for resnet18, "):
        pretrained.load_imagenet(tmp_path / "weights.pth", "resnet10")


def test_other_width_is_refused(tmp_path, state_dict):
    torch.save(state_dict, tmp_path / "weights.pth")
    model = Mancs(num_classes=3, arch="resnet18", width=32)
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), jnp.zeros((1, 64, 32, 3)))
    with pytest.raises(ValueError, match=r"config.model.width = 64"):
        pretrained.load_into(variables["params"], variables["batch_stats"], tmp_path / "weights.pth", "resnet18")


def test_two_tensors_of_one_name_are_refused(tmp_path, state_dict):
    torch.save({**state_dict, "module.conv1.weight": state_dict["conv1.weight"]}, tmp_path / "weights.pth")
    check_refused(tmp_path / "weights.pth", "two tensors are conv1.weight")


class Command:
    """Unpickled by the ordinary unpickler, this would make a directory."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def write_archive(path, content, **members):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for name, data in members.items():
            archive.writestr(f"archive/{name}", data)


def test_hostile_pickle_is_refused_and_not_run(tmp_path, state_dict):
    made, path = tmp_path / "made", tmp_path / "weights.pth"
    torch.save({"state_dict": dict(state_dict), "extra": Command(made)}, path)
    check_refused(path, r"nothing of it was run.*(posix|nt)\.mkdir.*torch\.save\(model\.state_dict")
    assert not made.exists()
    torch.load(path, weights_only=False)  # the trap is real
    assert made.exists()


HOSTILE = {
    "eval": b"cbuiltins\neval\n(S'1'\ntR.",
    "stack_global": b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93.",
    "newlines": b"\x80\x04\x8c\x08builtins\x8c\x04e\n\ne\x93.",
    "attribute": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.",
    "numpy": b"cnumpy.core.multiarray\n_reconstruct\n.",
    "inst": b"(ios\nsystem\n.",
    "load_within": b"ctorch.storage\n_load_from_bytes\n.",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_forbidden_names(tmp_path, content):
    write_archive(tmp_path / "weights.pth", content)
    check_refused(tmp_path / "weights.pth", "refused, nothing of it was run")


def tensor_pickle(offset, shape, strides, storage=("storage", "FloatStorage", "0", "cpu", 4)):
    """A pickle of {"conv1.weight": tensor} with any layout."""

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, shape, strides, False, {})

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                return (storage[0], getattr(torch, storage[1]), *storage[2:])
            return None

    stream = io.BytesIO()
    Pickler(stream, 2).dump({"conv1.weight": Tensor()})
    return stream.getvalue()


@pytest.mark.parametrize(
    "offset, shape, strides",
    [
        (1, (4,), (1,)),
        (-1, (4,), (1,)),
        (0, (5,), (1,)),
        (0, (2, 2), (4, 1)),
        (3, (4,), (-2,)),
        (0, (-4,), (1,)),
        (0, (1 << 62, 4), (0, 0)),
        ("0", (4,), (1,)),
        (0, None, (1,)),
        (0, (4,), (1, 1)),
    ],
)
def test_tensors_cannot_reach_outside_their_storage(tmp_path, offset, shape, strides):
    data = {"data/0": np.arange(4, dtype=np.float32).tobytes()}
    write_archive(tmp_path / "good.pth", tensor_pickle(0, (2, 2), (1, 2)), **data)
    good = pretrained.read_tensors(tmp_path / "good.pth")
    np.testing.assert_array_equal(good["conv1.weight"], [[0, 2], [1, 3]])
    write_archive(tmp_path / "bad.pth", tensor_pickle(offset, shape, strides), **data)
    check_refused(tmp_path / "bad.pth", "damaged")


@pytest.mark.parametrize(
    "content, members, words",
    [
        (b"", {}, "EOFError"),
        (b"}.", {}, "no tensors, only nothing"),
        (b"}X\x05\x00\x00\x00epochK\x03s.", {}, "no tensors, only epoch"),
        (b"K\x03.", {}, "no state dict"),
        (b"}.", {"byteorder": "big"}, "big-endian"),
        (tensor_pickle(0, (4,), (1,)), {}, "archive/data/0"),
    ],
)
def test_archives_without_weights(tmp_path, content, members, words):
    write_archive(tmp_path / "weights.pth", content, **members)
    check_refused(tmp_path / "weights.pth", words)


@pytest.mark.parametrize("kept", [100, 5_000, -30_000, -20])
@pytest.mark.parametrize("save", [torch.save, save_safetensors])
def test_cut_files(tmp_path, state_dict, save, kept):
    pytest.importorskip("safetensors")
    path = tmp_path / "weights"
    save(state_dict, path)
    path.write_bytes(path.read_bytes()[:kept])
    check_refused(path, f"cut short.*{path.stat().st_size:,} bytes")


def test_changed_byte(tmp_path, state_dict):
    path = tmp_path / "weights.pth"
    torch.save(state_dict, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    check_refused(path, "damaged.*CRC")


def test_old_formats_tell_how_to_convert(tmp_path, state_dict):
    old = tmp_path / "old.pth"
    torch.save(state_dict, old, _use_new_zipfile_serialization=False)
    check_refused(old, r"before 1\.6; convert it where PyTorch is installed: torch\.save\(torch\.load\(")
    (tmp_path / "tar.pth").write_bytes(b"sys_info".ljust(257, b"\0") + b"ustar\0" + bytes(500))
    check_refused(tmp_path / "tar.pth", r"before 1\.6")


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"<!DOCTYPE html>"])
def test_files_of_another_kind(tmp_path, content):
    (tmp_path / "weights.pth").write_bytes(content)
    check_refused(tmp_path / "weights.pth", "neither a PyTorch zip file nor safetensors")


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"[]",
        b'{"a": 3}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "X", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
    ],
)
def test_damaged_safetensors(tmp_path, header):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    check_refused(path, "damaged safetensors|neither")


def test_missing_file_says_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        pretrained.load_imagenet(tmp_path / "none.pth", "resnet50")
    message = str(error.value)
    assert message.startswith(f"config.pretrained: no file {tmp_path / 'none.pth'}; ") and "\n" not in message
    for words in ("download.pytorch.org/models/resnet50-0676ba61.pth", "huggingface.co/timm/resnet50", "=''"):
        assert words in message


def import_weights(*arguments):
    command = [sys.executable, str(ROOT / "scripts" / "import_weights.py"), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_script_writes_clean_safetensors(tmp_path, reference, state_dict):
    source, output = tmp_path / "weights.bin", tmp_path / "clean.safetensors"
    torch.save({"state_dict": {"module." + hugging_face_name(n): t.double() for n, t in state_dict.items()}}, source)
    result = import_weights(f"--source={source}", "--arch=resnet18", f"--output={output}")
    assert result.returncode == 0, result.stderr
    assert "100 tensors of resnet18" in result.stdout
    assert sorted(file.name for file in tmp_path.iterdir()) == ["clean.safetensors", "weights.bin"]
    assert_same_weights(output, reference)
    content = output.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    names = {name for name in state_dict if not name.startswith("fc.") and not name.endswith("num_batches_tracked")}
    assert set(header) - {"__metadata__"} == names
    # What the official library reads is torchvision's state dict again.
    load_file = pytest.importorskip("safetensors.torch").load_file
    tensors = load_file(output)
    assert tensors.keys() == names
    assert all(torch.equal(tensor, state_dict[name]) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    "source, output, words",
    [
        ("none.pth", "new.safetensors", "no file"),
        ("bad.pth", "new.safetensors", "neither a PyTorch zip file"),
        ("good.pth", "new.pth", "must end in .safetensors"),
        ("good.pth", "nowhere/new.safetensors", "No such file or directory"),
    ],
)
def test_script_refuses_in_one_line(tmp_path, state_dict, source, output, words):
    (tmp_path / "bad.pth").write_bytes(b"nothing")
    torch.save(state_dict, tmp_path / "good.pth")
    result = import_weights(f"--source={tmp_path / source}", "--arch=resnet18", f"--output={tmp_path / output}")
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith("import_weights: ") and words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / output).exists()
