"""The authors' checkpoints: their network in PyTorch gives the same numbers, and files go both ways unchanged."""

from functools import partial

import jax
import numpy as np
import pytest
from refusals import refused

from mancs_jax.losses.identity import attention_loss, focal_loss
from mancs_jax.losses.sampling import Triplets
from mancs_jax.losses.triplet import euclidean_distances, triplet_loss
from mancs_jax.models.mancs import create_model
from mancs_jax.weights import authors, imagenet
from mancs_jax.weights.safetensors_file import write_safetensors
from mancs_jax.weights.start import load_into

torch = pytest.importorskip("torch")
import torch_mancs  # noqa: E402
from tiny_release import (  # noqa: E402
    CLASSES,
    CLS_DIM,
    SMALL,
    assert_bits_equal,
    authors_config,
    create_reference,
    draw_variables,
)
from torch_resnet import save_safetensors  # noqa: E402


@pytest.fixture(scope="module")
def small():
    return create_reference(**SMALL)


def fixed_triplets(labels, seed=0):
    """Each anchor with each positive after it and some negative: [T,3], and the same as the samplers give them."""
    rng = np.random.default_rng(seed)
    batch, num = len(labels), int((labels == labels[0]).sum()) - 1
    positive, negative = np.zeros((2, batch, num), np.int32)
    rows = []
    for anchor in range(batch):
        same = labels == labels[anchor]
        positive[anchor] = [other for other in np.flatnonzero(same) if other != anchor]
        negative[anchor] = rng.choice(np.flatnonzero(~same), num)
        rows += [(anchor, p, n) for p, n in zip(positive[anchor], negative[anchor]) if p > anchor]
    later = positive > np.arange(batch)[:, None]
    return torch.tensor(np.array(rows)), Triplets(positive, negative, np.where(later, 2.0, 0.0).astype(np.float32))


X, LABELS = np.random.default_rng(1).normal(size=(8, 64, 32, 3)).astype(np.float32), np.repeat([3, 1], 4)
TORCH_X, TORCH_LABELS = torch.from_numpy(X.transpose(0, 3, 1, 2)), torch.from_numpy(LABELS)
ROWS, TRIPLETS = fixed_triplets(LABELS)


def losses(config, out):
    """The three losses and their sum, as the training step takes them from a configuration."""
    loss = config.loss
    focal = partial(focal_loss, gamma=loss.gamma, probability=loss.probability, detach_weight=loss.detach_focal)
    parts = (
        triplet_loss(euclidean_distances(out.f_rank, out.f_rank), TRIPLETS, loss.margin),
        focal(out.cls_logits, LABELS),
        attention_loss(out.att_logits, LABELS, kind=loss.attention),
    )
    return *parts, loss.rank_weight * parts[0] + loss.cls_weight * parts[1] + loss.att_weight * parts[2]


@pytest.mark.parametrize(
    ("options", "train"),
    [(SMALL, False), (SMALL, True), ({"arch": "resnet50"}, False)],  # only evaluation reads the stored statistics
    ids=["small", "small in training", "resnet50"],
)
def test_outputs_and_losses_equal_those_of_pytorch(tmp_path, options, train):
    tolerance = 1e-3 if train else 1e-4
    reference, config = create_reference(**options).train(train), authors_config(**options)
    torch.save({"state_dict": reference.state_dict()}, tmp_path / "model.pth")
    variables, num_classes = authors.load_released(tmp_path / "model.pth", config)
    assert num_classes == CLASSES
    model = create_model(config, num_classes)

    @jax.jit
    def run(params, batch_stats):
        variables = {"params": params, "batch_stats": batch_stats}
        out = model.apply(variables, X, train=train, mutable=["batch_stats"] if train else False)
        return out[0] if train else out

    out = run(variables["params"], variables["batch_stats"])
    with torch.set_grad_enabled(False):
        outputs = reference(TORCH_X)
        expected = torch_mancs.losses(outputs, TORCH_LABELS, ROWS)
    for name, output in zip(("f_rank", "cls_logits", "att_logits"), outputs):
        output = output.numpy()
        assert np.ptp(output, axis=0).min() > 0.01  # images differ
        assert np.abs(getattr(out, name) - output).max() <= tolerance * np.abs(output).max(), name
    found = losses(config, out)
    np.testing.assert_allclose(found, [loss.item() for loss in expected], rtol=tolerance)
    assert min(found) > 0.1


