"""Damaged files to every reader: each gives an answer or one of our errors, writes nothing, and takes little memory.

    python tests/soak/fuzz.py --inputs=2000 --seed=0

A good file is damaged in one to four ways, and read. Only ValueError and OSError with one line are allowed.
"""

import argparse
import csv
import hashlib
import io
import json
import resource
import shutil
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the fixtures of the tests

import cv2
import fuzz_exported
import numpy as np
import scipy.io
from damages import DAMAGES

from mancs_jax.common.atomic_write import read_list
from mancs_jax.data import images
from mancs_jax.data.sources import cuhk03, folder, market1501
from mancs_jax.data.sources.items import check
from mancs_jax.evaluation.features import load_features
from mancs_jax.inference.gallery import load_gallery
from mancs_jax.inference.network_file import read_network
from mancs_jax.training import checkpoint
from mancs_jax.training.log import read_rows
from mancs_jax.weights.safetensors_file import write_safetensors
from mancs_jax.weights.state_dict import read_tensors

LONGEST = 3000  # characters of a message
MOST_MEMORY = 1.5e9  # bytes beyond what the first read of each good file took


class Target(NamedTuple):
    """A reader, and a good file for it."""

    file: str  # path below the folder of the case, damaged
    good: dict[str, bytes]  # path -> content of all files of the case
    read: Callable[[Path], object]  # of the folder


