"""Links the detections of a video to tracks, by motion and by what people look like.

    python examples/tracking/track.py video.mp4 --network=market1501 --video=tracked.mp4 --crops=crops
    python examples/tracking/track.py frames --detections=det.txt --network=market1501 --output=tracks.txt
    python examples/tracking/track.py frames --detections=det.txt --workdir=workdirs/walkers --truth=gt.txt

It takes a video, or a folder of frames whose names end in their numbers, and a detector's boxes in MOTChallenge's
format; without them, whatever moves before a camera that stands still is a person. It writes tracks in the same
format, a video with the tracks drawn into it, and crops of each track that `mancs embed` takes. With true tracks, it
scores motion alone and motion with embeddings.
"""

import argparse
from typing import NamedTuple

import numpy as np
from draw import CODECS, write_crops, write_video
from mot import Tracks, overlaps, read_mot, write_mot
from moving import detect_all
from scipy.optimize import linear_sum_assignment
from scores import score_tracks
from video import Frames, open_frames

import mancs_jax
from mancs_jax.cli.command_line import ending_in_one_line
from mancs_jax.common.atomic_write import check_writable, write_json
from mancs_jax.common.local_path import local_path
from mancs_jax.common.outputs import check_outputs
from mancs_jax.common.screen import show, tell

MIN_OVERLAP = 0.3  # with the box that motion predicts, for a pair that motion allows
COAST = 10  # frames since the last detection, up to which motion predicts a box
MAX_GAP = 30  # frames since the last detection, after which a track ends
SMOOTHING = 0.6  # share of the newest step in a track's velocity
MEMORY = 0.9  # share of what a track has looked like, beside the newest crop
REACH, PACE = 0.3, 0.1  # body heights that somebody may be from the last place: at once, and more with each frame
MIN_BOXES = 3  # of a track that is written; a detector's errors have fewer
STRANGE = 0.8  # distance, beside the usual one of strangers, from which motion is believed only where no look fits
FILES = ("output", "json", "video", "detections", "truth", "network")  # flags of files
OUTPUTS = ("output", "json", "video")  # those that are written
NEVER = 2.0  # cost of a pair that may not be; usual ones cost less than 1


class Options(NamedTuple):
    """The use of the embeddings. The defaults of the flags were chosen on scenes of other seeds (docs/tracking.md)."""

    weight: float  # share of the embeddings in the cost of a pair; 0 for motion alone
    alike: float  # share of the pairs of strangers who may look as near as a pair that motion has lost


class Track(NamedTuple):
    """A person who is followed."""

    number: int
    frame: int  # in which the person was seen last
    box: np.ndarray  # float [4], there
    velocity: np.ndarray  # float [4], of the box a frame
    look: np.ndarray  # float [D], running mean of embeddings of norm 1


def link(detections: Tracks, look: np.ndarray, options: Options) -> Tracks:
    """Numbers detections by track, so that each number is one person.

    Args:
      detections: sorted by frame.
      look: embedding of each, float [N, D] of norm 1, or zeros for a box outside the frame.
      options: the use of the embeddings.
    """
    scale = strangers(detections, look, options.alike)
    number, tracks = np.full(len(detections.frame), -1), []
    for frame in np.unique(detections.frame).tolist():
        rows = np.flatnonzero(detections.frame == frame)
        tracks = [track for track in tracks if frame - track.frame <= MAX_GAP]
        for i, j in paired(costs(tracks, frame, detections.box[rows], look[rows], options.weight, *scale)):
            tracks[i] = seen(tracks[i], frame, detections.box[rows[j]], look[rows[j]])
            number[rows[j]] = tracks[i].number
        for row in rows[number[rows] < 0].tolist():
            number[row] = number.max(initial=0) + 1
            tracks.append(Track(int(number[row]), frame, detections.box[row], np.zeros(4), look[row]))
    length = np.bincount(number, minlength=1)
    return Tracks(*(field[length[number] >= MIN_BOXES] for field in detections._replace(number=number)))


