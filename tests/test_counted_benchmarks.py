"""The benchmarks that count bytes and operations instead of taking the time."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS, TINY = Path(__file__).parents[1] / "benchmarks", Path(__file__).parent / "tiny.py"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def test_a_share_at_a_time_takes_less_memory(benchmark, capsys, tmp_path):
    memory = benchmark("memory")
    memory.main([f"--config={TINY}", "--accumulate", "1", "4", f"--json={tmp_path / 'memory.json'}"])
    rows = json.loads((tmp_path / "memory.json").read_text())["rows"]
    assert len(rows) == len(memory.REMAT) * 2 == capsys.readouterr().out.count("| float32 |")
    size = {(tuple(row["remat"]), row["accumulate"]): row["compiled"] for row in rows}
    assert all(size[remat, 4] < size[remat, 1] for remat in memory.REMAT)
    assert all(row["measured"] is None for row in rows)


def test_seconds_are_those_of_the_slower_of_arithmetic_and_memory(benchmark):
    scaling = benchmark("scaling")
    one = scaling.Machine("one", 1, flops=10.0, bandwidth=4.0, memory=1.0, link=1.0)
    assert scaling.seconds(scaling.Cost(flops=50.0, bytes=8.0, sent=3.0), one, reached=0.5) == 10.0
    assert scaling.seconds(scaling.Cost(flops=1.0, bytes=80.0, sent=3.0), one, reached=1.0) == 10.0  # half the bytes
    two = one._replace(devices=2)
    assert scaling.seconds(scaling.Cost(flops=50.0, bytes=8.0, sent=3.0), two, reached=0.5) == 5.0 + 3.0


def test_operations_are_counted_and_galleries_weighed(benchmark, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("mancs_jax.models.convolution._CHUNK_BYTES", 1)
    benchmark("scaling").main([f"--config={TINY}", f"--json={tmp_path / 'scaling.json'}"])
    out = capsys.readouterr().out
    assert "| TPU v5e-8 |" in out and "| 1e+06 | 8.19 GB | 4.1 GB | 1 |" in out and "| 1e+10 | 81.9 TB |" in out
    counted = json.loads((tmp_path / "scaling.json").read_text())
    # Backward is about twice forward: one for the gradient of the inputs, one for that of the weights.
    assert 2 < counted["training"]["flops"] / counted["embedding"]["flops"] < 6
    assert [row["machine"] for row in counted["steps"]] == ["H200", "8 x H200", "TPU v5e-8"]