def targets(place: Path) -> dict[str, Target]:
    """Good files of every kind and their readers."""
    rng = np.random.default_rng(0)
    rows = {"query": rng.standard_normal((3, 4)), "gallery": rng.standard_normal((9, 4))}
    arrays = {name: value.astype(np.float32) for name, value in rows.items()}
    for part, count in (("query", 3), ("gallery", 9)):
        arrays |= {f"{part}_pid": np.arange(count) % 3 + 1, f"{part}_camid": np.arange(count) // 3}
    stored, packed = io.BytesIO(), io.BytesIO()
    np.savez(stored, **arrays)
    np.savez_compressed(packed, **arrays)
    embedded = io.BytesIO()
    fields = {"network": "0" * 32, "flip": False, "normalize": False}
    np.savez(embedded, embedding=arrays["gallery"], name=np.array([f"{i}.jpg" for i in range(9)]), **fields)
    labelled = io.BytesIO()
    names = np.array([f"{'q' if i < 3 else 'g'}/{i}.jpg" for i in range(9)])
    np.savez(labelled, embedding=arrays["gallery"], name=names, pid=np.arange(9) % 3 + 1, camid=np.arange(9) // 3)
    image = rng.integers(0, 256, (16, 8, 3), dtype=np.uint8)
    encoded = {kind: cv2.imencode(kind, image)[1].tobytes() for kind in (".jpg", ".png", ".bmp", ".webp", ".tiff")}
    table = io.StringIO()
    csv.writer(table).writerows([["path", "pid", "camid", "split"], ["a.jpg", 1, 0, "train"], ["b.png", 2, 1, "train"]])
    own = {"a.jpg": encoded[".jpg"], "b.png": encoded[".png"], "labels.csv": table.getvalue().encode()}
    market = {
        "bounding_box_train/0002_c1s1_000451_03.jpg": encoded[".jpg"],
        "query/0001_c1s1_001051_00.jpg": encoded[".jpg"],
        "bounding_box_test/0001_c2s1_001051_01.jpg": encoded[".jpg"],
    }
    matlab = io.BytesIO()
    names = np.array([["1_001_1_01.png"], ["1_001_2_06.png"]], object)
    protocol = {"filelist": names, "labels": [1, 1], "camId": [1, 2], "train_idx": [1], "query_idx": [2]}
    scipy.io.savemat(matlab, protocol | {"gallery_idx": [1]})
    tensors = {"conv1.weight": np.ones((2, 3, 3, 3), np.float32), "bn1.bias": np.ones(2)}
    write_safetensors(tensors, place / "w.safetensors")
    weights = {"w.safetensors": (place / "w.safetensors").read_bytes()}
    starts = {"run.json": json.dumps({"starts": [{"step": 0}]}).encode()}
    metrics = {"metrics.jsonl": b'{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n'}
    found = {
        "npz": Target("f.npz", {"f.npz": stored.getvalue()}, lambda at: load_features(at / "f.npz")),
        "npz, packed": Target("f.npz", {"f.npz": packed.getvalue()}, lambda at: load_features(at / "f.npz")),
        "npy": Target("query.npy", {f"{name}.npy": _npy(array) for name, array in arrays.items()}, load_features),
        "embedded": Target("e.npz", {"e.npz": labelled.getvalue()}, lambda at: load_features(at / "e.npz", "q")),
        "gallery": Target("g.npz", {"g.npz": embedded.getvalue()}, lambda at: load_gallery(at / "g.npz")),
        "csv": Target("labels.csv", own, lambda at: _own(at, "labels.csv")),
        "zip": Target("z.zip", {"z.zip": _zip(own)}, lambda at: _own(at / "z.zip", "labels.csv")),
        "market": Target("m.zip", {"m.zip": _zip(market)}, lambda at: _market(at / "m.zip")),
        "protocol": Target("p.mat", {"p.mat": matlab.getvalue()}, lambda at: cuhk03.read_protocol(at / "p.mat")),
        "safetensors": Target("w.safetensors", weights, lambda at: read_tensors(at / "w.safetensors")),
        "json": Target("run.json", starts, lambda at: read_list(at / "run.json", "starts")),
        "metrics": Target("metrics.jsonl", metrics, lambda at: read_rows(at / "metrics.jsonl")),
    }
    for kind, content in encoded.items():
        found[kind] = Target("a", {"a": content}, lambda at: images.decode_image((at / "a").read_bytes(), (8, 4), "a"))
    return found | _networks(place) | _torch(place)


def _networks(place: Path) -> dict[str, Target]:
    """The targets that need a tiny network: a shared one, and checkpoints."""
    from tiny_workdir import write_workdir

    from mancs_jax.publish import export_network

    write_workdir(place / "w")
    export_network(place / "w", "tiny", place / "shared", scores=False)
    shared = {file.name: file.read_bytes() for file in (place / "shared").iterdir()}
    files = [file for file in (place / "w").rglob("*") if file.is_file()]
    saved = {str(file.relative_to(place / "w")): file.read_bytes() for file in files}
    found = {
        f"shared{suffix}": Target(f"tiny{suffix}", shared, lambda at: read_network(at / "tiny.json"))
        for suffix in (".json", ".safetensors")
    }

    def restore(at: Path) -> object:
        directory = at / "checkpoints"
        return checkpoint.newest_whole(directory, lambda step, _: checkpoint.check_whole(directory, step))

    of_checkpoint = [file for file in saved if file.startswith("checkpoints")]
    found |= {f"checkpoint {file}": Target(file, saved, restore) for file in of_checkpoint}
    return found | {name: Target(*fields) for name, fields in fuzz_exported.cases(place).items()}


def _torch(place: Path) -> dict[str, Target]:
    try:
        import torch
    except ImportError:
        return {}
    torch.save({"state_dict": {"conv1.weight": torch.ones(2, 3)}, "epoch": 3}, place / "w.pth")
    content = (place / "w.pth").read_bytes()
    return {"pth": Target("w.pth", {"w.pth": content}, lambda at: read_tensors(at / "w.pth"))}


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _zip(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def _own(source: Path, table: str) -> object:
    with folder.open_own("own", source, table) as contents:
        return check(contents, source)


def _market(source: Path) -> object:
    with market1501.open_source(source) as contents:
        return check(contents, source, allow_differences=True)


def fuzz(inputs: int, seed: int) -> tuple[Counter, list[str]]:
    """Reads so many damaged files.

    Returns:
      (how often each target gave an answer or an error, a line for each input that broke the rule).
    """
    rng, outcomes, broken = np.random.default_rng(seed), Counter(), []
    place = Path(tempfile.mkdtemp(prefix="fuzz"))
    try:
        all_targets = targets(place)
        case = place / "case"
        for target in all_targets.values():
            _write(case, target.good)
            target.read(case)  # the good file is good, and libraries have taken their memory
        before = _peak()
        for i in range(inputs):
            name = list(all_targets)[i % len(all_targets)]
            target = all_targets[name]
            content = target.good[target.file]
            used = [DAMAGES[rng.integers(len(DAMAGES))] for _ in range(rng.integers(1, 5))]
            for damage in used:
                content = damage(rng, content)
            _write(case, target.good | {target.file: content})
            names = _tree(place)
            what = f"input {i} ({name}: {', '.join(damage.__name__ for damage in used)}; {_digest(content)})"
            outcome = "an answer"
            try:
                with redirect_stderr(io.StringIO()):
                    target.read(case)
            except (ValueError, OSError) as error:
                outcome = "an error"
                if "\n" in str(error) or not 0 < len(str(error)) <= LONGEST:
                    broken.append(
                        f"{what}: {type(error).__name__} of {len(str(error))} characters: {str(error)[:300]!r}"
                    )
            except BaseException as error:  # whatever else it is, it is a fault
                broken.append(f"{what}: {type(error).__name__}: {str(error)[:300]!r}")
            outcomes[name, outcome] += 1
            if new := _tree(place) - names - {case / "run.json.damaged"}:
                broken.append(f"{what}: wrote {', '.join(map(str, new))}")
            if _peak() - before > MOST_MEMORY:
                broken.append(f"{what}: took {(_peak() - before) / 1e9:.1f} GB")
                before = _peak()
    finally:
        shutil.rmtree(place)
    return outcomes, broken


def _write(case: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(case, ignore_errors=True)
    for name, content in files.items():
        (case / name).parent.mkdir(parents=True, exist_ok=True)
        (case / name).write_bytes(content)


def _tree(place: Path) -> set[Path]:
    return set(place.rglob("*"))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Fuzzes, prints what came out, and ends with status 1 where an input broke the rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.time()
    outcomes, broken = fuzz(arguments.inputs, arguments.seed)
    for (name, outcome), count in sorted(outcomes.items()):
        print(f"{name:<60} {outcome:<10} {count}")
    print(f"{sum(outcomes.values())} inputs in {time.time() - start:.0f} s, {len(broken)} broke the rule")
    print("\n".join(broken))
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
