"""Writes the tables of scores in README.md and docs/ from the results in docs/results/.

`make docs` runs it. A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`, NAME being a function
in `TABLES`. `--walkers=WORKDIR` first takes the results of `make demo` over.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from accelerator_table import accelerators
from adaptation_tables import adaptation_general, adaptation_images, adaptation_weights, frame_rates
from analysis_tables import (
    market1501_calibration,
    market1501_cameras,
    market1501_groups,
    market1501_open_set,
    market1501_reliability,
)
from benchmark_tables import aims, benchmarks, speed_beside_others
from paper_tables import ablation, paper_table1, paper_table5, paper_tables_2_to_4, seeds
from result_files import (
    BEFORE_LAST,
    COSINE,
    EUCLIDEAN,
    REPOSITORY,
    RESULTS,
    SMALL,
    bracketed,
    markdown,
    pair,
    per_cent,
    read,
    scores,
)
from use_tables import exports, galleries, tracks

MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
DEMO = {"Mancs": "", "untrained network": "_untrained_network", "colour histogram": "_colour_histogram"}


def recipes() -> str:
    """docs/train.md: the recipes, with time and score where a run was finished."""
    paper = read("paper")["market1501, single query"]
    published = f"not trained to completion yet; {paper['rank-1']} / {paper['mAP']} in the paper"
    imagenet, none = "ImageNet (`--config.pretrained`)", "none (from scratch)"
    rows = [
        ("`market`", "ResNet-50, 256x128", "256 (16 x 16)", imagenet, "needs a GPU", published),
        ("`market:authors`", "ResNet-50, 256x128", "256 (16 x 16)", imagenet, "needs a GPU", published),
        (
            "`market:small`",
            "ResNet-18, 128x64",
            "128 (32 x 4)",
            none,
            "24 minutes",
            f"{pair(read('market1501_small/single_query'))} ([details](results/market1501_small.md))",
        ),
        (
            "`market:scratch`",
            "ResNet-18 with 40 base channels, 128x64",
            "128 (32 x 4)",
            none,
            "3.7 hours",
            "the first of the three runs behind [`market1501`](results/market1501_scratch.md)",
        ),
        (
            "`walkers`",
            "ResNet-18 with 48 base channels, 64x32",
            "64 (16 x 4)",
            none,
            "3 minutes",
            "another data set: [results](../README.md#results)",
        ),
        (
            "`general`",
            "of `market1501`: ResNet-18 with 40 base channels, 128x64",
            "120 (30 x 4)",
            "`market1501`",
            "1 hour, on one core with other jobs",
            "several data sets: [`people`](results/people.md)",
        ),
        (
            "`finetune`",
            "of the pretrained model",
            "32 (8 x 4)",
            "`market1501` (`--config.pretrained`)",
            "minutes",
            "your data set: [fine-tuning](fine_tuning.md)",
        ),
    ]
    time = "time, on two CPU cores unless stated"
    head = ["recipe", "backbone, image size", "batch size (P x K)", "initial weights", time]
    return markdown([*head, "rank-1 / plain mAP on Market-1501"], rows)


def results() -> str:
    """README: all results."""
    demo, cosine, euclidean = read("walkers/results"), read(COSINE), read(EUCLIDEAN)
    evaluate = "`mancs evaluate --network=market1501 --root=data`"
    details = "[details](docs/results/market1501_small.md)"
    mean, small = "Mancs, multi-query (mean)", "`market:small`, with 1,840 instead of 700 steps"
    rows = [
        ("Market-1501", "`market1501`, Euclidean distance", scores(euclidean["Mancs"]), evaluate),
        ("", "cosine distance", scores(cosine["Mancs"]), "`--distance=cosine`"),
        ("", "cosine distance, re-ranked", scores(cosine["Mancs, re-ranked"]), "`--distance=cosine --rerank`"),
        ("", "Euclidean distance, multi-query (mean)", scores(euclidean[mean]), "`--multi_query`"),
        ("", "multi-query (mean), re-ranked", scores(euclidean[f"{mean}, re-ranked"]), "`--multi_query --rerank`"),
        ("", "colour histogram, Euclidean distance", scores(euclidean["colour histogram"]), "`--baselines`"),
        ("", "untrained network, Euclidean distance", scores(euclidean["untrained network"]), "`--baselines`"),
        ("", small, scores(read(f"{SMALL}/single_query")), details),
        *cross_domain("cuhk01", "CUHK01"),
        *cross_domain("cuhk03_pair1", "CUHK03 pair 1"),
        ("walkers", f"`walkers`, trained for {demo['Mancs']['step']} steps", scores(demo["Mancs"]), "`make demo`"),
        ("", "untrained network", scores(demo["untrained network"]), ""),
        ("", "colour histogram", scores(demo["colour histogram"]), ""),
    ]
    head = ["test set", "model", "official mAP", "plain mAP", "rank-1", "command"]
    return markdown(head, [(data, model, *cells, how) for data, model, cells, how in rows])


def compared() -> str:
    """docs/evaluation.md: is cosine distance better than Euclidean distance, and re-ranking than none?"""
    from mancs_jax.evaluation.paired import compare_results

    files = [RESULTS / f"{name}.json" for name in (EUCLIDEAN, COSINE)]
    reranked = "Mancs, re-ranked"
    pairs = {
        "Euclidean -> cosine distance": compare_results(*files, first_row="Mancs"),
        "cosine distance -> re-ranked": compare_results(files[1], files[1], first_row="Mancs", second_row=reranked),
    }
    return differences("`market1501` on Market-1501", pairs)


def people_compared() -> str:
    """docs/results/people.md: is `people` better than `market1501` under cameras that neither has seen?"""
    from mancs_jax.evaluation.paired import compare_results

    files = [RESULTS / folder / "on_walkers.json" for folder in ("market1501_scratch", "people")]
    return differences("on walkers", {"`market1501` -> `people`": compare_results(*files, first_row="Mancs")})


def differences(of_what: str, pairs: dict[str, list[dict[str, Any]]]) -> str:
    """Returns the table of paired differences; `pairs` maps what changed to what `compare_results` found."""
    rows = []
    for change, (found,) in pairs.items():
        for name in ("rank-1", "mAP_plain"):
            of = found["scores"][name]
            before, after = (
                f"{per_cent(of[side])} {bracketed(of[f'{side}_interval'])}" for side in ("first", "second")
            )
            difference = f"{100 * of['difference']:+.2f} {bracketed(of['interval'], '+.2f')}"
            verdict = {None: "unknown", True: "yes", False: "no"}[of["significant"]]
            rows.append((change, name.replace("mAP_plain", "plain mAP"), before, after, difference, verdict))
    return markdown([of_what, "score", "before", "after", "difference", "significant (95 %)"], rows)


GENERAL = "#one-data-set-left-out-the-recipe-general"
CROSS_DOMAIN = "[protocol, command](docs/other_cameras.md)"


def cross_domain(dataset: str, title: str) -> list[tuple[str, str, list[str], str]]:
    """Returns the rows of README for a data set that the models have not seen."""
    without = f"trained without {title}, [nearly as `general`](docs/other_cameras.md{GENERAL})"
    return [
        (f"{title}, cross-domain", "`market1501`, Euclidean distance", spread(dataset), CROSS_DOMAIN),
        ("", without, spread(dataset, f"general_without_{dataset}"), CROSS_DOMAIN),
    ]


def spread(dataset: str, model: str = "market1501", names: Sequence[str] = ("mAP", "mAP_plain", "rank-1")) -> list[str]:
    """Returns the mean scores of a model over random splits, with confidence intervals."""
    result = read(f"other_cameras/{model}_on_{dataset}")["Mancs"]
    return [f"{per_cent(result['mean'][name])} {bracketed(result['intervals'][name])}" for name in names]


SCORES = ["", "mAP (official)", "mAP (plain)", "rank-1", "rank-5", "rank-10"]


def market1501_scratch() -> str:
    """docs/results/market1501_scratch.md: the pretrained model on the official sets."""
    euclidean, cosine, before = read(EUCLIDEAN), read(COSINE), read(BEFORE_LAST)
    rows = {
        "single query, Euclidean distance": euclidean["Mancs"],
        "single query, cosine distance": cosine["Mancs"],
        "multi-query, mean": euclidean["Mancs, multi-query (mean)"],
        "multi-query, max": euclidean["Mancs, multi-query (max)"],
        "single query, re-ranked": euclidean["Mancs, re-ranked"],
        "single query, cosine distance, re-ranked": cosine["Mancs, re-ranked"],
        "multi-query, mean, re-ranked": euclidean["Mancs, multi-query (mean), re-ranked"],
        "multi-query, max, re-ranked": euclidean["Mancs, multi-query (max), re-ranked"],
        "before the last run (averaged weights), Euclidean distance": before["Mancs"],
        "before the last run (averaged weights), cosine distance": before["Mancs, cosine distance"],
        "colour histogram": euclidean["colour histogram"],
        "untrained network": euclidean["untrained network"],
    }
    return markdown(SCORES, [(name, *scores(result, (1, 5, 10), 2)) for name, result in rows.items()])


def market1501_on_walkers() -> str:
    """docs/results/market1501_scratch.md: the pretrained model on walkers."""
    now, first = read("market1501_scratch/on_walkers"), read("market1501_scratch/on_walkers_first")
    rows = {
        "`market1501`": now["Mancs"],
        "before the last run (averaged weights)": read(BEFORE_LAST)["on walkers"],
        "first run only": first["Mancs"],
        "colour histogram": now["colour histogram"],
        "untrained network": now["untrained network"],
    }
    lines = []
    for name, result in rows.items():
        of_pairs = result["verification"]
        rates = (of_pairs["at"][0]["tpr"], of_pairs["equal_error"]["rate"])
        lines.append((name, *scores(result, (1,), 2), *map(per_cent, rates)))
    return markdown(["", "mAP (official)", "mAP (plain)", "rank-1", "TPR at FPR 1 %", "EER"], lines)


def people() -> str:
    """docs/results/people.md: `people` and `market1501`, on data sets that they have and have not seen."""
    card = json.loads((REPOSITORY / "mancs_jax" / "networks" / "people.json").read_text())
    walkers = [read(f"{folder}/on_walkers")["Mancs"] for folder in ("people", "market1501_scratch")]
    market1501 = [card["scores"], read(EUCLIDEAN)["Mancs"]]

    def cells(results):
        return [f"{rank_1}, {plain_map}" for _, plain_map, rank_1 in map(scores, results)]

    def left_out(dataset):
        models = f"general_without_{dataset}", "market1501"
        return [", ".join(spread(dataset, model, ("rank-1", "mAP_plain"))) for model in models]

    rows = [
        ("walkers, 410 queries", "by neither model", *cells(walkers)),
        ("CUHK01, without it in training", "by neither model", *left_out("cuhk01")),
        ("CUHK03 pair 1, without it in training", "by neither model", *left_out("cuhk03_pair1")),
        ("Market-1501, official test set", "other people under the same cameras", *cells(market1501)),
    ]
    head = ["evaluated on", "seen in training", "`people`: rank-1, plain mAP", "`market1501`: rank-1, plain mAP"]
    return markdown(head, rows)


def thresholds(name: str) -> str:
    """docs/results/: the thresholds of the card of a pretrained model."""
    card = json.loads((REPOSITORY / "mancs_jax" / "networks" / f"{name}.json").read_text())["thresholds"]

    def rates(of):
        return f"{100 * of['fpr']:.2g} / {per_cent(of['tpr'])} %"

    rows = [
        (
            f"{100 * one['max_fpr']:g} %",
            f"{one['max_distance']:.3f}",
            rates(one["set_on"]),
            rates(one["measured_on"]),
            f"{float(format(10_000 * one['measured_on']['fpr'], '.2g')):g}",  # 100, not 1e+02
            f"{other['max_distance']:.4f}",
            rates(other["measured_on"]),
        )
        for one, other in zip(card["euclidean"], card["cosine"], strict=True)
    ]
    alarms = "false alarms per query in 10,000 images"
    set_on = [one["set_on"] for one in card["euclidean"]]
    if all("pairs" in of for of in set_on):  # cards of earlier versions do not have them
        pairs = [f"{of['fpr'] * of['pairs']:.0f} of {of['pairs']:,}" for of in set_on]
        rows = [(*row, number) for row, number in zip(rows, pairs, strict=True)]
    distances = ["Euclidean distance", "FPR / TPR, calibration", "FPR / TPR, test set", alarms, "cosine distance"]
    more = ["accepted negative pairs, calibration"] if len(rows[0]) > len(distances) + 2 else []
    return markdown(["target FPR", *distances, "FPR / TPR, test set", *more], rows)


def market1501_small() -> str:
    """docs/results/market1501_small.md: the short training runs."""
    whole, short = "Mancs, ResNet-18, 128x64, from scratch, single query", read("market1501_small/single_query")
    baseline = "PyTorch baseline (softmax + batch-hard), same backbone and size, single query; code not published"
    rows = [
        (whole, "1,840", read(f"{SMALL}/single_query")),
        ("multi-query, mean", "", read(f"{SMALL}/multi_query_mean")),
        ("multi-query, max", "", read(f"{SMALL}/multi_query_max")),
        ("single query, re-ranked", "", read(f"{SMALL}/single_query_reranked")),
        ("multi-query, mean, re-ranked", "", read(f"{SMALL}/multi_query_mean_reranked")),
        ("multi-query, max, re-ranked", "", read(f"{SMALL}/multi_query_max_reranked")),
        (baseline, "1,840", read("baselines")["1840 steps"]),
        ("Mancs, single query", "699", short),
        ("PyTorch baseline, single query; code not published", "700", read("baselines")["700 steps"]),
    ]
    head = ["", "steps (batch size 128)", *SCORES[1:]]
    # The baseline's figures were kept with one digit.
    digits = {name: 1 if "baseline" in name else 2 for name, _, _ in rows}
    return markdown(head, [(name, steps, *scores(result, (1, 5, 10), digits[name])) for name, steps, result in rows])


def other_cameras() -> str:
    """docs/other_cameras.md: single-shot scores, a row for each result in docs/results/other_cameras/.

    A file is the `--json` of one command and is named NETWORK_on_DATASET.json, or NETWORK_adapted_on_DATASET.json for a
    network that `mancs adapt` has written, or general_without_DATASET_on_DATASET.json for a run on the other
    data sets, nearly with the recipe `general`. Baselines that several files have for a data set are shown once.
    """
    found: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {}  # data set -> row -> (command, result)
    for path in sorted((RESULTS / "other_cameras").glob("*_on_*.json")):
        network, _, dataset = path.stem.rpartition("_on_")
        results = read(f"other_cameras/{path.stem}")
        for name, result in results.items():
            is_network = "config" in result
            base, is_adapted = network.removesuffix("_adapted"), "adapted" in result
            label, model = f"`{network}`", f"--network={network}"
            if is_adapted:
                label, model = f"`{base}`, [adapted](adapt.md)", "--network=site"
            elif base.startswith("general_without_"):
                label, model = f"trained without this data set, [nearly as `general`]({GENERAL})", "--workdir=W"
            row = name.replace("Mancs", label) if is_network else name
            command = single_shot_command(model, results) if name == "Mancs" else ""
            found.setdefault(dataset, {}).setdefault(row, (command, result))
    rows = []
    for dataset, of_dataset in found.items():
        by_score = sorted(of_dataset.items(), key=lambda item: -item[1][1]["mean"]["rank-1"])
        for row, (command, result) in by_score:
            ids = f"{result['num_queries']} of {result['num_identities']}"
            shown = f"`{dataset}`, {ids} identities" if row == by_score[0][0] else ""
            rows.append((shown, row, *over_splits(result, ("rank-1", "rank-5", "mAP_plain", "mAP")), command))
    return markdown(["data set", "", "rank-1", "rank-5", "plain mAP", "official mAP", "command"], rows)


def over_splits(result: dict[str, Any], names: Sequence[str]) -> list[str]:
    """Returns single-shot scores as mean ± standard deviation over the splits, with confidence intervals."""
    return [
        f"{per_cent(result['mean'][name])} ± {per_cent(result['sd'][name])} {bracketed(result['intervals'][name])}"
        for name in names
    ]


LEFT_OUT = {
    "`market1501` itself": "market1501",
    "Market-1501 only, 700 steps": "market_only",
    "Market-1501 and the other data set, 700 steps": "one_run",
    "the same, then another run of 700 steps": "two_runs",
    "both data sets with MixStyle, 700 steps": "mixstyle",
    "both data sets with MixStyle, then another such run": "mixstyle_two_runs",
}


def left_out() -> str:
    """docs/other_cameras.md: training with one data set left out, by cosine distance."""

    def read_scores(model, dataset):
        return read(f"left_out/{model}_on_{dataset}")["Mancs"]

    rows = []
    for trained_on, model in LEFT_OUT.items():
        cells = []
        for dataset in ("cuhk01", "cuhk03_pair1"):
            result = read_scores(model, dataset)
            times = result["mean"]["rank-1"] / read_scores("market_only", dataset)["mean"]["rank-1"]
            cells += [*over_splits(result, ("rank-1", "mAP_plain")), f"{times:.2f}"]
        rows.append((trained_on, *cells))
    head = [f"{name}: {column}" for name in ("CUHK01", "CUHK03 pair 1") for column in ("rank-1", "plain mAP", "times")]
    return markdown(["trained on", *head], rows)


def single_shot_command(model: str, results: dict[str, dict[str, Any]]) -> str:
    """Returns the command whose `--json` has these results; `model` is its flag that names the model."""
    result = results["Mancs"]
    flags = [model, f"--dataset={result['dataset']}", "--root=data", "--single_shot"]
    flags += [f"--splits={result['num_splits']}"]
    flags += [f"--identities={result['num_queries']}"] if result["num_queries"] < result["num_identities"] else []
    flags += [f"--seed={result['split_seed']}"] if result["split_seed"] else []
    flags += ["--distance=cosine"] if result["distance"] == "cosine" else []
    flags += ["--flip"] if result["flip"] else []
    flags += ["--rerank"] if "Mancs, re-ranked" in results else []
    flags += ["--baselines"] if "colour histogram" in results else []
    return f"`mancs evaluate {' '.join(flags)}`"


TABLES: dict[str, Callable[[], str]] = {
    "recipes": recipes,
    "results": results,
    "compared": compared,
    "market1501_scratch": market1501_scratch,
    "market1501_on_walkers": market1501_on_walkers,
    "market1501_thresholds": partial(thresholds, "market1501"),
    "people": people,
    "people_compared": people_compared,
    "people_thresholds": partial(thresholds, "people"),
    "market1501_open_set": market1501_open_set,
    "market1501_calibration": market1501_calibration,
    "market1501_reliability": market1501_reliability,
    "market1501_cameras": market1501_cameras,
    "market1501_cameras_tpr": partial(market1501_cameras, "tpr"),
    "market1501_groups": market1501_groups,
    "market1501_small": market1501_small,
    "other_cameras": other_cameras,
    "left_out": left_out,
    "adaptation_weights": adaptation_weights,
    "adaptation_images": adaptation_images,
    "adaptation_general": adaptation_general,
    "frame_rates": frame_rates,
    "ablation_walkers_table5": ablation("ablation_walkers_table5"),
    "ablation_walkers_questions": ablation("ablation_walkers_questions"),
    "ablation_market_questions": ablation("ablation_market_questions"),
    "ablation_market_scratch": ablation("ablation_market_scratch"),
    "accelerators": accelerators,
    "paper_table1": paper_table1,
    "paper_tables_2_to_4": paper_tables_2_to_4,
    "seeds": seeds,
    "paper_table5": paper_table5,
    "aims": aims,
    "tracks": tracks,
    "exports": exports,
    "speed_beside_others": speed_beside_others,
    "galleries": galleries,
} | benchmarks()


def pages() -> list[Path]:
    """Returns the pages that may have tables."""
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def with_tables(text: str) -> str:
    """Returns the text of a page with each marked table written anew.

    Raises:
      ValueError: a marker names no table, or has no end.
    """
    if unknown := [name for _, name, _ in MARKED.findall(text) if name not in TABLES]:
        raise ValueError(f"no table {', '.join(unknown)}; there are {', '.join(TABLES)}")
    if text.count("<!-- table: ") != len(MARKED.findall(text)) or text.count("<!-- end of table -->") != text.count(
        "<!-- table: "
    ):
        raise ValueError("each <!-- table: NAME --> needs its own <!-- end of table -->")
    return MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}", text)


def take_walkers(workdir: Path) -> dict[str, Any]:
    """Returns the results of a run of `make demo`, without the places of its machine."""
    found = {}
    for name, suffix in DEMO.items():
        result = json.loads((workdir / "results" / f"single_query{suffix}.json").read_text())
        if "config" in result:
            result["config"]["data"]["root"] = "data"
        found[name] = result
    return found


def main() -> None:
    """Writes all tables."""
    from mancs_jax.common.atomic_write import write_json, write_text

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--walkers", type=Path, metavar="WORKDIR", help="take the results of `make demo` over first")
    if workdir := parser.parse_args().walkers:
        write_json(RESULTS / "walkers" / "results.json", take_walkers(workdir))
    for page in pages():
        old = page.read_text()
        if (new := with_tables(old)) != old:
            write_text(page, new)
            print(f"{page.relative_to(REPOSITORY)}: tables written", file=sys.stderr)


if __name__ == "__main__":
    main()
