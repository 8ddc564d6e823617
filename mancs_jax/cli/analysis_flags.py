"""The flags of analyses beyond the scores, which two commands share."""

from typing import TYPE_CHECKING

from mancs_jax.cli.flags import Flags

if TYPE_CHECKING:
    from mancs_jax.evaluation.analyses import Analyses


def define_analyses(values: Flags) -> None:
    """Defines --open_set, --calibrate and --groups."""
    values.DEFINE_bool(
        "open_set",
        False,
        "Evaluate open-set identification as well: half of the query identities are removed from the gallery, in five "
        "seeded repeats. FPIR is the share of their queries that return any match within a threshold, FNIR the share "
        "of the other queries whose own identity is not returned.",
    )
    values.DEFINE_bool(
        "calibrate",
        False,
        "Fit a mapping from distance to likelihood ratio, on the identities that the run held out or, with --features, "
        "on the evaluated pairs themselves. A model whose card has a mapping does not need this flag.",
    )
    values.DEFINE_string(
        "groups",
        "",
        "Attributes of people, by which rank-1 and rates are broken down: a CSV file with a column pid (numbers, or "
        "names as in the CSV of the data set) and a column for each attribute, or a .mat file like that of "
        "Market-1501_Attribute.",
    )


def analyses_of(values: Flags) -> "Analyses":
    """Returns the analyses that the flags ask for; a file of groups is read.

    Raises:
      FileNotFoundError, ValueError: one line: as `groups.read_groups`.
    """
    # Not at the top: a mistyped flag should not wait for jax.
    from mancs_jax.evaluation.analyses import Analyses
    from mancs_jax.evaluation.groups import read_groups

    groups = read_groups(values.groups) if values.groups else None
    return Analyses(open_set=values.open_set, calibrate=values.calibrate, groups=groups)
