"""Every path in a workdir, once. A leaf: it imports nothing of mancs_jax."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workdir:
    """The directory of a run."""

    root: Path

    @property
    def config(self) -> Path:
        """Configuration of the run, JSON."""
        return self.root / "config.json"

    @property
    def starts(self) -> Path:
        """A list of all starts: versions, devices, command, configuration, JSON."""
        return self.root / "run.json"

    @property
    def metrics(self) -> Path:
        """Numbers by step, a JSON object a line."""
        return self.root / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """The same numbers for TensorBoard."""
        return self.root / "tensorboard"

    @property
    def latest(self) -> Path:
        """The newest checkpoints."""
        return self.root / "checkpoints"

    @property
    def best(self) -> Path:
        """The checkpoint with the best score on the validation identities."""
        return self.root / "best"

    @property
    def results(self) -> Path:
        """Scores and pictures."""
        return self.root / "results"

    @property
    def report(self) -> Path:
        """The report of a scored network, HTML."""
        return self.root / "report.html"

    @property
    def lock(self) -> Path:
        """The file that the process which trains here holds."""
        return self.root / ".lock"

    def result(self, stem: str) -> Path:
        """JSON of one result."""
        return self.results / f"{stem}.json"


def queries_path(result: str | Path) -> Path:
    """The file next to a result, JSON, that has the scores of each query."""
    path = Path(result)
    return path.with_name(f"{path.name.removesuffix('.json')}.queries.npz")
