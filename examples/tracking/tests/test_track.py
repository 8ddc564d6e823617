"""A scene is rendered and tracked as in docs/tracking.md, at a small size; and the linking on literal boxes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import render_scene
import track
from mot import Tracks, read_mot, write_mot
from scores import score_tracks
from tiny_workdir import write_workdir

FOLDER = Path(__file__).parents[1]


def run(module, monkeypatch, *arguments):
    """Runs an example in this process; returns the line that it exits with, "" for success."""
    monkeypatch.setattr(sys, "argv", ["example", *map(str, arguments)])
    try:
        module.main()
    except SystemExit as stop:
        return str(stop.code)
    return ""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A small scene, and an untrained network."""
    place = tmp_path_factory.mktemp("scene")
    with pytest.MonkeyPatch.context() as patch:
        assert run(render_scene, patch, place / "scene", "--seed=3", "--frames=16", "--people=7") == ""
    write_workdir(place / "run")
    return place


def test_a_scene_is_tracked(place, monkeypatch, capsys):
    scene = place / "scene"
    arguments = [scene / "frames", f"--detections={scene}/det.txt", f"--truth={scene}/gt.txt"]
    arguments += [f"--workdir={place}/run", f"--output={place}/tracks.txt", f"--json={place}/o.json"]
    assert run(track, monkeypatch, *arguments) == ""
    printed = capsys.readouterr().out.splitlines()
    form = (
        r"(motion alone|motion and embeddings) +IDF1 +\d+\.\d  switches +\d+  MOTA +-?\d+\.\d  tracks +\d+ \(true: 7\)"
    )
    assert [re.fullmatch(form, line)[1] for line in printed[:2]] == ["motion alone", "motion and embeddings"]
    found, detections = read_mot(place / "tracks.txt"), read_mot(scene / "det.txt")
    assert printed[2] == f"{place}/tracks.txt: {len(set(found.number))} tracks, {len(found.frame)} boxes"
    boxes = {(frame, *box) for frame, box in zip(detections.frame.tolist(), detections.box.round(1).tolist())}
    assert {(frame, *box) for frame, box in zip(found.frame.tolist(), found.box.round(1).tolist())} <= boxes
    scores = score_tracks(read_mot(scene / "gt.txt"), found)
    assert f"IDF1 {100 * scores['idf1']:5.1f}" in printed[1] and scores["idf1"] > 0.5
    written = json.loads((place / "o.json").read_text())
    assert list(written) == ["motion alone", "motion and embeddings"]
    assert written["motion and embeddings"] == pytest.approx(scores)


def test_confidences_below_zero(place, monkeypatch, capsys):
    """Some detectors give logits: all are used, and the number of those that a flag leaves out is told."""
    lines = (place / "scene" / "det.txt").read_text().splitlines()
    lines = [",".join([*line.split(",")[:6], "-1.5" if i % 2 else "2.5"]) for i, line in enumerate(lines)]
    (place / "logits.txt").write_text("\n".join(lines))
    arguments = [place / "scene" / "frames", f"--detections={place}/logits.txt", f"--workdir={place}/run"]
    used = []
    monkeypatch.setattr(track, "link", lambda detections, *_: used.append(len(detections.frame)) or detections)
    assert run(track, monkeypatch, *arguments, f"--output={place}/t.txt") == ""
    assert capsys.readouterr().err == ""
    assert run(track, monkeypatch, *arguments, f"--output={place}/t.txt", "--min_confidence=0") == ""
    half = len(lines) // 2
    assert used == [len(lines), len(lines) - half]
    assert f"{half} of {len(lines)} detections have a lower confidence and are left out\n" in capsys.readouterr().err


