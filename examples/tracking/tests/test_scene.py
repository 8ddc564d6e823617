"""Scenes of walkers: the same bytes for a seed, true boxes where people are, detections near them."""

import cv2
import numpy as np
import pytest
import scene
from mot import overlaps, read_mot
from scene import FRAME_SIZE, Frame, detect, render_scene, write_scene
from walks import body_height, walks


@pytest.fixture(scope="module")
def frames():
    return list(render_scene(seed=5, num_frames=12, num_people=6))


def test_equal_seeds_give_equal_scenes(frames):
    again = list(render_scene(seed=5, num_frames=12, num_people=6))
    assert [frame.jpeg for frame in frames] == [frame.jpeg for frame in again]
    assert all((one.box == other.box).all() for one, other in zip(frames, again, strict=True))
    assert next(render_scene(6, 1, 6)).jpeg != frames[0].jpeg


def test_boxes_hold_their_people(frames, monkeypatch):
    """Where a walker is left out, the picture changes in his or her box alone, up to shadow and JPEG."""
    frame = max(frames, key=lambda frame: frame.seen.max(initial=0))
    at = frames.index(frame)
    chosen = int(np.argmax(frame.seen))
    left_out = int(frame.number[chosen]) - 1

    def without(*arguments):
        ways = walks(*arguments)
        ways[left_out].there[:] = False
        return ways

    monkeypatch.setattr(scene, "walks", without)
    empty = list(render_scene(seed=5, num_frames=12, num_people=6))[at]
    assert frame.number[chosen] not in empty.number
    one, other = (cv2.imdecode(np.frombuffer(f.jpeg, np.uint8), 1).astype(int) for f in (frame, empty))
    differs = np.abs(one - other).max(axis=2) > 60
    x1, y1, x2, y2 = np.clip(frame.box[chosen], 0, [960, 288, 960, 288]).astype(int)
    assert differs[y1:y2, x1:x2].mean() > 0.15
    inside = differs[y1 - 3 : y2 + 3, x1 - 3 : x2 + 3].sum()
    assert inside > 0.9 * differs.sum()


def test_frames_and_truth(frames):
    for frame in frames:
        image = cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), 1)
        assert image.shape == (*FRAME_SIZE, 3)
        assert len(frame.number) == len(set(frame.number)) == len(frame.box) == len(frame.seen)
        assert set(frame.number) <= set(range(1, 7)) and ((frame.seen >= 0) & (frame.seen <= 1)).all()
        heights = frame.box[:, 3] - frame.box[:, 1]
        assert (heights > 0.25 * FRAME_SIZE[0]).all() and (heights < 0.75 * FRAME_SIZE[0]).all()
    # People move little from frame to frame.
    for one, other in zip(frames, frames[1:]):
        common = set(one.number) & set(other.number)
        for number in common:
            step = other.box[other.number == number][0] - one.box[one.number == number][0]
            assert np.abs(step).max() < 60


def test_walkers_hide_each_other(frames):
    assert min(frame.seen.min(initial=1) for frame in frames) < 0.7 < max(frame.seen.max(initial=0) for frame in frames)


def test_the_near_hide_the_far(frames):
    found = []
    for frame in frames:
        for near, far in np.argwhere(overlaps(frame.box, frame.box) > 0.3).tolist():
            if frame.box[near, 3] > frame.box[far, 3] + 8:  # feet lower in the picture
                found.append(frame.seen[near] > frame.seen[far])
    assert len(found) > 5 and np.mean(found) > 0.8


def test_walks():
    ways = walks(0, 30, 200, 3.3)
    assert all(way.there.any() for way in ways[:1]) and any(not way.there[0] for way in ways)
    again = walks(0, 31, 200, 3.3)[:30]  # more people change nobody's way
    assert all((one.x == other.x).all() for one, other in zip(ways, again, strict=True))
    stands = [(way.there & ~way.moves).sum() for way in ways]
    assert max(stands) >= 8 and min(stands) == 0
    turns = [np.any(np.diff(np.sign(np.sin(way.heading[way.there]))) != 0) for way in ways]
    assert 3 < sum(turns) < 30
    assert 0.3 < body_height(0.25) < body_height(0.95) < 0.7


def test_detections():
    """Of 400 frames with one walker in full view, one half hidden and one hidden: shares, and places."""
    box = np.array([[100, 60, 160, 220], [300, 60, 360, 220], [500, 60, 560, 220]], np.float64)
    frame = Frame(b"", np.array([1, 2, 3]), box, np.array([1, 0.425, 0.25]))
    found = [detect(frame, number, np.random.default_rng(number)) for number in range(1, 401)]
    overlap = [overlaps(box, boxes.box) for boxes in found]
    share = np.mean([of.max(axis=1, initial=0) > 0.5 for of in overlap], axis=0)
    assert 0.93 < share[0] < 0.99 and 0.4 < share[1] < 0.56 and share[2] == 0
    near = np.concatenate([of.max(axis=0, initial=0) for of in overlap])
    assert 0.8 < near[near > 0.5].mean() < 0.95 and 20 < np.sum(near < 0.3) < 60  # one frame in ten has a false one
    for number, boxes in enumerate(found, 1):
        assert (boxes.frame == number).all() and (boxes.number == -1).all()
        assert ((boxes.confidence > 0) & (boxes.confidence <= 1)).all()


def test_files(frames, tmp_path):
    write_scene(tmp_path, seed=5, num_frames=12, num_people=6)
    files = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert files == [f"{number:06d}.jpg" for number in range(1, 13)]
    assert (tmp_path / "frames" / "000003.jpg").read_bytes() == frames[2].jpeg
    truth = read_mot(tmp_path / "gt.txt")
    np.testing.assert_array_equal(truth.number[truth.frame == 3], frames[2].number)
    np.testing.assert_allclose(truth.box[truth.frame == 3], frames[2].box)
    assert (read_mot(tmp_path / "det.txt").number == -1).all()


@pytest.mark.parametrize("name", ["num_frames", "num_people"])
def test_numbers_below_1(name):
    with pytest.raises(ValueError, match=f"^scene: {name} is 0; it has to be at least 1$"):
        next(render_scene(**{name: 0}))
