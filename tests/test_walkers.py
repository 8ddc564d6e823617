"""The synthetic pedestrians: layout, protocol, determinism, and that people stay recognisable."""

import collections
import multiprocessing
import re
import signal

import cv2
import numpy as np
import pytest
from programs import run_python

from mancs_jax.data import walkers
from mancs_jax.data.walkers.cameras import IMAGE_SIZE
from mancs_jax.data.walkers.dataset import CAMERAS_VISITED, JUNK_PER_TEST_ID
from mancs_jax.data.walkers.figure import Pose, draw_figure
from mancs_jax.data.walkers.people import PATTERNS, Cloth, Person
from mancs_jax.data.walkers.pictures import Shot, take

NAME = re.compile(r"(-1|\d{4})_c([1-6])s[1-6]_\d{6}_\d{2}\.jpg")
TINY = {"train_ids": 3, "test_ids": 2, "distractors": 6}
RED, BLUE = (Cloth("plain", colour, (0, 0, 0), 0.1) for colour in ((200, 30, 30), (30, 30, 200)))
BODY = (1.0, 1.0, 1.0, 0.5, (200, 160, 130), "short", (30, 20, 20))
CLOTHES = ("tshirt", RED, (0, 0, 0), "trousers", BLUE, 1.0, (90, 90, 90), "", (0, 0, 0), "", (20, 200, 20), 1)
WALKER = Person(*BODY, *CLOTHES)
STANDING = Pose(0.0, 0.0, 0.3, 0.3, 0.0)


def parse(name):
    pid, camid = NAME.fullmatch(name).groups()
    return int(pid), int(camid)


def listing(folder, seed=0, train_ids=40, test_ids=40, distractors=30):
    """(name, pid, camid) of one folder, without drawing anything."""
    shots = walkers.shots(seed, train_ids, test_ids, distractors, folder)
    return [(shot.name, *parse(shot.name)) for shot in shots]


