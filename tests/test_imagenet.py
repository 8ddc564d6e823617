"""ImageNet weights: files written by PyTorch and safetensors give the same features; bad files get one clear line."""

import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from refusals import refused

from mancs_jax.models.mancs import Mancs
from mancs_jax.weights import imagenet
from mancs_jax.weights.start import load_into
from mancs_jax.weights.state_dict import to_variables

torch = pytest.importorskip("torch")
import torch_resnet  # noqa: E402


@cache
def reference_of(arch):
    """A ResNet with a classifier, every tensor drawn at random."""
    return torch_resnet.randomize(torch_resnet.create(arch, num_classes=10), seed=0).eval()


@pytest.fixture(scope="module")
def reference():
    return reference_of("resnet18")


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


def load(path, arch):
    return to_variables(imagenet.read_backbone(path, arch), imagenet.backbone_leaves(arch))


def assert_same_weights(path, reference):
    """The file `path` gives exactly the trees of the PyTorch network."""
    trees = load(path, "resnet18")
    params, batch_stats = torch_resnet.to_flax(reference.state_dict())
    expected = {"params": params, "batch_stats": batch_stats}
    assert jax.tree.structure(trees) == jax.tree.structure(expected)
    assert all(type(leaf) is np.ndarray and leaf.dtype == np.float32 for leaf in jax.tree.leaves(trees))
    jax.tree.map(np.testing.assert_array_equal, trees, expected)


def test_names_of_hugging_face_without_their_prefix(tmp_path, reference, state_dict):
    names = {hugging_face_name(name).removeprefix("resnet."): tensor for name, tensor in state_dict.items()}
    torch.save(names, tmp_path / "weights.pth")
    assert_same_weights(tmp_path / "weights.pth", reference)


def test_tensors_in_one_storage(tmp_path, reference, state_dict):
    flat = torch.cat([tensor.float().flatten() for tensor in state_dict.values()])
    parts = torch.split(flat, [tensor.numel() for tensor in state_dict.values()])
    views = {name: part.view(t.shape) for (name, t), part in zip(state_dict.items(), parts, strict=True)}
    torch.save(views, tmp_path / "weights.pth")
    assert_same_weights(tmp_path / "weights.pth", reference)


