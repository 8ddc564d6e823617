"""The flags that commands of a gallery share: where it is, and filters of its images."""

from typing import Any

from absl import flags

from mancs_jax.cli.flags import Flags


def define_gallery(values: Flags) -> None:
    """Defines --gallery."""
    values.DEFINE_string(
        "gallery", None, "Gallery: a file, for example people.gallery, or a database, postgresql://USER@HOST/DATABASE."
    )
    flags.mark_flags_as_required(["gallery"], values)


def define_filters(values: Flags) -> None:
    """Defines --person, --camera, --name, --since and --before."""
    values.DEFINE_list("person", [], "Filter: only gallery images of this person, or of one of several: 7,8.")
    values.DEFINE_list("camera", [], "Filter: only gallery images of this camera, or of one of several: 1,3.")
    values.DEFINE_string(
        "name", None, "Filter: only names that match this pattern: * stands for any text, ? for one letter."
    )
    values.DEFINE_string("since", None, "Filter: only images from this time on: 2026-11-30, or 2026-11-30T14:05.")
    values.DEFINE_string("before", None, "Filter: only images before this time.")


def filters_of(values: Flags) -> dict[str, Any]:
    """The filters that are given, as arguments of `Gallery.search` and its like."""
    given = {name: values[name].value for name in ("person", "camera", "name", "since", "before")}
    return {name: value for name, value in given.items() if value not in (None, [])}
