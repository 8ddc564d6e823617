"""Deletes images from a gallery, and verifies that none of its files contains anything of them.

    mancs gallery forget --gallery=people.gallery --person=7 [--receipt=receipt.json]
    mancs gallery forget --gallery=people.gallery --name='2026-01/cam3/*'
    mancs gallery forget --gallery=people.gallery --before=2026-01-01

An image has to match all filters. Rows are deleted in one transaction and overwritten in the database, its log and the
cache; indexes are removed. Then all files are searched for the bytes of the embeddings, names, labels and hashes. The
receipt says what was deleted, which files were read, and how much was found. If another process still reads an older
state, the command says so: run the command again. Without filters, it completes an unverified deletion.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from mancs_jax.cli.command_line import DATABASES
from mancs_jax.cli.flags import Flags
from mancs_jax.cli.gallery_flags import define_filters, define_gallery, filters_of
from mancs_jax.common.screen import show

ARGUMENTS = ()


def define(values: Flags, argv: Sequence[str]) -> None:
    define_gallery(values)
    define_filters(values)
    values.DEFINE_string("receipt", None, "JSON file of the receipt; by default next to the gallery.")


def main(values: Flags, arguments: Sequence[str]) -> None:
    """Deletes the images, and prints what the search for them found."""
    from mancs_jax.gallery.gallery import Gallery  # not at the top: a mistyped flag should not wait for it

    receipt = values.receipt
    if receipt is None:
        place = "mancs" if values.gallery.startswith(DATABASES) else values.gallery
        receipt = f"{place}.receipt-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    with Gallery(values.gallery) as gallery:
        found = gallery.forget(**filters_of(values), receipt=receipt)
        number = len(gallery)
    if not found.values["forgotten"]:
        Path(receipt).unlink()
        show(f"no image of {values.gallery} matches these filters: nothing was deleted")
        return
    show(f"{found.images:,} images deleted, {number:,} remain")
    searched = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in found.values["searched_for"].items())
    show(f"searched {len(found.values['files'])} files for {searched}: {found.found:,} found")
    if shared := found.values["shared_with_images_that_stay"]:
        show(f"{shared:,} others also belong to remaining images: copies, labels and folders")
    show(f"receipt: {receipt}")
    if not found.is_proved:
        reason = "; ".join(found.notes) or "parts of them are left: run mancs gallery check"
        sys.exit(f"gallery forget: deleted, but not verified: {reason}")
    show(found.values["out_of_reach"])
