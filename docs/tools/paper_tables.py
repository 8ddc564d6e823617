"""The tables of docs/paper.md and docs/ablations.md: the paper's results next to ours, and the ablations."""

from collections.abc import Callable
from typing import Any

import numpy as np
from result_files import EUCLIDEAN, RESULTS, markdown, per_cent, read


def ablation(name: str) -> Callable[[], str]:
    """Returns the function that writes the table of an ablation in docs/results/."""

    def table() -> str:
        from mancs_jax.ablation import table as table_of

        summary = read(f"{name}/ablation")
        return table_of(summary["rows"], summary["base"])

    return table


def beside_paper(rows: dict[str, tuple[str, dict[str, Any] | None, str]]) -> str:
    """Returns the paper's figures beside ours: row of docs/results/paper.json -> (name, our result, what is ours)."""
    lines = []
    for key, (name, ours, what) in rows.items():
        paper = read("paper")[key]
        theirs = [f"{paper[score]:.1f}" if score in paper else "" for score in ("mAP", "rank-1")]
        own = [per_cent(ours["mAP"]), per_cent(ours["cmc"][0])] if ours else ["missing", "missing"]
        lines.append((name, *theirs, paper["from"], *own, what))
    return markdown(["", "paper: mAP", "paper: rank-1", "source", "ours: mAP", "ours: rank-1", "our model"], lines)


def seeds() -> str:
    """docs/ablations.md: whole recipes with several seeds, a row for the files RECIPE_SEED.json of a recipe."""
    runs: dict[str, list[dict[str, Any]]] = {"walkers": [read("walkers/results")["Mancs"]]}
    for path in sorted((RESULTS / "seeds").glob("*.json")):
        runs.setdefault(path.stem.rpartition("_")[0], []).append(read(f"seeds/{path.stem}"))
    rows = []
    for name, results in runs.items():
        recipe = name.replace("_", ":")
        values = [
            [result["mAP"] for result in results],
            [result["mAP_plain"] for result in results],
            [result["cmc"][0] for result in results],
        ]
        cells = [f"{100 * np.mean(one):.1f} ± {100 * np.std(one, ddof=1):.1f}" for one in values]
        ranks = ", ".join(per_cent(result["cmc"][0]) for result in results)
        listed = ", ".join(str(result["seed"]) for result in results)
        rows.append((f"`{recipe}`", f"{results[0]['step']:,}", listed, *cells, ranks))
    return markdown(["recipe", "steps", "seeds", "official mAP", "plain mAP", "rank-1", "rank-1 of each seed"], rows)


NO_GPU = "needs a GPU: `mancs train --config={} --workdir=W`"


def paper_table1() -> str:
    """docs/paper.md: Table 1, Market-1501."""
    ours, what = read(EUCLIDEAN), "ResNet-18 with 40 base channels, 128x64, from scratch"
    keys = {"": "Mancs", ", re-ranked": "Mancs, re-ranked"}
    rows = {f"market1501, single query{of}": (f"single query{of}", ours[key], what) for of, key in keys.items()}
    mean = "Mancs, multi-query (mean)"
    for of in keys:
        rows[f"market1501, multi-query{of}"] = (f"multi-query{of}", ours[f"{mean}{of}"], what)
    return beside_paper(rows)


def paper_tables_2_to_4() -> str:
    """docs/paper.md: Tables 2 to 4, CUHK03 and DukeMTMC-reID."""
    classic = "`mancs cuhk03-classic --config=cuhk03:{} --workdir=W`"
    missing = {
        "cuhk03, 767/700, labelled": ("Table 2, labelled boxes", NO_GPU.format("cuhk03:labeled")),
        "cuhk03, 767/700, detected": ("Table 2, detected boxes", NO_GPU.format("cuhk03")),
        "cuhk03, 1367/100, labelled": ("Table 3, labelled boxes", f"needs a GPU: {classic.format('classic,labeled')}"),
        "cuhk03, 1367/100, detected": ("Table 3, detected boxes", f"needs a GPU: {classic.format('classic')}"),
        "dukemtmc_reid, single query": ("Table 4", NO_GPU.format("duke")),
    }
    return beside_paper({key: (name, None, how) for key, (name, how) in missing.items()})


def paper_table5() -> str:
    """docs/paper.md: Table 5, the gains of each part that the paper's text names, next to ours on two data sets."""
    from mancs_jax.ablation import ADDS, gain_cell

    ours = [read(f"{name}/ablation")["rows"] for name in ("ablation_walkers_table5", "ablation_market_scratch")]
    rows, before = [], None
    for name, (adds, gains) in ADDS.items():
        own = [
            " / ".join(gain_cell(one[name], one[before], score) for score in ("mAP", "rank-1")) if before else ""
            for one in ours
        ]
        theirs = [
            " / ".join(f"{value:+.1f}" for value in gains[of]) if of in gains else "" for of in ("market", "cuhk03")
        ]
        rows.append((f"`{name}`", adds, *theirs, *own))
        before = name
    papers = ["paper: Market-1501", "paper: CUHK03, detected"]
    head = ["row", "change", *papers, "ours: walkers, short runs", "ours: Market-1501, long runs"]
    return markdown(head, rows)
