"""Folders of images on their way into a gallery, and the commands of a gallery."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from gallery_stores import Pixels
from pages import data_of
from test_gallery import write_folder

from mancs_jax.cli.main import main
from mancs_jax.gallery.answers import is_correct
from mancs_jax.gallery.entry import Added
from mancs_jax.gallery.filters import Filter
from mancs_jax.gallery.folder import TRANSACTION, read_csv
from mancs_jax.gallery.gallery import Gallery
from mancs_jax.inference.gallery import described_gallery, load_gallery

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_folder(tmp_path / "photos", 20)


def test_only_new_and_changed_images_are_embedded(place, folder):
    embedder = Pixels()
    with Gallery(place, embedder) as gallery:
        assert gallery.add_folder(folder, progress=False).added == Added(new=20)
        assert gallery.add_folder(folder, progress=False).added == Added(unchanged=20)
        assert sum(embedder.calls) == 20
        write_folder(folder, 22, seed=0)  # two more; the others are written again, to the same bytes
        shutil.copy(folder / "cam0" / "0000.jpg", folder / "cam1" / "0005.jpg")
        assert gallery.add_folder(folder, progress=False).added == Added(new=2, replaced=1, unchanged=19)
        assert sum(embedder.calls) == 23
        [matches] = gallery.search(folder / "cam1" / "0005.jpg", 3)
        assert [match.image.name for match in matches[:2]] == ["cam0/0000.jpg", "cam1/0005.jpg"]
        assert [match.distance for match in matches[:2]] == [0, 0] and matches[2].distance > 0
        assert {image.folder for image in gallery.images()} == {str(folder.resolve())}
        assert gallery.check() == []


def test_a_killed_process_keeps_what_was_added(tmp_path):
    folder = write_folder(tmp_path / "many", TRANSACTION + 50)

    class Killed(Pixels):
        def __call__(self, images, camera=None, progress=True):
            if len(self.calls) == 1:
                raise KeyboardInterrupt
            return super().__call__(images, camera, progress)

    with Gallery(tmp_path / "people.gallery", Killed()) as gallery, pytest.raises(KeyboardInterrupt):
        gallery.add_folder(folder, progress=False)
    embedder = Pixels()
    with Gallery(tmp_path / "people.gallery", embedder) as gallery:
        assert len(gallery) == TRANSACTION and gallery.check() == []
        assert gallery.add_folder(folder, progress=False).added == Added(new=50, unchanged=TRANSACTION)
        assert embedder.calls == [50]


def test_labels_of_a_csv_of_arguments_and_of_names(tmp_path, folder):
    shutil.copy(folder / "cam0" / "0000.jpg", folder / "0007_c3s1_000451_03.jpg")
    shutil.copy(folder / "cam0" / "0002.jpg", folder / "-1_c2s1_000451_03.jpg")
    csv = tmp_path / "labels.csv"
    csv.write_text("path,person,time\ncam0/0000.jpg,alice,2026-11-30T10:00\ncam0/0002.jpg,,1000\n")
    with Gallery(tmp_path / "people.gallery", Pixels()) as gallery:
        gallery.add_folder(folder, csv_file=csv, camera="gate", progress=False)
        labels = {image.name: (image.person, image.camera, image.time) for image in gallery.images()}
        assert labels["cam0/0000.jpg"][:2] == ("alice", "gate") and labels["cam0/0002.jpg"] == (None, "gate", 1000.0)
        assert labels["0007_c3s1_000451_03.jpg"] == ("7", "gate", None)
        assert labels["-1_c2s1_000451_03.jpg"] == (None, "gate", None)  # junk is nobody
        # Without labels, an image keeps those that it has; with others, it gets them without being embedded again.
        assert gallery.add_folder(folder, progress=False).added == Added(unchanged=22)
        before = sum(gallery.embedder.calls)
        csv.write_text("path,person,camera\ncam0/0000.jpg,bob,3\n")
        assert gallery.add_folder(folder, csv_file=csv, progress=False).added.replaced == 1
        [image] = gallery.images(person="bob")
        assert (image.camera, image.name) == ("3", "cam0/0000.jpg") and image.time == labels["cam0/0000.jpg"][2]
        assert sum(gallery.embedder.calls) == before and gallery.check() == []
        os.utime(folder / "cam1" / "0001.jpg", (5000, 5000))
        gallery.add_folder(folder, time="modified", progress=False)
        assert [image.name for image in gallery.images(before=5001, since=5000)] == ["cam1/0001.jpg"]


def test_an_adapted_network_embeds_each_image_by_its_camera(tmp_path, folder):
    adapted, plain = Pixels(), Pixels()
    adapted.cameras = ("3", "7")
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    csv = tmp_path / "labels.csv"

    def embedded(gallery):
        rows = {int(i): row for ids, rows in gallery.store.embeddings(Filter()) for i, row in zip(ids, rows)}
        return {image.name: rows[image.id] for image in gallery.images()}

    def added(gallery, camera):
        csv.write_text("\n".join(["path,camera", *(f"{name},{camera.get(name, '')}" for name in files)]))
        return gallery.add_folder(folder, csv_file=csv, progress=False).added

    def expected(camera):
        return {name: plain(folder / name)[0] + camera.get(name, 0) for name in files}

    first = {files[0]: 7, files[1]: 3, files[2]: "07", files[3]: "gate", files[4]: 5}
    with Gallery(tmp_path / "people.gallery", adapted) as gallery:
        added(gallery, first)
        known = {files[0]: 7, files[1]: 3}
        np.testing.assert_equal(embedded(gallery), expected(known))
        # Another camera makes another embedding.
        assert added(gallery, first | {files[1]: 7}) == Added(replaced=1, unchanged=19)
        known[files[1]] = 7
        np.testing.assert_equal(embedded(gallery), expected(known))
        gallery.embed_again(progress=False)
        np.testing.assert_equal(embedded(gallery), expected(known))
        query = folder / files[5]
        [[match]] = gallery.search(query, k=1)
        assert (match.image.name, match.distance) == (files[5], 0)
        [[match]] = gallery.search(query, k=1, name=files[0], query_camera=7)
        distance = np.linalg.norm(plain(query)[0] - plain(folder / files[0])[0])  # both are moved by 7
        assert match.distance == pytest.approx(distance, rel=1e-5)


def test_images_of_one_name_in_two_folders(tmp_path, folder):
    other = write_folder(tmp_path / "more", 3, seed=1)
    with Gallery(tmp_path / "people.gallery", Pixels()) as gallery:
        gallery.add_folder(folder, progress=False)
        with pytest.raises(ValueError, match="3 other images of these names .* --relative_to=FOLDER"):
            gallery.add_folder(other, progress=False)
        assert len(gallery) == 20
        assert gallery.add_folder(other, relative_to=tmp_path, progress=False).added == Added(new=3)
        assert len(list(gallery.images(name="more/*"))) == 3
        assert gallery.add_folder(other, replace=True, progress=False).added == Added(replaced=3)
        with pytest.raises(ValueError, match="is not below"):
            gallery.add_folder(other, relative_to=folder)
        moved = folder.rename(tmp_path / "moved")
        gallery.add_folder(moved, replace=True, progress=False)
        assert {image.folder for image in gallery.images(name="cam*")} == {str(moved.resolve())}


def test_names_that_are_not_utf8_are_skipped(tmp_path, folder):
    odd = os.fsdecode(b"caf\xe9.jpg")
    shutil.copy(folder / "cam0" / "0000.jpg", folder / odd)
    with Gallery(tmp_path / "people.gallery", Pixels()) as gallery:
        added = gallery.add_folder(folder, progress=False)
        assert added.added == Added(new=20) and added.damaged == {odd: "its name is not UTF-8: rename it"}


def test_damaged_images_are_skipped(tmp_path, folder):
    (folder / "cam0" / "0000.jpg").write_bytes((folder / "cam0" / "0000.jpg").read_bytes()[:100])
    (folder / "notes.txt").write_text("x")
    with Gallery(tmp_path / "people.gallery", Pixels()) as gallery:
        added = gallery.add_folder(folder, progress=False)
        assert (
            added.added == Added(new=19)
            and set(added.damaged) == {"cam0/0000.jpg"}
            and added.not_images == ["notes.txt"]
        )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name,person\na,1\n", "its header has to be path and some of person, camera, time"),
        ("path,person,pid\na,1,2\n", "its header has to be path and some of person, camera, time, not pid"),
        ("path,person\na\n", "line 2 has another number of cells"),
        ("path,person\na,1\na,2\n", "line 3: a was there before"),
        ("path,time\na,noon\n", "line 2: time is 'noon'"),
        ("path,person\nnowhere.jpg,1\n", "has 1 paths that are no images of .*: nowhere.jpg"),
    ],
)
def test_a_csv_that_is_none(tmp_path, folder, text, line):
    csv = tmp_path / "labels.csv"
    csv.write_text(text)
    with Gallery(tmp_path / "people.gallery", Pixels()) as gallery, pytest.raises(ValueError, match=line):
        gallery.add_folder(folder, csv_file=csv, progress=False)


def test_a_csv_of_a_spreadsheet(tmp_path):
    csv = tmp_path / "labels.csv"
    csv.write_bytes("\ufeffpath,person\r\n./ü.jpg, 7 \r\n".encode())
    assert read_csv(csv)["ü.jpg"].person == "7"


# The commands, with the network of the package.


def run(capsys, *arguments: str) -> str:
    main(["mancs", "gallery", *arguments])
    return capsys.readouterr().out


def refused(*arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["mancs", "gallery", *arguments])
    assert "\n" not in str(end.value.code)
    return str(end.value.code)


@pytest.fixture
def people(tmp_path, monkeypatch) -> Path:
    """Three people in a folder a day, and a gallery of them."""
    monkeypatch.chdir(tmp_path)
    for day in ("2026-11-29", "2026-11-30"):
        (tmp_path / "photos" / day).mkdir(parents=True)
    pictures = REPOSITORY / "docs" / "people"
    shutil.copy(pictures / "b.jpg", tmp_path / "photos" / "2026-11-29" / "0001_c3s1_000001_00.jpg")
    shutil.copy(pictures / "c.jpg", tmp_path / "photos" / "2026-11-30" / "0002_c4s1_000001_00.jpg")
    shutil.copy(pictures / "a.jpg", tmp_path / "photos" / "2026-11-30" / "0001_c4s1_000002_00.jpg")
    shutil.copy(pictures / "a.jpg", tmp_path / "query.jpg")
    return tmp_path


def test_the_commands_with_a_network(people, capsys, browser):
    with_network = ["--gallery=people.gallery", "--network=market1501"]
    assert run(capsys, "add", "photos", *with_network, "--time=2026-11-30T14:05").endswith(
        "people.gallery: 3 new, 0 replaced, 0 unchanged; it has 3 images now\n"
    )
    assert "0 new, 0 replaced, 3 unchanged" in run(capsys, "add", "photos", *with_network)
    out = run(capsys, "search", "query.jpg", *with_network, "--report=r.html", "--json=r.json", "--max_distance=3.5")
    assert "excluded from the results: the query itself, 2026-11-30/0001_c4s1_000002_00.jpg\n" in out
    rows = [line.split() for line in out.splitlines() if line.strip().startswith("1 ")]
    assert rows == [["1", rows[0][1], "1", "3", "2026-11-30", "14:05:00", "2026-11-29/0001_c3s1_000001_00.jpg"]]
    written = json.loads((people / "r.json").read_text())
    answers = written["queries"][0]["answers"]
    assert [(answer["person"], answer["camera"]) for answer in answers] == [("1", "3")]
    assert abs(answers[0]["distance"] - 2.998) < 0.01
    data = data_of((people / "r.html").read_text())
    assert data["facts"]["threshold"] == "3.5" and data["facts"]["model"] == "market1501"
    assert data["facts"]["gallery"] == "people.gallery, 3 images"
    nothing = run(capsys, "search", "query.jpg", *with_network, "--report=n.html", "--max_distance=0.1", "--camera=3")
    assert "no match within 0.1" in nothing
    with browser.new_context(offline=True, viewport={"width": 400, "height": 800}) as context:
        tab, errors = context.new_page(), []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(f"file://{people}/r.html")
        captions = tab.locator(".list figure").nth(1).locator("figcaption").all_text_contents()
        assert captions[1:] == ["person 1", "camera 3", "2026-11-30 14:05:00", "2026-11-29/0001_c3s1_000001_00.jpg"]
        assert tab.evaluate("document.documentElement.scrollWidth") <= 400
        tab.click(".list")
        assert tab.locator("dialog figure").count() == 2
        tab.goto(f"file://{people}/n.html")
        assert tab.locator(".list .nothing").text_content() == "no match within 0.1"
        assert "camera 3" in tab.locator("#facts").text_content()
        assert "1 images" not in run(capsys, "list", "--gallery=people.gallery", "--report=p.html")
        tab.goto(f"file://{people}/p.html")
        assert tab.locator("#results tr").nth(1).locator("td").all_text_contents()[:3] == ["1", "2", "2"]
        assert tab.locator("#ranked").count() == 0 and errors == []
    assert "3 images, no fault found" in run(capsys, "check", "--gallery=people.gallery")
    assert "x.npz: 1 images" in run(capsys, "export", "--gallery=people.gallery", "--output=x.npz", "--person=2")
    assert "1 new" in run(capsys, "add", "x.npz", "--gallery=y.gallery")
    model = load_gallery("x.npz").network[:8]
    main(["mancs", "gallery", "export", "--gallery=people.gallery", "--output=no/../x.npz"])
    assert f"no/../x.npz replaces a gallery of 1 embeddings (model {model})\n" in capsys.readouterr().err
    out = run(capsys, "forget", "--gallery=people.gallery", "--person=1", "--receipt=receipt.json")
    assert out.startswith("2 images deleted, 1 remain\nsearched ") and ": 0 found\n" in out
    assert json.loads((people / "receipt.json").read_text())["proved"] is True
    assert "nothing was deleted" in run(capsys, "forget", "--gallery=people.gallery", "--person=1")
    assert not list(people.glob("people.gallery.receipt*"))


def test_a_name_is_known_whatever_it_is():
    """In a gallery "0" is a name; in the name of a query it is a distractor, as in Market-1501."""
    expected = {("0007_c1s1_1.jpg", "7"): True, ("0007_c1s1_1.jpg", "0"): False, ("0007_c1s1_1.jpg", "-1"): False}
    expected |= {("0007_c1s1_1.jpg", None): None, ("0000_c1s1_1.jpg", "0"): None, ("-1_c1s1_1.jpg", "7"): None}
    expected |= {("a.jpg", "7"): None}
    assert {key: is_correct(*key) for key in expected} == expected


def test_files_that_are_gone_are_grey(people, capsys):
    with_network = ["--gallery=people.gallery", "--network=market1501"]
    run(capsys, "add", "photos", *with_network)
    shutil.move("photos", "elsewhere")
    run(capsys, "search", "query.jpg", *with_network, "--report=a.html")
    run(capsys, "search", "query.jpg", *with_network, "--report=b.html", "--images=elsewhere")
    grey, shown = (data_of((people / f"{name}.html").read_text())["images"] for name in "ab")
    assert len(set(grey[1:])) == 1 and len(set(shown[1:])) == 2 and grey[0] == shown[0]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["add", "photos", "--gallery=g"], "gallery add: give either --workdir=DIRECTORY of a run or --network=NAME"),
        (["add", "nowhere", "--gallery=g", "--network=market1501"], "gallery add: nowhere: no such folder"),
        (["add", "photos", "--network=market1501"], "gallery add: --gallery is missing."),
        (["search", "query.jpg", "--gallery=g", "--network=market1501"], "gallery search: g: no such gallery"),
        (["forget", "--gallery=g", "--person=7"], "gallery forget: g: no such gallery"),
        (["forget", "--gallery=query.jpg", "--person=7"], "gallery forget: query.jpg is no gallery, or is damaged"),
        (["list", "--gallery=g", "--since=Monday"], "gallery list: since is 'Monday'"),
        (["list", "--gallery=gs://bucket/g"], "gallery list: --gallery=gs://bucket/g: remote paths are not supported"),
        (["export", "--gallery=g", "--output=x.zip"], "gallery export: --output=x.zip: the name has to end in .npz"),
        (["lst"], "mancs gallery: no command 'lst'. Did you mean \"list\"? `mancs gallery --help` lists all"),
        (["check", "--galery=g"], "gallery check: Unknown command line flag 'galery'. Did you mean: gallery"),
        (
            ["check", "--gallery=postgresql://nobody@127.0.0.1:1/x"],
            "gallery check: postgresql://127.0.0.1/x: connection",
        ),
    ],
)
def test_mistakes_get_one_line(people, arguments, line):
    assert refused(*arguments).startswith(line)


def test_forgetting_imports_no_jax(people):
    import subprocess
    import sys

    np.savez("a.npz", embedding=np.eye(3, dtype=np.float32), name=list("abc"), network="n", flip=False, normalize=False)
    with Gallery("people.gallery") as gallery:
        gallery.add_file("a.npz")
    code = (
        "import sys; from mancs_jax.cli.main import main\n"
        "main(['mancs', 'gallery', 'forget', '--gallery=people.gallery', '--name=a'])\n"
        "main(['mancs', 'gallery', 'list', '--gallery=people.gallery'])\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        cwd=people,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )


def test_a_pipe_as_output_is_not_read(tmp_path):
    """Reading it would wait for this process, which writes it later."""
    os.mkfifo(tmp_path / "f.npz")
    assert described_gallery(tmp_path / "f.npz") == ""
