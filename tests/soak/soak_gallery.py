"""Kills a process that works on a gallery again and again, and shows that nothing is lost and nothing comes back.

    python tests/soak/soak_gallery.py --kills=300 --seed=0
    python tests/soak/soak_gallery.py --rounds=100

The process adds, replaces and forgets images, searches, and builds indexes. It ends at a random moment, in one of
three ways: `kill -9`, SIGTERM or a full disk. It writes down what it begins and what was confirmed. After each end the
gallery has to pass its check, hold all that was confirmed and nothing that was forgotten, and search as brute force
does; what was being done has to be done as a whole or not at all. Then no file may hold a name or a piece of an
embedding of anything forgotten. The full disk is a file system in memory, which only root can mount. With --rounds,
nothing is killed: two processes write while four search, and afterwards the gallery has to hold what they added.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the fixtures of the tests

from gallery_stores import by_loops, drawn, files_of, left_of
from gallery_stress import work_together

from mancs_jax.gallery.gallery import Gallery

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPOSITORY)}
DISK = 16 * 2**20  # bytes of the small file system
WIDTH, IMAGES = 32, 30  # of an operation that adds
LONGEST_S = 2.0  # until a kill
PATIENCE_S = 300  # it ends a process that hangs, and times nothing
WAYS = ("kill -9", "SIGTERM", "full disk")
ADD, REPLACE, FORGET, SEARCH, INDEX = "add", "replace", "forget", "search", "index"
SHARES = {ADD: 0.4, REPLACE: 0.16, FORGET: 0.25, SEARCH: 0.15, INDEX: 0.04}
REFUSED = 3  # status of a process that met a full disk
KEPT = 4  # of the last operations that forgot something, whose bytes are looked for
FEWEST, MOST = 60, 3000  # images: fewer are not deleted from, more are not added to


def names_of(number: int) -> list[str]:
    """Names of the images that operation `number` adds, in no order."""
    rng = np.random.default_rng([1, number])
    return [f"{rng.integers(2**32):08x}/op_{number:06d}_{i:03d}.jpg" for i in range(IMAGES)]


def embedding_of(number: int, replaced: bool = False) -> np.ndarray:
    """Their embeddings, before and after they were replaced."""
    return drawn(IMAGES, seed=2 * number + replaced, width=WIDTH)


def work(place: Path, log: Path) -> None:
    """Works on the gallery until it is killed, or the disk is full."""
    lines = log.read_text().splitlines()
    rng, number = np.random.default_rng([len(lines), os.getpid()]), len(lines)
    with log.open("a") as file:

        def note(*words: object) -> None:
            file.write(" ".join(map(str, words)) + "\n")
            file.flush()

        try:
            with Gallery(place / "soak.gallery") as gallery:
                while True:
                    number += 1
                    there = sorted({int(of.person) for of in gallery.people()}) if len(gallery) else []
                    kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
                    if len(gallery) < FEWEST or (kind == ADD and len(gallery) > MOST):
                        kind = ADD if len(gallery) < FEWEST else FORGET
                    of = number if kind == ADD else int(rng.choice(there))
                    note("begin", kind, of)
                    operate(gallery, kind, of)
                    note("done", kind, of)
        except OSError as error:
            note("refused", str(error).replace("\n", " | "))
            sys.exit(REFUSED)


def operate(gallery: Gallery, kind: str, of: int) -> None:
    """Does one operation, on the images of a person or with them."""
    if kind in (ADD, REPLACE):
        gallery.add(embedding_of(of, kind == REPLACE), names_of(of), person=of, network="soak")
    elif kind == FORGET:
        gallery.forget(person=of)
    elif kind == INDEX:
        gallery.build_index()
    else:
        gallery.search(drawn(3, seed=of, width=WIDTH), 5)


class Model:
    """What the gallery has to hold, by the log: person -> whether its images were replaced."""

    def __init__(self) -> None:
        """Nothing."""
        self.there: dict[int, bool] = {}
        self.forgotten: list[int] = []
        self.open: tuple[str, int] | None = None
        self.read = 0

    def follow(self, log: Path) -> None:
        """Reads on in the log; a last line that was cut off does not count."""
        lines = log.read_text().split("\n")[:-1]
        for line in lines[self.read :]:
            word, *rest = line.split(" ")
            if word == "begin":
                self.open = (rest[0], int(rest[1]))
            elif word == "done":
                self.apply(*self.open)
                self.open = None
        self.read = len(lines)

    def apply(self, kind: str, of: int) -> None:
        """An operation was done."""
        if kind in (ADD, REPLACE):
            self.there[of] = kind == REPLACE
        elif kind == FORGET:
            self.there.pop(of, None)
            self.forgotten.append(of)

    def settle(self, gallery: Gallery) -> list[str]:
        """Finds out whether the operation that was interrupted was done; a fault where it was done in part."""
        if self.open is None:
            return []
        kind, of = self.open
        self.open = None
        found = {image.name for image in gallery.images(person=of)}
        if found not in (set(), set(names_of(of))):
            return [f"{kind} {of} was done in part: {len(found)} images"]
        if kind == FORGET and not found:
            self.apply(kind, of)
        elif kind in (ADD, REPLACE) and found:
            [[match]] = gallery.search(embedding_of(of, kind == REPLACE)[:1], 1)
            if match.distance == 0:
                self.apply(kind, of)
        return []

    def images(self) -> tuple[list[str], np.ndarray]:
        """(names, embeddings) that have to be there."""
        names = [name for of in self.there for name in names_of(of)]
        parts = [embedding_of(of, replaced) for of, replaced in self.there.items()]
        return names, np.concatenate(parts) if parts else np.empty((0, WIDTH), np.float32)


def faults_of(place: Path, model: Model, seed: int) -> list[str]:
    """Compares the gallery with what has to be in it, and looks for bytes of what was forgotten."""
    path = place / "soak.gallery"
    if not path.exists():
        return ["the gallery is gone"] if model.there else []
    with Gallery(path) as gallery:
        found = model.settle(gallery)
        found += [fault for fault in gallery.check() if "not verified to be gone" not in fault]
        names, embedding = model.images()
        if (there := {image.name for image in gallery.images()}) != set(names):
            found.append(f"{len(set(names) - there)} images lost, {len(there - set(names))} came back")
            return found
        if not names:
            return found
        for query in drawn(2, seed=seed, width=WIDTH):
            [matches] = gallery.search(query[None], 20)
            expected = [names[row] for row, _ in by_loops(query, embedding, np.ones(len(names), bool), 20)]
            if [match.image.name for match in matches] != expected:
                found.append("a search differs from brute force")
        receipt = gallery.forget()
        if not receipt.is_proved:
            found.append(f"deletions are not verified: {receipt.values}")
        found += [f"after that: {fault}" for fault in gallery.check()]
    gone = [of for of in model.forgotten[-KEPT:] if of not in model.there]
    contents = files_of(place)
    for of in gone:
        for replaced in (False, True):
            left = left_of(contents, names_of(of), embedding_of(of, replaced), piece=16)
            found += [f"{name} of {of} is left" for name in left]
    return found


def run(
    kills: int, seed: int, place: Path, ways: tuple[str, ...], longest: float = LONGEST_S
) -> tuple[Counter, list[str]]:
    """Ends the process so many times.

    Returns:
      (how often each way was taken, and operations begun; a line for each fault).
    """
    rng, taken, faults, model = np.random.default_rng(seed), Counter(), [], Model()
    log = place.parent / "log"
    log.write_text("")
    for number in range(kills):
        way = str(rng.choice(ways))
        filler = place / "filler"
        if way == "full disk":
            filler.write_bytes(bytes(max(shutil.disk_usage(place).free - int(rng.integers(0, 2**19)), 0)))
        command = [sys.executable, str(Path(__file__).resolve()), f"--work={place}", f"--log={log}"]
        with (place.parent / "stderr").open("w") as errors:
            process = subprocess.Popen(command, cwd=REPOSITORY, stderr=errors, env=ENVIRONMENT)
            deadline = time.monotonic() + rng.uniform(0, longest)
            if way != "full disk":
                while process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.01)
                process.send_signal(signal.SIGTERM if way == "SIGTERM" else signal.SIGKILL)
            status = process.wait(PATIENCE_S)
        filler.unlink(missing_ok=True)
        said = (place.parent / "stderr").read_text()
        if "Traceback" in said or (status not in (-signal.SIGTERM, -signal.SIGKILL) and status != REFUSED):
            faults.append(f"{way}: status {status}: {said[-1500:]}")
        model.follow(log)
        taken[way] += 1
        if model.open is not None:
            taken[f"during {model.open[0]}"] += 1
        faults += [f"{number} ({way}): {fault}" for fault in faults_of(place, model, number)]
        print(f"{number + 1} of {kills}: {way}, {len(model.there)} people, {len(faults)} faults", *faults, flush=True)
        if len(faults) > 5:
            break
    return taken, faults


def main() -> None:
    """Ends the process so many times, and ends with status 1 where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=LONGEST_S, help="seconds until a kill, at most")
    parser.add_argument("--rounds", type=int, help="of two writers and four readers at the same time, without kills")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.work:
        work(flags.work, flags.log)
        return
    with tempfile.TemporaryDirectory(prefix="soak") as temporary:
        if flags.rounds:
            begin = time.monotonic()
            work_together(Path(temporary) / "soak.gallery", flags.rounds)
            print(
                f"{flags.rounds} rounds of two writers and four readers in {time.monotonic() - begin:.0f} s; 0 faults"
            )
            return
        place = Path(temporary) / "disk"
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)]
        has_disk = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        try:
            taken, faults = run(flags.kills, flags.seed, place, WAYS if has_disk else WAYS[:2], flags.longest)
        finally:
            if has_disk:
                subprocess.run(["umount", "--lazy", str(place)], check=False)
    print(f"{dict(taken)}; {len(faults)} faults")
    print("\n".join(faults))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
