"""A folder of one's own without cameras: prepared, scored, shown; everything says so."""

import json
import re

import cv2
import numpy as np
import pytest
import tiny
from tiny_workdir import write_workdir

from mancs_jax import scoring
from mancs_jax.cli import command_line, evaluate
from mancs_jax.data.cameras import UNKNOWN, each_its_own
from mancs_jax.data.prepare import prepare
from mancs_jax.data.sources.items import Counts
from mancs_jax.evaluation import results
from mancs_jax.reporting.ranked_lists import BORDER, LEAST_WIDTH
from mancs_jax.scoring import Task
from mancs_jax.visualize import write_report


def test_each_its_own():
    assert each_its_own(np.array([3, 1]), np.array([2])) and not each_its_own(np.array([3, 1]), np.array([1]))
    assert not each_its_own(np.array([1])) and not each_its_own(np.zeros(0, int))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data set of one's own with the images of tiny, with and without cameras, and a network."""
    place = tmp_path_factory.mktemp("own")
    source = tiny.write_folder(place / "source")
    rows = []
    for folder, split in (("query", "query"), ("bounding_box_test", "gallery")):
        for file in sorted((source / folder).iterdir()):
            pid, camid = re.match(r"(-?\d+)_c(\d)", file.name).groups()
            rows.append((f"{folder}/{file.name}", str(int(pid)), camid, split))
    for name, columns in (("with", (0, 1, 2, 3)), ("without", (0, 1, 3))):
        lines = [",".join(row[column] for column in columns) for row in [("path", "pid", "camid", "split"), *rows]]
        (place / f"{name}.csv").write_text("\n".join(lines))
    write_workdir(place / "run")
    return place, {name: prepared(place, name) for name in ("with", "without")}


def prepared(place, name):
    return prepare("folder", str(place / "source"), str(place / "data"), name=name, csv=str(place / f"{name}.csv"))


def test_the_table_of_the_data_set_says_so(place):
    place, said = place
    assert UNKNOWN not in said["with"] and UNKNOWN in said["without"]
    assert re.search(r"^query +8 +4 +0 +0 +2$", said["with"], re.MULTILINE)
    assert re.search(r"^query +8 +4 +0 +0 +-$", said["without"], re.MULTILINE)
    again = prepared(place, "without")
    assert UNKNOWN in again and "nothing was done" in again
    assert Counts(1, 1, 0, 0, (5,)).cameras == (5,)


def test_scores_say_so(place, capsys):
    place, _ = place
    scored = {
        name: scoring.evaluate(place / "run", Task(dataset=name, root=str(place / "data")), progress=False, write=False)
        for name in ("with", "without")
    }
    found = {name: of.results["Mancs"] for name, of in scored.items()}
    assert found["with"]["cameras_known"] and not found["without"]["cameras_known"]
    # Of each query, the image under its own camera counts too.
    pairs = {name: result["verification"]["num_positive_pairs"] for name, result in found.items()}
    assert pairs == {"with": 8, "without": 16}
    assert results.matches({"a": found["with"]}) == "8 of 8 queries have a match"
    assert results.matches({"a": found["without"]}) == f"8 of 8 queries have a match\n{UNKNOWN}"
    command_line.run(evaluate, ["mancs", f"--workdir={place}/run", "--dataset=without", f"--root={place}/data"])
    assert f"8 of 8 queries have a match\n{UNKNOWN}\n" in capsys.readouterr().out


def test_single_shot_scores_a_training_split_from_the_command(place, capsys, tmp_path):
    place, _ = place
    rows = [["path", "pid", "camid", "split"]]  # people of a folder of one's own, all of them in train
    for path in sorted((place / "source" / "query").iterdir()):
        pid, camera = path.name.split("_c")
        rows.append([f"query/{path.name}", str(int(pid)), camera[0], "train"])
    (tmp_path / "all.csv").write_text("\n".join(map(",".join, rows)))
    prepare("folder", str(place / "source"), str(tmp_path), name="pairs", csv=str(tmp_path / "all.csv"))
    flags = ["--single_shot", "--splits=3", "--identities=2", "--seed=5", f"--json={tmp_path}/out.json"]
    where = [f"--workdir={place}/run", "--dataset=pairs", f"--root={tmp_path}"]
    command_line.run(evaluate, ["mancs", *where, *flags, "--query_camera=2", "--gallery_camera=1"])
    said = capsys.readouterr().out
    assert "over 3 random splits (seed 5) of 2 of 4 identities, query camera 2, gallery camera 1\n" in said
    (result,) = json.loads((tmp_path / "out.json").read_text()).values()
    written = place / "run" / "results" / "single_shot_2_identities_cameras_2_1_3_splits_seed_5_on_pairs.json"
    assert json.loads(written.read_text()) == result and result["num_gallery"] == 2 and len(result["splits"]) == 3


def test_the_page_shows_no_cameras(place):
    place, _ = place
    task = Task(dataset="without", root=str(place / "data"))
    text = write_report(
        place / "run", scoring.evaluate(place / "run", task, progress=False, write=False), task
    ).read_text()
    assert UNKNOWN in text and '"camid":null' in text and not re.search(r'"camid":\d', text)
    drawn = cv2.imread(str(place / "run" / "results" / "ranked_lists_best.png"))
    assert drawn.shape[1] > 4 * (LEAST_WIDTH + 2 * BORDER)