def strangers(detections: Tracks, look: np.ndarray, alike: float) -> tuple[float, float]:
    """(median, quantile `alike`) of the cosine distances of two boxes in one frame; (1, 0) where no frame has two.

    They are two people, so this says without any label how near strangers come in this video.
    """
    found = [np.zeros(0)]
    for frame in np.unique(detections.frame):
        of_frame = look[detections.frame == frame]
        found.append((1 - of_frame @ of_frame.T)[np.triu_indices(len(of_frame), 1)])
    distance = np.concatenate(found)
    return (float(np.median(distance)), float(np.quantile(distance, alike))) if len(distance) else (1.0, 0.0)


def paired(rounds: list[np.ndarray]) -> list[tuple[int, int]]:
    """The pairs (track, detection) that cost least together, [T, N], round after round among those that are left."""
    pairs: list[tuple[int, int]] = []
    for cost in rounds:
        cost = cost.copy()
        cost[[i for i, _ in pairs]] = NEVER
        cost[:, [j for _, j in pairs]] = NEVER
        pairs += [(i, j) for i, j in zip(*linear_sum_assignment(cost), strict=True) if cost[i, j] < NEVER]
    return pairs


def costs(tracks, frame, boxes, looks, weight, usual, near) -> list[np.ndarray]:
    """The costs [T, N] of pairs of a track and a detection: where motion and look agree, look alone, motion alone."""
    if not tracks:
        return []
    last, velocity, mean = (np.stack([track[field] for track in tracks]) for field in (2, 3, 4))
    gap = frame - np.array([track.frame for track in tracks])[:, None]
    motion = 1 - overlaps(last + gap * velocity, boxes)
    distance = 1 - mean @ looks.T / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    step = np.linalg.norm(middles(boxes)[None] - middles(last)[:, None], axis=2)
    can_be = step <= (REACH + PACE * gap) * (boxes[:, 3] - boxes[:, 1])
    goes_on = (motion <= 1 - MIN_OVERLAP) & (gap <= COAST)
    is_alike = (weight > 0) & (distance <= near) & can_be
    distance = distance / max(usual, 1e-6)
    both = (1 - weight) * motion + weight * distance
    is_stranger = (weight > 0) & (distance > STRANGE)
    allowed = ((both, goes_on & ~is_stranger), (distance, is_alike), (motion, goes_on))
    return [np.where(may_be, np.minimum(cost, NEVER), NEVER) for cost, may_be in allowed]


def seen(track: Track, frame: int, box: np.ndarray, look: np.ndarray) -> Track:
    """The track after its person was seen again."""
    step = (box - track.box) / (frame - track.frame)
    step[2:] = step[:2] = (step[:2] + step[2:]) / 2  # the place moves; changes of size are noise
    velocity = SMOOTHING * step + (1 - SMOOTHING) * track.velocity
    return Track(track.number, frame, box, velocity, MEMORY * track.look + (1 - MEMORY) * look)


