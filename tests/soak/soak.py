"""Kills a tiny training again and again, and shows that nothing is lost.

    python tests/soak/soak.py --kills=200 --seed=0

A start of the training ends in one of four ways, at a random moment: `kill -9`, SIGTERM, `kill -9` with damage to the
newest checkpoint, or a full disk. The next start goes on. Each training that comes to its end has to have the curve, to
the byte, and the scores of an undisturbed one. A refusal is a fault too, and the end, unless the disk is full. The full
disk is a file system in memory, which root alone can mount; without it the other three ways are taken.

The number of cores that the process may use has to stay the same: XLA shares sums among as many threads, so another
number rounds otherwise, and the curves differ.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the fixtures of the tests

import numpy as np
from tiny_runs import write_data

REPOSITORY = Path(__file__).resolve().parents[2]
DISK = 64 * 2**20  # bytes of the small file system
PATIENCE = 1800  # seconds: it ends a process that hangs, and times nothing
EPOCHS = 30  # of three steps; each ends with a checkpoint
WAYS = ("kill -9", "SIGTERM", "damage", "full disk")
UNDISTURBED = "undisturbed"


class End(NamedTuple):
    """How one start of the training ended."""

    finished: bool
    reached: int  # steps that had been logged
    error: str  # stderr without progress bars
    refused: bool  # it ended by itself, with status 1


class Soak:
    """A training that is started and disturbed; `start` and its like know its folders."""

    def __init__(self, place: Path, root: Path, rng: np.random.Generator):
        """Runs in `place`, on the data set in `root`."""
        self.workdir, self.root, self.rng = place / "w", root, rng
        self.command = [
            *(sys.executable, "scripts/train.py", "--config=tests/tiny.py", f"--config.data.root={root}"),
            *(f"--config.epochs={EPOCHS}", f"--workdir={self.workdir}"),
        ]

    def start(self) -> subprocess.Popen:
        """Starts the training, or goes on with it."""
        log = (self.workdir.parent / "stderr").open("w")
        return subprocess.Popen(self.command, cwd=REPOSITORY, stdout=log, stderr=log)

    def end(self, process: subprocess.Popen) -> End:
        """Waits for the end of a process."""
        process.wait(PATIENCE)
        text = (self.workdir.parent / "stderr").read_text(errors="replace")
        lines = [line.rpartition("\r")[2] for line in text.splitlines()]
        error = "\n".join(line for line in lines if not re.search(r"\d+%\||\d+/\d+ \[", line))
        finished = process.returncode == 0 and (self.workdir / "report.html").exists()
        return End(finished, self.reached(), error, process.returncode == 1)

    def reached(self) -> int:
        """Steps in metrics.jsonl."""
        metrics = self.workdir / "metrics.jsonl"
        return len(metrics.read_bytes().splitlines()) if metrics.exists() else 0

    def disturb(self, way: str, longest: float = 0.0) -> End:
        """Starts the training, and ends it in a way at a random moment within `longest` seconds."""
        filler = self.workdir.parent / "filler"
        if way == "full disk":
            free = shutil.disk_usage(self.workdir.parent).free
            filler.write_bytes(bytes(max(free - int(self.rng.integers(0, 2**21)), 0)))
        process = self.start()
        if way in ("full disk", UNDISTURBED):
            ended = self.end(process)
            filler.unlink(missing_ok=True)
            return ended
        deadline = time.monotonic() + self.rng.uniform(0, longest)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM if way == "SIGTERM" else signal.SIGKILL)
        ended = self.end(process)
        if way == "damage" and not ended.finished:
            self.damage()
        return ended

    def damage(self) -> None:
        """Empties, cuts or drops files of the newest checkpoint, where there is one before it."""
        kept = (self.workdir / "checkpoints").glob("*")
        steps = sorted((int(path.name), path) for path in kept if path.name.isdigit())
        if len(steps) < 2:
            return
        files = sorted(file for file in steps[-1][1].rglob("*") if file.is_file() and file.stat().st_size)
        if not files:  # all were emptied before
            return
        for file in files if self.rng.random() < 0.3 else [files[self.rng.integers(len(files))]]:
            kind = self.rng.integers(3)
            content = file.read_bytes()
            file.unlink() if kind == 0 else file.write_bytes(b"" if kind == 1 else content[: len(content) // 2])


def run(kills: int, seed: int, place: Path, has_disk: bool) -> tuple[Counter, int, list[str]]:
    """Disturbs a training so many times.

    Returns:
      (how often each way was taken, the most steps that were made twice, a line for each fault).
    """
    rng, ways, faults, most = np.random.default_rng(seed), Counter(), [], 0
    write_data(place / "root")
    (place / "undisturbed").mkdir()
    undisturbed = Soak(place / "undisturbed", place / "root", rng)
    undisturbed.disturb(UNDISTURBED)  # compiles
    shutil.rmtree(undisturbed.workdir)
    begin = time.monotonic()
    if not undisturbed.disturb(UNDISTURBED).finished:
        faults.append(f"undisturbed: {_said(undisturbed)}")
    longest = 1.2 * (time.monotonic() - begin)
    soak, before = Soak(place / "disk", place / "root", rng), 0
    while True:
        way = str(rng.choice(WAYS[: len(WAYS) if has_disk else -1])) if sum(ways.values()) < kills else UNDISTURBED
        ended = soak.disturb(way, longest)
        stuck = _is_stuck(way, ended)
        if stuck or "Traceback" in ended.error:
            faults.append(f"{way}: {ended.error[-1500:]}")
        if found := re.search(r"resuming from step (\d+)", _said(soak)):
            most = max(most, before - int(found[1]))
        before = ended.reached
        finished = " (finished)" if ended.finished else ""
        print(f"{sum(ways.values())} of {kills}: {way}, step {before}{finished}", flush=True)
        if stuck:
            break
        if not ended.finished:
            ways[way] += 1
            continue
        faults += differences(soak.workdir, undisturbed.workdir)
        shutil.rmtree(soak.workdir)
        before = 0
        if way == UNDISTURBED:
            break
    return ways, most, faults


def _is_stuck(way: str, ended: End) -> bool:
    """Tells if a start got nowhere without a reason: the next one would fare no better."""
    return way != "full disk" and (ended.refused or (way == UNDISTURBED and not ended.finished))


def _said(soak: Soak) -> str:
    return (soak.workdir.parent / "stderr").read_text(errors="replace")


def _cores() -> set[int]:
    """The cores that this process may use, where the system tells them."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def differences(workdir: Path, undisturbed: Path) -> list[str]:
    """Compares curve and scores with those of the undisturbed training."""
    found = []
    if (workdir / "metrics.jsonl").read_bytes() != (undisturbed / "metrics.jsonl").read_bytes():
        found.append("metrics.jsonl differs from that of the undisturbed run")
    scores = [json.loads((place / "results" / "single_query.json").read_text()) for place in (workdir, undisturbed)]
    if any(scores[0][name] != scores[1][name] for name in ("mAP", "mAP_plain", "cmc")):
        found.append(f"scores differ: {scores[0]['mAP']} and {scores[1]['mAP']}")
    return found


def main() -> None:
    """Disturbs, prints what was taken and lost, and ends with status 1 where something was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "soak_cache"))
    place, cores = Path(tempfile.mkdtemp(prefix="soak")), _cores()
    (place / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place / "disk")]
    has_disk = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        ways, most, faults = run(arguments.kills, arguments.seed, place, has_disk)
    finally:
        if has_disk:
            subprocess.run(["umount", "--lazy", str(place / "disk")], check=False)
        shutil.rmtree(place, ignore_errors=True)
    if _cores() != cores:
        faults.append("the cores that this process may use have changed meanwhile, which alone changes the curves")
    print(f"{dict(ways)}; at most {most} steps were made twice; {len(faults)} faults")
    print("\n".join(faults))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
