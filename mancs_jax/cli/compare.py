"""Compares two results on the same queries: is the difference significant?

mancs compare A.json B.json [--row="Mancs, re-ranked"] [--other_row=ROW] [--json=OUT.json]
"""

from collections.abc import Sequence

from mancs_jax.cli.flags import Flags
from mancs_jax.common.screen import show

ARGUMENTS = ("JSON of a result", "JSON of another result")


def define(values: Flags, argv: Sequence[str]) -> None:
    values.DEFINE_string(
        "row",
        "",
        "Name of the result to compare, in files with several, for example 'Mancs, re-ranked'; by default, each result "
        "that both files have.",
    )
    values.DEFINE_string("other_row", "", "Name of the result in the second file, if it differs from --row.")
    values.DEFINE_string("json", None, "JSON file to which the comparison is written.")


def main(values: Flags, arguments: Sequence[str]) -> None:
    """Prints the differences."""
    # Not at the top: a mistyped flag should not wait for NumPy.
    from mancs_jax.common.atomic_write import check_writable, write_json
    from mancs_jax.evaluation import paired, results

    if values.other_row and not values.row:
        raise ValueError("--other_row goes with --row: name the result of the first file, too")
    if values.json:
        check_writable(values.json)
    first, second = arguments
    compared = paired.compare_results(first, second, first_row=values.row, second_row=values.other_row)
    show("\n\n".join(map(results.comparison_text, compared)))
    if values.json:
        write_json(values.json, compared)
