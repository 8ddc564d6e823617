"""The tables of the benchmarks, from docs/results/benchmarks/, which their commands write with `--json`."""

import json
import re
import sys
from collections.abc import Callable

from result_files import REPOSITORY, RESULTS, machine_of, markdown

sys.path.append(str(REPOSITORY / "benchmarks"))
from cells import cell  # noqa: E402

FOLDER = RESULTS / "benchmarks"
OURS = "counted ranks (mancs_jax)"
# Names in the files -> names in the tables.
TERMS = {
    "ours / it": "speed-up",
    "side": "implementation",
    "way": "implementation",
    "times ours": "time / mancs_jax",
    "off ours": "largest difference",
    "first s": "first call, s",
    "ms, one query": "ms, one query (median)",
    "95% of them": "p95, ms",
    "ms a query, together": "ms per query, batch",
    "ms, 1 % of it": "ms, one query, filter of 1 %",
    "ms a query, 5 together": "ms per query, batch of 5",
    "rows/s, added": "rows added per s",
    "s to prepare": "s to build the cache",
    "MB beyond the file": "additional memory, MB",
    "peak MB beyond the embeddings": "additional peak memory, MB",
    "peak MB": "peak memory, MB",
    "equal answers": "same results as NumPy",
    "rows per s": "rows added per s",
    "open s": "opening, s",
    "of numpy": "query time relative to NumPy",
    "of unfiltered": "time of a filtered query relative to an unfiltered one",
    "bytes": "additional memory, bytes",
    "ms a step": "ms per step",
    "ms a batch": "ms per batch",
    "% of our training step": "% of a training step",
    "first step, x again": "first step / warm start",
    "GB, compiled": "GB, estimated by XLA",
    "of the peak": "share of peak",
    "of training": "relative to training",
    "cores that other work had": "background load (cores)",
    "ms a step of as many images": "ms per training step of as many images",
}
VALUES = {
    "mancs_jax, malloc as it is": "mancs_jax, default malloc",
    "PyTorch, malloc as it is": "PyTorch, default malloc",
    "mancs_jax, cold": "mancs_jax, cold start",
    "mancs_jax, again": "mancs_jax, warm start",
    "loop over anchors, as released": "loop over anchors, as in the release",
    "inner products alone (NumPy)": "inner products only (NumPy)",
    "input alone, mancs_jax": "input only, mancs_jax",
    "input alone, PyTorch's DataLoader": "input only, PyTorch's DataLoader",
    "training, the loop": "training loop",
    "training, batch on the device": "training, with the batch on the device",
}
PHRASES = {
    "beside authors' port: times as fast, if all pairs cost the port nothing": "speed-up, its pairs for free",
    "beside authors' port: times as fast": "speed-up over the authors' port",
    "beside authors' port: part of its memory": "memory relative to the authors' port",
    "beside authors' port: ": "",
}
ELSEWHERE = {"command", "cpu", "cores", "versions", "rows"}


def benchmark(name: str) -> Callable[[], str]:
    """Returns the function that makes the table of a file, with its command, machine and other figures below."""

    def table() -> str:
        about = json.loads((FOLDER / f"{name}.json").read_text())
        rows = [[VALUES.get(value, cell(value)) for value in row.values()] for row in about["rows"]]
        named = {key.replace("_", " "): cell(value) for key, value in about.items() if key not in ELSEWHERE}
        figures = [f"{TERMS.get(key) or phrased(key)}: {value}" for key, value in named.items()]
        command = re.sub(r" --json=\S+", "", about["command"])
        lines = [f"`python benchmarks/{command}`, {machine_of(about)}.", ""]
        lines += [f"- {figure}" for figure in figures]
        return markdown([TERMS.get(name, name) for name in about["rows"][0]], rows) + "\n" + "\n".join(lines) + "\n"

    return table


def phrased(text: str) -> str:
    """Returns a text in the words of the pages."""
    for old, new in PHRASES.items():
        text = text.replace(old, new)
    return text


def benchmarks() -> dict[str, Callable[[], str]]:
    """Returns the functions of all files, by their names in the pages: benchmark_NAME."""
    return {f"benchmark_{file.stem}": benchmark(file.stem) for file in sorted(FOLDER.glob("*.json"))}


def aims() -> str:
    """docs/performance.md: the goals, and the figures of the tables in docs/benchmarks.md."""

    def beside_torch(name: str) -> float:
        [ratio] = [row["ours / it"] for row in _read(name)["rows"] if row["side"] == "PyTorch"]
        return ratio

    [again] = [row for row in _read("start_up")["rows"] if row["seconds from the command"] == "mancs_jax, again"]
    gigabytes = {(row["remat"], row["accumulate"]): row["GB, compiled"] for row in _read("memory")["rows"]}
    everything = "(2, 3, 4, 5)"
    speed = "speed-up over PyTorch"
    rows = [
        (f"training step, ResNet-50, 256x128, batch size 16: {speed}", 0.9, beside_torch("training_resnet50")),
        (f"training step, ResNet-18, 128x64, batch size 128: {speed}", 0.9, beside_torch("training_resnet18")),
        ("the same with AVX2 only, ResNet-50", 0.85, beside_torch("training_resnet50_avx2")),
        ("the same with AVX2 only, ResNet-18", 0.85, beside_torch("training_resnet18_avx2")),
        (f"embedding, ResNet-50, 256x128, batch size 32: {speed}", 1.1, beside_torch("embedding_resnet50")),
        (f"embedding, ResNet-18, 128x64, batch size 128: {speed}", 1.1, beside_torch("embedding_resnet18")),
        ("warm start, ResNet-50, batch size 16: seconds to the first step", 15, again["first step"]),
        (
            "training step of the paper's batch (ResNet-50, 256x128, 256 images, float32): GB",
            16,
            gigabytes[everything, 1],
        ),
        ("the same with four micro-batches: GB", None, gigabytes[everything, 4]),
    ]
    lines = [(what, cell(aim), cell(measured)) for what, aim, measured in rows]
    return markdown(["", "goal", "measured"], lines)


def speed_beside_others() -> str:
    """docs/others.md: seconds of ranking and re-ranking, from the tables of docs/benchmarks.md."""
    from_distances = {row["way"]: row["seconds"] for row in _read("ranking")["rows"] if row["from"] == "distances"}
    widths = (_read("ranking")["width"], None)  # that of the embeddings, and no second one
    reranked = {row["way"]: row["seconds"] for row in _read("reranking")["rows"] if row["width"] in widths}
    rows = [
        ("CMC and mAP on Market-1501, from distances (torchreid, Cython)", from_distances, "torchreid, Cython", OURS),
        ("re-ranking on Market-1501 (the authors' Python port)", reranked, "authors' port", "mancs_jax"),
    ]
    lines = [(what, cell(seconds[theirs]), cell(seconds[ours])) for what, seconds, theirs, ours in rows]
    return markdown(["seconds", "other implementation", "mancs_jax"], lines)


def _read(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text())
