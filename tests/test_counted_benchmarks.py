"""The benchmarks that count bytes and operations instead of taking the time."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS, TINY = Path(__file__).parents[1] / "benchmarks", Path(__file__).parent / "tiny.py"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def run(load, tmp_path, capsys):
    """Runs a benchmark on the tiny configuration: its JSON, and what it prints."""

    def run(name, *arguments):
        load(name).main([f"--config={TINY}", f"--json={tmp_path / 'figures.json'}", *arguments])
        return json.loads((tmp_path / "figures.json").read_text()), capsys.readouterr().out

    return run


def test_a_share_at_a_time_takes_less_memory(load, run, monkeypatch):
    memory = load("memory")
    monkeypatch.setattr(memory, "REMAT", (memory.REMAT[0], memory.REMAT[-1]))
    figures, table = run("memory", "--accumulate", "1", "4")
    rows = figures["rows"]
    assert len(rows) == len(memory.REMAT) * 2 == table.count("| float32 |")
    size = {(tuple(row["remat"]), row["accumulate"]): row["compiled"] for row in rows}
    assert all(size[remat, 4] < size[remat, 1] for remat in memory.REMAT)
    assert all(row["measured"] is None for row in rows)


def test_seconds_are_those_of_the_slower_of_arithmetic_and_memory(load):
    scaling = load("scaling")
    one = scaling.Machine("one", 1, flops=10.0, bandwidth=4.0, memory=1.0, link=1.0)
    assert scaling.seconds(scaling.Cost(flops=50.0, bytes=8.0, sent=3.0), one, reached=0.5) == 10.0
    assert scaling.seconds(scaling.Cost(flops=1.0, bytes=80.0, sent=3.0), one, reached=1.0) == 10.0  # half the bytes
    two = one._replace(devices=2)
    assert scaling.seconds(scaling.Cost(flops=50.0, bytes=8.0, sent=3.0), two, reached=0.5) == 5.0 + 3.0


def test_operations_are_counted_and_galleries_weighed(run, monkeypatch):
    for name in ("_CHUNK_BYTES", "_EXTRA_ROWS"):  # the benchmark sets them: put back afterwards
        monkeypatch.setattr(f"mancs_jax.models.convolution.{name}", 1)
    counted, table = run("scaling")
    assert "| TPU v5e-8 |" in table and "| 1e+06 | 8.19 GB | 4.1 GB | 1 |" in table and "| 1e+10 | 81.9 TB |" in table
    # Backward is about twice forward: one for the gradient of the inputs, one for that of the weights.
    assert 2 < counted["training"]["flops"] / counted["embedding"]["flops"] < 6
    assert [row["machine"] for row in counted["steps"]] == ["H200", "8 x H200", "TPU v5e-8"]
