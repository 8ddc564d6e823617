"""The tables of docs/adapt.md, from the results of benchmarks/adaptation.py and benchmarks/frames.py."""

import re
from typing import Any

from result_files import machine_of, markdown, read

DATASETS = ("walkers", "cuhk01", "cuhk03_pair1")
SOURCES = {
    "market1501": "Market-1501, test identities",
    "scenes": "rendered scenes",
    "overlapping": "rendered scenes, overlapping boxes too",
}


def adaptation_weights() -> str:
    """docs/adapt.md: scores by the weight of the cameras' statistics."""
    return _by("weight", "adaptation_weights", DATASETS)


def adaptation_images() -> str:
    """docs/adapt.md: scores by the number of images of a camera."""
    return _by("images of a camera", "adaptation_images", DATASETS[1:])


def adaptation_general() -> str:
    """docs/adapt.md: models that were trained on several data sets, before and after adaptation."""
    files = {
        "`people`": ("walkers", "adaptation_people_walkers"),
        "trained without CUHK01": ("cuhk01", "adaptation_general_cuhk01"),
        "trained without CUHK03": ("cuhk03_pair1", "adaptation_general_cuhk03_pair1"),
    }
    rows = []
    for model, (dataset, file) in files.items():
        before, after = read(f"other_cameras/{file}")["rows"]
        assert (before["weight"], after["weight"]) == (0.0, 0.5)
        rows.append((model, f"`{dataset}`", *(f"{of['rank-1']} / {of['plain mAP']}" for of in (before, after))))
    commands = _commands([read(f"other_cameras/{file}") for _, file in files.values()])
    return markdown(["model", "cameras of", "before", "adapted"], rows) + commands


def frame_rates() -> str:
    """docs/adapt.md: rates at thresholds from people in one frame."""
    rows, files = [], []
    for source, name in SOURCES.items():
        for kind, adapted in (("own", "own statistics"), ("adapted", "adapted")):
            about = read(f"other_cameras/frames_{source}_{kind}")
            files.append(about)
            for row in about["rows"]:
                rates = [
                    row[column] for column in ("rate in frames %", "rate under one camera %", "rate between cameras %")
                ]
                rows.append(
                    (
                        f"{name}, {adapted}",
                        row["distance"],
                        f"{row['pairs in frames']:,}",
                        *("-" if rate is None else f"{rate:.2g}" for rate in rates),
                        "-" if not rates[0] else f"{rates[2] / rates[0]:.2g}",
                    )
                )
    head = [
        "",
        "distance",
        "pairs in frames",
        "FPR in frames %",
        "FPR under one camera %",
        "FPR between cameras %",
        "factor",
    ]
    return markdown(head, rows) + _commands(files)


def _by(column: str, name: str, datasets: tuple[str, ...]) -> str:
    """A row for each value of a column, with rank-1 / plain mAP on each data set, and the commands below."""
    results = {dataset: read(f"other_cameras/{name}_{dataset}") for dataset in datasets}
    rows: dict[Any, list[str]] = {}
    for about in results.values():
        for row in about["rows"]:
            lowest = f" (lowest {row['lowest rank-1']})" if row["subsets"] > 1 else ""
            rows.setdefault(row[column], []).append(f"{row['rank-1']}{lowest} / {row['plain mAP']}")
    lines = [[f"{value}", *cells] for value, cells in rows.items()]
    return markdown([column, *(f"`{dataset}`" for dataset in datasets)], lines) + _commands(list(results.values()))


def _commands(files: list[dict[str, Any]]) -> str:
    """The commands that wrote the files, and their machine."""
    commands = ["python benchmarks/" + re.sub(r" --json=\S+", "", about["command"]) for about in files]
    [machine] = {machine_of(about) for about in files}
    subsets = max(row.get("subsets", 1) for about in files for row in about["rows"])
    seeds = "Seed 0" if subsets == 1 else f"Seeds 0 to {subsets - 1}"
    return "\n```\n" + "\n".join(commands) + f"\n```\n\n{seeds}, {machine}, while other jobs were running.\n"
