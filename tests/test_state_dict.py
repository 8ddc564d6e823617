"""State dicts: what is read from files of every kind, and the one line for those that are damaged, old or hostile."""

import io
import os
import pickle
import re
import zipfile

import numpy as np
import pytest
from refusals import refused
from tiny_sources import run_script

from mancs_jax.weights import imagenet
from mancs_jax.weights.safetensors_file import read_safetensors, write_safetensors
from mancs_jax.weights.state_dict import read_tensors

torch = pytest.importorskip("torch")
import torch_resnet  # noqa: E402
from torch_resnet import save_safetensors  # noqa: E402


@pytest.fixture(scope="module")
def state_dict():
    return torch_resnet.randomize(torch_resnet.TorchResNet((1, 1, 1, 1), False, width=8), seed=0).state_dict()


def check_refused(path, words):
    """Reading raises a ValueError of one line, which names the file and has `words`."""
    line = refused(read_tensors, path)
    assert str(path) in line and re.search(words, line), line
    return line


@pytest.mark.parametrize("prefix", ["", "module.", "module.module."])
@pytest.mark.parametrize("save", [torch.save, save_safetensors])
def test_every_tensor_is_read(tmp_path, state_dict, save, prefix):
    pytest.importorskip("safetensors")
    save({prefix + name: tensor for name, tensor in state_dict.items()}, tmp_path / "weights")
    tensors = read_tensors(tmp_path / "weights")
    assert tensors.keys() == state_dict.keys()
    for name, tensor in state_dict.items():
        assert tensors[name].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(tensors[name], tensor.numpy())


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
    [(1, (4,), (1,)), (-1, (4,), (1,)), (0, (5,), (1,)), (0, (2, 2), (4, 1)), (3, (4,), (-2,)), (0, (-4,), (1,))]
    + [(0, (1 << 62, 4), (0, 0)), ("0", (4,), (1,)), (0, None, (1,)), (0, (4,), (1, 1))],
)
def test_tensors_cannot_reach_outside_their_storage(tmp_path, offset, shape, strides):
    data = {"data/0": np.arange(4, dtype=np.float32).tobytes()}
    write_archive(tmp_path / "good.pth", tensor_pickle(0, (2, 2), (1, 2)), **data)
    good = read_tensors(tmp_path / "good.pth")
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
        (b"cnumpy.core.multiarray\nscalar\n}b.", {}, "no state dict"),
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
    check_refused(old, r"before 1\.6; .*convert it where PyTorch is installed: torch\.save\(torch\.load\(")
    (tmp_path / "tar.pth").write_bytes(b"sys_info".ljust(257, b"\0") + b"ustar\0" + bytes(500))
    check_refused(tmp_path / "tar.pth", r"before 1\.6")


def test_the_way_to_convert_works_for_a_score_that_python_2_wrote(tmp_path):
    old, new = tmp_path / "old.pth", tmp_path / "new.pth"
    torch.save({"state_dict": {"a": torch.arange(3.0)}, "best": "x"}, old, _use_new_zipfile_serialization=False)
    # A NumPy float64 as Python 2 pickled it: the bytes are text, and no UTF-8.
    scalar = b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(U\x02f8K\x00K\x01tRU\x08"
    number = scalar + np.float64(0.93).tobytes() + b"tR"
    content = old.read_bytes()
    assert content.count(b"X\x01\x00\x00\x00x") == 1
    old.write_bytes(content.replace(b"X\x01\x00\x00\x00x", number))
    command = re.search(r"torch\.save\(.*\)", check_refused(old, "before 1.6"))[0]
    exec(command, {"torch": torch, "NEW": new})
    np.testing.assert_array_equal(read_tensors(new)["a"], [0, 1, 2])


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


def test_a_transposed_array_is_written_as_it_reads(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    write_safetensors({"a": array}, tmp_path / "a.safetensors")
    np.testing.assert_array_equal(read_safetensors(tmp_path / "a.safetensors")["a"], array)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int64])