def decode(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def draw(person=WALKER, pose=STANDING):
    return draw_figure(person, pose, (128, 64), (32, 122), 115)


def near(image, colour, tolerance=30):
    """Number of pixels close to a colour."""
    return int((np.abs(image[..., :3] - np.array(colour)).max(axis=-1) < tolerance).sum())


@pytest.fixture(scope="module")
def tiny():
    return list(walkers.render(**TINY))


@pytest.mark.parametrize("folder", walkers.FOLDERS)
def test_names_parse_and_are_unique(folder):
    names = [name for name, _, _ in listing(folder)]
    assert names and len(set(names)) == len(names)


def test_names_stay_parseable_at_the_largest_counts():
    *_, train = walkers.shots(0, 4999, 0, 0, "bounding_box_train")
    *_, distractor = walkers.shots(0, 0, 1, 39999, "bounding_box_test")
    assert (parse(train.name)[0], parse(distractor.name)[0]) == (9998, 0)


def test_identities_of_the_folders():
    folders = ("bounding_box_train", "query", "bounding_box_test", "gt_bbox")
    train, query, gallery, by_hand = ({pid for _, pid, _ in listing(folder)} for folder in folders)
    assert len(train) == len(query) == 40 and min(train | query) > 0
    assert gallery == query | {-1, 0} and by_hand == query and not train & gallery


def test_every_query_has_a_match_in_another_camera():
    query, gallery = listing("query"), listing("bounding_box_test")
    cameras = collections.defaultdict(set)
    for _, pid, camid in gallery:
        cameras[pid].add(camid)
    assert all(cameras[pid] - {camid} for _, pid, camid in query)
    # One query for each camera that sees the identity, and no query is in the gallery.
    assert sorted((pid, camid) for _, pid, camid in query) == sorted(
        (pid, camid) for pid in cameras if pid > 0 for camid in cameras[pid]
    )
    assert not {name for name, _, _ in query} & {name for name, _, _ in gallery}


def test_multi_query_boxes_hold_the_query_and_more():
    query, by_hand = listing("query"), listing("gt_bbox")
    assert {name for name, _, _ in query} <= {name for name, _, _ in by_hand}
    count = collections.Counter((pid, camid) for _, pid, camid in by_hand)
    assert set(count) == {(pid, camid) for _, pid, camid in query}
    assert min(count.values()) >= 2


def test_a_training_identity_is_seen_by_several_cameras():
    seen = collections.defaultdict(set)
    for _, pid, camid in listing("bounding_box_train"):
        seen[pid].add(camid)
    assert all(CAMERAS_VISITED[0] <= len(cameras) <= CAMERAS_VISITED[1] for cameras in seen.values())


def test_pictures_are_colour_jpegs_of_the_stated_size(tiny):
    assert {folder for folder, _, _ in tiny} == set(walkers.FOLDERS)
    for _, _, data in tiny:
        image = decode(data)
        assert image.shape == (*IMAGE_SIZE, 3) and image.std() > 5


def test_junk_and_distractors_are_in_the_gallery(tiny):
    pids = [parse(name)[0] for folder, name, _ in tiny if folder == "bounding_box_test"]
    assert pids.count(-1) == TINY["test_ids"] * JUNK_PER_TEST_ID
    assert pids.count(0) == TINY["distractors"]


def test_equal_seeds_give_equal_bytes_and_other_seeds_do_not(tiny):
    assert list(walkers.render(**TINY)) == tiny
    other = list(walkers.render(seed=1, **TINY))
    assert not {data for _, _, data in other} & {data for _, _, data in tiny}


def test_more_identities_change_no_picture(tiny):
    fewer = {(folder, name): data for folder, name, data in walkers.render(train_ids=1, test_ids=1, distractors=2)}
    more = {(folder, name): data for folder, name, data in tiny}
    assert len(fewer) < len(more)
    assert all(more[key] == data for key, data in fewer.items())


def test_several_processes_render_what_one_renders(tiny):
    assert list(walkers.render(processes=3, **TINY)) == tiny


def test_the_processes_end_when_nobody_reads_on():
    pictures = walkers.render(processes=2)
    next(pictures)
    children = multiprocessing.active_children()
    assert len(children) == 2
    pictures.close()
    assert not any(child.is_alive() for child in children)


def test_the_processes_end_with_their_parent():
    """Of a parent that is killed, which can end nobody."""
    program = """
import multiprocessing, os, signal
from mancs_jax.data import walkers
if __name__ == "__main__":
    pictures = walkers.render(processes=2)
    next(pictures)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    parent = run_python(program)
    pids = parent.stdout.split()  # its end: all who had the other end of the pipe are gone
    assert parent.returncode == -signal.SIGKILL and len(pids) == 2


def test_a_process_that_is_killed_is_an_error():
    pictures = walkers.render(processes=2)
    next(pictures)
    multiprocessing.active_children()[0].kill()
    with pytest.raises(ChildProcessError, match=r"^walkers: a process that renders was killed \("):
        list(pictures)


def test_write_folder_writes_what_render_yields(tmp_path, tiny):
    walkers.write_folder(tmp_path, **TINY)
    written = {(path.parent.name, path.name): path.read_bytes() for path in tmp_path.rglob("*.jpg")}
    assert written == {(folder, name): data for folder, name, data in tiny}


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="train_ids=5000"):
        next(walkers.render(train_ids=5000))
    with pytest.raises(ValueError, match="no folder 'train'"):
        next(walkers.render(folders=("train",)))


def test_a_person_resembles_himself_more_than_others():
    """Within one camera, where a plain pixel distance is fair, the same identity is nearer than another on average."""

    def hand_drawn(pid, index):
        shot = Shot("gt_bbox", "", "person", pid, 1, index, True)
        return decode(take(0, shot)).astype(np.float64)[:, 16:48].reshape(32, 4, 8, 4, 3).mean(axis=(1, 3))

    images = np.array([[hand_drawn(pid, index) for index in range(3)] for pid in range(1, 25, 2)])
    distances = np.sqrt(((images[:, None, :, None] - images[None, :, None]) ** 2).mean(axis=(-3, -2, -1)))
    same = distances[np.arange(12), np.arange(12)][:, ~np.eye(3, dtype=bool)].mean()
    other = distances[~np.eye(12, dtype=bool)].mean()
    assert same < 0.8 * other


def test_figure_stands_where_it_is_put():
    drawn = draw()
    rows, columns = np.nonzero(drawn[..., 3] > 127)
    assert 122 - 3 <= rows.max() <= 122 + 5
    assert rows.max() - rows.min() == pytest.approx(115, abs=8)
    assert columns.mean() == pytest.approx(32, abs=1.5)
    assert drawn[:40, :8, 3].max() == 0


def test_figure_wears_its_colours_above_and_below():
    drawn = draw()
    red, blue = near(drawn[:70], (200, 30, 30)), near(drawn[70:], (30, 30, 200))
    assert red > 400 and blue > 400
    assert near(drawn[80:], (200, 30, 30)) == 0


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_pattern_shows_both_of_its_colours(pattern):
    drawn = draw(WALKER._replace(top_cloth=Cloth(pattern, (200, 30, 30), (240, 240, 40), 0.08)))
    assert min(near(drawn, (200, 30, 30)), near(drawn, (240, 240, 40))) > 60


def test_unknown_pattern_is_refused():
    with pytest.raises(ValueError, match="zigzag"):
        draw(WALKER._replace(top_cloth=Cloth("zigzag", (200, 30, 30), (240, 240, 40), 0.08)))
