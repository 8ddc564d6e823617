"""Pictures of what a network has learnt: report.html and the files in results/ of a workdir."""

from pathlib import Path

import jax
import numpy as np

from mancs_jax.evaluation import metrics, ranking, reranking
from mancs_jax.evaluation.embed import make_masks
from mancs_jax.evaluation.results import cells, write_result
from mancs_jax.reporting import answers, chart
from mancs_jax.reporting.curriculum import figure_3
from mancs_jax.reporting.curves import curves_svg
from mancs_jax.reporting.ranked_lists import mask_picture, ranked_lists, write_picture
from mancs_jax.reporting.report import Lists, report_html
from mancs_jax.score import NETWORK, Scored, Task
from mancs_jax.training.log import read_rows

NUM_DRAWN = 8  # queries in each picture of ranked lists
PLAIN, RERANKED = "by distance", "re-ranked"


def write_report(workdir: str | Path, scored: Scored, task: Task) -> Path:
    """Writes report.html and the pictures of a scored network.

    Args:
      workdir: of the run; where it has metrics.jsonl, its curves are drawn.
      scored: what `score.score` returned.
      task: what it was asked; with re-ranking, the lists are shown before and after it.

    Returns:
      The path of report.html. In results/ there are curves.svg, cmc.svg, distances.svg, curriculum.svg, masks.png,
      masks.json (`spread`: standard deviation of a mask over its positions, mean over the queries), and
      ranked_lists_best.png, _worst and _random (and the same after re-ranking).
    """
    workdir = Path(workdir)
    results = workdir / "results"
    results.mkdir(parents=True, exist_ok=True)
    query, gallery = scored.parts["query"], scored.parts["gallery"]
    embedding = {part: scored.embedded[part].embedding[: len(scored.parts[part].pid)] for part in ("query", "gallery")}
    labels = (query.pid, query.camid, gallery.pid, gallery.camid)
    ways = {PLAIN: answers.euclidean(embedding["query"], embedding["gallery"])}
    if task.options.rerank:
        ways[RERANKED] = _reranked(embedding, gallery.pid, task.options)
    lists = {name: _lists(distances_of, labels) for name, distances_of in ways.items()}
    masks = make_masks(scored.config, scored.num_classes, jax.local_devices())(scored.variables, query.image)

    spread = {f"conv-{stage}": float(mask.std(axis=(1, 2)).mean()) for stage, mask in masks.items()}
    write_result(results / "masks.json", {"num_queries": len(query.pid), "spread": spread})

    charts = _charts(workdir, scored, answers.histograms(ways[PLAIN], *labels))
    for name, svg in charts.items():
        (results / f"{name}.svg").write_text(svg)
    for name, of in lists.items():
        suffix = "_reranked" if name == RERANKED else ""
        for kind, rows in _drawn(of.average_precision).items():
            picture = ranked_lists(query, gallery, of.answers, rows)
            write_picture(results / f"ranked_lists_{kind}{suffix}.png", picture)
    rows = _drawn(lists[PLAIN].average_precision)["random"]
    write_picture(results / "masks.png", mask_picture(query.image[rows], {s: m[rows] for s, m in masks.items()}))
    page = report_html(
        title=f"{NETWORK} on {scored.results[NETWORK]['dataset']}",
        about=_about(scored),
        table=cells(scored.results),
        config=scored.config.to_dict(),
        charts=list(charts.values()),
        query=query,
        gallery=gallery,
        lists=lists,
        masks=masks,
    )
    path = workdir / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _reranked(embedding, gallery_pid, options):
    """Re-ranked distances [B, G]; junk, which re-ranking does not see, is as far as can be."""
    kept = np.flatnonzero(gallery_pid != -1)
    of_kept = reranking.rerank(
        embedding["query"],
        embedding["gallery"][kept],
        k1=options.k1,
        k2=options.k2,
        weight=options.weight,
        distance=options.distance,
    )

    def distances_of(rows):
        distances = np.full((len(rows), len(gallery_pid)), np.finfo(np.float32).max, np.float32)
        distances[:, kept] = of_kept(rows)
        return distances

    return distances_of


def _lists(distances_of, labels) -> Lists:
    plain = metrics.average_precisions(ranking.hit_ranks_by(distances_of, *labels))[1]
    return Lists(answers.nearest_answers(distances_of, *labels), plain)


def _drawn(average_precision):
    """Queries to draw: those with the highest and lowest AP, and random ones (seed 0)."""
    order = np.argsort(-average_precision, kind="stable")
    random = np.random.default_rng(0).permutation(len(order))
    return {"best": order[:NUM_DRAWN], "worst": order[::-1][:NUM_DRAWN], "random": random[:NUM_DRAWN]}


def _charts(workdir, scored, shares):
    charts = {}
    if (workdir / "metrics.jsonl").exists():
        charts["curves"] = curves_svg(read_rows(workdir / "metrics.jsonl"))
    cmcs = {
        name: np.stack([np.arange(1, len(result["cmc"]) + 1), result["cmc"]], axis=1)
        for name, result in scored.results.items()
    }
    charts["cmc"] = chart.document([chart.lines("CMC", cmcs, 50, "rank")])
    last = max(points[-1, 0] for points in shares.values())
    charts["distances"] = chart.document([chart.lines("distances, shares", shares, last, "Euclidean distance")])
    if scored.config.loss.sampling == "curriculum":
        charts["curriculum"] = figure_3({scored.config.recipe: scored.config})
    return charts


def _about(scored):
    result = scored.results[NETWORK]
    return (
        f"recipe {result['recipe']}, step {result['step']:,}, seed {result['seed']}; {result['num_queries']:,} queries "
        f"({result['split']}), {result['date']}"
    )
