"""Trains and evaluates the rows of an ablation with several seeds, and writes one table."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from scipy import stats

from mancs_jax.common.atomic_write import read_list, write_json, write_text
from mancs_jax.common.local_path import local_path
from mancs_jax.config import ablation
from mancs_jax.config import checks as configuration
from mancs_jax.reporting.chart import dots_svg
from mancs_jax.run import train_and_evaluate
from mancs_jax.scoring import NETWORK
from mancs_jax.workdir import Workdir

SUMMARY = "ablation.json"
FEWEST_SEEDS = 3  # of a confidence interval; that of two is 13 times as wide as their difference
SCORES = ("mAP", "mAP_plain", "mINP", "cmc")
KEPT = (*SCORES, "step", "split", "dataset", "train_fingerprint", "versions", "git", "devices")
# The addition of each row of Table 5, and the paper's gains in mAP and rank-1, in per cent (section 4.5), on
# Market-1501 and on CUHK03 (detected, 767/700). The text that we have lacks the table, but mentions these gains.
ADDS = {
    "cls": ("f_cls, cross-entropy", {}),
    "erasing": ("+ random erasing", {}),
    "rank": ("+ f_rank, batch-hard", {}),
    "focal": ("focal loss for cross-entropy", {"market": (0.6, 0.3), "cuhk03": (0.8, 0.1)}),
    "attention": ("+ FABs and f_att", {"market": (0.7, 0.2), "cuhk03": (0.9, 0.5)}),
    "curriculum": ("curriculum for batch-hard", {"market": (0.6, 0.2), "cuhk03": (0.4, 1.1)}),
}


class Run(NamedTuple):
    """One training run."""

    row: str
    seed: int
    config: ConfigDict


def plan(base: str, rows: list[str], seeds: list[int], changes: dict[str, Any]) -> list[Run]:
    """Lists all runs, seed by seed, so that a stopped ablation has complete tables of fewer seeds.

    `base` is the part after the row in `ablation:ROW,...` ("walkers", "market,small"), `rows` are of
    `config.ablation.ROWS`, `changes` maps dotted fields to values. Raises ValueError for an unknown row, base or field.
    """
    runs = []
    for seed in seeds:
        for row in rows:
            config = ablation.ablation(f"{row},{base}")
            known = list(configuration.flatten(config))
            for name in changes:
                if name not in known:
                    raise ValueError(f"config.{name}: no such field.{configuration.suggest(name, known)}")
            with config.unlocked(), config.ignore_type():  # a wrong type is refused when the run starts
                config.update_from_flattened_dict(changes | {"seed": seed})
            runs.append(Run(row, seed, config.lock()))
    return runs


def run_all(runs: list[Run], base: str, workdir: Path) -> dict[str, Any] | None:
    """Trains and evaluates the runs that are not done yet, and writes summary, table and plot after each.

    The workdir gets a workdir ROW/seed_N for each run, and results/ablation.json, ablation.md and ablation.svg. Returns
    the summary; None if a signal stopped it: the same call resumes. Raises ValueError where the workdir has a run with
    another configuration; other errors as `train_and_evaluate`.
    """
    path = Workdir(local_path(workdir)).results / SUMMARY
    done = read_list(path, "runs")
    for run in runs:
        previous = next((one for one in done if (one["row"], one["seed"]) == (run.row, run.seed)), None)
        if previous is not None:
            if changed := configuration.differences(previous["config"], run.config.to_dict()):
                raise ValueError(
                    f"{workdir} has {run.row}, seed {run.seed}, with another configuration ({'; '.join(changed)}); "
                    "choose another --workdir"
                )
            continue
        results = train_and_evaluate(run.config, local_path(workdir) / run.row / f"seed_{run.seed}", report=False)
        if results is None:
            return None
        scores = {name: results[NETWORK][name] for name in KEPT}
        done.append({"row": run.row, "seed": run.seed, "config": run.config.to_dict()} | scores)
        write_summary(path, base, done)
        jax.clear_caches()  # compiled programs of all runs together exceed Linux's limit of mapped regions
    return write_summary(path, base, done)


def write_summary(path: Path, base: str, done: list[dict[str, Any]]) -> dict[str, Any]:
    """Writes JSON, table and plot of the runs that are done; returns the content of the JSON."""
    rows = summarize(done)
    summary = {"base": base, "rows": rows, "runs": done}
    write_json(path, summary)
    about = f"Images scored: {done[0]['split']}. Scores are per cent, with mean and standard deviation over the seeds. "
    about += "The mAP is that of the official script. Brackets are 95 % confidence intervals over the seeds."
    write_text(path.with_suffix(".md"), f"# Ablation of `{base}`\n\n{about}\n\n{table(rows, base)}")
    dots = {row: [100 * run["mAP"] for run in done if run["row"] == row] for row in rows}
    write_text(path.with_suffix(".svg"), dots_svg(f"mAP on {base}, a dot a seed", dots))
    return summary


def summarize(done: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns row -> seeds, and values, mean and standard deviation (n - 1) of mAP and rank-1."""
    summary = {}
    for row in ablation.ROWS:
        runs = [run for run in done if run["row"] == row]
        if runs:
            scores = {"mAP": [run["mAP"] for run in runs], "rank-1": [run["cmc"][0] for run in runs]}
            summary[row] = {"seeds": [run["seed"] for run in runs]} | {
                name: {
                    "values": values,
                    "mean": float(np.mean(values)),
                    "sd": float(np.std(values, ddof=1)) if len(runs) > 1 else None,
                }
                for name, values in scores.items()
            }
    return summary


