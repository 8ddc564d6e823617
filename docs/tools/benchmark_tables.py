"""The tables of the benchmarks, from docs/results/benchmarks/: what each command wrote with `--json`."""

import json
import sys
from collections.abc import Callable

from result_files import REPOSITORY, RESULTS, markdown

sys.path.append(str(REPOSITORY / "benchmarks"))
from cells import cell  # noqa: E402

FOLDER = RESULTS / "benchmarks"
ELSEWHERE = {"command", "cpu", "cores", "versions", "rows"}


def benchmark(name: str) -> Callable[[], str]:
    """Returns the function that makes the table of a file, with its command, machine and other figures below."""

    def table() -> str:
        about = json.loads((FOLDER / f"{name}.json").read_text())
        rows = [[cell(value) for value in row.values()] for row in about["rows"]]
        figures = [f"{key.replace('_', ' ')}: {cell(value)}" for key, value in about.items() if key not in ELSEWHERE]
        versions = ", ".join(f"{library} {version}" for library, version in about["versions"].items())
        lines = [
            f"`python benchmarks/{about['command']}`, {about['cores']} cores of {about['cpu']}, {versions}.",
            f"{'; '.join(figures)}.",
        ]
        return markdown(list(about["rows"][0]), rows) + "\n" + "\n".join(lines) + "\n"

    return table


def benchmarks() -> dict[str, Callable[[], str]]:
    """Returns the functions of all files, by their names in the pages: benchmark_NAME."""
    return {f"benchmark_{file.stem}": benchmark(file.stem) for file in sorted(FOLDER.glob("*.json"))}


def aims() -> str:
    """docs/performance.md: what we wanted, and what the tables below it say."""

    def ratio(name: str, side: str, column: str = "ours / it") -> float:
        [row] = [row for row in _read(name)["rows"] if side in row.values()]
        return row[column]

    start = _read("start_up")["rows"]
    seconds = {next(iter(row.values())): row for row in start}
    smallest = min(row["GB, compiled"] for row in _read("memory")["rows"])
    whole = [row["GB, compiled"] for row in _read("memory")["rows"] if row["remat"] == "(2, 3, 4, 5)"]
    rows = [
        (
            "training step, ResNet-50, 256x128, batch 16: of PyTorch's images a second",
            "0.9",
            ratio("training_resnet50", "PyTorch"),
        ),
        ("training step, ResNet-18, 128x64, batch 128", "0.9", ratio("training_resnet18", "PyTorch")),
        ("embedding, ResNet-50, batch 32: times PyTorch's", "1.1", ratio("embedding_resnet50", "PyTorch")),
        ("embedding, ResNet-18, batch 128", "1.1", ratio("embedding_resnet18", "PyTorch")),
        (
            "curriculum loss with gradient, 256 x 2,048: times the authors' loop",
            "10",
            ratio("curriculum_loss", "loop over anchors, as released"),
        ),
        (
            "the same: its share of a training step, %",
            "3",
            ratio("curriculum_loss", "mancs_jax", "% of our training step"),
        ),
        (
            "input alone: times the rate of training (ResNet-18)",
            "20",
            ratio("input_pipeline", "input alone, mancs_jax", "of training"),
        ),
        (
            "second start, ResNet-50, batch 16: seconds to the first step",
            "15",
            seconds["mancs_jax, again"]["first step"],
        ),
        ("the paper's batch, ResNet-50, 256x128, 256 images, float32: GB", "16", max(whole)),
        ("the same in four shares", "", smallest),
    ]
    lines = [(what, aim, cell(measured)) for what, aim, measured in rows]
    gpu = ("GPU: images a second in bfloat16, share of the peak, beside `torch.compile`", "a figure", "none yet")
    return markdown(["", "aim", "measured"], [*lines, gpu])


def _read(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text())
