"""Weights in and out, by the functions and by the commands: backbones, and workdirs of whole networks."""

import io
import json
from contextlib import redirect_stdout

import numpy as np
import pytest
import tiny
from refusals import refused
from tiny_runs import write_data
from tiny_sources import run_script

from mancs_jax import convert, scoring
from mancs_jax.data import arrays
from mancs_jax.data.augment import normalize
from mancs_jax.evaluation import protocols
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.inference.trained import load_trained
from mancs_jax.weights import authors

torch = pytest.importorskip("torch")
import torch_resnet  # noqa: E402
from tiny_release import CLASSES, SMALL, assert_bits_equal, authors_config, create_reference  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:the load_module")  # ml_collections reads --config by it


@pytest.fixture(scope="module")
def state_dict():
    """Of a ResNet-18 with a classifier, every tensor drawn at random."""
    return torch_resnet.randomize(torch_resnet.create("resnet18", num_classes=10), seed=0).state_dict()


@pytest.fixture(scope="module")
def small():
    return create_reference(**SMALL)


def test_a_backbone_becomes_clean_safetensors(tmp_path, state_dict, capsys):
    source, output = tmp_path / "weights.bin", tmp_path / "clean.safetensors"
    torch.save({"state_dict": {f"module.{name}": tensor.double() for name, tensor in state_dict.items()}}, source)
    assert run_script("import_weights", f"--source={source}", "--arch=resnet18", f"--output={output}") == ""
    assert "100 tensors of resnet18" in capsys.readouterr().out
    assert sorted(file.name for file in tmp_path.iterdir()) == ["clean.safetensors", "weights.bin"]
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
    "source, output, error, words",
    [
        ("none.pth", "new.safetensors", FileNotFoundError, "no such file"),
        ("bad.pth", "new.safetensors", ValueError, "neither a PyTorch zip file"),
        ("good.pth", "new.pth", ValueError, "must end in .safetensors"),
        ("good.pth", "good.pth/new.safetensors", OSError, "cannot be written"),
    ],
)
def test_what_cannot_be_imported_leaves_no_file(tmp_path, state_dict, source, output, error, words):
    (tmp_path / "bad.pth").write_bytes(b"nothing")
    torch.save(state_dict, tmp_path / "good.pth")
    with pytest.raises(error, match=words):
        convert.import_backbone(tmp_path / source, "resnet18", tmp_path / output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pth", "good.pth"]


CONFIG_FILE = """
import tiny
from mancs_jax.config import recipes

def get_config():
    config = tiny.get_config().unlock()
    recipes.authors(config)
    config.model.update({model})
    config.data.root = {root!r}
    return config.lock()
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory, small):
    """(checkpoint, --config file, workdir) after `mancs import-weights`, with a data set to score on."""
    directory = tmp_path_factory.mktemp("imported")
    source, config_file, workdir = (directory / name for name in ("model_best.pth.tar", "authors.py", "run"))
    torch.save({"state_dict": small.state_dict(), "best_top1": np.float64(0.9)}, source)
    write_data(directory / "data", tiny.write_folder(directory / "pictures"))
    config_file.write_text(CONFIG_FILE.format(model=SMALL, root=str(directory / "data")))
    with redirect_stdout(io.StringIO()) as printed:
        arguments = (f"--source={source}", f"--config={config_file}", f"--workdir={workdir}")
        assert run_script("import_weights", *arguments) == ""
    assert printed.getvalue().startswith(f"{workdir}: resnet10, {CLASSES} identities")
    return source, config_file, workdir


def test_a_checkpoint_becomes_a_workdir_that_is_scored(imported, small):
    source, _, workdir = imported
    network, step, description, *_ = load_trained(workdir)
    config, variables = network.config, network.variables
    assert (step, description.data_fingerprint, config.pretrained) == (0, "", str(source))
    assert_bits_equal(variables, authors.load_released(source, config)[0])
    assert (workdir / "config.json").exists() and str(source) in (workdir / "run.json").read_text()
    (scored,) = scoring.evaluate(workdir, progress=False).results.values()

    def embedded(part):
        split = arrays.load_split("market1501", config.data.root, part, config.data.image_size)
        x = np.array(normalize(split.image)).transpose(0, 3, 1, 2)
        with torch.no_grad():
            return Labelled(small(torch.from_numpy(x))[0].numpy(), split.pid, split.camid)

    expected = protocols.single_query(embedded("query"), embedded("gallery"))
    assert scored["mAP"] == pytest.approx(expected["mAP"]) and scored["cmc"] == pytest.approx(expected["cmc"])
    assert (scored["recipe"], scored["step"], scored["config"]["pretrained"]) == ("authors", 0, str(source))


def test_a_workdir_is_written_back(tmp_path, imported, capsys):
    source, _, workdir = imported
    exported = tmp_path / "mancs.safetensors"
    assert run_script("export", f"--workdir={workdir}", "--format=torch", f"--output={exported}") == ""
    assert f"recipe authors, resnet10, {CLASSES} identities, step 0" in capsys.readouterr().out
    config = authors_config(**SMALL)
    assert_bits_equal(authors.load_released(exported, config)[0], authors.load_released(source, config)[0])


def test_what_cannot_be_imported_or_exported(tmp_path, imported):
    source, _, workdir = imported
    config = authors_config(**SMALL)
    assert f"{workdir}: has a model already" in refused(convert.import_network, source, config, workdir)
    wrong = authors_config(**SMALL | {"cls_dim": 7})
    assert "6 wrong: classifier_x2.weight" in refused(convert.import_network, source, wrong, tmp_path / "new")
    unknown = authors_config(**SMALL | {"arch": "vgg"})
    assert "config.model.arch" in refused(convert.import_network, source, unknown, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert "must end in .safetensors" in refused(convert.export_weights, workdir, tmp_path / "mancs.pth")
    with pytest.raises(FileNotFoundError, match="no model there"):
        convert.export_weights(tmp_path / "new", tmp_path / "mancs.safetensors")
    assert list(tmp_path.iterdir()) == []
