"""Embeds the images of a folder that are new or changed, and adds them to a gallery.

    mancs gallery add FOLDER --gallery=people.gallery --network=market1501
    mancs gallery add FOLDER --gallery=people.gallery --network=market1501 [--csv=labels.csv] [--camera=3]
        [--time=2026-11-30T14:05 | --time=modified] [--relative_to=FOLDER_ABOVE]
    mancs gallery add FILE.npz --gallery=people.gallery

Names are paths relative to FOLDER. The CSV has the column path and, if known, person, camera and time. An image without
new labels keeps those it has. A file of mancs embed (.npz) is added as it is. The first call creates the gallery. After
an interruption, run the command again: it adds the remaining images.
"""

from collections.abc import Sequence

from mancs_jax.cli.command_line import keep_compiled_programs, keep_freed_memory
from mancs_jax.cli.flags import Flags
from mancs_jax.cli.gallery_flags import define_gallery
from mancs_jax.cli.network_flags import define_network, network_of
from mancs_jax.common.screen import show, tell

ARGUMENTS = ("one folder of images, or a .npz file of mancs embed",)


def define(values: Flags, argv: Sequence[str]) -> None:
    define_gallery(values)
    define_network(values)
    values.DEFINE_string("relative_to", None, "Parent folder that names are relative to.")
    values.DEFINE_string("csv", None, "File with the columns path, person, camera and time.")
    values.DEFINE_string("person", None, "Person in all added images.")
    values.DEFINE_string("camera", None, "Camera of all added images.")
    values.DEFINE_string("time", None, "Time of all added images; `modified` for each file's modification time.")
    values.DEFINE_bool("replace", False, "Replace existing images of the same name.")
    values.DEFINE_bool("embed_again", False, "Re-embed all images with another model.")
    values.DEFINE_integer("batch", 32, "Batch size, over all devices.", lower_bound=1)
    values.DEFINE_bool("flip", False, "For a new gallery: average with the mirror image.")
    values.DEFINE_bool("normalize", False, "For a new gallery: divide embeddings by their norms.")


def main(values: Flags, arguments: Sequence[str]) -> None:
    """Adds the images and prints their number."""
    from mancs_jax.gallery.gallery import Gallery  # not at the top: a mistyped flag should not wait for it

    folder = arguments[0]
    if folder.endswith(".npz"):
        with Gallery(values.gallery) as gallery:
            _show(values.gallery, gallery, gallery.add_file(folder))
        return
    source = network_of(values)
    keep_freed_memory()
    from mancs_jax.common.accelerators import unused_accelerator
    from mancs_jax.data.sources.source import name_faults, name_some
    from mancs_jax.inference.embedder import load
    from mancs_jax.inference.gallery import find_images

    keep_compiled_programs()
    find_images(folder)  # before the model is loaded
    with Gallery(values.gallery) as existing:
        options = {"flip": values.flip, "normalize": values.normalize}
        if existing.store.exists() and not values.embed_again:
            facts = existing.facts
            for name in options:
                if values[name].present and values[name].value != getattr(facts, name):
                    raise ValueError(f"{values.gallery} was made with {name}={getattr(facts, name)}")
            options = {"flip": facts.flip, "normalize": facts.normalize}
    if line := unused_accelerator():
        tell(line)
    embedder = load(source, batch=values.batch, **options)
    with Gallery(values.gallery, None if values.embed_again else embedder) as gallery:
        if values.embed_again:
            gallery = Gallery(values.gallery, source)
            show(f"{gallery.embed_again(folder):,} images re-embedded")
        added = gallery.add_folder(
            folder,
            relative_to=values.relative_to,
            csv_file=values.csv,
            person=values.person,
            camera=values.camera,
            time=values.time,
            replace=values.replace,
        )
        if added.not_images:
            show(f"{len(added.not_images):,} files skipped, no images by name: {name_some(added.not_images)}")
        if added.damaged:
            show(f"{len(added.damaged):,} images skipped, damaged: {name_faults(added.damaged)}")
        _show(values.gallery, gallery, added.added)


def _show(place: str, gallery, added) -> None:
    numbers = f"{added.new:,} new, {added.replaced:,} replaced, {added.unchanged:,} unchanged"
    show(f"{place}: {numbers}; it has {len(gallery):,} images now")
