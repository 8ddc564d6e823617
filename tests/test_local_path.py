"""One place judges paths, for every flag and for the calls from Python."""

from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
import refusals
import tiny
from absl import flags
from tiny_workdir import write_workdir

import mancs_jax
from mancs_jax import convert, publish
from mancs_jax.cli import ablation, command_line, embed, evaluate, search, train
from mancs_jax.cli import gallery as gallery_commands
from mancs_jax.cli.flags import Flags
from mancs_jax.cli.main import COMMANDS
from mancs_jax.common.local_path import cache_folder, local_path
from mancs_jax.evaluation import features
from mancs_jax.inference import gallery

pytestmark = pytest.mark.filterwarnings("ignore:the load_module")  # ml_collections reads --config by it
# Flags that hold text but no path.
PARTS, NAMES = ("query", "gallery"), ("pid", "camid")
NO_PATHS = {"base", "coordinator", "dataset", "distractors", "name", "queries"}
NO_PATHS |= {"before", "camera", "second_camera", "other_row", "person", "query_camera", "row", "since", "time"}


def test_home_and_remote_places(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~/runs") == tmp_path / "runs" and local_path("a/~/b") == Path("a/~/b")
    assert local_path("C:/runs") == Path("C:/runs") and local_path(Path("/a")) == Path("/a")
    for url in ("file:///data/my%20set", "file://localhost/data/my%20set", "FILE:///data/my set"):
        assert local_path(url) == Path("/data/my set")
    with pytest.raises(ValueError, match=r"^file://other/data: remote paths are not supported"):
        local_path("file://other/data")
    with pytest.raises(ValueError, match=r"^gs://bucket/run: remote paths are not supported; mount it"):
        local_path("gs://bucket/run")
    with pytest.raises(ValueError, match=r"^~nobody-of-this-name/run: "):
        local_path("~nobody-of-this-name/run")


OF_GALLERY = [f"gallery.{name}" for name in gallery_commands.COMMANDS]


@pytest.mark.parametrize("name", [*(name for name in COMMANDS if name != "gallery"), *OF_GALLERY])
def test_every_flag_is_a_path_or_known_to_be_none(name):
    values = Flags()
    import_module(f"mancs_jax.cli.{name.replace('-', '_')}").define(values, [name])
    text = {flag for flag in values if type(values[flag]) is flags.Flag and values[flag].flag_type() == "string"}
    assert text <= {*command_line.PATHS, *NO_PATHS}


def refused(command, *arguments):
    return refusals.refused(command_line.run, command, ["mancs", *arguments], error=SystemExit)


def test_commands_refuse_remote_paths_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command, arguments in (
        (train, ["--config=market:small", "--workdir=gs://bucket/run"]),
        (evaluate, ["--features=s3://bucket/f.npz"]),
        (search, ["query.jpg", "--gallery=https://site/g.npz", "--network=n"]),
        (embed, ["gs://bucket/photos", "--network=n", "--output=a.npz"]),
        (train, ["--config=market:small", "--workdir=w", "--config.data.root=gs://bucket/data"]),
        (train, ["--config=market:small", "--workdir=w", "--config.pretrained=hf://repo/weights.pth"]),
    ):
        assert "remote paths are not supported" in refused(command, *arguments)
    base = ["--base=walkers", "--workdir=w"]
    for field in ("data.root", "pretrained"):
        told = refused(ablation, *base, f"--set={field}=gs://b/x")
        assert told.startswith(f"ablation: --set={field}=gs://b/x: remote paths are not supported")
    for value in ("gs://b/x.py", "gs://b/x.py:small"):
        for arguments in ([f"--config={value}"], ["--config", value]):
            told = refused(train, *arguments, "--workdir=w")
            assert told.startswith(f"train: --config={value}: remote paths are not supported")
    assert refused(evaluate, "--workdir=gs://b/run").startswith("evaluate: --workdir=gs://b/run: remote paths")
    assert list(tmp_path.iterdir()) == []


def test_home_in_flags_and_fields(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    taken = {}
    monkeypatch.setattr("mancs_jax.run.train_and_evaluate", lambda config, workdir, **_: taken.update(locals()))
    arguments = ["--config=market:small", "--workdir=~/w", "--config.data.root=~/data", "--config.pretrained=~/r.pth"]
    command_line.run(train, ["mancs", *arguments])
    assert (taken["workdir"], taken["config"].data.root) == (f"{tmp_path}/w", f"{tmp_path}/data")
    assert taken["config"].pretrained == f"{tmp_path}/r.pth"


def test_a_recipe_in_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "x.py").write_text(
        "from mancs_jax.config import recipes\n\ndef get_config(variant=''):\n  return recipes.market(variant)\n"
    )
    taken = {}
    monkeypatch.setattr("mancs_jax.run.train_and_evaluate", lambda config, workdir, **_: taken.update(locals()))
    by_url = [f"--config=file://{tmp_path}/own/x.py:small"]
    for form in (["--config=~/own/x.py:small"], ["--config", "~/own/x.py:small"], by_url):
        taken.clear()
        command_line.run(train, ["mancs", *form, "--workdir=~/w"])
        assert taken["config"].recipe == "small"
    told = refused(train, "--config=~/y.py", "--workdir=~/w")
    assert told.startswith(f"train: --config={tmp_path}/y.py: no file {tmp_path}/y.py in ")


def test_home_in_fields_of_an_ablation(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    taken = []
    monkeypatch.setattr("mancs_jax.ablation.plan", lambda base, rows, seeds, changes: taken.append(changes))
    monkeypatch.setattr("mancs_jax.ablation.run_all", lambda *_: None)
    monkeypatch.setattr(ablation, "keep_compiled_programs", lambda: None)
    monkeypatch.setattr(ablation, "keep_freed_memory", lambda: None)
    fields = ["--set=pretrained=~/w.pth", "--set=data.root=file:///data", "--set=data.p=8", "--set=data.name=~x"]
    command_line.run(ablation, ["mancs", "--base=walkers", "--workdir=w", *fields])
    expected = {"pretrained": f"{tmp_path}/w.pth", "data.root": "/data", "data.p": 8, "data.name": "~x"}
    assert taken == [expected]


def test_a_folder_with_the_name_of_a_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    cv2.imwrite("photos/a.jpg", np.zeros((8, 4, 3), np.uint8))
    (tmp_path / "market1501").mkdir()
    arguments = ["photos", "--network=./market1501", "--output=a.npz"]
    assert refused(embed, *arguments).startswith("embed: ./market1501: no model there; use the --workdir of a run")


def test_home_in_every_call_from_python(tmp_path, monkeypatch):
    """A folder named ~ is never made."""
    (tmp_path / "home").mkdir()
    (tmp_path / "cwd").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "cwd")
    home = tmp_path / "home"
    write_workdir(home / "w")
    cv2.imwrite(str(home / "a.jpg"), np.zeros((8, 4, 3), np.uint8))
    rows = np.eye(4, dtype=np.float32)
    for call in (mancs_jax.load, lambda workdir: mancs_jax.train_and_evaluate(tiny.get_config(), workdir)):
        with pytest.raises(ValueError, match="^gs://bucket/run: remote paths are not supported"):
            call("gs://bucket/run")
    embed_one = mancs_jax.load("~/w")
    assert embed_one("~/a.jpg").shape == embed_one(["~/a.jpg"])[:1].shape
    assert gallery.load_gallery(written("~/g.npz", gallery.embed_folder("~", embed_one, ["a.jpg"]))).name == ["a.jpg"]
    mancs_jax.build_index(rows, "~/i.faiss")
    assert mancs_jax.load_index("~/i.faiss").faiss_index.ntotal == 4
    assert mancs_jax.search(rows, rows, 1, index="~/i.faiss").index[:, 0].tolist() == [0, 1, 2, 3]
    assert str(home / "n.safetensors") in convert.export_weights("~/w", "~/n.safetensors")
    assert publish.export_network("~/w", "net", "~", scores=False)[0] == home / "net.json"
    assert mancs_jax.load("~/net.json").width
    labels = {f"{part}_{name}": np.arange(4) + 1 for part in PARTS for name in NAMES}
    np.savez(home / "f.npz", query=rows, gallery=rows, **labels)
    assert features.load_features("~/f.npz")["query"].embedding.shape == (4, 4)
    assert [*(tmp_path / "cwd").iterdir()] == []


def written(path, value):
    gallery.write_gallery(path, value)
    return path


def test_no_other_module_expands_paths():
    package = Path(mancs_jax.__file__).parent
    assert [file.stem for file in package.rglob("*.py") if "expanduser" in file.read_text()] == ["local_path"]


def test_a_path_that_begins_with_a_tilde_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.chdir(tmp_path)
    for path in ("./~/a.jpg", "./~", "./~x.jpg"):
        assert local_path(path) == local_path(local_path(path)) == tmp_path / path[2:]


def test_where_caches_are(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/mancs_jax")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert cache_folder() == Path("/h/.cache/mancs_jax")
