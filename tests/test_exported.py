"""Exported files come back through `mancs_jax.load`: one embedding, one card."""

import json
import shutil
from datetime import date, datetime
from importlib import metadata

import cv2
import jax
import numpy as np
import pytest
import tiny
from PIL import Image
from programs import run_python
from refusals import refused
from tiny_exports import write_exports
from tiny_runs import write_data
from tiny_workdir import NUM_CLASSES, WIDTH, write_workdir

import mancs_jax
from mancs_jax import scoring
from mancs_jax.cli import command_line, embed, evaluate, search, visualize
from mancs_jax.evaluation.calibration import knots_of, log_likelihood_ratio
from mancs_jax.inference.export import export
from mancs_jax.inference.exported import open_exported
from mancs_jax.inference.gallery import load_gallery
from mancs_jax.inference.trained import load_trained
from mancs_jax.publish import export_network
from mancs_jax.scoring import Task

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

KINDS = ("n.jax", "n.onnx", "float.onnx", "n.safetensors")
EXPORTED = KINDS[:3]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write_exports(tmp_path_factory.mktemp("place"))


def assert_same(found, expected, tolerance=1e-6):
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_one_picture_gives_one_embedding(place, tmp_path, kind):
    image = np.random.default_rng(0).integers(0, 256, (3, 90, 50, 3), np.uint8)
    assert cv2.imwrite(str(tmp_path / "a.png"), image[0, :, :, ::-1])
    expected = mancs_jax.load(place / "w")(image)
    for batch in (1, 2, 32):
        embedder = mancs_jax.load(str(place / kind), batch=batch)
        for single in (tmp_path / "a.png", image[0], Image.open(tmp_path / "a.png")):
            assert_same(embedder(single), expected[:1])
        assert_same(embedder(image), expected)
    assert embedder([]).shape == (0, WIDTH)


@pytest.mark.parametrize("kind", EXPORTED)
def test_what_an_embedder_of_a_file_tells(place, kind):
    embedder, of_workdir = mancs_jax.load(place / kind, normalize=True), mancs_jax.load(place / "w")
    assert (embedder.width, embedder.image_size, embedder.batch) == (WIDTH, (64, 32), 32)
    assert (embedder.flip, embedder.normalize, embedder.network) == (False, True, of_workdir.network)
    assert embedder.config.model == of_workdir.config.model and embedder.config.recipe == "tiny"
    plain = {name: value for name, value in embedder.card.items() if name not in ("input", "exported")}
    assert plain == {name: value for name, value in json.loads(json.dumps(of_workdir.card)).items() if name in plain}
    assert {"use", "recipe", "step", "seed", "trained_on"} <= plain.keys()
    exported = embedder.card["exported"]
    assert exported["format"] == ("jax.export" if kind == "n.jax" else "onnx") and exported["dtype"] == "float32"
    assert exported["date"][:10] <= str(date.today()) and exported["versions"]["mancs_jax"] == mancs_jax.__version__
    norm = np.linalg.norm(embedder(np.zeros((1, 64, 32, 3), np.uint8)))
    assert norm == pytest.approx(1, abs=1e-6)


def test_scores_thresholds_and_calibration_travel_unless_flip_changes_them(place, tmp_path):
    export("market1501", tmp_path / "m.onnx")
    card, shipped = mancs_jax.load(tmp_path / "m.onnx").card, mancs_jax.load("market1501").card
    of_embeddings = ("scores", "thresholds", "calibration")
    assert all(shipped[name] and card[name] == shipped[name] for name in of_embeddings)
    export("market1501", tmp_path / "m.jax")
    distance = np.linspace(0, 8, 50)
    for path in (tmp_path / "m.onnx", tmp_path / "m.jax"):
        for name in ("euclidean", "cosine"):
            cards = (mancs_jax.load(path).card, shipped)
            ratios = [log_likelihood_ratio(knots_of(one, name), distance) for one in cards]
            assert np.abs(ratios[0] - ratios[1]).max() < 1e-12 < np.ptp(ratios[0])
    # The small network with the same scores and thresholds: the way of a card does not depend on the weights.
    shutil.copy(place / "n.safetensors", tmp_path)
    own = json.loads((place / "n.json").read_text()) | {name: shipped[name] for name in of_embeddings}
    (tmp_path / "n.json").write_text(json.dumps(own))
    assert mancs_jax.load(tmp_path / "n.safetensors").card["thresholds"] == shipped["thresholds"]
    export(tmp_path / "n.safetensors", tmp_path / "n.onnx", flip=True)
    card = mancs_jax.load(tmp_path / "n.onnx").card
    assert not {*of_embeddings} & card.keys() and card["exported"]["flip"]


