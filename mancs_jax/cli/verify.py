"""Decides whether two images show the same person.

    mancs verify A.jpg B.jpg --network=market1501 [--distance=cosine] [--max_fpr=0.001] [--json=OUT.json]
    mancs verify A.jpg B.jpg --network=market1501 --thresholds_of=labelled.json
    mancs verify A.jpg B.jpg --workdir=W --max_distance=3.1
    mancs verify A.jpg B.jpg --network=site --camera=3 --second_camera=5

The distance, the decision threshold and its false positive rate are printed with either decision. The threshold comes
from the model card, from a JSON result of mancs evaluate, or from --max_distance. Exit status: 0 for the same
person, 2 for different people, 1 for an error.
"""

import sys
from collections.abc import Sequence

from mancs_jax.cli.command_line import keep_compiled_programs
from mancs_jax.cli.flags import Flags
from mancs_jax.cli.network_flags import define_network, network_of
from mancs_jax.cli.threshold_flags import check_threshold, define_threshold, given_threshold
from mancs_jax.common.screen import show, tell

ARGUMENTS = ("one image", "another image")
DIFFERENT = 2  # exit status for different people; 1 is that of errors


def define(values: Flags, argv: Sequence[str]) -> None:
    define_network(values)
    define_threshold(values, "Decision threshold: two images up to this distance show the same person.")
    values.DEFINE_bool("flip", False, "Average the embeddings of an image and of its mirror image.")
    values.DEFINE_bool("normalize", False, "Divide each embedding by its norm.")
    values.DEFINE_string("camera", None, "Camera of the images, whose statistics a model of `mancs adapt` uses.")
    values.DEFINE_string("second_camera", None, "Camera of the second image, where it is another than --camera.")
    values.DEFINE_string("json", None, "JSON file to which the result is written.")


def main(values: Flags, arguments: Sequence[str]) -> None:
    """Compares the images and prints the decision."""
    source = network_of(values)
    check_threshold(values)
    if values.second_camera and not values.camera:
        raise ValueError("--second_camera is the camera of the second image: give that of the first one as --camera")
    # Not at the top: a mistyped flag should not wait for jax.
    from mancs_jax.common.atomic_write import check_writable, write_json
    from mancs_jax.inference.embedder import load
    from mancs_jax.inference.verification import verify

    keep_compiled_programs()
    if values.json:
        check_writable(values.json)
    embedder = load(source, batch=2, flip=values.flip, normalize=values.normalize)
    threshold = given_threshold(values, embedder)
    max_fpr = {} if values.max_fpr is None else {"max_fpr": values.max_fpr}
    if embedder.cameras and not values.camera:
        tell(f"{source} is adapted to cameras, and the images have none: give them as --camera and --second_camera")
    camera = (values.camera, values.second_camera) if values.second_camera else values.camera
    verified = verify(embedder, *arguments, distance=values.distance, threshold=threshold, camera=camera, **max_fpr)
    decision = "same person" if verified.is_same else "different people"
    show(f"{decision}: {values.distance} distance {verified.distance:.4g}, threshold {verified.threshold.words()}")
    if values.json:
        threshold_fields = verified.threshold._asdict() | {"network": embedder.network}
        images = {"first": arguments[0], "second": arguments[1]}
        write_json(
            values.json,
            images | {"is_same": verified.is_same, "distance": verified.distance, "threshold": threshold_fields},
        )
        show(f"result: {values.json}")
    if not verified.is_same:
        sys.exit(DIFFERENT)