def table(rows: dict[str, dict[str, Any]], base: str) -> str:
    """Formats the summary as Markdown: Table 5 with the gain of each row, then single changes compared with `whole`."""
    lines = ["| row | adds | seeds | mAP | rank-1 | gain in mAP / rank-1 | the paper's |", "|" + "---|" * 7]
    before = ""
    for row in (row for row in ablation.TABLE_5 if row in rows):
        adds, gains = ADDS[row]
        paper = next((f"{mAP} / {rank1}" for of, (mAP, rank1) in gains.items() if of in base), "")
        # Only consecutive rows show the effect of one addition.
        follows = before != "" and ablation.TABLE_5.index(before) + 1 == ablation.TABLE_5.index(row)
        lines.append(_line(row, adds, rows[row], rows[before] if follows else None, paper))
        before = row
    for row in (row for row in ablation.CHANGES if row in rows):
        lines.append(_line(row, ablation.CHANGES[row][0], rows[row], rows.get("whole") if row != "whole" else None, ""))
    return "\n".join(lines) + "\n"


def _line(name, adds, row, reference, paper):
    scores = [
        f"{100 * row[score]['mean']:.1f}" + ("" if row[score]["sd"] is None else f" ± {100 * row[score]['sd']:.1f}")
        for score in ("mAP", "rank-1")
    ]
    gain = ""
    if reference and set(row["seeds"]) & set(reference["seeds"]):
        gain = " / ".join(gain_cell(row, reference, score) for score in ("mAP", "rank-1"))
    return f"| `{name}` | {adds} | {len(row['seeds'])} | {' | '.join(scores)} | {gain} | {paper} |"


def gain_cell(row: dict[str, Any], reference: dict[str, Any], score: str) -> str:
    """Formats the mean gain of `row` over `reference` in per cent, with three seeds or more as "+5.1 [2.0, 8.2]".

    Only seeds that both have count, because a seed that is easy for one is easy for the other. The brackets are the
    95 % confidence interval of the mean by Student's t: a gain whose interval excludes 0 exceeds what seeds explain.
    """
    ours, theirs = (dict(zip(each["seeds"], each[score]["values"], strict=True)) for each in (row, reference))
    gains = [100 * (ours[seed] - theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]
    mean = float(np.mean(gains))
    if len(gains) < FEWEST_SEEDS:
        return f"{mean:+.1f}"
    half = float(stats.t.ppf(0.975, len(gains) - 1) * np.std(gains, ddof=1) / len(gains) ** 0.5)
    return f"{mean:+.1f} [{mean - half:.1f}, {mean + half:.1f}]"