def test_gradients_equal_those_of_pytorch(tmp_path, small):
    torch.save(small.state_dict(), tmp_path / "model.pth")
    config = authors_config(**SMALL)
    variables, num_classes = authors.load_released(tmp_path / "model.pth", config)
    model = create_model(config, num_classes)

    @jax.jit
    @jax.grad
    def gradient(params):
        out = model.apply({"params": params, "batch_stats": variables["batch_stats"]}, X, train=False)
        return losses(config, out)[-1]

    found = authors.to_released({"params": gradient(variables["params"])})
    total = torch_mancs.losses(small(TORCH_X), TORCH_LABELS, ROWS)[-1]
    small.zero_grad()
    total.backward()
    for name, parameter in small.named_parameters():
        if name in authors.UNUSED:
            assert parameter.grad is None
            continue
        expected = parameter.grad.numpy()
        assert np.abs(expected).max() > 1e-5, name
        assert np.abs(found[name] - expected).max() <= 1e-3 * np.abs(expected).max(), name


# What is beside the ResNet, read off the release's reid/models/resnet.py, for 751 identities.
BESIDE_THE_RESNET = {
    **{
        f"att{number}.conv.{part}": shape
        for number, channels in ((1, 256), (2, 512), (3, 1024))
        for part, shape in {
            "0.weight": (16, channels, 1, 1),
            "0.bias": (16,),
            "1.weight": (1,),
            "2.weight": (channels, 16, 1, 1),
            "2.bias": (channels,),
        }.items()
    },
    "feat.weight": (2048, 2048),
    **{f"feat_bn.{leaf}": (2048,) for leaf in ("weight", "bias", "running_mean", "running_var")},
    "prelu.weight": (1,),
    "classifier_x2.weight": (751, 2048),
    "classifier_x2.bias": (751,),
    "embed_x3.weight": (1792, 1792),
    **{f"bn_x3.{leaf}": (1792,) for leaf in ("weight", "bias", "running_mean", "running_var")},
    "classifier_x3.weight": (751, 1792),
    "classifier_x3.bias": (751,),
}
UNUSED = {"base.fc.weight": (1000, 2048), "base.fc.bias": (1000,), "prelu_x3.weight": (1,)}


def test_names_and_shapes_are_those_of_the_release():
    found = {name: tensor.shape for name, tensor in authors.to_released(draw_variables(authors_config(), 751)).items()}
    resnet = {f"base.{name}": leaf.torch_shape for name, leaf in imagenet.backbone_leaves("resnet50").items()}
    assert found == BESIDE_THE_RESNET | resnet | {"base.layer4.2.relu.weight": (1,)} | UNUSED


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: tensors,
        lambda tensors: {
            "state_dict": tensors,
            "epoch": 150,
            "best_top1": np.float64(0.931),
            "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 9e-4, "params": [0]}]},
        },
        lambda tensors: {"state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}},
        lambda tensors: {name: t for name, t in tensors.items() if not name.endswith("num_batches_tracked")},
        lambda tensors: {name: t for name, t in tensors.items() if name not in UNUSED},
    ],
    ids=["plain", "checkpoint", "module", "pytorch0.3", "used"],
)
@pytest.mark.parametrize("save", [torch.save, save_safetensors])
def test_every_form_of_a_checkpoint(tmp_path, small, wrap, save):
    config, tensors = authors_config(**SMALL), wrap(dict(small.state_dict()))
    if save is save_safetensors:
        pytest.importorskip("safetensors")
        tensors = tensors.get("state_dict", tensors)
    save(tensors, tmp_path / "model_best.pth.tar")
    variables, num_classes = authors.load_released(tmp_path / "model_best.pth.tar", config)
    assert num_classes == CLASSES
    expected = {name: tensor.numpy() for name, tensor in small.state_dict().items()}
    found = authors.to_released(variables)
    assert found.keys() == {name for name in expected if not name.endswith("num_batches_tracked")}
    used = found.keys() - UNUSED.keys()
    assert_bits_equal({name: found[name] for name in used}, {name: expected[name] for name in used})
    assert found["prelu_x3.weight"] == 0.25 and not (found["base.fc.weight"].any() or found["base.fc.bias"].any())


