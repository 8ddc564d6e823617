"""Ablations: what each row takes out, the table, and a run that goes on where it stopped."""

import json
import xml.etree.ElementTree as ElementTree

import jax
import pytest

from mancs_jax import ablation, scoring
from mancs_jax.config import ablation as rows
from mancs_jax.config import checks as configuration


def changed(row, base="walkers", reference="whole"):
    one, two = (configuration.flatten(rows.ablation(f"{name},{base}")) for name in (row, reference))
    return {name: one[name] for name in one if one[name] != two[name] and name != "recipe"}


def test_each_row_of_table_5_adds_one_thing():
    pairs = zip(rows.TABLE_5[1:], rows.TABLE_5)
    steps = {row: changed(row, reference=before) for row, before in pairs}
    assert steps == {
        "erasing": {"augment.erase": 0.5},
        "rank": {"loss.rank_weight": 1.0},
        "focal": {"loss.gamma": 2.0},
        "attention": {"model.fab_stages": (2, 3, 4)},
        "curriculum": {"loss.sampling": "curriculum"},
    }
    assert changed("curriculum", "market") == {}  # the last row is the paper's recipe
    assert changed("rank", "market", "erasing") == {"loss.rank_weight": 1.0, "model.rank_head": "fc"}


def test_the_nearest_third_is_the_releases_80_of_240():
    assert rows.ablation("nearest_third").loss.num_nearest == 80


@pytest.mark.parametrize("row", rows.ROWS)
@pytest.mark.parametrize("base", ["walkers", "market,small", "cuhk03,authors"])
def test_all_configurations_are_valid(row, base):
    config = rows.ablation(f"{row},{base}").unlock()
    config.pretrained = ""
    configuration.validate(config, num_devices=1)
    assert config.recipe.endswith(f": {row}") and not config.eval_baselines


def test_mistakes_get_one_line():
    with pytest.raises(ValueError, match="ablation has no row 'cs'; it has: cls, erasing"):
        rows.ablation("cs")
    with pytest.raises(ValueError, match="walkers has no variant 'big'"):
        rows.ablation("cls,walkers,big")
    with pytest.raises(ValueError, match="config.data.q: no such field"):
        ablation.plan("walkers", ["cls"], [0], {"data.q": 3})


def result(mAP, rank1):
    about = {name: "x" for name in ("step", "split", "dataset", "train_fingerprint", "versions", "git", "devices")}
    return about | {"mAP": mAP, "mAP_plain": mAP, "mINP": 0.1, "cmc": [rank1, 1.0]}


def test_a_stopped_ablation_goes_on_and_ends_in_a_table(monkeypatch, tmp_path):
    calls, stopped = [], [True]
    program = jax.jit(lambda x: x + 1)

    def train_and_evaluate(config, workdir, report):
        program(1.0)
        calls.append((str(workdir.relative_to(tmp_path)), config.seed, config.data.root))
        if len(calls) == 3 and stopped:
            return None
        better = 0.05 if config.loss.sampling == "curriculum" else 0.0
        return {scoring.NETWORK: result(0.5 + better + 0.02 * config.seed, 0.7 + better)}

    monkeypatch.setattr(ablation, "train_and_evaluate", train_and_evaluate)
    runs = ablation.plan("walkers", ["curriculum", "attention"], [0, 1], {"data.root": "here"})
    assert ablation.run_all(runs, "walkers", tmp_path) is None
    assert [call[0] for call in calls] == ["curriculum/seed_0", "attention/seed_0", "curriculum/seed_1"]
    calls.clear(), stopped.clear()
    summary = ablation.run_all(runs, "walkers", tmp_path)
    assert program._cache_size() == 0  # programs of all runs together would be too many
    assert calls == [("curriculum/seed_1", 1, "here"), ("attention/seed_1", 1, "here")]
    scores = dict(summary["rows"]["curriculum"]["mAP"])
    assert scores.pop("values") == pytest.approx([0.55, 0.57])
    assert scores == pytest.approx({"mean": 0.56, "sd": 0.02 / 2**0.5})
    assert list(summary["rows"]) == ["attention", "curriculum"]
    assert ablation.table(summary["rows"], "market").splitlines()[2:] == [
        "| `attention` | + FABs and f_att | 2 | 51.0 ± 1.4 | 70.0 ± 0.0 |  | 0.7 / 0.2 |",
        "| `curriculum` | curriculum for batch-hard | 2 | 56.0 ± 1.4 | 75.0 ± 0.0 | +5.0 / +5.0 | 0.6 / 0.2 |",
    ]
    written = json.loads((tmp_path / "results" / "ablation.json").read_text())
    assert written["rows"] == summary["rows"] and len(written["runs"]) == 4
    written = (tmp_path / "results" / "ablation.md").read_text()
    assert written.startswith("# Ablation of `walkers`\n\n") and "`curriculum`" in written
    circles = list(ElementTree.parse(tmp_path / "results" / "ablation.svg").iter("{http://www.w3.org/2000/svg}circle"))
    assert len(circles) == 4
    calls.clear()
    assert ablation.run_all(runs, "walkers", tmp_path)["rows"] == summary["rows"] and not calls
    other = ablation.plan("walkers", ["attention"], [0], {"loss.margin": 0.2})
    with pytest.raises(ValueError, match=r"has attention, seed 0, with another configuration \(.*loss.margin"):
        ablation.run_all(other, "walkers", tmp_path)


def test_questions_are_compared_with_the_whole():
    about = {
        row: {"seeds": [0]} | {score: {"values": [m], "mean": m, "sd": None} for score in ("mAP", "rank-1")}
        for row, m in [("cls", 0.1), ("rank", 0.3), ("whole", 0.5), ("uniform", 0.4)]
    }
    assert ablation.table(about, "walkers").splitlines()[2:] == [
        "| `cls` | f_cls, cross-entropy | 1 | 10.0 | 10.0 |  |  |",
        "| `rank` | + f_rank, batch-hard | 1 | 30.0 | 30.0 |  |  |",
        "| `whole` | The recipe as it is, with which the changes below are compared | 1 | 50.0 | 50.0 |  |  |",
        "| `uniform` | Negatives sampled uniformly | 1 | 40.0 | 40.0 | -10.0 / -10.0 |  |",
    ]


def test_a_gain_is_that_of_the_seeds_that_both_have():
    runs = [("whole", 0, 0.5), ("whole", 1, 0.7), ("uniform", 1, 0.6), ("batch_hard", 2, 0.9)]
    summary = ablation.summarize([{"row": row, "seed": seed, "mAP": m, "cmc": [m]} for row, seed, m in runs])
    lines = ablation.table(summary, "walkers").splitlines()[3:]
    assert [line.split("|")[6].strip() for line in lines] == ["-10.0 / -10.0", ""]


def test_the_interval_of_a_gain_over_three_seeds():
    whole, other = (
        {"seeds": [0, 1, 2], "mAP": {"values": values}} for values in ([0.51, 0.52, 0.56], [0.50, 0.50, 0.50])
    )
    # Gains 1, 2 and 6: mean 3, standard error sqrt(7 / 3) = 1.528; Student's t of two degrees of freedom is 4.303.
    assert ablation.gain_cell(whole, other, "mAP") == "+3.0 [-3.6, 9.6]"
