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
        "False positive rate: one of those that the model card or the file of --thresholds_of has, usually 0.01, 0.001 "
        "or 0.0001. Its decision threshold is used.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    values.DEFINE_string(
        "thresholds_of",
        None,
        "Result whose decision thresholds are used instead of those of the model card: a file of mancs evaluate "
        "--json. Without --max_fpr, the threshold for a false positive rate of 0.001.",
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