OTHERS = {
    "authors": {},
    "paper": {
        **dict.fromkeys(("cls_head", "rank_head"), "fc"),
        "att_head": "linear",
        "last_activation": "prelu",
        "fab_activation": "relu",
        "fab_squeeze": 0,
        "rank_dim": 12,
    },
    "all": {"fab_stages": (2, 3, 4, 5), "rank_head": "fc", "rank_dim": 12, "last_stride": 1},
    "plain": {"fab_stages": (), "last_activation": "relu"},
    "bottleneck": {"arch": "resnet50"},
}


@pytest.mark.parametrize("model", OTHERS.values(), ids=OTHERS)
def test_round_trip_is_bit_equal(tmp_path, model):
    config, path = authors_config(**SMALL | model), tmp_path / "mancs.safetensors"
    variables = draw_variables(config)
    tensors = authors.to_released(variables)
    write_safetensors(tensors, path)
    again, num_classes = authors.load_released(path, config)
    assert num_classes == CLASSES
    assert_bits_equal(again, variables)
    assert_bits_equal(authors.to_released(again), tensors)


def test_names_of_what_the_release_has_not():
    names = authors.to_released(draw_variables(authors_config(**SMALL | OTHERS["paper"]))).keys()
    heads = {name for name in names if not name.startswith(("base.", "att"))}
    modules = ("rank_fc", "feat", "classifier_x2", "classifier_x3")
    assert heads == {f"{module}.{leaf}" for module in modules for leaf in ("weight", "bias")}
    assert "base.layer4.0.relu.weight" in names and "att1.conv.1.weight" not in names and "base.fc.bias" not in names
    names = authors.to_released(draw_variables(authors_config(**SMALL | OTHERS["all"]))).keys()
    assert "att4.conv.2.weight" in names and "rank_fc.bias" in names


def test_pytorch_loads_what_was_exported(tmp_path, small):
    load_file = pytest.importorskip("safetensors.torch").load_file
    config = authors_config(**SMALL)
    variables = draw_variables(config)
    variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    write_safetensors(authors.to_released(variables), tmp_path / "mancs.safetensors")
    other = create_reference(**SMALL)
    other.load_state_dict(load_file(tmp_path / "mancs.safetensors"))  # strict
    torch.save(other.state_dict(), tmp_path / "again.pth")
    assert_bits_equal(authors.load_released(tmp_path / "again.pth", config)[0], variables)


def test_other_files_are_refused(tmp_path, small):
    config, path = authors_config(**SMALL), tmp_path / "model.pth"
    torch.save(small.base.state_dict(), path)
    assert f"{path} holds no whole network" in refused(authors.load_released, path, config)
    torch.save({"base.conv1.weight": torch.zeros(8, 3, 7, 7)}, path)
    assert f"{path} holds no whole network" in refused(authors.load_released, path, config)
    with pytest.raises(FileNotFoundError, match="none.pth"):
        authors.load_released(tmp_path / "none.pth", config)


def test_training_starts_from_the_whole_network_or_from_its_backbone(tmp_path, capsys):
    reference, path = create_reference("resnet18", cls_dim=CLS_DIM), tmp_path / "model.pth"
    torch.save({"state_dict": reference.state_dict()}, path)
    config = authors_config(arch="resnet18", cls_dim=CLS_DIM)
    before = draw_variables(config)
    params, batch_stats = load_into(before["params"], before["batch_stats"], path, "resnet18")
    loaded, _ = authors.load_released(path, config)
    assert_bits_equal({"params": params, "batch_stats": batch_stats}, loaded)

    other = draw_variables(config, num_classes=CLASSES + 1)
    params, batch_stats = load_into(other["params"], other["batch_stats"], path, "resnet18")
    assert capsys.readouterr().err == f"{path}: its classifiers are for other identities and are initialised anew\n"
    assert_bits_equal(batch_stats, loaded["batch_stats"])
    for name, tree in params.items():
        assert_bits_equal(tree, (other if name.endswith("_classifier") else loaded)["params"][name])

    write_safetensors(imagenet.read_backbone(path, "resnet18"), tmp_path / "backbone.safetensors")
    params, _ = load_into(other["params"], other["batch_stats"], tmp_path / "backbone.safetensors", "resnet18")
    same = {name: tree for name, tree in loaded["params"]["backbone"].items() if name != "layer4_1"}
    assert_bits_equal({name: params["backbone"][name] for name in same}, same)
    slope = other["params"]["backbone"]["layer4_1"]["prelu"]["slope"]
    assert params["backbone"]["layer4_1"]["prelu"]["slope"] == slope
    assert_bits_equal(params["fab2"], other["params"]["fab2"])