def test_a_file_with_flip(place):
    image = np.random.default_rng(1).integers(0, 256, (2, 64, 32, 3), np.uint8)
    expected = mancs_jax.load(place / "w", flip=True)(image)
    for flip in (False, True):
        embedder = mancs_jax.load(place / "flip.onnx", flip=flip)
        assert embedder.flip
        assert_same(embedder(image), expected)


def test_what_does_not_apply(place):
    for kind in EXPORTED:
        line = refused(mancs_jax.load, place / kind, flip=True)
        assert line == f"{place / kind}: exported without flip; export it with --flip, or leave flip out"
        assert "only its embeddings can be asked for; this needs the parameters" in refused(load_trained, place / kind)
        opened = open_exported(place / kind, batch=2)
        for wrong in (np.zeros((2, 32, 64, 3), np.uint8), np.zeros((2, 64, 32, 3), np.float32)):
            line = refused(lambda images=wrong, run=opened.run_batches: list(run([images])))
            assert "but the card of the file says uint8 [N, 64, 32, 3], RGB" in line
    devices = jax.local_devices()
    line = refused(mancs_jax.load, place / "n.onnx", devices=devices[:1])
    assert "ONNX Runtime chooses its device; leave devices out" in line
    assert "an exported file runs on one device, not 8" in refused(mancs_jax.load, place / "n.jax", devices=devices)
    image = np.zeros((1, 64, 32, 3), np.uint8)
    assert mancs_jax.load(place / "n.jax", devices=devices[3:4])(image).shape == (1, WIDTH)
    assert "batch is 0" in refused(mancs_jax.load, place / "n.onnx", batch=0)


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("a.json", {}, ".json is the name of shared weights; take .onnx or .jax"),
        ("a.onnx", {"format": "jax"}, "a.onnx and --format=jax do not go together: take another name"),
        ("a.jax", {"input": "float"}, "--input and --dtype are for ONNX: give --output=NAME.onnx"),
        ("a.jax", {"format": "onnx"}, "a.jax and --format=onnx do not go together: take another name"),
        ("a.pt", {}, "a.pt: name it NAME.onnx or NAME.jax, or give --format=onnx or --format=jax"),
        ("a.jax", {"dtype": "float16"}, "--input and --dtype are for ONNX: give --output=NAME.onnx"),
    ],
)
def test_options_that_do_not_go_together(place, tmp_path, name, options, line):
    assert refused(export, place / "w", tmp_path / name, **options).endswith(line)
    assert list(tmp_path.iterdir()) == []


def test_onnx_by_another_name(place, tmp_path):
    export(place / "w", tmp_path / "network", format="onnx")
    assert mancs_jax.load(tmp_path / "network").card["exported"]["format"] == "onnx"
    export(place / "w", tmp_path / "other", format="jax")
    assert mancs_jax.load(tmp_path / "other.json").card["exported"]["format"] == "jax.export"
    assert "other.json is in the way" in refused(export, place / "w", tmp_path / "other", format="onnx")
    assert "n.json is the card of n.safetensors" in refused(export, place / "w", place / "n", format="jax")


def test_without_the_libraries_of_onnx(place, tmp_path):
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "from mancs_jax.cli.main import main\n"
        f"main(['mancs', 'export', '--workdir={place / 'w'}', '--output={tmp_path / 'a.onnx'}'])"
    )
    result = run_python(code)
    line = 'export: ONNX files need two libraries: pip install "mancs_jax[onnx]"\n'
    assert (result.returncode, result.stderr) == (1, line)
    assert list(tmp_path.iterdir()) == []


def command(module, *arguments):
    command_line.run(module, ["mancs", *arguments])


