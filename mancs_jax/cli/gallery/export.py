"""Writes embeddings and names of a gallery as a file of mancs embed, for mancs search and mancs evaluate.

mancs gallery export --gallery=people.gallery --output=people.npz [--camera=3] [--since=2026-11-30]
"""

from collections.abc import Sequence

from absl import flags

from mancs_jax.cli.flags import Flags
from mancs_jax.cli.gallery_flags import define_filters, define_gallery, filters_of
from mancs_jax.common.screen import show, tell

ARGUMENTS = ()


def define(values: Flags, argv: Sequence[str]) -> None:
    define_gallery(values)
    define_filters(values)
    values.DEFINE_string("output", None, "File to write, .npz.")
    flags.mark_flags_as_required(["output"], values)


def main(values: Flags, arguments: Sequence[str]) -> None:
    """Writes the file."""
    if not values.output.endswith(".npz"):
        raise ValueError(f"--output={values.output}: the name has to end in .npz")
    from mancs_jax.gallery.gallery import Gallery  # not at the top: a mistyped flag should not wait for it
    from mancs_jax.inference.gallery import described_gallery

    with Gallery(values.gallery) as gallery:
        if replaced := described_gallery(values.output):
            tell(f"{values.output} replaces {replaced}")
        number = gallery.export(values.output, **filters_of(values))
    show(f"{values.output}: {number:,} images")