def test_safetensors_keep_their_dtypes(tmp_path, dtype):
    tensor = torch.tensor([[1.5, -2.0, 0.25]]).to(dtype)
    save_safetensors({"a": tensor}, tmp_path / "a.safetensors")
    found = read_safetensors(tmp_path / "a.safetensors")["a"]
    assert found.dtype.name == str(dtype).removeprefix("torch.")
    np.testing.assert_array_equal(found.astype(np.float64), tensor.to(torch.float64).numpy())


@pytest.mark.parametrize(
    "name_of",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: name.replace("layer1.0", "layer1._orig_mod.0"),
        lambda name: f"backbone.{name}",
        lambda name: f"model.encoder.{name}",
    ],
)
def test_what_wrappers_put_before_names_is_left_out(tmp_path, state_dict, name_of, capsys):
    torch.save({name_of(name): tensor for name, tensor in state_dict.items()}, tmp_path / "weights.pth")
    assert read_tensors(tmp_path / "weights.pth").keys() == state_dict.keys()
    said = capsys.readouterr().err
    assert ("every name begins with backbone., which is removed" in said) == name_of("").startswith("backbone")


def test_a_checkpoint_with_what_schedulers_and_samplers_save(tmp_path, state_dict):
    import collections

    beside = {
        "milestones": collections.Counter([20, 40, 40]),
        "seen": {1, 2},
        "size": torch.Size([256, 128]),
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "best": np.float64(0.5),
        "tag": complex(1, 2),
        "raw": bytearray(b"x"),
        "parameter": torch.nn.Parameter(torch.zeros(2)),
    }
    for wrapper in ("state_dict", "model_state_dict", "anything"):
        content = {wrapper: dict(state_dict)} | (beside if wrapper != "anything" else {"epoch": 3})
        torch.save(content, tmp_path / "weights.pth")
        assert read_tensors(tmp_path / "weights.pth").keys() == state_dict.keys()
    torch.save({"n_averaged": torch.tensor(3)} | {f"module.{n}": t for n, t in state_dict.items()}, tmp_path / "w")
    assert read_tensors(tmp_path / "w").keys() == state_dict.keys()


def test_lists_of_names_are_short(tmp_path, state_dict):
    torch.save({f"other_{name}": tensor for name, tensor in state_dict.items()}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="does not fit") as error:
        imagenet.read_backbone(tmp_path / "weights.pth", "resnet18")
    line = str(error.value)
    assert len(line) < 1000 and " 100 missing: bn1.bias, " in line and " and 92 more" in line
    assert line.endswith(f"mancs import-weights --source={tmp_path / 'weights.pth'} --names prints all names")


NEWER = ("uint16", "uint32", "uint64", "complex64", "complex128")
NEWER += ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")


@pytest.mark.parametrize("name", NEWER)
def test_newer_types_of_tensors_are_read(tmp_path, name):
    tensor = torch.tensor([1, 2, 4]).to(getattr(torch, name))
    torch.save({"a": tensor.repeat(2).view(2, 3).T, "b": tensor, "type": tensor.dtype}, tmp_path / "w.pth")
    found = read_tensors(tmp_path / "w.pth")
    assert found["a"].dtype.name == name and found["a"].astype(np.complex64).tolist() == [[1, 1], [2, 2], [4, 4]]
    assert found["b"].astype(np.complex64).tolist() == [1, 2, 4]


@pytest.mark.filterwarnings("ignore")  # PyTorch warns of its own kinds of tensors
def test_tensors_that_are_no_arrays_are_named_and_left_out(tmp_path, capsys):
    kinds = {
        "sparse": torch.eye(2).to_sparse(),
        "quantized": torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8),
        "without numbers (meta)": torch.zeros(2, device="meta"),
        "nested": torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
        "conjugated or negated": torch.tensor([1j]).conj(),
        "complex32": torch.zeros(2, dtype=torch.complex32),
    }
    beside = {"storage": torch.zeros(2).untyped_storage(), "type": torch.complex64, "other": torch.float8_e5m2}
    weight = torch.nn.Parameter(torch.ones(2))
    weight.note = "kept with its attributes"
    for number, (kind, tensor) in enumerate(kinds.items()):
        path = tmp_path / f"{number}.pth"
        torch.save({"weight": weight, "odd": tensor} | beside, path)
        assert {name: array.tolist() for name, array in read_tensors(path).items()} == {"weight": [1, 1]}
        assert capsys.readouterr().err == f"{path}: cannot be used and skipped: odd ({kind})\n"
        torch.save({"odd": tensor}, path)
        check_refused(path, re.escape(f"no tensor that is an array of numbers, only odd ({kind})"))
    torch.save({"weight": weight} | {f"odd{i}": kinds["sparse"] for i in range(7)}, path)
    read_tensors(path)
    assert capsys.readouterr().err.endswith("odd4 (sparse) and 2 more\n")


