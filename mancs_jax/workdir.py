"""Every path in a workdir, once."""

from pathlib import Path


class Workdir:
    """The directory of a run, and the path of each of its files."""

    def __init__(self, root: Path):
        """Derives the paths from `root`, which need not exist."""
        self.root = root
        self.config = root / "config.json"  # configuration of the run
        self.starts = root / "run.json"  # versions, devices, command and configuration of each start
        self.metrics = root / "metrics.jsonl"  # metrics by step, one JSON object a line
        self.tensorboard = root / "tensorboard"  # the same metrics for TensorBoard
        self.latest = root / "checkpoints"
        self.best = root / "best"  # the checkpoint with the best score on the held-out identities
        self.results = root / "results"  # scores and images
        self.report = root / "report.html"
        self.lock = root / ".lock"  # held by the process that trains here

    def result(self, stem: str) -> Path:
        """Returns the path of one result, JSON."""
        return self.results / f"{stem}.json"


def queries_path(result: str | Path) -> Path:
    """The file next to a result, JSON, that has the scores of each query."""
    path = Path(result)
    return path.with_name(f"{path.name.removesuffix('.json')}.queries.npz")
