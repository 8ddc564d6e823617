"""The pictures of the data set, under Market-1501's folders and file names, and their rendering."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from mancs_jax.common.quoted import reason_of
from mancs_jax.data.walkers.cameras import CAMERAS
from mancs_jax.data.walkers.chance import VISIT
from mancs_jax.data.walkers.pictures import Shot, take

FOLDERS = ("bounding_box_train", "query", "bounding_box_test", "gt_bbox")
MOST_PROCESSES = 8  # that render: more would start for a few pictures each
CHUNK = 16  # pictures that a process takes at a time

# How many pictures.
TRAIN_IMAGES = 8  # pictures of a training identity, over all the cameras it visits
CAMERAS_VISITED = (3, 5)  # fewest and most cameras that see one identity
GALLERY_IMAGES = (2, 4)  # fewest and most gallery pictures of a test identity in one camera, in addition to its query
JUNK_PER_TEST_ID = 2  # badly cut boxes, named -1


def _visits(seed: int, pid: int) -> list[int]:
    """The cameras that see an identity, in order of its walk."""
    rng = np.random.default_rng([seed, VISIT, pid])
    count = rng.integers(CAMERAS_VISITED[0], CAMERAS_VISITED[1] + 1)
    return [int(camid) for camid in rng.permutation(len(CAMERAS))[:count] + 1]


def _name(seed: int, pid: int, camid: int, index: int, box: int) -> str:
    """Market-1501's file name: pid, camera and sequence, frame, number of the box (0: drawn by hand)."""
    rng = np.random.default_rng([seed, VISIT, pid, camid])
    sequence, start = rng.integers(1, 7), rng.integers(0, 3000)
    return f"{pid:04d}_c{camid}s{sequence}_{25 * (start + 3 * index) + 1:06d}_{box:02d}.jpg"


def shots(seed: int, train_ids: int, test_ids: int, distractors: int, folder: str) -> Iterator[Shot]:
    """Lists the pictures of one folder. Training identities have even numbers, test identities odd ones."""
    if folder == "bounding_box_train":
        for pid in range(2, 2 * train_ids + 1, 2):
            cameras = _visits(seed, pid)
            for index in range(TRAIN_IMAGES):
                camid = cameras[index % len(cameras)]
                yield Shot(folder, _name(seed, pid, camid, index, 1), "person", pid, camid, index, False)
        return
    for pid in range(1, 2 * test_ids, 2):
        for camid in _visits(seed, pid):
            count = np.random.default_rng([seed, VISIT, pid, camid, 1]).integers(
                GALLERY_IMAGES[0], GALLERY_IMAGES[1] + 1
            )
            # Index 0 is the query; a query and everything in gt_bbox has a box drawn by hand.
            indices = {"query": range(1), "bounding_box_test": range(1, count + 1), "gt_bbox": range(count + 1)}[folder]
            by_hand = folder != "bounding_box_test"
            for index in indices:
                name = _name(seed, pid, camid, index, 0 if by_hand else 1)
                yield Shot(folder, name, "person", pid, camid, index, by_hand)
        if folder == "bounding_box_test":
            for index in range(JUNK_PER_TEST_ID):
                camid = _visits(seed, pid)[index % CAMERAS_VISITED[0]]
                name = f"-1_c{camid}s1_{25 * (JUNK_PER_TEST_ID * pid + index) + 1:06d}_02.jpg"
                yield Shot(folder, name, "junk", pid, camid, index, False)
    if folder == "bounding_box_test":
        for number in range(distractors):
            camid = 1 + number % len(CAMERAS)
            yield Shot(folder, f"0000_c{camid}s1_{25 * number + 1:06d}_01.jpg", "distractor", number, camid, 0, False)


def render(
    seed: int = 0,
    train_ids: int = 300,
    test_ids: int = 100,
    distractors: int = 200,
    folders: Sequence[str] = FOLDERS,
    processes: int | None = 1,
) -> Iterator[tuple[str, str, bytes]]:
    """Renders the data set, one picture at a time, and yields (folder, file name, JPEG bytes).

    Args:
      seed: equal seeds give equal bytes (with equal versions of NumPy and OpenCV).
      train_ids: training identities, at most 4999; each has TRAIN_IMAGES pictures.
      test_ids: test identities, at most 4999; each has one query and some gallery pictures in each camera it visits.
      distractors: pictures of passers-by and false detections, pid 0, in the gallery.
      folders: which of FOLDERS to render.
      processes: processes that render; 1 is this one, None starts one for each core, at most MOST_PROCESSES.

    Raises:
      ValueError: a count is out of range or a folder has another name.
      ChildProcessError: a process that renders was killed.
    """
    for name, count, limit in (
        ("train_ids", train_ids, 4999),
        ("test_ids", test_ids, 4999),
        ("distractors", distractors, 39999),
    ):
        if not 0 <= count <= limit:
            raise ValueError(f"walkers: {name}={count} is outside 0..{limit}; file names have no room for more")
    unknown = [folder for folder in folders if folder not in FOLDERS]
    if unknown:
        raise ValueError(f"walkers: no folder {unknown[0]!r}; choose from {', '.join(FOLDERS)}")
    listed = [shot for folder in folders for shot in shots(seed, train_ids, test_ids, distractors, folder)]
    pictures = _pictures(seed, listed, processes or min(os.cpu_count() or 1, MOST_PROCESSES))
    with closing(pictures):
        for shot, picture in zip(listed, pictures, strict=True):
            yield shot.folder, shot.name, picture


def _pictures(seed: int, listed: Sequence[Shot], processes: int) -> Generator[bytes]:
    """Yields the picture of each shot, in order."""
    if processes == 1:
        yield from map(partial(take, seed), listed)
        return
    # Spawned, not forked: this process may run JAX, whose threads do not outlive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent) as pool:
        try:
            yield from pool.map(partial(take, seed), listed, chunksize=CHUNK)
        except BrokenExecutor as error:
            raise ChildProcessError(f"walkers: a process that renders was killed ({reason_of(error)})") from None


def _end_with_parent() -> None:
    """Makes a process that renders leave Ctrl-C to its parent, and end when the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def write_folder(
    root: str | Path, seed: int = 0, train_ids: int = 300, test_ids: int = 100, distractors: int = 200
) -> None:
    """Writes the data set below `root` in Market-1501's layout; arguments as for `render`."""
    for folder in FOLDERS:
        (Path(root) / folder).mkdir(parents=True, exist_ok=True)
    for folder, name, data in render(seed, train_ids, test_ids, distractors):
        (Path(root) / folder / name).write_bytes(data)
