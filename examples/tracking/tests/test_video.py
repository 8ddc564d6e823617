"""A video in, without a detector's file: what moves is a person; a video with the tracks drawn, crops to embed."""

import re

import cv2
import numpy as np
import pytest
import track
from draw import CROPS, colour_of, write_crops, write_video
from mot import Tracks, overlaps, read_mot
from moving import detect_all
from scene import write_scene
from test_track import run
from tiny_workdir import write_workdir
from video import open_frames

from mancs_jax.inference.gallery import labels_of

SEED, NUM_FRAMES, NUM_PEOPLE = 3, 24, 7


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A scene as frames and as a video."""
    place = tmp_path_factory.mktemp("video")
    write_scene(place / "scene", SEED, NUM_FRAMES, NUM_PEOPLE)
    files = sorted((place / "scene" / "frames").iterdir())
    images = [cv2.imread(str(file)) for file in files]
    writer = cv2.VideoWriter(str(place / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 12.5, images[0].shape[1::-1])
    for image in images:
        writer.write(image)
    writer.release()
    return place


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The flag of an untrained network."""
    path = tmp_path_factory.mktemp("run")
    write_workdir(path)
    return f"--workdir={path}"


def test_a_video_has_the_frames_of_the_folder(place):
    video, folder = open_frames(place / "v.avi"), open_frames(place / "scene" / "frames")
    assert (video.rate, folder.rate) == (12.5, 10.0) and len(video.numbers) == len(folder.numbers) == NUM_FRAMES
    assert [number for number, _ in video.read(None)] == [number for number, _ in folder.read(None)]
    for (number, image), (other, expected) in zip(video.read({2, 9}), folder.read({9, 2}), strict=True):
        assert number == other and image.dtype == np.uint8
        assert np.abs(image.astype(int) - expected).mean() < 5  # JPEG twice; other frames differ by more
    assert [number for number, _ in video.read({2, 9})] == [2, 9]


def test_what_moves_are_the_walkers(place):
    """Boxes lie on walkers, and nearly half of the walkers have one; the others hide each other or have just come."""
    truth = read_mot(place / "scene" / "gt.txt")
    found = detect_all(open_frames(place / "v.avi"))
    precise, recalled = [], []
    for frame in range(1, NUM_FRAMES + 1):
        shared = overlaps(found.box[found.frame == frame], truth.box[truth.frame == frame])
        precise += (shared.max(axis=1, initial=0) > 0.5).tolist()
        recalled += (shared.max(axis=0, initial=0) > 0.5).tolist()
    assert np.mean(precise) > 0.75 and np.mean(recalled) > 0.4
    assert (found.number == -1).all() and ((found.confidence > 0) & (found.confidence <= 1)).all()


def test_a_video_is_tracked_without_a_detections_file(place, network, tmp_path, monkeypatch, capsys):
    outputs = [f"--output={tmp_path}/t.txt", f"--video={tmp_path}/t.mp4", f"--crops={tmp_path}/crops", "--camera=4"]
    assert run(track, monkeypatch, place / "v.avi", network, *outputs) == ""
    printed = capsys.readouterr().out
    assert re.search(
        r"^\d+ boxes of what moves; a detector of people finds more \(--detections\)$", printed, re.MULTILINE
    )
    tracks = read_mot(tmp_path / "t.txt")
    drawn = open_frames(tmp_path / "t.mp4")
    assert len(list(drawn.read(None))) == NUM_FRAMES and drawn.rate == pytest.approx(12.5)
    crops = sorted(file.name for file in (tmp_path / "crops").iterdir())
    assert {labels_of(name) for name in crops} == {(number, 4) for number in tracks.number.tolist()}
    assert f"{len(crops)} crops" in printed and f"{NUM_FRAMES} frames" in printed
    line = run(track, monkeypatch, place / "v.avi", network, *outputs)
    assert line == f"track: --crops={tmp_path}/crops is not empty: crops of other tracks would mix with these"


def test_crops_are_embedded_by_mancs_embed(place, network, tmp_path):
    from tiny_sources import run_script

    from mancs_jax.inference.gallery import load_gallery

    tracks = read_mot(place / "scene" / "gt.txt")
    number = write_crops(tmp_path / "crops", open_frames(place / "scene" / "frames"), tracks, 1)
    line = run_script("embed", f"{tmp_path}/crops", network, f"--output={tmp_path}/g.npz")
    gallery = load_gallery(tmp_path / "g.npz")
    assert line == "" and len(gallery.name) == number and gallery.pid is not None
    counts = np.bincount(gallery.pid)
    assert counts.max() == CROPS and set(np.flatnonzero(counts)) == set(tracks.number.tolist())
    name = str(gallery.name[0])
    frame, pid = int(name[-10:-4]), int(name[:4])
    box = tracks.box[(tracks.frame == frame) & (tracks.number == pid)][0]
    height, width = cv2.imread(str(tmp_path / "crops" / name)).shape[:2]
    assert height <= np.ceil(box[3] - box[1]) + 1 and width <= np.ceil(box[2] - box[0]) + 1


def test_each_box_is_drawn_in_the_colour_of_its_track(place, tmp_path):
    frames = open_frames(place / "scene" / "frames")
    box = np.array([[100.0, 50, 200, 250], [300, 60, 380, 200]])
    tracks = Tracks(np.array([3, 3]), np.array([1, 2]), box, np.ones(2))
    assert write_video(tmp_path / "d.avi", frames, tracks) == NUM_FRAMES
    shown = dict(open_frames(tmp_path / "d.avi").read(None))
    assert colour_of(1) != colour_of(2)
    for number, (x1, y1, _, y2) in ((1, box[0]), (2, box[1])):
        edge = shown[3][int(y1) + 20 : int(y2) - 20, int(x1)].astype(int)[:, ::-1]
        assert np.abs(edge.mean(axis=0) - colour_of(number)).max() < 60  # JPEG takes colour from the neighbours
    plain = dict(frames.read(None))
    assert np.abs(shown[4].astype(int) - plain[4]).mean() < 5


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("no.mp4", "no.mp4: no such video or folder of frames"),
        ("text.mp4", "text.mp4: no video that OpenCV reads; take its frames as files, as with ffmpeg"),
    ],
)
def test_what_is_no_video_gets_one_line(place, tmp_path, monkeypatch, name, line):
    (tmp_path / "text.mp4").write_text("no video")
    found = run(track, monkeypatch, tmp_path / name, "--workdir=w", f"--output={tmp_path}/t.txt")
    assert found == f"track: {tmp_path}/{line}"
    found = run(track, monkeypatch, place / "v.avi", "--workdir=w", f"--video={tmp_path}/t.gif")
    assert found == f"track: --video={tmp_path}/t.gif: the name has to end in .mp4 or .avi"


def test_nothing_that_moves_gets_one_line(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    for number in range(5):
        cv2.imwrite(str(tmp_path / "empty" / f"{number}.png"), np.full((200, 300, 3), 128, np.uint8))
    found = run(track, monkeypatch, tmp_path / "empty", "--workdir=w", f"--output={tmp_path}/t.txt")
    assert found.startswith(
        f"track: {tmp_path}/empty: nothing as tall as a person moves in it; give the boxes of a det"
    )
