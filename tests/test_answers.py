"""`mancs search` with a folder of queries whom nobody knows."""

import json
import shutil

import cv2
import numpy as np
import pytest
from pages import data_of
from tiny_workdir import write_place

import mancs_jax
from mancs_jax.cli import command_line, search
from mancs_jax.inference import answers
from mancs_jax.inference.gallery import embed_folder, is_correct, write_gallery
from mancs_jax.reporting.ranked_lists import BORDER, GAP, LEAST_WIDTH, LINE, QUERY, RIGHT, WRONG


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Queries in a folder and below it, a gallery with names that tell nobody, and the network."""
    place = write_place(tmp_path_factory.mktemp("place"))
    for number, file in enumerate(sorted((place / "photos").iterdir())):
        (place / "unknown").mkdir(exist_ok=True)
        shutil.copy(file, place / "unknown" / f"img{number:02d}.jpg")
    for name, file in (("b.jpg", "img07.jpg"), ("a/cam.jpg", "img20.jpg"), ("c.jpg", "img30.jpg")):
        (place / "queries" / name).parent.mkdir(parents=True, exist_ok=True)
        image = cv2.imread(str(place / "unknown" / file))
        assert cv2.imwrite(str(place / "queries" / name), cv2.GaussianBlur(image, (0, 0), 1.5))
    embedder = mancs_jax.load(place / "workdirs" / "market")
    for folder in ("unknown", "photos"):
        write_gallery(place / f"{folder}.npz", embed_folder(place / folder, embedder, progress=False))
    return place


def run(place, monkeypatch, *arguments):
    monkeypatch.chdir(place)
    monkeypatch.setattr(search, "keep_compiled_programs", lambda: None)
    command_line.run(search, ["mancs", *arguments, "--workdir=workdirs/market"])


def test_a_folder_of_queries(place, monkeypatch, capsys):
    out = ["--json=out/a.json", "--picture=out/a.png", "--report=out/a.html", "--images=unknown"]
    run(place, monkeypatch, "queries", "--gallery=unknown.npz", "--k=4", *out)
    embedder = mancs_jax.load("workdirs/market")
    gallery = embed_folder("unknown", embedder, progress=False)
    names = ["a/cam.jpg", "b.jpg", "c.jpg"]
    found = mancs_jax.search(embedder([f"queries/{name}" for name in names]), gallery.embedding, 4)
    expected = [[gallery.name[i] for i in row] for row in found.index]
    written = json.loads((place / "out" / "a.json").read_text())
    assert [query["query"] for query in written["queries"]] == names
    assert [[answer["name"] for answer in query["answers"]] for query in written["queries"]] == expected
    assert (written["k"], written["distance"], written["network"]) == (4, "euclidean", gallery.network)
    first = written["queries"][0]["answers"][0]
    assert set(first) == {"name", "distance", "is_correct"} and first["is_correct"] is None  # no labels
    printed = capsys.readouterr().out
    blocks = printed.split("\n\n")
    assert len(blocks) == 3 and blocks[0].startswith("query a/cam.jpg\nrank  distance  name\n   1")
    assert [line.split()[2] for line in blocks[1].splitlines()[2:6]] == expected[1]
    assert printed.endswith("results: out/a.json\npicture: out/a.png\nreport: out/a.html\n")
    drawn = cv2.imread("out/a.png", cv2.IMREAD_COLOR_RGB)
    across, down = LEAST_WIDTH + 2 * BORDER + GAP, 128 + 2 * BORDER + 2 * LINE + 2 * GAP
    assert drawn.shape == (3 * down - GAP, 5 * across - GAP, 3)
    borders = {tuple(drawn[row * down, column * across].tolist()) for row in range(3) for column in range(5)}
    assert borders == {QUERY}  # neither right nor wrong
    data = data_of((place / "out" / "a.html").read_text())
    assert [query["name"] for query in data["queries"]] == names and data["table"] == []
    shown = [[data["gallery"][row]["name"] for row in rows] for rows in data["lists"]["by distance"]["answers"]]
    assert data["lists"]["by distance"]["is_correct"] == [[None] * 4] * 3
    assert shown == expected and {of["pid"] for of in data["queries"] + data["gallery"]} == {None}
    assert data["about"] == (
        "3 queries; the gallery has no labels of people, so no result is correct or wrong; mancs embed --csv=FILE adds "
        "them"
    )


def test_labels_of_queries_alone_make_no_answer_right(place, monkeypatch, capsys):
    (place / "queries.csv").write_text("path,pid\na/cam.jpg,anna\nb.jpg,ben\nc.jpg,0\n")
    out = ["--json=q.json", "--picture=q.png", "--report=q.html", "--images=unknown", "--csv=queries.csv"]
    run(place, monkeypatch, "queries", "--gallery=unknown.npz", "--k=2", *out)
    assert "\nthe gallery has no labels of people, so no result is correct or wrong" in capsys.readouterr().out
    written = json.loads((place / "q.json").read_text())["queries"]
    assert [query["person"] for query in written] == ["anna", "ben", "0"]
    assert {answer["is_correct"] for query in written for answer in query["answers"]} == {None}
    drawn = cv2.imread("q.png", cv2.IMREAD_COLOR_RGB)
    assert not any(np.all(drawn == colour, axis=-1).any() for colour in (RIGHT, WRONG))
    data = data_of((place / "q.html").read_text())
    assert "no result is correct or wrong" in data["about"] and {of["pid"] for of in data["gallery"]} == {None}


@pytest.mark.parametrize(
    ("query", "answer", "expected"),
    [
        (("7", "1"), ("7", "2"), True),
        (("7", "1"), ("8", "2"), False),
        (("7", "1"), ("0", "2"), False),  # a distractor is nobody who is searched for
        (("7", "1"), ("-1", "2"), None),
        (("0", "1"), ("0", "2"), None),
        (("-1", "1"), ("7", "2"), None),
        (None, ("7", "2"), None),
        (("7", ""), None, None),
    ],
)
def test_who_is_known_to_be_the_same(query, answer, expected):
    assert is_correct(query, answer) is expected


def test_the_page_in_a_browser(place, monkeypatch, browser):  # noqa: F811
    run(place, monkeypatch, "queries", "--gallery=unknown.npz", "--k=4", "--report=r.html", "--images=unknown")
    errors = []
    with browser.new_context(offline=True) as context:
        tab = context.new_page()
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(f"file://{place}/r.html")
        assert tab.locator(".list").count() == 3 and tab.locator(".list figure").count() == 3 * 5
        assert tab.locator("figure.right, figure.wrong, #failures, .charts").count() == 0
        assert tab.locator(".list figure:first-child figcaption").all_text_contents()[:2] == ["a/cam.jpg", "query"]
        tab.fill("#filter", "b.jpg")
        tab.click(".list")
        assert tab.text_content("dialog h2") == "b.jpg" and tab.locator("dialog canvas").count() == 0
        assert tab.locator("dialog p").all_text_contents() == ["by distance"]
    assert errors == []


def test_the_page_names_its_search_and_says_where_nothing_matches(place, monkeypatch, browser):
    name = "a_rather_long_name_of_an_image_from_the_entrance_of_the_north_wing.jpg"
    (place / "long").mkdir(exist_ok=True)
    shutil.copy(place / "queries" / "b.jpg", place / "long" / name)
    shown = {}
    for limit in ("0.001", "1e6"):
        flags = ["--gallery=unknown.npz", "--k=3", f"--max_distance={limit}", "--report=n.html", "--images=unknown"]
        run(place, monkeypatch, "long", *flags)
        with browser.new_context(offline=True, viewport={"width": 400, "height": 800}) as context:
            tab = context.new_page()
            tab.goto(f"file://{place}/n.html")
            shown[limit] = tab.inner_text("body")
            caption = tab.locator(".list figcaption").first
            assert caption.inner_text() == name  # it wraps, and nothing of it is cut off
            assert caption.evaluate("node => node.scrollWidth <= node.clientWidth && node.clientHeight > 30")
            assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            facts = dict(row.split("\t") for row in tab.inner_text("#facts").splitlines())
    assert "no match within 0.001" in shown["0.001"] and "no match" not in shown["1e6"]
    assert facts["gallery"] == "unknown.npz, 48 images" and facts["model"] == "workdirs/market"
    assert facts["distance"] == "euclidean" and facts["threshold"] == "1e+06" and facts["date"].startswith("20")


def test_known_people_have_colours_on_the_page(place, monkeypatch):
    run(place, monkeypatch, "photos", "--gallery=photos.npz", "--k=2", "--report=k.html", "--images=photos")
    data = data_of((place / "k.html").read_text())
    assert data["queries"][0]["pid"] == "1" and {of["pid"] for of in data["gallery"]} <= set(map(str, range(1, 13)))
    answered = data["lists"]["by distance"]
    for query, rows, correct in zip(data["queries"], answered["answers"], answered["is_correct"], strict=True):
        assert correct == [data["gallery"][row]["pid"] == query["pid"] for row in rows]


def test_files_that_are_no_queries_are_told(place, monkeypatch, capsys):
    (place / "mixed").mkdir()
    shutil.copy(place / "queries" / "b.jpg", place / "mixed")
    (place / "mixed" / "notes.txt").write_text("x")
    run(place, monkeypatch, "mixed", "--gallery=unknown.npz", "--k=1")
    assert capsys.readouterr().out.startswith("1 skipped, not an image by name: notes.txt\nrank")


def test_queries_of_the_gallery_are_no_answers(place):
    embedder = mancs_jax.load(place / "workdirs" / "market")
    gallery = embed_folder(place / "unknown", embedder, progress=False)
    found, _ = answers.find_answers(answers.find_queries(place / "unknown"), embedder, gallery, k=3)
    assert [one.itself for one in found] == gallery.name.tolist()
    assert all(one.found.index.shape == (1, 3) for one in found)
    assert "excluded from the results: the query itself, img00.jpg" in answers.as_text(found, gallery)
    whole, _ = answers.find_answers(answers.find_queries(place / "unknown" / "img00.jpg"), embedder, gallery, k=99)
    assert whole[0].name == "img00.jpg" and whole[0].found.index.shape == (1, len(gallery.name) - 1)
    query = answers.find_queries(place / "queries" / "b.jpg")
    near, _ = answers.find_answers(query, embedder, gallery, k=3, max_distance=0.0)
    assert answers.as_text(near, gallery) == "no match: the gallery has no other image"
    assert answers.as_text(near, gallery, 0.0) == "no match within 0"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["queries", "--report=a.html"], "--picture=OUT.png or --report=OUT.html and --images=FOLDER go together"),
        (["queries", "--report=a.pdf", "--images=unknown"], "--report=a.pdf: the name has to end in .html"),
        (["photos", "--picture=a.png", "--images=unknown"], "--picture draws 20 queries at most, and photos has 48: "),
        (["workdirs/market", "--k=1"], "workdirs/market: no images in it"),
        (["nowhere.jpg"], "nowhere.jpg: no such file"),
        (["queries", "--json=/proc/a.json"], "/proc/a.json cannot be written"),
    ],
)
def test_mistakes_get_one_line(place, monkeypatch, arguments, line):
    with pytest.raises(SystemExit) as stop:
        run(place, monkeypatch, *arguments, "--gallery=unknown.npz")
    assert str(stop.value).startswith(f"search: {line}") and "\n" not in str(stop.value)


def test_a_line_a_query(place):
    embedder = mancs_jax.load(place / "workdirs" / "market")
    gallery = embed_folder(place / "unknown", embedder, progress=False)
    queries = answers.find_queries(place / "queries")
    found, _ = answers.find_answers(queries, embedder, gallery, k=2)
    images, faults = answers.result_images(found, gallery, place / "unknown", (128, LEAST_WIDTH))
    drawn = answers.draw(found, gallery, images, (128, LEAST_WIDTH))
    one = answers.draw(found[:1], gallery, images, (128, LEAST_WIDTH))
    assert not faults
    np.testing.assert_array_equal(drawn[: one.shape[0]], one)