def test_commands_take_a_file(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("mancs_jax.cli.command_line.keep_freed_memory", lambda: None)
    monkeypatch.setattr(embed, "keep_freed_memory", lambda: None)
    source = tiny.write_folder(tmp_path / "source")
    write_data(tmp_path / "data", source)
    results, galleries = [], []
    for network in ("w", *KINDS, "flip.onnx"):
        output = f"--json={tmp_path / 'r.json'}"
        command(evaluate, f"--network={place / network}", f"--root={tmp_path / 'data'}", output)
        results.append(json.loads((tmp_path / "r.json").read_text())["Mancs"])
        command(embed, str(source / "query"), f"--network={place / network}", f"--output={tmp_path / f'{network}.npz'}")
        galleries.append(load_gallery(tmp_path / f"{network}.npz"))
    for result, gallery in zip(results[1:5], galleries[1:5], strict=True):
        assert abs(result["mAP"] - results[0]["mAP"]) < 1e-4 and abs(result["cmc"][0] - results[0]["cmc"][0]) < 1e-4
        assert result["fingerprint"] == results[0]["fingerprint"] and result["step"] == results[0]["step"]
        assert_same(gallery.embedding, galleries[0].embedding)
    assert [result["flip"] for result in results] == [False] * 5 + [True] and galleries[5].flip
    assert results[1]["exported"]["format"] == "jax.export" and "exported" not in results[4]
    capsys.readouterr()
    query = str(next((source / "query").iterdir()))
    command(search, query, f"--gallery={tmp_path / 'w.npz'}", f"--network={place / 'n.onnx'}", "--k=2")
    assert "excluded from the results" in capsys.readouterr().out
    for arguments, line in (
        ([search, query, f"--gallery={tmp_path / 'flip.onnx.npz'}", f"--network={place / 'n.onnx'}"], "without flip"),
        ([search, query, f"--gallery={tmp_path / 'w.npz'}", f"--network={place / 'flip.onnx'}"], "with flip=False"),
        ([evaluate, f"--network={place / 'n.onnx'}", "--flip"], "exported without flip"),
        ([visualize, f"--workdir={place / 'n.onnx'}"], "a report shows masks and curves of a run; give its folder"),
    ):
        assert line in refused(command, *arguments, error=SystemExit)


def test_the_baselines_of_an_exported_network(place, tmp_path):
    write_data(tmp_path / "data", tiny.write_folder(tmp_path / "source"))
    task = Task(root=str(tmp_path / "data"), baselines=True)
    found, expected = (scoring.evaluate(place / name, task, progress=False).results for name in ("n.onnx", "w"))
    assert found.keys() == expected.keys() and len(found) == 3
    assert found["untrained network"]["mAP"] == expected["untrained network"]["mAP"]


def test_a_jax_file_says_which_release_wrote_it(place, tmp_path):
    """JAX's promise counts from that release, which the card records with the day of the export."""
    exported = mancs_jax.load(place / "n.jax").card["exported"]
    assert {name: exported["versions"][name] for name in ("jax", "jaxlib")} == {
        name: metadata.version(name) for name in ("jax", "jaxlib")
    }
    assert datetime.fromisoformat(exported["date"]).tzinfo and exported["platforms"] == ["cpu", "cuda", "tpu"]
    promise = f"# JAX promises to read it for six months after the release of jaxlib {metadata.version('jaxlib')}"
    assert promise in export(place / "w", tmp_path / "n.jax")


def test_a_bfloat16_network_becomes_float32(tmp_path):
    write_workdir(tmp_path / "w")
    expected = mancs_jax.load(tmp_path / "w")(np.zeros((1, 64, 32, 3), np.uint8))
    export_network(tmp_path / "w", "n", tmp_path / "shared", dtype="float32", scores=False)
    card = json.loads((tmp_path / "shared" / "n.json").read_text())
    card["config"]["dtype"] = "bfloat16"
    (tmp_path / "shared" / "n.json").write_text(json.dumps(card))
    export(tmp_path / "shared", tmp_path / "n.onnx")
    embedder = mancs_jax.load(tmp_path / "n.onnx")
    assert embedder.card["exported"]["dtype"] == "float32" and embedder.card["num_classes"] == NUM_CLASSES
    assert_same(embedder(np.zeros((1, 64, 32, 3), np.uint8)), expected)
    export(tmp_path / "shared", tmp_path / "n.jax")
    assert mancs_jax.load(tmp_path / "n.jax").card["exported"]["dtype"] == "bfloat16"
