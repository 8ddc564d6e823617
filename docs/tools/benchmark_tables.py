"""The tables of the benchmarks, from docs/results/benchmarks/, which their commands write with `--json`."""

import json
import re
import sys
from collections.abc import Callable

from result_files import REPOSITORY, RESULTS, markdown

sys.path.append(str(REPOSITORY / "benchmarks"))
from cells import cell  # noqa: E402

FOLDER = RESULTS / "benchmarks"
OURS = "counted ranks (mancs_jax)"
ELSEWHERE = {"command", "cpu", "cores", "versions", "rows"}


def benchmark(name: str) -> Callable[[], str]:
    """Returns the function that makes the table of a file, with its command, machine and other figures below."""

    def table() -> str:
        about = json.loads((FOLDER / f"{name}.json").read_text())
        rows = [[cell(value) for value in row.values()] for row in about["rows"]]
        figures = [f"{key.replace('_', ' ')}: {cell(value)}" for key, value in about.items() if key not in ELSEWHERE]
        versions = ", ".join(f"{library} {version}" for library, version in about["versions"].items())
        command = re.sub(r" --json=\S+", "", about["command"])
        lines = [f"`python benchmarks/{command}`, {about['cores']} cores of {about['cpu']}, {versions}.", ""]
        lines += [f"- {figure}" for figure in figures]
        return markdown(list(about["rows"][0]), rows) + "\n" + "\n".join(lines) + "\n"

    return table


def benchmarks() -> dict[str, Callable[[], str]]:
    """Returns the functions of all files, by their names in the pages: benchmark_NAME."""
    return {f"benchmark_{file.stem}": benchmark(file.stem) for file in sorted(FOLDER.glob("*.json"))}


def aims() -> str:
    """docs/performance.md: the aims, and the figures of the tables below it."""

    def beside_torch(name: str) -> float:
        [ratio] = [row["ours / it"] for row in _read(name)["rows"] if row["side"] == "PyTorch"]
        return ratio

    [again] = [row for row in _read("start_up")["rows"] if row["seconds from the command"] == "mancs_jax, again"]
    gigabytes = {(row["remat"], row["accumulate"]): row["GB, compiled"] for row in _read("memory")["rows"]}
    everything = "(2, 3, 4, 5)"
    step, embedding = "training step: of PyTorch's images a second", "embedding: times PyTorch's images a second"
    rows = [
        (f"{step}, ResNet-50, 256x128, batch 16", 0.9, beside_torch("training_resnet50")),
        (f"{step}, ResNet-18, 128x64, batch 128", 0.9, beside_torch("training_resnet18")),
        (f"{step}, ResNet-50, 256x128, batch 16, AVX2 alone", 0.85, beside_torch("training_resnet50_avx2")),
        (f"{step}, ResNet-18, 128x64, batch 128, AVX2 alone", 0.85, beside_torch("training_resnet18_avx2")),
        (f"{embedding}, ResNet-50, batch 32", 1.1, beside_torch("embedding_resnet50")),
        (f"{embedding}, ResNet-18, batch 128", 1.1, beside_torch("embedding_resnet18")),
        ("second start, ResNet-50, batch 16: seconds to the first step", 15, again["first step"]),
        ("the paper's batch, ResNet-50, 256x128, 256 images, float32: GB", 16, gigabytes[everything, 1]),
        ("the same in four shares: GB", None, gigabytes[everything, 4]),
    ]
    lines = [(what, cell(aim), cell(measured)) for what, aim, measured in rows]
    gpu = ("GPU: images a second in bfloat16, share of the peak, beside `torch.compile`", "a figure", "none yet")
    return markdown(["", "aim", "measured"], [*lines, gpu])


def speed_beside_others() -> str:
    """docs/others.md: seconds of ranking and re-ranking, from the tables of docs/evaluation.md."""
    from_distances = {row["way"]: row["seconds"] for row in _read("ranking")["rows"] if row["from"] == "distances"}
    widths = (_read("ranking")["width"], None)  # that of the embeddings, and no second one
    reranked = {row["way"]: row["seconds"] for row in _read("reranking")["rows"] if row["width"] in widths}
    rows = [
        ("CMC and mAP of Market-1501, from distances (torchreid's Cython)", from_distances, "torchreid, Cython", OURS),
        ("re-ranking it (the authors' Python port)", reranked, "authors' port", "mancs_jax"),
    ]
    lines = [(what, cell(seconds[theirs]), cell(seconds[ours])) for what, seconds, theirs, ours in rows]
    return markdown(["seconds", "theirs", "mancs_jax"], lines)


def _read(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text())
