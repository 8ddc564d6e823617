"""Counts the people, cameras and images of a gallery.

mancs gallery list --gallery=people.gallery [--camera=3] [--since=2026-11-30] [--most=20] [--report=people.html]
"""

from collections.abc import Sequence

from mancs_jax.cli.flags import Flags
from mancs_jax.cli.gallery_flags import define_filters, define_gallery, filters_of
from mancs_jax.common.screen import show

ARGUMENTS = ()


def define(values: Flags, argv: Sequence[str]) -> None:
    define_gallery(values)
    define_filters(values)
    values.DEFINE_integer("most", 20, "Number of people to list, those with most images first.", lower_bound=0)
    values.DEFINE_string("report", None, "HTML page of all people and their numbers of images, .html.")


def main(values: Flags, arguments: Sequence[str]) -> None:
    """Prints the table, and writes the page."""
    if values.report and not values.report.endswith(".html"):
        raise ValueError(f"--report={values.report}: the name has to end in .html")
    from mancs_jax.common.atomic_write import check_writable, write_text
    from mancs_jax.gallery import people
    from mancs_jax.gallery.gallery import Gallery

    if values.report:
        check_writable(values.report)
    filters = filters_of(values)
    with Gallery(values.gallery) as gallery:
        summary = people.summary(gallery, **filters)
    show(people.as_text(summary, values.most))
    if values.report:
        write_text(values.report, people.page(summary, values.gallery))
        show(f"report: {values.report}")
