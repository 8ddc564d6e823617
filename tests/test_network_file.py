"""The two files of a shared network: their numbers come back, and nothing else is taken for a network."""

import json

import jax
import numpy as np
import pytest
from refusals import refused
from tiny_workdir import NUM_CLASSES, WIDTH, write_workdir

import mancs_jax
from mancs_jax.inference import network_file
from mancs_jax.inference.network import Network, fingerprint_of
from mancs_jax.inference.network_file import card_of, read_network, rounded, write_network
from mancs_jax.inference.trained import load_trained
from mancs_jax.models.mancs import init_variables
from mancs_jax.training.checkpoint import Description
from mancs_jax.weights import shared
from mancs_jax.weights.safetensors_file import read_safetensors, write_safetensors
from mancs_jax.weights.start import check_start, data_sets_before, load_into

IMAGE = np.random.default_rng(0).integers(0, 256, (5, 64, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("workdir")
    return path, write_workdir(path)


@pytest.fixture
def pair(workdir, tmp_path):
    """A folder with tiny.safetensors and tiny.json, in float32."""
    config, variables = workdir[1]
    network = rounded(Network(config, NUM_CLASSES, variables), "float32")
    card = card_of(network, 7, Description(config.to_dict(), NUM_CLASSES, "f", 0.5))
    write_network(tmp_path / "shared", "tiny", network, card, "float32")
    return tmp_path / "shared"


def changed(folder, **fields):
    """Writes fields into the card."""
    path = folder / "tiny.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_pair_gives_the_numbers_of_its_workdir(workdir, pair, monkeypatch):
    expected = mancs_jax.load(workdir[0])(IMAGE)
    for source in (pair, pair / "tiny.safetensors", pair / "tiny.json", str(pair / "tiny.safetensors")):
        embed = mancs_jax.load(source)
        np.testing.assert_array_equal(embed(IMAGE), expected)
        assert embed.network == mancs_jax.load(workdir[0]).network and embed.width == WIDTH
    monkeypatch.setattr(shared, "SHIPPED", pair)  # a network that comes with the package
    np.testing.assert_array_equal(mancs_jax.load("tiny")(IMAGE), expected)
    monkeypatch.chdir(pair.parent)
    (pair.parent / "tiny").mkdir()
    np.testing.assert_array_equal(mancs_jax.load("tiny")(IMAGE), expected)
    with pytest.raises(FileNotFoundError, match=r"^\./tiny: no model there; .* or a pretrained model: tiny$"):
        mancs_jax.load("./tiny")


@pytest.mark.parametrize(
    ("num_classes", "images"), [(NUM_CLASSES, "f"), (NUM_CLASSES, "other"), (NUM_CLASSES + 1, "g")]
)
def test_training_starts_from_it(workdir, pair, monkeypatch, capsys, num_classes, images):
    config, variables = workdir[1]
    before = jax.tree.map(lambda leaf: np.full(leaf.shape, 9, leaf.dtype), init_variables(config, num_classes))
    monkeypatch.setattr(shared, "SHIPPED", pair)  # "tiny" is a network that comes with the package
    for pretrained in ("tiny", str(pair / "tiny.safetensors"), str(pair / "tiny.json")):
        params, batch_stats = load_into(before["params"], before["batch_stats"], pretrained, config.model.arch, images)
        jax.tree.map(np.testing.assert_array_equal, batch_stats, variables["batch_stats"])
        assert params.keys() == variables["params"].keys()
        for name, tree in params.items():
            anew = name.endswith("_classifier") and images != "f"
            jax.tree.map(np.testing.assert_array_equal, tree, (before if anew else variables)["params"][name])
        line = f"{pretrained}: its classifiers are for other identities and are initialised anew\n"
        assert capsys.readouterr().err == (line if images != "f" else "")


def test_without_its_card_the_number_of_people_tells(workdir, pair):
    config, variables = workdir[1]
    (pair / "tiny.json").unlink()
    before = init_variables(config, NUM_CLASSES)
    params, _ = load_into(
        before["params"], before["batch_stats"], pair / "tiny.safetensors", config.model.arch, "other"
    )
    jax.tree.map(np.testing.assert_array_equal, params, variables["params"])


def test_a_start_that_cannot_be_is_refused_before_the_first_step(workdir, pair):
    config = workdir[1][0].copy_and_resolve_references().unlock()
    for pretrained in (pair / "tiny.safetensors", pair / "tiny.json"):
        config.pretrained = str(pretrained)
        check_start(config)
    config.model.dropout = 0.5  # no number of the network depends on it
    check_start(config)
    config.model.width, config.model.attention_pool = 2 * config.model.width, "mask_times_map"
    fields = "--config.model.attention_pool='mask', --config.model.width=8$"
    with pytest.raises(ValueError, match=f"tiny.json has another architecture; set {fields}"):
        check_start(config)
    config.pretrained = str(pair)
    with pytest.raises(ValueError, match="is a folder; give the file NAME.safetensors in it"):
        check_start(config)
    config.pretrained = str(pair / "tiny.safetensors")
    of_others = {"data_fingerprint": "f", "trained_on": "x"}
    for card in ([], {"config": 5} | of_others, {"config": {}} | of_others, {"config": {"model": 3}} | of_others):
        (pair / "tiny.json").write_text(json.dumps(card))
        with pytest.raises(ValueError, match="tiny.json is not the card of tiny.safetensors; get both files again"):
            check_start(config)


def test_a_network_that_may_know_those_who_are_held_out(workdir, pair):
    """A model that was trained on the same images held the same identities out; those before it may not have."""
    config = workdir[1][0].copy_and_resolve_references().unlock()
    name = config.data.name
    config.pretrained = ""
    assert data_sets_before(config, "other") == []
    config.pretrained = str(pair / "tiny.safetensors")
    assert data_sets_before(config, "other") == [name] and data_sets_before(config, "f") == []
    card = json.loads((pair / "tiny.json").read_text())
    (pair / "tiny.json").write_text(json.dumps(card | {"pretrained_on": ["a", name], "trained_on": "b,c"}))
    assert data_sets_before(config, "other") == sorted(["a", "b", "c", name])
    assert data_sets_before(config, "f") == sorted(["a", name])


def test_training_of_another_model_does_not_start_from_it(workdir, pair):
    config = workdir[1][0].copy_and_resolve_references().unlock()
    config.model.width *= 2
    wider = jax.eval_shape(lambda: init_variables(config, NUM_CLASSES))
    with pytest.raises(ValueError, match="does not fit the network of config.model: .* wrong: batch_stats"):
        load_into(wider["params"], wider["batch_stats"], pair / "tiny.safetensors", config.model.arch, "f")


def test_all_that_is_known_of_it_comes_along(workdir, pair):
    config, variables = workdir[1]
    found = load_trained(pair)
    assert (found.step, found.workdir, found.network.num_classes) == (7, None, NUM_CLASSES)
    assert found.description.best == 0.5 and found.description.data_fingerprint == "f"
    jax.tree.map(np.testing.assert_array_equal, found.network.variables, variables)
    assert found.network.config.augment == config.augment and found.network.config.model == config.model
    card = mancs_jax.load(pair).card
    assert card["use"].startswith("For research only.")
    assert card["input"] == {
        "height": 64,
        "width": 32,
        "channels": "RGB",
        "dtype": "uint8",
        "resize": "area (cv2.INTER_AREA); linear (cv2.INTER_LINEAR) where the image is smaller on a side",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    assert card["embedding"] == {"width": WIDTH, "dtype": "float32", "distance": "euclidean"}
    assert card["network"] == fingerprint_of(variables)
    # A workdir has a card, too, though nobody has written one.
    of_workdir = mancs_jax.load(workdir[0]).card
    assert json.loads(json.dumps(of_workdir)) == card | {"step": 0, "best": None}


def test_no_path_of_the_machine_is_in_a_card(workdir):
    config, variables = workdir[1]
    config = config.copy_and_resolve_references().unlock()
    config.data.root, config.pretrained = "/home/me/data", "/home/me/resnet18.pth"
    card = card_of(Network(config, NUM_CLASSES, variables), 0, Description(config.to_dict(), NUM_CLASSES, ""))
    assert "/home/me" not in json.dumps(card) and card["config"]["pretrained"] == "resnet18.pth"
    assert config.data.root == "/home/me/data"


def test_half_precision_of_kernels_alone(workdir, tmp_path):
    config, variables = workdir[1]
    network = rounded(Network(config, NUM_CLASSES, variables), "float16")
    card = card_of(network, 0, Description(config.to_dict(), NUM_CLASSES, ""))
    write_network(tmp_path, "half", network, card, "float16")
    tensors = read_safetensors(tmp_path / "half.safetensors")
    assert {array.dtype for array in tensors.values() if array.ndim > 1} == {np.dtype(np.float16)}
    assert {array.dtype for array in tensors.values() if array.ndim < 2} == {np.dtype(np.float32)}
    found, _ = read_network(tmp_path / "half.json")
    jax.tree.map(np.testing.assert_array_equal, found.variables, network.variables)
    exact = mancs_jax.load(workdir[0])(IMAGE)
    difference = np.abs(mancs_jax.load(tmp_path)(IMAGE) - exact).max() / np.abs(exact).max()
    assert 0 < difference < 5e-3


def test_numbers_too_large_for_half_precision(workdir):
    config, variables = workdir[1]
    huge = jax.tree.map(lambda leaf: 1e6 * leaf, variables)
    with pytest.raises(ValueError, match=r"^\['params'\].* is too large for float16: use float32$"):
        rounded(Network(config, NUM_CLASSES, huge), "float16")


def test_a_folder_with_two_networks_asks_which(pair):
    for suffix in (".json", ".safetensors"):
        (pair / f"other{suffix}").write_bytes((pair / f"tiny{suffix}").read_bytes())
    with pytest.raises(ValueError, match="holds several models: use one of the files other.safetensors, tiny.safe"):
        mancs_jax.load(pair)
    assert mancs_jax.load(pair / "other.json").width == WIDTH


def test_a_missing_half(pair):
    (pair / "tiny.json").rename(pair / "elsewhere.json")
    with pytest.raises(FileNotFoundError, match=r"tiny\.json: no such file; a model is a pair of files"):
        mancs_jax.load(pair / "tiny.safetensors")
    with pytest.raises(FileNotFoundError, match="shared: no model there"):
        mancs_jax.load(pair)


def refusal(folder):
    return refused(mancs_jax.load, folder / "tiny.safetensors").removeprefix(f"{folder}/")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "tiny.json: not JSON, or cut off"),
        (b"\xff\xfe", "tiny.json: not JSON, or cut off"),
        (b"[" * 100_000, "tiny.json: not JSON, or cut off"),
        (b"[1, 2]", "tiny.json: not the card of a model (format 1), which `mancs export --format=weights` writes"),
        (b'{"format": 2}', "tiny.json: not the card of a model (format 1)"),
        (b'{"format": 1}', "tiny.json: no usable input, embedding, network, num_classes, step, best, data_fingerprint"),
    ],
)
def test_no_card(pair, content, message):
    (pair / "tiny.json").write_bytes(content)
    assert refusal(pair).startswith(message)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_classes": -1}, "tiny.json: no usable num_classes in it; get the file again"),
        ({"num_classes": 2**40}, "tiny.json: no usable num_classes in it"),
        ({"num_classes": True}, "tiny.json: no usable num_classes in it"),
        ({"step": "1"}, "tiny.json: no usable step in it"),
        ({"num_classes": NUM_CLASSES + 1}, "tiny.safetensors: params.att_classifier.bias is (12,), but (13,) in the"),
        ({"network": "0" * 32}, "tiny.safetensors has other numbers than tiny.json says; get both files again"),
        ({"config": {"model": 3}}, "tiny.json: its configuration is not valid ("),
        ({"config": {"model": {"arch": "resnet19"}}}, "tiny.json: its configuration is not valid (config.model."),
        (
            {"config": {"model": {"width": 10**30}}},
            "tiny.safetensors: batch_stats.backbone.bn1.mean is (8,), but (1000000",
        ),
        ({"config": {"model": {"width": -1}}}, "tiny.json: its configuration is not valid (config.model.width is"),
    ],
)
def test_a_card_that_does_not_fit(pair, fields, message):
    if "config" in fields:
        config = json.loads((pair / "tiny.json").read_text())["config"]
        model = fields["config"]["model"]
        fields = {"config": config | {"model": config["model"] | model if isinstance(model, dict) else model}}
    changed(pair, **fields)
    assert message in refusal(pair)


