"""Intervals contain the truth as often as they promise, in a small run of benchmarks/coverage.py."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def coverage(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("coverage")


def test_intervals_by_identity_contain_the_truth(coverage):
    """100 test sets: the share is 95 % +- 4.4 % (two standard errors); by query it is far lower."""
    rows = {row["interval"]: row for row in coverage.score_coverage(100, seed=1, sizes=(200,))}
    for name in ("rank-1", "mAP_plain", "mAP", "mINP"):
        assert 89 <= rows["percentile, by identity"][f"coverage %, {name}"] <= 99
        assert rows["percentile, by query (naive)"][f"coverage %, {name}"] <= 88
    narrow, wide = (
        rows[name]["width, mAP_plain"] for name in ("percentile, by query (naive)", "percentile, by identity")
    )
    assert narrow < 0.8 * wide


def test_equal_models_seldom_differ(coverage):
    (row,) = coverage.equal_models(100, seed=1, sizes=(200,))
    assert all(row[f"significant %, {name}"] <= 10 for name in coverage.SCORES)


def test_intervals_of_rates_contain_the_truth(coverage):
    (row,) = coverage.rate_coverage(60, seed=1, sizes=(60,))
    assert row["coverage %, TPR"] >= 86 and row["coverage %, threshold"] >= 86
    assert row["width by pair (naive)"] < 0.9 * row["width, TPR"]


def test_the_command_prints_a_table(coverage, capsys, tmp_path):
    coverage.main(["scores", "--repeats=3", "--identities", "20", f"--json={tmp_path / 'out.json'}"])
    out = capsys.readouterr().out
    assert out.startswith("| identities | interval |") and (tmp_path / "out.json").exists()
    assert [line.split(" | ")[1] for line in out.splitlines()[2:6]] == [
        "percentile, by identity",
        "BCa, by identity",
        "studentised, by identity",
        "percentile, by query (naive)",
    ]


def test_time_and_memory_of_intervals(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    intervals = importlib.import_module("intervals")
    monkeypatch.setattr(intervals, "in_fresh_process", lambda function, *arguments: function(*arguments))
    rng, arrays = np.random.default_rng(0), {}
    for part, number in (("query", 20), ("gallery", 200)):
        arrays[part] = rng.standard_normal((number, 4), np.float32)
        arrays |= {f"{part}_pid": rng.integers(1, 9, number), f"{part}_camid": rng.integers(0, 3, number)}
    np.savez(tmp_path / "f.npz", **arrays)
    intervals.main([f"--features={tmp_path / 'f.npz'}", "--repeats=1", f"--json={tmp_path / 'out.json'}"])
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row[""] for row in rows] == [intervals.SCORES, intervals.DIFFERENCES, intervals.RATES]
    assert all(row["seconds"] > 0 for row in rows) and "queries: 20" in capsys.readouterr().out
