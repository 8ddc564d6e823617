"""The measurements of docs/adapt.md run to their end at a small size, and count pairs as a loop does."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
from tiny_runs import write_data
from tiny_workdir import write_workdir

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workdir w, and a data set under data."""
    place = tmp_path_factory.mktemp("place")
    write_workdir(place / "w")
    write_data(place / "data", tiny.write_folder(place / "source"))
    return place


@pytest.fixture
def run(load_benchmark, place, tmp_path, capsys, monkeypatch):
    def run(name, *arguments):
        module = load_benchmark(name)
        monkeypatch.setattr(module, "keep_compiled_programs", lambda: None)
        module.main([f"--network={place / 'w'}", *map(str, arguments), f"--json={tmp_path / 'figures.json'}"])
        assert "| " in capsys.readouterr().out
        return json.loads((tmp_path / "figures.json").read_text())["rows"]

    return run


def test_scores_by_weight_and_number_of_images(run, place):
    data = ["--dataset=market1501", f"--root={place / 'data'}"]
    rows = run("adaptation", *data, "--weights", "0", "1", "--images", "3", "0", "--subsets=2")
    columns = [(row["weight"], row["images of a camera"], row["subsets"]) for row in rows]
    assert columns == [(0, 3, 2), (0, "all", 1), (1, 3, 2), (1, "all", 1)]
    assert rows[0]["rank-1"] == rows[0]["lowest rank-1"] == rows[1]["rank-1"]  # without adaptation, subsets are equal
    assert all(0 <= row["lowest rank-1"] <= row["rank-1"] <= 100 for row in rows)
    one_view = run("adaptation", *data, "--weights", "0", "--views=1")
    assert one_view[0]["weight"] == 0


def test_first_views(load_benchmark):
    pid, camid = np.array([1, 1, 2, 1, 1, 2]), np.array([1, 1, 1, 2, 1, 1])
    views = load_benchmark("adaptation").first_views
    assert views(pid, camid, 1).tolist() == [0, 2, 3] and views(pid, camid, 2).tolist() == [0, 1, 2, 3, 5]
    assert views(pid, camid, 0).tolist() == list(range(6))


def test_rates_of_a_data_set_and_of_scenes(run, load_benchmark, place, tmp_path, monkeypatch):
    monkeypatch.setattr(load_benchmark("frames"), "RATES", (0.5, 1e-9))
    rows = run("frames", "--dataset=market1501", f"--root={place / 'data'}", "--weight=0.5")
    # Four people of query, each in both frames of both cameras: 4 x 6 pairs.
    assert [row["pairs in frames"] for row in rows] == [24] * 4
    assert [row["rate in frames %"] for row in rows] == [50, None, 50, None]
    assert all((row["threshold"] is None) == (row["rate between cameras %"] is None) for row in rows)

    rng = np.random.default_rng(0)
    for scene in ("one", "two"):
        (tmp_path / scene / "frames").mkdir(parents=True)
        lines = []
        for frame in (1, 2):
            picture = rng.integers(0, 256, (64, 128, 3), np.uint8)
            assert cv2.imwrite(str(tmp_path / scene / "frames" / f"{frame:06d}.jpg"), picture)
            lines += [f"{frame},{person},{40 * person},0,30,60,1" for person in range(3)]
            lines += [f"{frame},9,0,0,30,60,0"]  # hidden
        (tmp_path / scene / "gt.txt").write_text("\n".join(lines))
    rows = run("frames", "--scenes", tmp_path / "one", tmp_path / "two", "--every=1")
    assert [row["pairs in frames"] for row in rows] == [12] * 4


def test_overlaps_of_boxes(load_benchmark):
    corners = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [100, 0, 110, 10], [0, 0, 10, 10]])
    overlaps = load_benchmark("frames").largest_overlaps
    np.testing.assert_allclose(overlaps(corners), [1, 1 / 3, 0, 1])
    np.testing.assert_allclose(overlaps(corners[:1]), [0])


def test_rates_elsewhere_equal_a_loop(load_benchmark, monkeypatch):
    frames, rng = load_benchmark("frames"), np.random.default_rng(0)
    monkeypatch.setattr(frames, "BLOCK", 7)
    pid, camid, frame = rng.integers(0, 6, 40), rng.integers(0, 3, 40), rng.integers(0, 12, 40)
    embedding = rng.standard_normal((40, 5)).astype(np.float32)
    found = frames.rates_elsewhere(embedding, frames.People(None, pid, camid, frame), [2.5, None], "euclidean")
    kinds = {"one": [], "between": [], "right": []}
    for i in range(40):
        for j in range(40):
            is_near = np.linalg.norm(embedding[i] - embedding[j]) <= 2.5
            if camid[i] != camid[j]:
                kinds["right" if pid[i] == pid[j] else "between"].append(is_near)
            elif pid[i] != pid[j] and frame[i] != frame[j]:
                kinds["one"].append(is_near)
    assert found[0] == pytest.approx([np.mean(kinds[kind]) for kind in ("one", "between", "right")])
    assert found[1] == (None, None, None)
