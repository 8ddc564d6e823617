"""Writes the report of an evaluated model: report.html, and images in results/ of a workdir."""

from pathlib import Path

import numpy as np

from mancs_jax.common.atomic_write import write_json, write_text
from mancs_jax.common.local_path import local_path
from mancs_jax.data.arrays import names_of
from mancs_jax.data.cameras import UNKNOWN
from mancs_jax.data.prepared import is_prepared
from mancs_jax.evaluation import metrics, roc
from mancs_jax.evaluation.comparison import Comparison
from mancs_jax.evaluation.ranking import hit_ranks, nearest
from mancs_jax.evaluation.results import cells
from mancs_jax.inference.forward import attention_masks
from mancs_jax.reporting import chart, reading
from mancs_jax.reporting.curriculum import figure_3
from mancs_jax.reporting.curves import curves_svg
from mancs_jax.reporting.findings import finding_charts, findings
from mancs_jax.reporting.histograms import histograms
from mancs_jax.reporting.ranked_lists import mask_picture, ranked_lists, write_picture
from mancs_jax.reporting.report import Lists, report_html
from mancs_jax.scoring import NETWORK, RERANKED, ModelEvaluation, Task
from mancs_jax.training.log import read_rows
from mancs_jax.workdir import Workdir

DEPTH = 10  # images in each list of the page
NUM_DRAWN = 8  # queries in each image of ranked lists
LISTS = {NETWORK: "by distance", RERANKED: "re-ranked"}  # names of the lists in the page


def write_report(workdir: str | Path, evaluation: ModelEvaluation, task: Task) -> Path:
    """Writes report.html and the images of an evaluated model, and returns the path of the report.

    results/ gets curves.svg (from metrics.jsonl), cmc.svg, roc.svg, distances.svg, curriculum.svg, open_set.svg,
    reliability.svg, cameras.svg and cameras_tpr.svg (where the result has them), masks.png,
    masks.json (`spread`: standard deviation of a mask over its positions, mean over the queries), and
    ranked_lists_best.png, _worst and _random, also after re-ranking.

    Args:
      workdir: of the run.
      evaluation: result of `scoring.evaluate`.
      task: argument of `scoring.evaluate`.

    Raises:
      ValueError: it was evaluated with distractors, whose images are not kept.
    """
    if task.distractors:
        raise ValueError("a report shows no distractors of another data set: evaluate without them")
    paths = Workdir(local_path(workdir))
    results = paths.results
    query, gallery = evaluation.parts["query"], evaluation.parts["gallery"]
    lists = {name: _lists(comparison) for name, comparison in evaluation.comparisons.items()}
    people, cameras = _names(evaluation, task)
    masks = attention_masks(evaluation.network, query.image, flip=task.flip)

    spread = {f"conv-{stage}": float(mask.std(axis=(1, 2)).mean()) for stage, mask in masks.items()}
    write_json(results / "masks.json", {"num_queries": len(query.pid), "spread": spread})

    charts = _charts(paths, evaluation, histograms(evaluation.comparisons[NETWORK]))
    for name, svg in (charts | finding_charts(evaluation.results[NETWORK])).items():
        write_text(results / f"{name}.svg", svg)
    for name, each in lists.items():
        suffix = "_reranked" if name == RERANKED else ""
        for kind, rows in _drawn(each.average_precision).items():
            picture = ranked_lists(query, gallery, each.nearest, rows, people, cameras)
            write_picture(results / f"ranked_lists_{kind}{suffix}.png", picture)
    rows = _drawn(lists[NETWORK].average_precision)["random"]
    write_picture(results / "masks.png", mask_picture(query.image[rows], {s: m[rows] for s, m in masks.items()}))
    page = report_html(
        title=f"{NETWORK} on {evaluation.results[NETWORK]['dataset']}",
        about=_about(evaluation),
        table=cells(evaluation.results),
        config=evaluation.network.config.to_dict(),
        charts=list(charts.values()),
        query=query,
        gallery=gallery,
        lists={LISTS[name]: each for name, each in lists.items()},
        masks=masks,
        reading=reading.score_paragraphs(evaluation.results[NETWORK]),
        sections=reading.threshold_sections(evaluation.results, NETWORK),
        findings=list(findings(evaluation.results[NETWORK]).values()),
        people=people,
        cameras=cameras,
    )
    write_text(paths.report, page)
    return paths.report


