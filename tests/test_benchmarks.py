"""Every benchmark runs to its end on a small network, and the peer in PyTorch does what our training step does."""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
import curriculum_loss  # noqa: E402
import embedding  # noqa: E402
import input_pipeline  # noqa: E402
import jax  # noqa: E402
import measure  # noqa: E402
import ours  # noqa: E402
import recipe  # noqa: E402
import several_data_sets  # noqa: E402
import start_up  # noqa: E402
import torch  # noqa: E402
import torch_mancs  # noqa: E402
import torch_peer  # noqa: E402
import training_step  # noqa: E402

from mancs_jax.cli import command_line  # noqa: E402
from mancs_jax.weights import authors  # noqa: E402

CLASSES = 4
NETWORK = ["--arch=resnet10", "--width=8", "--image_size", "64", "32", "--k=2", f"--num_classes={CLASSES}"]


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs a benchmark's main with flags, its sides in threads, not processes: (JSON, rows of the printed table)."""
    monkeypatch.setattr(measure, "ProcessPoolExecutor", lambda workers, mp_context: ThreadPoolExecutor(workers))
    for module in (
        training_step,
        input_pipeline,
        several_data_sets,
        embedding,
        command_line,
    ):  # it is for the whole process
        monkeypatch.setattr(module, "keep_freed_memory", lambda: None)
    for module in (measure, start_up):
        monkeypatch.setattr(module, "set_cpu_flags", lambda: None)

    def run(benchmark, *arguments):
        path = tmp_path / "figures.json"
        benchmark.main([*NETWORK, *arguments, f"--json={path}"])
        table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
        figures = json.loads(path.read_text())
        assert {"command", "cpu", "cores", "versions", "cores_that_other_work_had"} <= figures.keys()
        assert len(table) == 1 + len(figures["rows"])
        return figures, table

    return run


def small_config(**loss):
    """The recipe of `NETWORK` without anything random but the triplets."""
    flags = argparse.ArgumentParser()
    recipe.add_network_flags(flags)
    config = recipe.create_config(flags.parse_args(NETWORK), 8).unlock()
    config.augment.crop_area, config.augment.crop_aspect = (1.0, 1.0), (2.0, 2.0)
    config.augment.flip = config.augment.erase = config.model.dropout = 0.0
    config.optim.schedule, config.optim.warmup_epochs, config.optim.head_multiplier = "constant", 0.0, 3.0
    config.loss.update(loss)
    return config.lock()


def test_peer_makes_the_updates_that_ours_makes(tmp_path):
    # So late that each anchor meets its hardest negative: nothing is left to chance.
    config, epoch = small_config(density_floor=0.0), 1000
    network = torch_mancs.randomize(torch_peer.create_network(config, CLASSES), seed=0)
    torch.save(network.state_dict(), tmp_path / "network.pth")
    variables, _ = authors.load_released(tmp_path / "network.pth", config)
    train_step, state = ours.create_training(config, CLASSES)
    assert jax.tree.structure(state.params) == jax.tree.structure(variables["params"])
    state = state.replace(step=state.step + epoch * ours.STEPS_PER_EPOCH, **variables)
    next_batch, step = ours.create_batches(config, CLASSES), torch_peer.create_step(config, CLASSES, network=network)
    found, expected = [], []
    for _ in range(3):
        image, labels = next_batch()
        state, metrics = train_step(state, image, labels)
        found.append(float(metrics["loss"]))
        loss = step(torch_peer.normalized(torch.from_numpy(image[0])), torch.from_numpy(labels[0]).long(), epoch)
        expected.append(loss.item())
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)
    np.testing.assert_allclose(found, expected, rtol=2e-2)
    before = jax.tree.leaves(variables["params"])
    moved = [np.abs(np.asarray(leaf) - was).max() for leaf, was in zip(jax.tree.leaves(state.params), before)]
    assert max(moved) > 2e-3  # 3 steps of 1e-3, three times that in the heads: the losses are not those of one network


def test_training_step(run):
    figures, table = run(training_step, "--batch=8", "--steps=1", "--rounds=1", "--peak_tflops=2")
    assert [row["side"] for row in figures["rows"]] == ["mancs_jax", "PyTorch"]
    first, other = figures["rows"]
    assert first["ours / it"] == 1
    assert other["ours / it"] == pytest.approx(first["images/s"] / other["images/s"])
    for row in (first, other):
        assert row["of the peak"] == pytest.approx(row["TFLOP/s"] / 2)
        assert row["images/s"] == pytest.approx(1e3 * 8 / row["ms a step"])
    assert "ours / it" in table[0] and table[2].startswith("| PyTorch | 8 |")


