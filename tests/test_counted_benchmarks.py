"""The benchmarks that count bytes and operations instead of taking the time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS, TINY = Path(__file__).parents[1] / "benchmarks", Path(__file__).parent / "tiny.py"
PLUGINS = os.environ.get("MANCS_PLUGINS", "")  # the folder of NVIDIA's compiler, see benchmarks/accelerators.py


@pytest.fixture
def run(load_benchmark, tmp_path, capsys):
    """Runs a benchmark on the tiny configuration: its JSON, and what it prints."""

    def run(name, *arguments):
        load_benchmark(name).main([f"--config={TINY}", f"--json={tmp_path / 'figures.json'}", *arguments])
        return json.loads((tmp_path / "figures.json").read_text()), capsys.readouterr().out

    return run


def test_a_share_at_a_time_takes_less_memory(load_benchmark, run, monkeypatch):
    memory = load_benchmark("memory")
    monkeypatch.setattr(memory, "REMAT", (memory.REMAT[0], memory.REMAT[-1]))
    figures, table = run("memory", f"--config={TINY}:bare", "--accumulate", "1", "4")
    rows = figures["rows"]
    assert len(rows) == len(memory.REMAT) * 2 == table.count("| float32 |")
    size = {(row["remat"], row["accumulate"]): row["GB, compiled"] for row in rows}
    assert all(size[str(remat), 4] < size[str(remat), 1] for remat in memory.REMAT)
    assert all(row["GB, measured"] is None for row in rows)


def test_galleries_are_weighed(load_benchmark, capsys, tmp_path):
    load_benchmark("scaling").main([f"--json={tmp_path / 'figures.json'}"])  # run("scaling") without a configuration
    printed, (small, *_, large) = capsys.readouterr().out, json.loads((tmp_path / "figures.json").read_text())
    # 2,048 numbers of 4 bytes; an H200 gives four fifths of its 141 GB, and reads 4.8 TB a second.
    assert small["float32"] == 2 * small["float16"] == 8_192_000_000 and small["cards"] == 1
    assert small["seconds"] == 4_096_000_000 / 4.8e12 and large["cards"] == -(-40_960_000_000_000 // 112_800_000_000)
    assert "| 1e+06 | 8.19 GB | 4.1 GB | 1 |" in printed and "| 1e+10 | 81.9 TB |" in printed


@pytest.mark.skipif(not PLUGINS, reason="MANCS_PLUGINS names no folder of NVIDIA's compiler")
def test_the_program_of_a_gpu_takes_no_path_of_the_cpu(tmp_path):
    def run(name, *arguments):  # a process of its own: it has to find the plugin when it starts
        figures = tmp_path / "figures.json"
        command = [sys.executable, BENCHMARKS / f"{name}.py", f"--config={TINY}", f"--json={figures}", *arguments]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"XLA_FLAGS": ""})
        return json.loads(figures.read_text())

    counted = run("accelerators", f"--plugins={PLUGINS}", "--chip=h100")
    # A ResNet-10 has twelve convolutions, and two gradients of each but for that of the pixels.
    assert sum(counted["step"]["convolutions"].values()) == 3 * 12 - 1
    assert sum(counted["embedding"]["convolutions"].values()) == 12
    kinds = {*counted["step"]["convolutions"], *counted["embedding"]["convolutions"]}
    assert kinds == {"bf16 b01f_o01i->b01f"}  # in the asked dtype, channels last
    assert counted["step"]["loops"] == 0
    # The new state lies where the old one did; what is left are the metrics.
    assert 0.99 * counted["step"]["results"] < counted["step"]["donated"] <= counted["step"]["results"]