def middles(boxes: np.ndarray) -> np.ndarray:
    """Middles of boxes [N, 4], [N, 2]."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def embed_detections(frames: Frames, detections: Tracks, source: str) -> np.ndarray:
    """Embeddings [N, D] of norm 1 of all detections; zeros where a box lies outside its frame."""
    wanted = np.unique(detections.frame).tolist()
    if missing := [frame for frame in wanted if frame not in frames.numbers]:
        first, last = min(frames.numbers), max(frames.numbers)
        raise ValueError(f"{frames.source} has no frame {missing[0]}, which has detections; it has {first} to {last}")
    embed = mancs_jax.load(source, batch=8, normalize=True)
    look = np.zeros((len(detections.frame), embed.width), np.float32)
    for number, image in frames.read(set(wanted)):
        rows = detections.frame == number
        look[rows] = embed(image, boxes=detections.box[rows], bad_boxes="zeros", progress=False)
    return look


def run(arguments: argparse.Namespace) -> None:
    """Links, scores and writes, as the flags say."""
    if not 0 <= arguments.weight <= 1 or not 0 <= arguments.alike <= 1:
        raise ValueError(f"--weight={arguments.weight:g} and --alike={arguments.alike:g} have to be from 0 to 1")
    if not any((arguments.output, arguments.video, arguments.crops, arguments.truth)):
        raise ValueError(
            "give --output=FILE, --video=FILE or --crops=FOLDER to write, or --truth=FILE to score against"
        )
    if arguments.video and arguments.video.suffix.lower() not in CODECS:
        raise ValueError(f"--video={arguments.video}: the name has to end in {' or '.join(CODECS)}")
    if arguments.json and not arguments.truth:
        raise ValueError("--json takes the scores: give --truth=FILE, too")
    given = {f"--{name}={path}": path for name, path in vars(arguments).items() if name in FILES and path}
    outputs = {name: path for name, path in given.items() if name.partition("=")[0].removeprefix("--") in OUTPUTS}
    inputs = {name: path for name, path in given.items() if name not in outputs} | {"the video": arguments.frames}
    check_outputs(outputs, inputs)
    for file in filter(None, (arguments.output, arguments.json, arguments.video)):
        check_writable(file)
    if arguments.crops and arguments.crops.is_dir() and any(arguments.crops.iterdir()):
        raise ValueError(f"--crops={arguments.crops} is not empty: crops of other tracks would mix with these")
    truth = read_mot(arguments.truth) if arguments.truth else None
    if truth is not None:
        score_tracks(truth, truth)  # a fault of the file, or no TrackEval, is told before the frames are embedded
    found = read_mot(arguments.detections) if arguments.detections else None
    frames = open_frames(arguments.frames)
    detections = detect_all(frames) if found is None else found
    if found is None:
        show(f"{len(detections.frame):,} boxes of what moves; a detector of people finds more (--detections)")
    if arguments.min_confidence is not None:
        used = detections.confidence >= arguments.min_confidence
        if not used.any():
            raise ValueError(f"no detection has a confidence of {arguments.min_confidence:g} or more")
        tell(f"{np.sum(~used):,} of {len(used):,} detections have a lower confidence and are left out")
        detections = Tracks(*(field[used] for field in detections))
    look = embed_detections(frames, detections, arguments.workdir or arguments.network)
    options = Options(arguments.weight, arguments.alike)
    tracks = link(detections, look, options)
    if not len(tracks.frame):
        tell(
            f"no track: none of the {len(detections.frame):,} boxes belong to a person with {MIN_BOXES} boxes or more, "
            "which a track needs"
        )
    if truth is not None:
        motion = link(detections, look, options._replace(weight=0.0))
        both = {"motion alone": motion, "motion and embeddings": tracks}
        of_each = {name: score_tracks(truth, found) for name, found in both.items()}
        for name, scores in of_each.items():
            show(
                f"{name:<21}  IDF1 {100 * scores['idf1']:5.1f}  switches {scores['switches']:3}  "
                f"MOTA {100 * scores['mota']:5.1f}  tracks {scores['num_found']:3} (true: {scores['num_tracks']})"
            )
        if arguments.json:
            write_json(arguments.json, of_each)
    if arguments.output:
        write_mot(arguments.output, tracks)
        show(f"{arguments.output}: {len(np.unique(tracks.number))} tracks, {len(tracks.frame)} boxes")
    if arguments.video:
        show(f"{arguments.video}: {write_video(arguments.video, frames, tracks):,} frames")
    if arguments.crops:
        number = write_crops(arguments.crops, frames, tracks, arguments.camera)
        show(f"{arguments.crops}: {number:,} crops; mancs embed takes the number of a track as the person")


def main() -> None:
    """Reads the flags; a mistake gets one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", type=local_path, help="video, or folder of frames")
    parser.add_argument("--detections", type=local_path, help="MOT file of boxes; without it, what moves is a person")
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--network", help="as market1501, or a file of `mancs export`")
    network.add_argument("--workdir", help="of `mancs train`")
    parser.add_argument("--output", type=local_path, help="MOT file of tracks to write")
    parser.add_argument("--video", type=local_path, help="video to draw the tracks into, .mp4 or .avi")
    parser.add_argument("--crops", type=local_path, help="folder to write crops of the tracks to")
    parser.add_argument("--camera", type=int, default=1, help="number of the camera, for the names of the crops")
    parser.add_argument("--truth", type=local_path, help="MOT file of true tracks, to score against")
    parser.add_argument("--json", type=local_path, help="file to write the scores to")
    parser.add_argument("--min_confidence", type=float, help="of a detection that is used; all, if not given")
    parser.add_argument("--weight", type=float, default=0.6, help="of the embeddings: 0 (motion alone) to 1")
    parser.add_argument("--alike", type=float, default=0.05, help="share of strangers who may look like one person")
    arguments = parser.parse_args()
    with ending_in_one_line("track"):
        run(arguments)


if __name__ == "__main__":
    main()
