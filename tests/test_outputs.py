"""An output is no input and no other output, whatever leads there."""

import os

import pytest

from mancs_jax.cli import command_line, embed, evaluate, export, import_weights, search
from mancs_jax.cli.flags import Flags
from mancs_jax.cli.gallery import search as gallery_search
from mancs_jax.cli.outputs_and_inputs import OUTPUTS, outputs_and_inputs
from mancs_jax.common.outputs import check_outputs


def test_every_spelling_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "sub").mkdir()
    (tmp_path / "g.npz").write_text("old")
    (tmp_path / "link").symlink_to("g.npz")
    (tmp_path / "folder").symlink_to("sub")
    os.link("g.npz", "hard")
    for path in (
        "g.npz",
        "./g.npz",
        "sub/../g.npz",
        "folder/../g.npz",
        tmp_path / "g.npz",
        "link",
        "hard",
        "~/g.npz",
        "no/../g.npz",
    ):
        with pytest.raises(ValueError, match="^--json is the file of --gallery: an output may not replace an input$"):
            check_outputs({"--json": path}, {"--gallery": "g.npz"})
    for path in ("sub/new", "folder/new", "sub/./new", "~/sub/new"):  # not there yet
        with pytest.raises(ValueError, match="^--report is the file of --json: give each output its own file$"):
            check_outputs({"--json": "sub/new", "--report": path}, {})
    for path in ("sub/new", "folder/a/new", tmp_path / "sub"):
        with pytest.raises(ValueError, match="^--json is in the folder of photos, which is read: "):
            check_outputs({"--json": path}, {}, {"photos": "sub"})
    check_outputs(
        {"--json": "other", "--report": "another"}, {"--gallery": "g.npz", "nowhere": "other"}, {"sub": "sub"}
    )
    check_outputs({"--json": os.devnull, "--report": os.devnull}, {"--gallery": os.devnull})
    assert (tmp_path / "g.npz").read_text() == "old"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        *("g.npz", "q.jpg", "photos/a.jpg", "n/net.safetensors", "n/net.json", "m.jax", "m.jax.json", "w/config.json"),
        *("links/c.jpg", "elsewhere.jpg", "p.gallery"),
        *("w/checkpoints/1/x", "f/query.npy", "data/market1501/1.0.0/dataset_info.json", "w/my.json", "photos/my.json"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("old")
    (tmp_path / "out").symlink_to("photos/a.jpg")
    (tmp_path / "links" / "b.jpg").symlink_to("../elsewhere.jpg")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "line", "words"),
    [
        (search, "q.jpg --gallery=g.npz --network=x --json=g.npz", "--json=g.npz is the file of --gallery=g.npz: "),
        (search, "q.jpg --gallery=g.npz --network=x --json=./q.jpg", "--json=./q.jpg is the file of q.jpg"),
        (search, "q.jpg --gallery=g.npz --network=x --json=a --report=a", "--report=a is the file of --json=a: "),
        (
            search,
            "photos --gallery=g.npz --network=x --picture=photos/b.png --images=p",
            "is in the folder of photos",
        ),
        (
            search,
            "q.jpg --gallery=g.npz --network=x --picture=photos/b.png --images=photos",
            "folder of --images=photos",
        ),
        (
            search,
            "photos --gallery=g.npz --network=x --json=photos/a.jpg",
            "--json=photos/a.jpg is an image of photos, which is read: ",
        ),
        (search, "q.jpg --gallery=g.npz --network=x --json=no/../photos/a.jpg --images=photos", "of --images=photos, "),
        (search, "q.jpg --gallery=g.npz --network=x --json=./out --report=r.html --images=photos", "image of --images"),
        (search, "links --gallery=g.npz --network=x --json=links/b.jpg", "--json=links/b.jpg is an image of links"),
        (gallery_search, "q.jpg --gallery=p.gallery --network=x --json=no/../p.gallery", "file of --gallery=p.gallery"),
        (gallery_search, "photos --gallery=p.gallery --network=x --report=photos/a.jpg", "is an image of photos, "),
        (search, "q.jpg --gallery=g.npz --network=n --json=n/net.json", "n/net.json, which belongs to --network=n: "),
        (
            evaluate,
            "--features=f --json=f/query.npy",
            "--json=f/query.npy is the file of f/query.npy of --features=f: ",
        ),
        (evaluate, "--workdir=w --json=w/config.json", "is the file of w/config.json, which belongs to --workdir=w"),
        (evaluate, "--workdir=w --json=w/checkpoints/1/y", "is in the folder of w/checkpoints, which belongs to"),
        (evaluate, "--network=m.jax --json=m.jax.json", "m.jax.json, which belongs to --network=m.jax: "),
        (evaluate, "--network=m.jax.json --json=m.jax", "m.jax, which belongs to --network=m.jax.json: "),
        (evaluate, "--network=x --root=data --json=data/market1501/1.0.0/a.json", "the data set data/market1501/1.0.0"),
        (embed, "photos --network=n/net.json --output=n/net.safetensors", "belongs to --network=n/net.json: "),
        (export, "--network=n --format=weights --output=n/net", "--output=n/net is the file of n/net.safetensors"),
        (export, "--workdir=w --average_with=n/net.json --format=weights --output=n/net.safetensors", "--average_with"),
        (export, "--network=m.jax.json --output=m.jax", "--output=m.jax is the file of m.jax, which belongs to"),
        (import_weights, "--source=n/net.json --output=n/net.json", "is the file of --source=n/net.json"),
    ],
)
def test_commands_refuse_before_any_work(place, monkeypatch, command, line, words):
    monkeypatch.setattr(command, "main", lambda *_: pytest.fail("it began"))
    with pytest.raises(SystemExit) as stop:
        command_line.run(command, ["mancs", *line.split()])
    assert words in str(stop.value) and "\n" not in str(stop.value)
    assert {path.read_text() for path in place.rglob("*") if path.is_file()} == {"old"}


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (evaluate, "--workdir=w --json=w/my.json"),  # the second time
        (evaluate, "--features=f --json=f/scores.json"),
        (embed, "photos --network=market1501 --output=photos/my.json"),
        (search, "photos --gallery=g.npz --network=market1501 --json=photos/my.json --report=r.html --images=photos"),
        (search, "photos --gallery=g.npz --network=market1501 --json=photos/new.jpg"),
        (export, "--workdir=w --output=w/net.onnx"),
    ],
)
def test_places_that_are_nobodys(place, monkeypatch, command, line):
    began = []
    monkeypatch.setattr(command, "main", lambda *_: began.append(True))
    command_line.run(command, ["mancs", *line.split()])
    assert began


def test_a_shipped_network_is_an_input(monkeypatch):
    values = Flags()
    embed.define(values, [])
    values(["mancs", "--network=market1501", "--output=x.npz"])
    _, inputs, _ = outputs_and_inputs(values, ["photos"])
    assert {path.name for path in inputs.values()} == {"photos", "market1501.safetensors", "market1501.json"}


def test_every_path_of_a_command_is_written_or_read():
    known = {*OUTPUTS, "workdir", "root", "network", "average_with", "thresholds_of"}
    known |= {"gallery", "features", "source", "csv", "protocol_file", "images", "groups", "relative_to"}
    assert known == set(command_line.PATHS)
