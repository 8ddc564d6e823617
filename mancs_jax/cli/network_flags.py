"""The flags that name a trained network, which several commands share."""

from absl import flags


def define_network(values: flags.FlagValues) -> None:
    """Defines --workdir and --network."""
    flags.DEFINE_string("workdir", None, "Directory of a run of `mancs train`.", flag_values=values)
    flags.DEFINE_string(
        "network",
        None,
        "Trained network instead of a workdir: one of the package by name (market1501), a file or folder of `mancs "
        "export --format=weights`, or, where embeddings are all that is asked for, a file of `mancs export`.",
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
