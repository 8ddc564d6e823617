"""The flags of a decision threshold, which commands that compare images share."""

from typing import TYPE_CHECKING

from mancs_jax.cli.flags import Flags
from mancs_jax.config.names import DISTANCES

if TYPE_CHECKING:
    from mancs_jax.evaluation.threshold import Threshold
    from mancs_jax.inference.embedder import Embedder

FLAGS = ("max_distance", "max_fpr", "thresholds_of")


def define_threshold(values: Flags, max_distance_help: str) -> None:
    """Defines --distance, --max_distance (explained by `max_distance_help`), --max_fpr and --thresholds_of."""
    values.DEFINE_enum("distance", "euclidean", DISTANCES, "Distance of two embeddings.")
    values.DEFINE_float("max_distance", None, max_distance_help, lower_bound=0.0)
    values.DEFINE_float(
        "max_fpr",
        None,
        "False positive rate, as 0.001: its decision threshold is taken from the card of the model, or from "
        "--thresholds_of.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    values.DEFINE_string(
        "thresholds_of",
        None,
        "File of mancs evaluate --json, whose decision thresholds are used; by default that for a false positive rate "
        "of 0.001.",
    )


def check_threshold(values: Flags) -> None:
    """Raises ValueError where the flags contradict each other."""
    given = [f"--{name}" for name in FLAGS[1:] if values[name].value is not None]
    if values.max_distance is not None and given:
        raise ValueError(f"--max_distance is a threshold itself: leave {' and '.join(given)} out")


def given_threshold(values: Flags, embedder: "Embedder") -> "Threshold | float | None":
    """Returns the threshold that the flags ask for; None where they ask for none.

    Raises:
      ValueError, FileNotFoundError: as `threshold_of`.
    """
    from mancs_jax.evaluation.threshold import MAX_FPR  # not at the top: a mistyped flag should not wait for jax
    from mancs_jax.inference.thresholds import threshold_of

    if values.max_fpr is None and values.thresholds_of is None:
        return values.max_distance
    max_fpr = MAX_FPR if values.max_fpr is None else values.max_fpr
    return threshold_of(values.thresholds_of or embedder, max_fpr, distance=values.distance)