def test_training_step_without_pytorch(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_peer", None)  # its import fails
    arguments = ("--batch=8", "--steps=1", "--rounds=1", "--alone", "--compile", "--plain_malloc", "--peak_tflops=2")
    figures, _ = run(training_step, *arguments)
    assert [row["side"] for row in figures["rows"]] == ["mancs_jax", "mancs_jax, malloc as it is"]
    assert all(row["TFLOP/s"] is row["of the peak"] is None and row["images/s"] > 0 for row in figures["rows"])


def test_embedding(run):
    figures, _ = run(embedding, "--batch=4", "--batches=2", "--rounds=1", "--plain_malloc", "--onnx")
    rows = {row["side"]: row for row in figures["rows"]}
    plain = ["PyTorch, malloc as it is", "mancs_jax, malloc as it is"]
    assert list(rows) == ["mancs_jax", "PyTorch", "ONNX Runtime", *plain]
    assert 0 < rows["ONNX Runtime"]["largest difference / largest value"] < 1e-4
    ratio = rows["mancs_jax"]["images/s"] / rows["PyTorch"]["images/s"]
    assert rows["PyTorch"]["ours / it"] == pytest.approx(ratio)
    assert 0 < rows["mancs_jax"]["largest difference / largest value"] < 1e-4


def test_curriculum_loss(run):
    arguments = ("--p=8", "--dim=16", "--rounds=2", "--repeats=20", "--step_batch=8")
    figures, _ = run(curriculum_loss, *arguments)
    losses = [row["mean loss"] for row in figures["rows"]]
    assert [row["side"] for row in figures["rows"]] == list(
        (curriculum_loss.OURS, curriculum_loss.LOOP, curriculum_loss.VECTORISED)
    )
    np.testing.assert_allclose(losses, losses[0], rtol=0.2)
    for row in figures["rows"]:
        assert row["ours / it"] == pytest.approx(row["ms"] / figures["rows"][0]["ms"])
        assert row["% of our training step"] == pytest.approx(100 * row["ms"] / figures["ms_a_step_of_as_many_images"])


def test_several_data_sets(run):
    figures, _ = run(several_data_sets, "--batch=8", "--rounds=1", "--steps=1")
    assert [row["data sets"] for row in figures["rows"]] == [1, 2] and figures["rows"][0]["of one data set"] == 1


def test_input_pipeline(run):
    figures, _ = run(input_pipeline, "--batch=8", "--rounds=1", "--steps=2", "--alone_batches=2", "--workers=0")
    mine, theirs, loop, constant = figures["rows"]
    assert theirs["ours / it"] == pytest.approx(mine["images/s"] / theirs["images/s"])
    assert mine["of training"] == pytest.approx(mine["images/s"] / loop["images/s"])
    share = 100 * (1 - loop["images/s"] / constant["images/s"])
    assert figures["percent_of_a_step_for_input"] == pytest.approx(share)
    assert 0 <= figures["percent_of_a_step_waited"] < 100


def test_start_up(run, monkeypatch):
    def in_this_process(command, **_):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            start_up.main(command[2:])
        return subprocess.CompletedProcess(command, 0, printed.getvalue(), "")

    monkeypatch.setattr(start_up.subprocess, "run", in_this_process)
    figures, _ = run(start_up, "--batch=8", "--starts=1")
    rows = {row["seconds from the command"]: row for row in figures["rows"]}
    assert list(rows) == ["mancs_jax, cold", "mancs_jax, again", "PyTorch"]
    for row in rows.values():
        times = [row[phase] for phase in start_up.PHASES]
        assert times == sorted(times) and times[0] > 0
        assert row["first step, x again"] == pytest.approx(row["first step"] / rows["mancs_jax, again"]["first step"])


def test_sides_take_turns_in_processes_of_their_own(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(measure, "set_cpu_flags", lambda: os.environ.update(XLA_FLAGS="--as=commands"))
    sides = {
        "numbers": (partial, next, iter([1, 2, 3, 4])),
        "process": (partial, os.getpid),
        "flags": (partial, os.getenv, "XLA_FLAGS"),
    }
    turns = measure.taking_turns(sides, rounds=3)
    # What compiles, the first call, does not count.
    assert turns["numbers"] == [2, 3, 4]
    assert len(set(turns["process"])) == 1 and turns["process"][0] != os.getpid()
    assert set(turns["flags"]) == {"--as=commands"}
