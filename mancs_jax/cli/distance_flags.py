"""The flags of a distance and of re-ranking, which two commands share."""

from typing import TYPE_CHECKING

from mancs_jax.cli.flags import Flags
from mancs_jax.config.names import DISTANCES

if TYPE_CHECKING:
    from mancs_jax.evaluation.protocols import Options


def define_distance(values: Flags, normalize_help: str) -> None:
    """Defines --distance, --normalize (explained by `normalize_help`), --rerank, --k1, --k2 and --lambda."""
    values.DEFINE_enum("distance", "euclidean", DISTANCES, "Distance of two embeddings.")
    values.DEFINE_bool("normalize", False, normalize_help)
    values.DEFINE_bool("rerank", False, "Re-rank by k-reciprocal encoding (Zhong et al. 2017).")
    values.DEFINE_integer("k1", 20, "For --rerank: number of neighbours of an image.")
    values.DEFINE_integer("k2", 6, "For --rerank: number of images that an encoding is averaged over.")
    values.DEFINE_float("lambda", 0.3, "For --rerank: weight of the original distance.")


def distance_options(values: Flags) -> "Options":
    """Returns the options that the flags say."""
    from mancs_jax.evaluation.protocols import Options  # not at the top: a mistyped flag should not wait for jax

    return Options(
        distance=values.distance,
        normalize=values.normalize,
        rerank=values.rerank,
        k1=values.k1,
        k2=values.k2,
        weight=float(values["lambda"].value or 0.0),
    )