def test_in_a_process_of_its_own(place, tmp_path):
    command = [sys.executable, FOLDER / "render_scene.py", tmp_path / "s", "--frames=2", "--people=0"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "render_scene: scene: num_people is 0; it has to be at least 1\n")
    command = [sys.executable, FOLDER / "track.py", tmp_path, "--detections=d.txt", "--network=n"]
    ended = subprocess.run([*command, "--output=o.txt"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (
        1,
        "track: d.txt: no such file; it has to be a MOT file, a line a box: frame,id,x,y,width,height,conf\n",
    )


def walkers(*ways):
    """Detections of people at x, one list a person, None where hidden; embeddings that tell them apart; the truth."""
    rows = sorted(
        (frame, number, x) for number, way in enumerate(ways) for frame, x in enumerate(way, 1) if x is not None
    )
    frame, number, x = (np.array(column) for column in zip(*rows))
    box = np.stack([x, 0 * x, x + 20.0, 0 * x + 50.0], axis=1)
    look = np.eye(len(ways), 4)[number]
    truth = Tracks(frame, number + 1, box, np.ones(len(x)))
    return truth._replace(number=np.full(len(x), -1)), look, truth


BOTH = track.Options(weight=0.6, alike=0.05)  # the defaults
MOTION = BOTH._replace(weight=0.0)


def test_people_who_walk_on_need_no_embedding():
    detections, look, truth = walkers([10 * f for f in range(12)], [300 - 10 * f for f in range(12)])
    for options in (MOTION, BOTH):
        assert score_tracks(truth, track.link(detections, look, options))["idf1"] == 1


def test_people_who_turn_about_while_they_are_hidden():
    """Two walk towards each other, meet unseen, and both turn back: motion takes each for the other."""
    there = [0, 10, 20, 30, 40, 50, 60, 70]
    one = [*there, None, None, *there[::-1]]
    detections, look, truth = walkers(one, [None if x is None else 180 - x for x in one])
    scores = {options: score_tracks(truth, track.link(detections, look, options)) for options in (MOTION, BOTH)}
    assert scores[MOTION]["switches"] == 2 and scores[MOTION]["idf1"] == 0.5
    assert scores[BOTH]["switches"] == 0 and scores[BOTH]["idf1"] == 1
    alike = score_tracks(truth, track.link(detections, np.ones_like(look) / 2, BOTH))
    assert alike["switches"] > 0  # people who look the same


def test_somebody_who_is_gone_for_long_is_found_again_by_look():
    way = [100.0] * 5 + [None] * (track.COAST + 5) + [100.0] * 5
    detections, look, truth = walkers(way, [300.0] * len(way))
    assert len(set(track.link(detections, look, MOTION).number)) == 3
    assert score_tracks(truth, track.link(detections, look, BOTH))["idf1"] == 1
    far = [100.0] * 5 + [None] * 3 + [1500.0] * 5  # nobody runs so fast
    detections, look, _ = walkers(far, [300.0] * len(far))
    assert len(set(track.link(detections, look, BOTH).number)) == 3
    lost = [100.0] * 5 + [None] * (track.MAX_GAP + 1) + [100.0] * 5
    detections, look, _ = walkers(lost, [300.0] * len(lost))
    assert len(set(track.link(detections, look, BOTH).number)) == 3


def test_boxes_of_a_moment_are_no_track():
    detections, look, _ = walkers([50.0] * 6, [None, 300.0, 300.0, None, None, None])
    found = track.link(detections, look, BOTH)
    assert len(found.frame) == 6 and len(set(found.number)) == 1
    alone = track.link(*walkers([50.0] * 6)[:2], BOTH)  # no frame has two people
    assert len(alone.frame) == 6 and track.strangers(*walkers([50.0] * 6)[:2], 0.05) == (1.0, 0.0)


def test_strangers_are_two_boxes_of_one_frame():
    detections, look, _ = walkers([0.0, 0.0], [90.0, 90.0])
    look[detections.frame == 2] = [[1, 0, 0, 0], [0.6, 0.8, 0, 0]]
    assert track.strangers(detections, look, 0.0) == pytest.approx((0.7, 0.4))  # of the distances 1 and 0.4


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["a.jpg"], "a.jpg has no number; names of frames end in theirs, as 000001.jpg"),
        (["a1.jpg", "b01.png"], "b01.png and a1.jpg are both frame 1"),
        (["1.jpg", "3.jpg"], "has no frame 2, which has detections; it has 1 to 3"),
    ],
)
def test_frames_that_do_not_fit(place, tmp_path, monkeypatch, names, line):
    (tmp_path / "frames").mkdir()
    for name in names:
        (tmp_path / "frames" / name).write_bytes((place / "scene" / "frames" / "000001.jpg").read_bytes())
    detections = Tracks(np.array([1, 2]), np.array([-1, -1]), np.array([[0, 0, 9, 9.0]] * 2), np.ones(2))
    write_mot(tmp_path / "det.txt", detections)
    arguments = [tmp_path / "frames", f"--detections={tmp_path}/det.txt", f"--workdir={place}/run", "--output=o.txt"]
    monkeypatch.chdir(tmp_path)
    ended = run(track, monkeypatch, *arguments)
    assert ended.startswith(f"track: {tmp_path}/frames") and ended.endswith(line) and not (tmp_path / "o.txt").exists()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--weight=2", "--output=o"], "track: --weight=2 and --alike=0.05 have to be from 0 to 1"),
        ([], "track: give --output=FILE, --video=FILE or --crops=FOLDER to write, or --truth=FILE to score against"),
        (["--output=t.txt", "--json=o.json"], "track: --json takes the scores: give --truth=FILE, too"),
        (
            ["--output=o", "--json=o", "--truth=t"],
            "track: --json=o is the file of --output=o: give each output its own file",
        ),
        (["--truth=nowhere.txt"], "track: nowhere.txt: no such file; it has to be a MOT file"),
        (["--output=o", "--min_confidence=2"], "track: no detection has a confidence of 2 or more"),
        (["--output=no/../scene/det.txt"], "track: --output=no/../scene/det.txt is the file of --detections="),
        (["--output=scene/frames/000001.jpg"], "track: --output=scene/frames/000001.jpg is an image of the video"),
        (["--output=/proc/o.txt"], "track: /proc/o.txt cannot be written"),
    ],
)
def test_flags_that_do_not_fit(place, monkeypatch, flags, line):
    monkeypatch.chdir(place)
    arguments = [place / "scene" / "frames", f"--detections={place}/scene/det.txt", f"--workdir={place}/run"]
    assert run(track, monkeypatch, *arguments, *flags).startswith(line)


