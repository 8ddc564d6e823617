"""The benchmarks of ranking, re-ranking and search run to their end at a small size; no figure of time is looked at."""

import importlib.util
import json
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mancs_jax.evaluation.features import load_features

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PORT = """
import numpy as np
from loop_reranking import from_squared

def re_ranking(q_g, q_q, g_g, k1, k2, weight):
    distances = np.block([[q_q, q_g], [q_g.T, g_g]])
    return from_squared(distances**2, len(q_g), k1, k2, weight)
"""


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs a benchmark with flags, in threads instead of processes: the rows that it writes, and what it prints."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr("measure.STATUS", Path("nowhere"))  # at this size no memory is added
    monkeypatch.setattr("measure.ProcessPoolExecutor", lambda workers, mp_context: ThreadPoolExecutor(workers))

    def run(name, *arguments, **constants):
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for constant, value in constants.items():
            monkeypatch.setattr(module, constant, value)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments), f"--json={tmp_path / 'figures.json'}"])
        module.main()
        return json.loads((tmp_path / "figures.json").read_text()), capsys.readouterr().out

    return run


@pytest.fixture
def features(tmp_path):
    rng = np.random.default_rng(0)
    pid = np.arange(90) % 12 + 1
    embedding = (rng.standard_normal((13, 8))[pid] + 0.5 * rng.standard_normal((90, 8))).astype(np.float32)
    camid = rng.integers(1, 4, 90)
    parts = {"query": slice(20), "gallery": slice(20, None)}
    arrays = {part: embedding[rows] for part, rows in parts.items()}
    arrays |= {f"{part}_pid": pid[rows] for part, rows in parts.items()}
    arrays |= {f"{part}_camid": camid[rows] for part, rows in parts.items()}
    np.savez(tmp_path / "features.npz", **arrays)
    return f"--features={tmp_path / 'features.npz'}"


def test_ranking(run, features):
    found, table = run("ranking", features, "--repeats=1")
    assert [row["from"] for row in found["rows"]] == ["distances"] * 2 + ["embeddings"] * 3 + ["pairs"] * 2
    assert all((row["off ours"] or 0) < 1e-6 for row in found["rows"])
    assert (found["queries"], found["gallery"], found["width"]) == (20, 70, 8) and "counted ranks" in table


def test_both_ways_count_the_same_pairs(features, load_benchmark):
    module = load_benchmark("ranking")
    given = [load_features(features.removeprefix("--features="))[part] for part in ("query", "gallery")]
    np.testing.assert_allclose(module.rates(*given)["tpr"], module.rates_by_sorting(*given)["tpr"], atol=0.02)


def test_reranking(run, features, tmp_path):
    (tmp_path / "port.py").write_text(PORT)
    found, table = run("reranking", features, f"--port={tmp_path / 'port.py'}", "--widths", "8", "16")
    assert [row["width"] for row in found["rows"]][:2] == [8, 16] and "times as fast" in table
    for width in (8, 16):
        assert found[f"width {width}, beside authors' port: largest difference of a distance"] < 1e-5


def test_large_gallery(run, monkeypatch):
    monkeypatch.setattr("measure.drawn_labels", few_labels)
    found, table = run("large_gallery", "--in_memory", "--distractors=50", "--width=8", drawn_labels=few_labels)
    mapped, held = found["rows"]
    assert found["images"] == 100 + 50 and float(mapped["mAP %"]) == float(held["mAP %"]) > 0
    assert "images: 150" in table


def few_labels(rng):
    pid = [np.arange(20, dtype=np.int32) % 5 + 1, np.arange(100, dtype=np.int32) % 5 + 1]
    return [pid[0], rng.integers(1, 7, 20, dtype=np.int32), pid[1], rng.integers(1, 7, 100, dtype=np.int32)]


def test_search(run, tmp_path):
    arguments = ["--gallery=400", "--width=16", "--queries=8", "--in_memory", f"--folder={tmp_path}"]
    found, table = run("search", *arguments, LARGEST_MS=math.inf)
    rows = found["rows"]
    assert [row["way"] for row in rows][::3] == ["exact, search()", "index, search()"] and "recall@10" in table
    assert all(float(row["recall@10"]) > 0.95 for row in rows)


def test_gallery(run):
    limits = {"LEAST_ROWS_PER_S": 0, "LONGEST_OPENING_S": 1e9, "SLOWEST": 1e9, "SHARE_OF_FILTER": 1e9}
    found, table = run("gallery", "--images=1000", "--width=16", "--queries=3", "--rounds=2", **limits)
    assert [row["way"] for row in found["rows"]] == ["NumPy, in memory", "Gallery, a file", "FAISS flat, in memory"]
    assert {row["equal answers"] for row in found["rows"]} == {"1.000"}
    assert found["images"] == 1000 and "rows/s, added" in table
