"""The flags that name a trained model, which several commands share."""

from mancs_jax.cli.flags import Flags


def define_network(values: Flags) -> None:
    """Defines --workdir and --network."""
    values.DEFINE_string("workdir", None, "Directory of a run of `mancs train`.")
    values.DEFINE_string(
        "network",
        None,
        "Trained model instead of a workdir: a pretrained model by name (market1501), a file or folder of `mancs "
        "export --format=weights` or `mancs adapt`, or, if only embeddings are needed, another file of `mancs export`.",
    )


def define_camera(values: Flags, images: str, name: str = "camera") -> None:
    """Defines --camera, or a flag of another name, of commands that embed `images`, a word for the help."""
    values.DEFINE_string(
        name,
        None,
        f"Camera of the {images}, whose statistics a model of `mancs adapt` uses. Without it, such a model takes the "
        "cameras from file names like Market-1501's (0002_c1s1_000451_03.jpg), or uses its own statistics.",
    )


def network_of(values: Flags) -> str:
    """Returns the one of both that is given (ValueError: none is, or both are)."""
    if bool(values.workdir) == bool(values.network):
        raise ValueError("give either --workdir=DIRECTORY of a run or --network=NAME, as --network=market1501")
    return values.workdir or values.network