def _names(evaluation: ModelEvaluation, task: Task) -> tuple[dict[int, str], dict[int, str]]:
    """Names of people and cameras of the data set; of several, whose numbers are shifted, none."""
    dataset, root = evaluation.results[NETWORK]["dataset"], task.root or evaluation.network.config.data.root
    return names_of(dataset, root) if is_prepared(root, dataset) else ({}, {})


def _lists(comparison: Comparison) -> Lists:
    official, _ = metrics.average_precisions(hit_ranks(comparison))
    return Lists(nearest(comparison, DEPTH), official)


def _drawn(average_precision):
    """Selects queries to draw: those with the highest and lowest AP, and random ones (seed 0)."""
    order = np.argsort(-average_precision, kind="stable")
    random = np.random.default_rng(0).permutation(len(order))
    return {"best": order[:NUM_DRAWN], "worst": order[::-1][:NUM_DRAWN], "random": random[:NUM_DRAWN]}


def _charts(paths: Workdir, evaluation: ModelEvaluation, shares: dict[str, np.ndarray]) -> dict[str, str]:
    charts = {}
    if paths.metrics.exists() and (rows := read_rows(paths.metrics)):  # none in a run shorter than log_every
        charts["curves"] = curves_svg(rows)
    cmcs = {
        name: np.stack([np.arange(1, len(result["cmc"]) + 1), result["cmc"]], axis=1)
        for name, result in evaluation.results.items()
    }
    charts["cmc"] = chart.document([chart.lines("CMC", cmcs, 50, "rank")])
    verifications = {name: result.get("verification") for name, result in evaluation.results.items()}
    if curves := {name: verification["curve"] for name, verification in verifications.items() if verification}:
        charts["roc"] = _roc_chart(curves)
    last = max(points[-1, 0] for points in shares.values())
    charts["distances"] = chart.document([chart.lines("distances, shares", shares, last, _distance(evaluation))])
    if evaluation.network.config.loss.sampling == "curriculum":
        charts["curriculum"] = figure_3({evaluation.network.config.recipe: evaluation.network.config})
    return charts


def _roc_chart(curves: dict[str, list]) -> str:
    """Draws true positive rates over the logarithms of false positive rates."""
    first = np.log10(roc.CURVE_RATES[0])
    points = {name: np.array([(np.log10(fpr) - first, tpr) for fpr, tpr in curve]) for name, curve in curves.items()}
    ticks = {power: f"1e{power + first:.0f}" for power in range(0, round(-first), 3)} | {-first: "1"}
    panel = chart.lines("true positive rate", points, -first, "false positive rate", ticks=ticks)
    return chart.document([panel])


def _about(evaluation):
    result = evaluation.results[NETWORK]
    cameras = "" if result.get("cameras_known", True) else f"; {UNKNOWN}"
    return (
        f"recipe {result['recipe']}, step {result['step']:,}, seed {result['seed']}; {result['num_queries']:,} queries "
        f"({result['split']}), {_distance(evaluation)}, {result['date']}{cameras}"
    )


def _distance(evaluation):
    """Describes the distance of lists and histograms."""
    result = evaluation.results[NETWORK]
    words = ["Euclidean distance" if result["distance"] == "euclidean" else "cosine distance"]
    words += ["embeddings of norm 1"] * result["normalize"] + ["mean with the mirror image"] * result["flip"]
    return ", ".join(words)