def draw_variables(model):
    """Variables of a network, random and unlike those of a file."""
    shapes = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), jnp.zeros((1, 64, 32, 3)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("rename", [str, hugging_face_name], ids=["torchvision_and_timm", "hugging_face"])
@pytest.mark.parametrize("save", [torch.save, torch_resnet.save_safetensors], ids=["pth", "safetensors"])
@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_training_starts_from_the_weights_of_any_source(tmp_path, arch, save, rename):
    pytest.importorskip("safetensors")
    reference, path = reference_of(arch), tmp_path / "weights"
    save({rename(name): tensor for name, tensor in reference.state_dict().items()}, path)
    before = draw_variables(Mancs(num_classes=3, arch=arch, rank_dim=8, cls_dim=8))
    params, batch_stats = load_into(before["params"], before["batch_stats"], path, arch)
    after = {"params": params, "batch_stats": batch_stats}
    assert jax.tree.structure(after) == jax.tree.structure(before)

    loaded_params, loaded_stats = map(flatten_dict, torch_resnet.to_flax(reference.state_dict()))
    loaded = {("params", "backbone", *leaf): value for leaf, value in loaded_params.items()}
    loaded |= {("batch_stats", "backbone", *leaf): value for leaf, value in loaded_stats.items()}
    old = flatten_dict(before)
    for leaf, value in flatten_dict(after).items():
        if leaf in loaded:
            np.testing.assert_array_equal(value, loaded[leaf])
            assert value.dtype == np.float32 and not np.array_equal(value, old[leaf])  # the argument was not changed
        else:
            assert value is old[leaf]
    last = {"resnet18": "layer4_1", "resnet50": "layer4_2"}[arch]
    kept = {leaf[1:-1] for leaf in old.keys() - loaded.keys() if leaf[1] == "backbone"}
    assert kept == {("backbone", last, "prelu")}


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_mancs_with_loaded_weights_has_the_features_of_torch(tmp_path, arch):
    reference, path = reference_of(arch), tmp_path / "weights.pth"
    torch.save(reference.state_dict(), path)
    model = Mancs(num_classes=3, arch=arch, rank_dim=8, cls_dim=8)
    before = draw_variables(model)
    # Attention that lets everything pass: sigmoid(-inf) = 0, F * 0 + F. A slope of 0 makes the PReLU a ReLU.
    for leaf, value in flatten_dict(before["params"]).items():
        if leaf[-2:] == ("excite", "bias") or leaf[-1] == "slope":
            value[...] = 0 if leaf[-1] == "slope" else -1e4
    params, batch_stats = load_into(before["params"], before["batch_stats"], path, arch)
    x = np.random.default_rng(0).normal(size=(2, 64, 32, 3)).astype(np.float32)
    maps = jax.jit(partial(model.apply, train=False))({"params": params, "batch_stats": batch_stats}, x).maps
    with torch.no_grad():
        stages = reference(torch.from_numpy(x.transpose(0, 3, 1, 2)))
    for stage, expected in enumerate(map(torch_resnet.nhwc, stages), start=2):
        assert np.abs(maps[stage] - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("arch", imagenet.TORCHVISION_FILES)
def test_names_and_shapes_of_every_architecture(arch):
    with torch.device("meta"):
        reference = torch_resnet.create(arch)
    expected = {
        name: tuple(tensor.shape)
        for name, tensor in reference.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    leaves = imagenet.backbone_leaves(arch)
    assert {name: leaf.torch_shape for name, leaf in leaves.items()} == expected
    assert {imagenet.torchvision_name(hugging_face_name(name)) for name in leaves} == set(expected)


def test_every_misfit_is_in_one_message(tmp_path, state_dict):
    tensors = dict(state_dict)
    del tensors["bn1.weight"], tensors["layer2.0.downsample.0.weight"]
    tensors["layer1.0.se.weight"] = torch.zeros(2)
    tensors["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    tensors["bn1.bias"] = torch.zeros(64, dtype=torch.int64)
    torch.save(tensors, tmp_path / "weights.pth")
    message = refused(imagenet.read_backbone, tmp_path / "weights.pth", "resnet18")
    assert f"{tmp_path / 'weights.pth'} does not fit resnet18" in message
    assert "2 missing: bn1.weight, layer2.0.downsample.0.weight;" in message
    assert "1 left over: layer1.0.se.weight;" in message
    assert "2 wrong: bn1.bias int64[64] instead of float[64], " in message
    assert "conv1.weight float32[64, 3, 3, 3] instead of float[64, 3, 7, 7]" in message


def test_other_architecture_is_refused(tmp_path, state_dict):
    torch.save(state_dict, tmp_path / "weights.pth")
    message = refused(imagenet.read_backbone, tmp_path / "weights.pth", "resnet34")
    assert "does not fit resnet34" in message
    assert " missing: layer1.2.bn1.bias, layer1.2.bn1.running_mean, " in message and "left over" not in message
    with pytest.raises(ValueError, match="no ImageNet weights for arch 'resnet10'; there are for resnet18, "):
        imagenet.read_backbone(tmp_path / "weights.pth", "resnet10")


def test_other_width_is_refused(tmp_path, state_dict):
    torch.save(state_dict, tmp_path / "weights.pth")
    model = Mancs(num_classes=3, arch="resnet18", width=32)
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), jnp.zeros((1, 64, 32, 3)))
    with pytest.raises(ValueError, match=r"config.model.width = 64"):
        load_into(variables["params"], variables["batch_stats"], tmp_path / "weights.pth", "resnet18")


def test_two_tensors_of_one_name_are_refused(tmp_path, state_dict):
    torch.save({**state_dict, "module.conv1.weight": state_dict["conv1.weight"]}, tmp_path / "weights.pth")
    line = refused(imagenet.read_backbone, tmp_path / "weights.pth", "resnet18")
    assert "weights.pth" in line and "two tensors are conv1.weight" in line