def test_only_a_changed_card_is_checked_against_its_network(pair, monkeypatch):
    expected = read_network(pair / "tiny.json")[0]
    traced = []

    def count(*arguments):
        traced.append(1)
        return init_variables(*arguments)

    monkeypatch.setattr(network_file, "init_variables", count)
    read_network(pair / "tiny.json")
    changed(pair, scores={"cmc": [1.0]})  # says nothing of the network
    read_network(pair / "tiny.json")
    assert not traced
    card = json.loads((pair / "tiny.json").read_text())
    for fields in (
        {"fits": None},  # of an earlier version
        {"config": card["config"] | {"eval_batch": 3}},
        {"fits": "0" * 32},
    ):
        changed(pair, **card | fields)
        found = read_network(pair / "tiny.json")[0]
        assert fingerprint_of(found.variables) == fingerprint_of(expected.variables)
    assert len(traced) == 3


def test_weights_that_do_not_fit(pair):
    path = pair / "tiny.safetensors"
    tensors = read_safetensors(path)
    write_safetensors(tensors | {"surplus": np.zeros(3, np.float32)}, path)
    assert refusal(pair).startswith(
        "tiny.safetensors: surplus is (3,), but missing in the model that tiny.json describes; get"
    )
    for name in ("params.att_classifier.bias.x", "params.att_classifier"):  # behind another name, and before
        write_safetensors(tensors | {name: np.zeros(3, np.float32)}, path)
        assert refusal(pair).startswith(f"tiny.safetensors: {name} is (3,), but missing in the model that tiny.json")
    path.write_bytes(path.read_bytes()[:-1])
    assert "damaged safetensors file, or cut short" in refusal(pair)
