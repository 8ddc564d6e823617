"""A workdir of version 0.1.0 (commit ddd3aac): it loads, scores as it did, and goes on training as it would have.

tests/old_workdir/ holds its checkpoint of step 4 (the network of tests/tiny.py, 3 channels wide), and beside it the
numbers of that version: embeddings, scores, and the metrics of steps 5 to 8.
"""

import json
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from tiny_runs import write_data

import mancs_jax
from mancs_jax import run, scoring
from mancs_jax.config import checks

STORED = Path(__file__).parent / "old_workdir"
EXPECTED = json.loads((STORED / "expected.json").read_text())


@pytest.fixture
def workdir(tmp_path, monkeypatch, one_device):
    """Unpacks it beside its data; the configuration names the data by a relative path."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data", tiny.write_folder(tmp_path / "source"))
    with zipfile.ZipFile(STORED / "workdir.zip") as file:
        file.extractall(tmp_path / "run")
    return tmp_path / "run"


def test_it_embeds_as_it_did(workdir):
    embedder = mancs_jax.load(workdir, devices=jax.devices()[:1])
    assert embedder.network == EXPECTED["network"]  # every parameter, bit for bit
    image = np.random.default_rng(0).integers(0, 256, (4, 64, 32, 3), dtype=np.uint8)
    expected = np.float32(EXPECTED["embedding"])
    np.testing.assert_allclose(embedder(image), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_it_scores_as_it_did(workdir):
    result = scoring.evaluate(workdir, progress=False).results["Mancs"]
    assert {name: result[name] for name in EXPECTED["scores"]} == EXPECTED["scores"]
    assert result["train_fingerprint"] == EXPECTED["data_fingerprint"]
    assert result["fingerprint"] == EXPECTED["fingerprint"]


def test_it_goes_on_training(workdir):
    config = checks.from_json(json.loads((workdir / "config.json").read_text())).unlock()
    config.max_steps = 8
    assert run.train_and_evaluate(config.lock(), workdir, report=False)
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 9))
    for row, expected in zip(rows[4:], EXPECTED["rows"], strict=True):
        assert row.keys() == expected.keys()
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-4, abs=1e-6), (row["step"], name)