def test_several_entries_with_tensors_are_listed(tmp_path, state_dict):
    path = tmp_path / "w.pth"
    of_optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}, 1: {"exp_avg": torch.zeros(2)}}, "param_groups": [1]}
    for content, names in (
        ({"ema": dict(state_dict), "optimizer": of_optimizer, "epoch": 3, "args": {"lr": 1}}, "'ema', 'optimizer'"),
        ({"student": dict(state_dict), "teacher": dict(state_dict)}, "'student', 'teacher'"),
    ):
        torch.save(content, path)
        line = check_refused(path, f"{names} in it hold tensors")
        save = line.partition("the one that you mean: ")[2].replace("NEW", "new")
        exec(save, {"torch": torch, "new": path})  # what the line says works
        assert read_tensors(path).keys() == state_dict.keys()


@pytest.mark.parametrize(
    ("name_of", "prefix"),
    [
        (lambda name: f"model.{name}", "model."),
        (lambda name: f"model.net.{name}", "model.net."),
        (lambda name: f"model.base.{name}", "model."),
        (lambda name: f"base.{name}", ""),
        (lambda name: name, ""),
    ],
)
def test_a_network_beside_other_tensors_is_found(tmp_path, state_dict, name_of, prefix, capsys):
    tensors = {name_of(name): tensor for name, tensor in state_dict.items()} | {"criterion.centers": torch.zeros(2)}
    torch.save({"state_dict": tensors}, tmp_path / "w.pth")
    found = read_tensors(tmp_path / "w.pth").keys()
    if prefix:
        assert found == {name_of(name).removeprefix(prefix) for name in state_dict}
        told = f"{tmp_path / 'w.pth'}: the model is below {prefix}; skipped: criterion.centers\n"
        assert capsys.readouterr().err == told
    else:
        assert found == tensors.keys() and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "names",
    [
        ["localization.conv1.weight", "backbone.stem.0.weight", "backbone.layer1.0.conv1.weight"],
        ["conv1.0.weight", "layer1.0.conv1.weight", "layer1.0.se.conv1.weight"],
        ["xconv1.weight", "xlayer1.0.conv1.weight", "other"],
    ],
)
def test_other_parts_with_a_conv1_are_no_network(tmp_path, names, capsys):
    torch.save({name: torch.zeros(1) for name in names}, tmp_path / "w.pth")
    assert list(read_tensors(tmp_path / "w.pth")) == names and capsys.readouterr().err == ""


def test_all_names_are_shown_as_they_are(tmp_path, state_dict, capsys):
    tensors = {f"model.{name}": tensor for name, tensor in state_dict.items()} | {"b": torch.zeros(2)}
    torch.save(tensors, tmp_path / "w.pth")
    assert run_script("import_weights", f"--source={tmp_path / 'w.pth'}", "--names") == ""
    out = capsys.readouterr().out
    assert out.startswith("model.conv1.weight float32[8, 3, 7, 7]\n") and out.endswith("b float32[2]\n")


def test_of_several_networks_none_is_taken(tmp_path, state_dict):
    names = [f"{whose}.{name}" for whose in ("student", "teacher") for name in state_dict]
    torch.save({name: torch.zeros(1) for name in names}, tmp_path / "w.pth")
    assert list(read_tensors(tmp_path / "w.pth")) == names
