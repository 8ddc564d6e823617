"""A CSV that names people and cameras: the numbers that stand for them, and the names wherever people are shown."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pages import data_of
from refusals import refused
from tiny_sources import jpeg, run_script, write
from tiny_workdir import write_place

from mancs_jax.data import build
from mancs_jax.data.arrays import load_split, names_of
from mancs_jax.data.sources import folder
from mancs_jax.data.sources.csv_table import Listed
from mancs_jax.data.sources.labels import parse_labels
from mancs_jax.evaluation.features import load_features
from mancs_jax.evaluation.further_tables import named_cameras, worst_cameras
from mancs_jax.gallery.folder import Labels, read_csv
from mancs_jax.inference.gallery import load_gallery, read_labels


def parsed(*lines, header="path,pid,camid"):
    names = [line.split(",")[0] for line in lines]
    listed = Listed(Path("here"), frozenset(names))
    return parse_labels("\n".join([header, *lines]), listed, "labels.csv")


@pytest.mark.quick
def test_integers_stay_and_other_texts_are_numbered():
    numbers = parsed("a.jpg,0012,3", "b.jpg,7,0", "c.jpg,-1,3", "d.jpg,0,3")
    assert [of[2:6] for of in numbers] == [(12, 3, "12", "3"), (7, 0, "7", "0"), (-1, 3, "-1", "3"), (0, 3, "0", "3")]
    names = parsed("a.jpg,zoe,door-2", "b.jpg, anna ,1", "c.jpg,-1,door-2", "d.jpg,0,1", "e.jpg,0007,1")
    assert [of[2:6] for of in names] == [
        (3, 2, "zoe", "door-2"),
        (2, 1, "anna", "1"),
        (-1, 2, "-1", "door-2"),
        (0, 1, "0", "1"),
        (1, 1, "0007", "1"),
    ]
    unknown = parsed("a.jpg,zoe", "b.jpg,zoe", header="path,pid")
    assert [of[2:] for of in unknown] == [(1, 0, "zoe", "", ""), (1, 1, "zoe", "", "")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """people/ with images, people.csv, and a network."""
    place = write_place(tmp_path_factory.mktemp("place"))
    rows = ["path,pid,camid,split"]
    (place / "people" / "asked").mkdir(parents=True)
    for number, file in enumerate(sorted((place / "photos").glob("0*.jpg"))):
        pid, camid = int(file.name[:4]), int(file.name[6])
        name = f"asked/{number}.jpg" if number % 4 == 0 else f"{number}.jpg"
        shutil.copy(file, place / "people" / name)
        rows.append(
            f"{name},{'Zoe Ä' if pid == 1 else f'person {pid:02}'},door-{camid},{'gallery' if number % 4 else 'query'}"
        )
    (place / "people.csv").write_text("\n".join(rows), encoding="utf-8")
    (place / "people" / "unlisted.jpg").write_bytes((place / "query.jpg").read_bytes())
    return place


@pytest.fixture(scope="module")
def embedded(place):
    assert (
        run_script("embed", f"{place}/people", f"--csv={place}/people.csv", *network(place), f"--output={place}/p.npz")
        == ""
    )
    return place / "p.npz"


def network(place):
    return [f"--workdir={place}/workdirs/market"]


def test_embed_keeps_names_and_numbers(embedded, place):
    gallery = load_gallery(embedded)
    assert (
        len(gallery.name) == 48 and "unlisted.jpg" not in gallery.name and sorted(gallery.name) == gallery.name.tolist()
    )
    first = gallery.name.tolist().index("asked/0.jpg")
    assert gallery.shown(first) == ("Zoe Ä", "door-1") and gallery.split[first] == "query"
    assert gallery.pid[first] == 1 and len(set(gallery.pid.tolist())) == 12  # "Zoe Ä" sorts before "person"
    plain = read_labels(place / "people", place / "people.csv")
    assert {name: label.pid for name, label in plain.items()} == dict(zip(gallery.name.tolist(), gallery.pid.tolist()))


def test_evaluate_takes_the_splits_or_a_csv(embedded, place, tmp_path):
    features = load_features(embedded)
    assert [len(of.pid) for of in features.values()] == [12, 36]
    unlabelled = tmp_path / "plain.npz"
    gallery = load_gallery(embedded)
    np.savez(
        unlabelled, **{name: getattr(gallery, name) for name in ("embedding", "name", "network", "flip", "normalize")}
    )
    by_csv = load_features(unlabelled, csv=place / "people.csv")
    for part in ("query", "gallery"):
        for one, other in zip(features[part], by_csv[part], strict=True):
            np.testing.assert_array_equal(one, other)
    without = tmp_path / "without.csv"
    rows = (place / "people.csv").read_text(encoding="utf-8").splitlines()
    without.write_text("\n".join(row.rpartition(",")[0] for row in rows), encoding="utf-8")
    everyone = load_features(unlabelled, csv=without)
    assert [len(of.pid) for of in everyone.values()] == [48, 48]
    assert run_script("evaluate", f"--features={unlabelled}", f"--csv={without}", f"--json={tmp_path}/r.json") == ""
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["verification"]["num_positive_pairs"] > 0
    assert result["names"]["people"]["1"] == "Zoe Ä" and result["names"]["cameras"]["2"] == "door-2"
    worst = {
        "query_camera": 2,
        "gallery_camera": 1,
        "rank1": 0.5,
        "rank1_interval": None,
        "queries": 9,
        "identities": 9,
    }
    line = worst_cameras(
        named_cameras({"query_cameras": [2], "gallery_cameras": [1], "worst": worst}, result["names"]["cameras"])
    )
    assert line.startswith("worst pair of cameras: queries of camera door-2 in images of camera door-1, rank-1 50.0")
    (tmp_path / "other.csv").write_text("path,pid\nx/y.jpg,anna\n")
    line = refused(load_features, unlabelled, csv=tmp_path / "other.csv")
    assert "other.csv lists no image of " in line and "plain.npz: its paths have to be relative to the" in line


def test_search_shows_names(embedded, place, tmp_path):
    outputs = [f"--json={tmp_path}/a.json", f"--report={tmp_path}/a.html", f"--picture={tmp_path}/a.png"]
    csv = f"--csv={place}/people.csv"  # which lists the gallery's images too
    line = run_script(
        "search",
        f"{place}/people/asked",
        f"--gallery={embedded}",
        *network(place),
        csv,
        "--k=3",
        *outputs,
        f"--images={place}/people",
    )
    assert line == ""
    first = json.loads((tmp_path / "a.json").read_text())["queries"][0]
    assert (first["query"], first["person"], first["camera"]) == ("0.jpg", "Zoe Ä", "door-1")
    assert {"pid", "camid", "person", "camera"} < set(first["answers"][0]) and first["answers"][0]["camera"].startswith(
        "door-"
    )
    data = data_of((tmp_path / "a.html").read_text())
    assert {of["pid"] for of in data["queries"]} == {"Zoe Ä", *(f"person {i:02}" for i in range(2, 13))}
    assert {of["camid"] for of in data["gallery"]} <= {f"door-{i}" for i in range(1, 7)}


def test_a_csv_of_other_images_is_refused(place, tmp_path):
    (tmp_path / "other.csv").write_text("path,pid\nx.jpg,anna\n")
    line = run_script(
        "embed", f"{place}/people", f"--csv={tmp_path}/other.csv", *network(place), f"--output={tmp_path}/p.npz"
    )
    assert "other.csv line 2: path 'x.jpg' is no file in" in line and not (tmp_path / "p.npz").exists()
    line = run_script(
        "search", f"{place}/people", f"--csv={tmp_path}/other.csv", f"--gallery={place}/p.npz", *network(place)
    )
    assert "other.csv lists no image of" in line
    line = run_script("evaluate", f"--csv={tmp_path}/other.csv", *network(place))
    assert "--csv goes with --features=FILE of mancs embed" in line


@pytest.mark.quick
def test_a_data_set_keeps_its_names(tmp_path):
    files = {f"{name}.jpg": jpeg(number) for number, name in enumerate("abcd", 1)}
    rows = ["path,pid,camid,split", "a.jpg,zoe,door-2,query", "b.jpg,zoe,door-1,gallery", "c.jpg,adam,door-1,gallery"]
    path = write(tmp_path / "mine", files | {"l.csv": "\n".join([*rows, "d.jpg,0,door-1,gallery"]).encode()}, False)
    with folder.open_own("mine", path, "l.csv") as found:
        build.build(found, tmp_path / "root")
    gallery = load_split("mine", tmp_path / "root", "gallery", (16, 8))
    assert gallery.pid.tolist() == [2, 1, 0] and gallery.camid.tolist() == [1, 1, 1]
    assert names_of("mine", tmp_path / "root") == ({1: "adam", 2: "zoe"}, {1: "door-1", 2: "door-2"})


@pytest.mark.quick
def test_a_gallery_reads_the_csv_too(tmp_path):
    (tmp_path / "l.csv").write_text("path,pid,camid,split\na.jpg,zoe,door-2,query\nb.jpg,0,door-1,gallery\n")
    assert read_csv(tmp_path / "l.csv") == {"a.jpg": Labels("zoe", "door-2"), "b.jpg": Labels(None, "door-1")}
