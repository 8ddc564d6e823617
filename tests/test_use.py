"""The commands in the pages about a model in use work, in their order."""

import json
import os
import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_sources import run_script, write
from tiny_workdir import WIDTH, write_place

from mancs_jax.inference.embedder import Embedder
from mancs_jax.inference.export import USE, USE_ONNX, VALUES
from mancs_jax.inference.gallery import (
    GREY,
    Gallery,
    check_network,
    decoded,
    embed_folder,
    labels_of,
    load_gallery,
    picture,
    table,
    without_itself,
)
from mancs_jax.inference.search import Found, search
from mancs_jax.reporting.ranked_lists import QUERY, RIGHT, WRONG

REPOSITORY = Path(__file__).parents[1]
PAGES = ("embed", "search", "share", "export")
TEXT = "\n".join((REPOSITORY / "docs" / f"{page}.md").read_text() for page in PAGES)
LINES = USE.format(path="mancs.jax", height=128, width=64, dim=320)
SHAPE = (2, 128, 64, 3)
UINT8 = {"values": VALUES["uint8"].format(height=128, width=64), "dtype": "uint8"}
LINES_ONNX = USE_ONNX.format(path="mancs.onnx", shape=SHAPE, dim=320, **UINT8)
FENCED = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)
SHOWN = dict.fromkeys(line for kind, block in FENCED if kind == "" for line in block.splitlines())
# A tiny model takes the place of the pretrained one.
COMMANDS = [line.replace("--network=market1501", "--workdir=workdirs/market") for line in SHOWN]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with all that the page names."""
    place = write_place(tmp_path_factory.mktemp("place"))
    (place / "photos" / "notes.txt").write_text("no image")
    (place / "photos" / ".trash").mkdir()
    (place / "photos" / ".trash" / "hidden.jpg").write_text("no image")
    return place


def run(line, capsys):
    """Runs a line in this process; returns (the line with which it exits, "" for success; stdout)."""
    program, command, *arguments = shlex.split(line)
    assert program == "mancs"
    return run_script(command, *arguments), capsys.readouterr().out


def test_the_printed_code_is_that_of_the_page():
    """tests/test_export.py runs it."""
    assert f"```python\n{LINES}```" in TEXT and f"```python\n{LINES_ONNX}```" in TEXT


def test_command_line(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    ends, stdout = zip(*[run(line, capsys) for line in COMMANDS], strict=True)
    assert ends == ("",) * 8
    others = "1 skipped, not an image by name: notes.txt\n"
    assert stdout[0] == f"{others}gallery.npz: 48 embeddings, {WIDTH} wide, with pid and camid\n"
    gallery = load_gallery(place / "gallery.npz")
    assert gallery.name.tolist() == sorted(file.name for file in (place / "photos").glob("0*.jpg"))
    assert gallery.pid[:5].tolist() == [1, 1, 1, 1, 2] and gallery.camid[:3].tolist() == [1, 1, 2]
    rows = [line.split() for line in stdout[1].splitlines()]
    assert rows[0] == ["rank", "distance", "pid", "camid", "name"] and [row[0] for row in rows[1:6]] == list("12345")
    assert all(row[4].startswith(f"{int(row[2]):04d}_c{row[3]}s1") for row in rows[1:6])
    assert cv2.imread(str(place / "answers.png")) is not None
    assert stdout[2].count("query one.jpg\nrank") == stdout[2].count("query two.jpg\nrank") == 1
    assert stdout[2].endswith("results: answers.json\nreport: answers.html\n")
    assert "networks/mine.json: the model card" in stdout[3]
    assert stdout[4].startswith("# mancs.onnx gives the model's embeddings (opset 17). pip install onnxruntime")
    assert "np.zeros((2, 3, 64, 32), np.float32)" in stdout[5]
    assert stdout[6].endswith(USE.format(path="mancs.jax", height=64, width=32, dim=WIDTH))
    assert "\n# JAX promises to read it for six months" in stdout[6]
    by_onnx = load_gallery(place / "by_onnx.npz")
    np.testing.assert_allclose(
        by_onnx.embedding, gallery.embedding, rtol=0, atol=1e-6 * np.abs(gallery.embedding).max()
    )
    assert by_onnx.network == gallery.network
    line = "mancs search query.jpg --gallery=gallery.npz --workdir=w --picture=answers --images=photos"
    words = "search: --picture=answers: the name has to end in .png, .jpg, .jpeg, .webp"
    assert run(line, capsys) == (words, "")
    line = "mancs search nowhere.jpg --gallery=gallery.npz --workdir=workdirs/market"
    assert run(line, capsys) == ("search: nowhere.jpg: no such file", "")


def test_a_damaged_image_stops_neither_command(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    whole = (place / "query.jpg").read_bytes()
    photos = write(tmp_path / "photos", {"a.jpg": whole, "b.jpg": whole[:-20], "c.jpg": whole}, False)
    line = f"{photos} --workdir={place / 'workdirs' / 'market'}"
    told = "1 skipped, damaged: b.jpg (cut off)\n"
    stopped, out = run(f"mancs embed {line} --output=g.npz", capsys)
    assert stopped == "" and out.startswith(told)
    assert load_gallery(tmp_path / "g.npz").name.tolist() == ["a.jpg", "c.jpg"]
    assert run_script("embed", str(photos), line.split()[1], "--output=g.npz") == ""
    model = load_gallery(tmp_path / "g.npz").network[:8]
    assert f"g.npz replaces a gallery of 2 embeddings (model {model})\n" in capsys.readouterr().err
    stopped, out = run(f"mancs search {line} --gallery=g.npz --json=a.json", capsys)
    assert stopped == "" and out.startswith(told) and "query c.jpg" in out
    answers = json.loads((tmp_path / "a.json").read_text())
    assert answers["skipped"] == {"b.jpg": "cut off"} and len(answers["queries"]) == 2
    # Images of the gallery that are gone or damaged are grey in the picture and on the page.
    (photos / "a.jpg").unlink()
    (photos / "c.jpg").write_bytes(whole[:-20])
    files = "--gallery=g.npz --picture=a.png --report=a.html --images=photos"
    capsys.readouterr()
    assert run_script("search", place / "query.jpg", line.split()[1], *files.split()) == ""
    assert capsys.readouterr().err.endswith(
        "2 of 2 result images cannot be read in photos and are grey: a.jpg (not there any more), c.jpg (cut off); "
        "--images has to be the folder that was embedded\n"
    )
    grey = [GREY] * 3
    assert (cv2.imread("a.png")[50, :] == grey).all(axis=1).any() and (tmp_path / "a.html").is_file()


def test_a_name_without_labels_among_others_is_told(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = ("0001_c1_a.jpg", "0002_c1_a.jpg", "portrait.jpg")
    write(tmp_path / "photos", dict.fromkeys(names, (place / "query.jpg").read_bytes()), False)
    stopped, out = run(f"mancs embed photos --workdir={place / 'workdirs' / 'market'} --output=g.npz", capsys)
    told = "without pid and camid: 1 of 3 names do not tell them, as 0002_c1s1_000451_03.jpg does: portrait.jpg\n"
    assert stopped == "" and out == f"{told}g.npz: 3 embeddings, {WIDTH} wide\n"


def test_names_that_are_no_utf8(place, tmp_path, monkeypatch, capsys):
    """All files are written, and the screen shows what it can."""
    monkeypatch.chdir(tmp_path)
    names = [b"caf\xe9.jpg", "\u738b.jpg".encode(), b"line\nend.jpg", b"\xff.txt"]
    write(tmp_path / "photos", dict.fromkeys(map(os.fsdecode, names), (place / "query.jpg").read_bytes()), False)
    network = f"--workdir={place / 'workdirs' / 'market'}"
    stopped, out = run(f"mancs embed photos {network} --output=g.npz", capsys)
    assert stopped == "" and out.startswith("1 skipped, not an image by name: \\xff.txt\ng.npz: 3 embeddings")
    gallery = load_gallery(tmp_path / "g.npz")
    assert sorted(os.fsencode(name) for name in gallery.name.tolist()) == sorted(names[:3])
    files = "--json=a.json --picture=a.png --report=a.html --images=photos"
    stopped, out = run(f"mancs search photos {network} --gallery=g.npz {files}", capsys)
    assert stopped == "" and "query caf\\xe9.jpg\n" in out and "  line\\nend.jpg\n" in out
    found = {os.fsencode(query["query"]) for query in json.loads((tmp_path / "a.json").read_text())["queries"]}
    assert found == set(names[:3]) and (tmp_path / "a.html").read_text() and (tmp_path / "a.png").stat().st_size


def test_galleries_without_labels_and_of_another_network(place, tmp_path):
    import mancs_jax

    embedder = mancs_jax.load(place / "workdirs" / "market")
    grey = (cv2.imencode(".png", np.full((8, 4, 3), level, np.uint8))[1].tobytes() for level in (0, 99, 198))
    write(tmp_path / "photos", dict(zip(("b.png", "below/a.JPG", "0003_c2s1_000000_00.jpg"), grey)), False)
    gallery = embed_folder(tmp_path / "photos", embedder)
    assert gallery.name.tolist() == ["0003_c2s1_000000_00.jpg", "b.png", "below/a.JPG"]
    assert gallery.pid is None and gallery.camid is None
    np.testing.assert_allclose(gallery.embedding[1], embedder(tmp_path / "photos" / "b.png")[0], rtol=1e-5, atol=1e-6)
    found = Found(np.array([[2, 0]], np.int32), np.array([[0.5, 12]], np.float32))
    assert table(found, gallery) == (
        "rank  distance  name\n   1    0.5000  below/a.JPG\n   2   12.0000  0003_c2s1_000000_00.jpg"
    )
    short = Found(np.array([[2, -1]], np.int32), np.array([[0.5, np.inf]], np.float32))
    assert table(short, gallery) == "rank  distance  name\n   1    0.5000  below/a.JPG"
    nothing = Found(np.array([[-1]], np.int32), np.array([[np.inf]], np.float32))
    assert table(nothing, gallery) == "no match"
    with pytest.raises(ValueError, match="the gallery was embedded by another model"):
        check_network(gallery._replace(network="0"), embedder)
    with pytest.raises(ValueError, match="embedded with flip=True, normalize=False, the query not"):
        check_network(gallery._replace(flip=True), embedder)


def test_borders_say_who_is_right(place):
    photos = place / "photos"
    names = ["0002_c1s1_000000_01.jpg", "0003_c1s1_000000_01.jpg"]
    gallery = load_gallery_of(names)
    found = Found(np.array([[1, 0]], np.int32), np.float32([[1, 2]]))

    def borders(query, gallery):
        images = {row: decoded(photos / name, (64, 32)) for row, name in enumerate(names)}
        drawn = picture(query, found, gallery, images, (64, 32))
        return [tuple(drawn[0, column * drawn.shape[1] // 3 + 10].tolist()) for column in range(3)]

    assert borders(photos / names[0], gallery) == [QUERY, WRONG, RIGHT]
    assert borders(place / "query.jpg", gallery) == [QUERY] * 3
    assert borders(photos / names[0], gallery._replace(pid=None, camid=None)) == [QUERY] * 3


def load_gallery_of(names):
    labels = np.array([labels_of(name) for name in names], np.int32).T
    return Gallery(np.zeros((len(names), 2), np.float32), np.array(names), "0", False, False, *labels)


def test_labels_in_names():
    assert labels_of("below/-1_c3s1_000001_00.jpg") == (-1, 3) and labels_of("0001_c2_f0046182.jpg") == (1, 2)
    assert labels_of("IMG_1234.jpg") is None and labels_of("0001_c1234567890.jpg") is None


def test_files_that_are_no_gallery(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"g.npz: no such file; `mancs embed` writes one"):
        load_gallery(tmp_path / "g.npz")
    (tmp_path / "g.npz").write_text("text")
    with pytest.raises(ValueError, match=r"g.npz is not a .npz file of `mancs embed`, or is cut off"):
        load_gallery(tmp_path / "g.npz")
    np.savez(tmp_path / "g.npz", embedding=np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"g.npz has no name, network, flip, normalize"):
        load_gallery(tmp_path / "g.npz")
    np.save(tmp_path / "lone.npy", np.zeros(3))
    with pytest.raises(ValueError, match="lone.npy is not a .npz file"):
        load_gallery(tmp_path / "lone.npy")
    unused = object.__new__(Embedder)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        embed_folder(tmp_path / "nowhere", unused)
    with pytest.raises(ValueError, match="no images in it"):
        embed_folder(tmp_path, unused)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"embedding": np.zeros(2, np.float32)}, r"embedding is float32 \[2\]; it has to be floats \[images, width\]"),
        ({"embedding": np.zeros((2, 3), int)}, r"embedding is int64 \[2, 3\]"),
        ({"embedding": np.zeros((2, 0), np.float32)}, "embedding is empty"),
        ({"name": np.array(["a.jpg"])}, "name has 1 entries, and embedding has 2"),
        ({"name": np.array("a.jpg")}, r"name is <U5 \[\]; it has to be text \[images\]"),
        ({"name": np.array([1, 2])}, r"name is int64 \[2\]"),
        ({"pid": np.array([1]), "camid": np.array([1, 2])}, "pid has 1 entries, and embedding has 2"),
        ({"pid": np.array([1, 2]), "camid": np.array([1.0, 2.0])}, r"camid is float64 \[2\]"),
        ({"pid": np.array([1, 2])}, "it has pid without camid"),
        ({"camid": np.array([1, 2])}, "it has camid without pid"),
        ({"network": np.array(["n", "n"])}, r"network is <U1 \[2\]; it has to be a text"),
        ({"flip": np.array([True, False])}, r"flip is bool \[2\]; it has to be True or False"),
    ],
)
def test_arrays_of_a_gallery_that_do_not_go_together(tmp_path, changed, line):
    whole = {"embedding": np.zeros((2, 3), np.float32), "name": np.array(["a.jpg", "b.jpg"])}
    whole |= {"network": np.array("n"), "flip": np.array(False), "normalize": np.array(False)}
    np.savez(tmp_path / "g.npz", **whole)
    assert load_gallery(tmp_path / "g.npz").name.tolist() == ["a.jpg", "b.jpg"]
    np.savez(tmp_path / "g.npz", **whole | changed)
    with pytest.raises(ValueError, match=f"g.npz: {line}.*; embed the folder again$"):
        load_gallery(tmp_path / "g.npz")


def test_the_query_itself_is_no_answer(tmp_path):
    names = np.array(["a/1.jpg", "a/2.jpg", "b/1.jpg", "3.jpg"])
    embedding = np.eye(4, dtype=np.float32)
    gallery = Gallery(embedding, names, network="", flip=False, normalize=False)
    near = embedding[[0]] + np.float32(1e-5)  # in a batch of another size the last digits differ
    found = search(near, embedding, 3)
    kept, itself = without_itself(found, gallery, tmp_path / "photos" / "a" / "1.jpg", near, 2)
    assert itself == "a/1.jpg" and kept.index.tolist() == [[1, 2]] and kept.distance.shape == (1, 2)
    # A file of that name elsewhere is another image, and a copy of the query under another name is an answer.
    for query, where in ((tmp_path / "1.jpg", near), (tmp_path / "photos" / "a" / "1.jpg", embedding[[1]] * 2)):
        kept, itself = without_itself(search(where, embedding, 3), gallery, query, where, 2)
        assert itself == "" and kept.index.shape == (1, 2)
