"""Checks all files of a gallery: mancs gallery check --gallery=people.gallery.

It reads the whole database and compares its cache with it. The status is 1 where something is wrong.
"""

import sys
from collections.abc import Sequence

from mancs_jax.cli.flags import Flags
from mancs_jax.cli.gallery_flags import define_gallery
from mancs_jax.common.screen import show

ARGUMENTS = ()


def define(values: Flags, argv: Sequence[str]) -> None:
    define_gallery(values)


def main(values: Flags, arguments: Sequence[str]) -> None:
    """Prints a line for each fault."""
    from mancs_jax.gallery.gallery import Gallery  # not at the top: a mistyped flag should not wait for it

    with Gallery(values.gallery) as gallery:
        faults = gallery.check()
        number = len(gallery) if not faults else 0
    if faults:
        sys.exit("\n".join(f"gallery check: {fault}" for fault in faults))
    show(f"{values.gallery}: {number:,} images, no fault found")
