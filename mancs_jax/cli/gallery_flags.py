"""The flags that commands of a gallery share: where it is, and conditions on its images."""

from typing import Any

from absl import flags


def define_gallery(values: flags.FlagValues) -> None:
    """Defines --gallery."""
    flags.DEFINE_string(
        "gallery", None, "File, as people.gallery, or postgresql://USER@HOST/DATABASE.", flag_values=values
    )
    flags.mark_flags_as_required(["gallery"], values)


def define_conditions(values: flags.FlagValues) -> None:
    """Defines --person, --camera, --name, --since and --before."""
    flags.DEFINE_list("person", [], "Only images of this person, or of one of several: 7,8.", flag_values=values)
    flags.DEFINE_list("camera", [], "Only images of this camera, or of one of several.", flag_values=values)
    flags.DEFINE_string(
        "name", None, "Only names like this: * stands for any text, ? for one letter.", flag_values=values
    )
    flags.DEFINE_string(
        "since", None, "Only images from this time on: 2026-11-30, or 2026-11-30T14:05.", flag_values=values
    )
    flags.DEFINE_string("before", None, "Only images before this time.", flag_values=values)


def conditions_of(values: flags.FlagValues) -> dict[str, Any]:
    """The conditions that are given, as arguments of `Gallery.search` and its like."""
    given = {name: values[name].value for name in ("person", "camera", "name", "since", "before")}
    return {name: value for name, value in given.items() if value not in (None, [])}
