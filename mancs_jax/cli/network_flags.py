"""The flags that name a trained network, which several commands share."""

from absl import flags


def define_network(values: flags.FlagValues) -> None:
    """Defines --workdir and --network."""
    flags.DEFINE_string("workdir", None, "Directory of a run of `mancs train`.", flag_values=values)
    flags.DEFINE_string(
        "network",
        None,
        "Trained network instead of a workdir: one of the package by name (market1501), a file or folder of `mancs "
        "export --format=weights` or `mancs adapt`, or, where embeddings are all that is asked for, a file of `mancs "
        "export`.",
        flag_values=values,
    )


def define_camera(values: flags.FlagValues, images: str) -> None:
    """Defines --camera of commands that embed `images`, which is a word for the help."""
    flags.DEFINE_integer(
        "camera",
        None,
        f"Camera (camid) of the {images}, whose statistics a network of `mancs adapt` uses. Without it, such a network "
        "takes the cameras from names like Market-1501's (0002_c1s1_000451_03.jpg), or uses its own statistics.",
        lower_bound=0,
        flag_values=values,
    )


def network_of(values: flags.FlagValues) -> str:
    """Returns the one of both that is given.

    Raises:
      ValueError: none is given, or both are.
    """
    if bool(values.workdir) == bool(values.network):
        raise ValueError("give either --workdir=DIRECTORY of a run or --network=NAME, as --network=market1501")
    return values.workdir or values.network
