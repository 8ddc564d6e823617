"""A workdir of a tiny network as a training leaves it, without a training."""

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import jax
import numpy as np
import optax
import tiny

from mancs_jax.inference.adaptation import LEAST_IMAGES
from mancs_jax.inference.export import export
from mancs_jax.inference.network import Network
from mancs_jax.publish import export_network
from mancs_jax.training import checkpoint
from mancs_jax.training.state import create_optimizer, create_train_state
from mancs_jax.workdir import Workdir

NUM_CLASSES = 12
WIDTH = 32  # of its embeddings
HEAD_SCALE = 1000  # an untrained head gives numbers near 0, in which no difference would show


@cache
def _written(write: Callable, *arguments) -> tuple[Path, object]:
    """(a folder, result of `write`) for each choice of arguments, written once in a process."""
    place = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place, write(place, *arguments)


def copy_written(write: Callable, path, *arguments):
    """Copies into `path` all that `write(path, *arguments)` writes; returns its result."""
    place, result = _written(write, *arguments)
    shutil.copytree(place, path, dirs_exist_ok=True)
    return result


def write_workdir(path, seed: int = 0):
    """Writes the checkpoint; returns (config, variables)."""
    config, variables = copy_written(_write_workdir, path, seed)
    return config.copy_and_resolve_references().lock(), jax.tree.map(lambda leaf: leaf, variables)


def _write_workdir(path, seed: int):
    config, state = _configured(seed), untrained_state(seed)
    head = jax.tree.map(lambda leaf: HEAD_SCALE * leaf, state.params["rank_fc"])
    return config, _save(path, config, state.replace(params=state.params | {"rank_fc": head}))


def _configured(seed: int):
    config = tiny.get_config().unlock()
    config.seed = seed
    return config


@cache
def untrained_state(seed: int):
    config = _configured(seed)
    return create_train_state(config, NUM_CLASSES, create_optimizer(config, optax.constant_schedule(0.0)))


def _save(path, config, state) -> dict:
    """Writes a checkpoint; returns the variables."""
    description = checkpoint.Description(config.to_dict(), NUM_CLASSES, data_fingerprint="f")
    with checkpoint.open_checkpoints(Workdir(path).latest, keep=1) as manager:
        checkpoint.save(manager, state, description)
    return {"params": state.params, "batch_stats": state.batch_stats}


def write_untrained(path, root, seed=0, **data):
    """Writes a workdir of an untrained network for the data below `root`; returns the network."""
    config = _configured(seed)
    config.data.root = str(root)
    config.data.update(data)
    return Network(config, NUM_CLASSES, _save(path, config, untrained_state(seed)))


def _write_site(place: Path) -> None:
    """Crops of two cameras with their CSV, three people in a frame."""
    rng, rows = np.random.default_rng(0), ["path,camid,frame"]
    (place / "crops").mkdir()
    for camera in (3, 5):
        for number in range(LEAST_IMAGES):
            name = f"{camera}_{number:03d}.jpg"
            colour = rng.integers(0, 256, 3)
            picture = np.clip(colour + rng.integers(-20, 20, (64, 32, 3)), 0, 255).astype(np.uint8)
            assert cv2.imwrite(str(place / "crops" / name), picture)
            rows.append(f"{name},{camera},{number // 3}")
    (place / "boxes.csv").write_text("\n".join(rows))


def write_place(place: Path) -> Path:
    """Writes all that the Python blocks and commands of the documents name: workdirs, a folder of photos, a query."""
    copy_written(_write_place, place)
    return place


def _write_place(place: Path) -> None:
    write_workdir(place / "workdirs" / "market")
    shutil.copytree(place / "workdirs" / "market", place / "workdirs" / "small")
    export_network(place / "workdirs" / "market", "mine", place / "networks", scores=False)
    export(place / "workdirs" / "market", place / "mancs.onnx")
    source = tiny.write_folder(place / "source")
    (source / "bounding_box_train").rename(place / "photos")
    first = sorted((place / "photos").iterdir())[0]
    first.rename(place / "photos" / "0001_c1s1_000001_00.jpg")
    sorted((source / "query").iterdir())[0].rename(place / "query.jpg")
    knots = {"euclidean": {"knots": [[0.0, 5.0], [10.0, -5.0]]}}
    (place / "mine.json").write_text(json.dumps({"calibration": knots}))
    (place / "strangers").mkdir()
    for name in ("a.jpg", "b.jpg", "strangers/one.jpg", "strangers/two.jpg"):
        shutil.copy(place / "query.jpg", place / name)
    for part in ("train", "val"):  # of a folder in the layout of CUHK03's first camera pair
        (place / "labeled" / part).mkdir(parents=True)
        for name in ("0000_00.jpg", "0000_07.jpg"):
            shutil.copy(place / "query.jpg", place / "labeled" / part / name)
    shutil.copytree(Path(__file__).parents[1] / "docs" / "people", place / "docs" / "people")
    _write_site(place)
    frame = cv2.resize(cv2.imread(str(place / "query.jpg")), (320, 240), interpolation=cv2.INTER_LINEAR)
    assert cv2.imwrite(str(place / "frame.jpg"), frame)
