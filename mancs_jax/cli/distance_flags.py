"""The flags of a distance and of re-ranking, which two commands share."""

from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from mancs_jax.evaluation.protocols import Options


def define_distance(values: flags.FlagValues, of_normalize: str) -> None:
    """Defines --distance, --normalize (explained by `of_normalize`), --rerank, --k1, --k2 and --lambda."""
    flags.DEFINE_enum(
        "distance", "euclidean", ["euclidean", "cosine"], "Distance of two embeddings.", flag_values=values
    )
    flags.DEFINE_bool("normalize", False, of_normalize, flag_values=values)
    flags.DEFINE_bool("rerank", False, "Re-rank by k-reciprocal encoding (Zhong et al. 2017).", flag_values=values)
    flags.DEFINE_integer("k1", 20, "Of re-ranking: neighbours of an image.", flag_values=values)
    flags.DEFINE_integer("k2", 6, "Of re-ranking: images that an encoding is averaged over.", flag_values=values)
    flags.DEFINE_float("lambda", 0.3, "Of re-ranking: weight of the original distance.", flag_values=values)


def distance_options(values: flags.FlagValues) -> "Options":
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
