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