def test_without_a_track_a_line_says_why(place, tmp_path, monkeypatch, capsys):
    write_mot(tmp_path / "det.txt", Tracks(np.arange(1, 3), np.full(2, -1), np.array([[0, 0, 9, 9.0]] * 2), np.ones(2)))
    monkeypatch.setattr(track, "embed_detections", lambda *_: np.eye(2))
    arguments = [place / "scene" / "frames", f"--detections={tmp_path}/det.txt", "--network=n"]
    assert run(track, monkeypatch, *arguments, f"--output={tmp_path}/o.txt") == ""
    told = capsys.readouterr()
    assert told.err == "no track: none of the 2 boxes belong to a person with 3 boxes or more, which a track needs\n"
    assert told.out.endswith("o.txt: 0 tracks, 0 boxes\n")


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), 130), (RuntimeError("no such platform"), "track: no such platform (t")]
)
def test_every_end_is_one_line(place, monkeypatch, capsys, error, status):
    def embed_detections(*_):
        raise error

    monkeypatch.setattr(track, "embed_detections", embed_detections)
    arguments = [place / "scene" / "frames", f"--detections={place}/scene/det.txt", "--network=n", "--output=o.txt"]
    assert run(track, monkeypatch, *arguments).startswith(str(status))
    assert capsys.readouterr().err == ("track: interrupted\n" if status == 130 else "")


def test_boxes_outside_their_frame_are_tracked_by_motion(place, tmp_path, monkeypatch, capsys):
    box = np.array([[-50, -50, -10, -10.0]] * 4)
    write_mot(tmp_path / "det.txt", Tracks(np.arange(1, 5), np.full(4, -1), box, np.ones(4)))
    arguments = [place / "scene" / "frames", f"--detections={tmp_path}/det.txt", f"--workdir={place}/run"]
    assert run(track, monkeypatch, *arguments, f"--output={tmp_path}/o.txt") == ""
    assert capsys.readouterr().out.endswith("o.txt: 1 tracks, 4 boxes\n")
