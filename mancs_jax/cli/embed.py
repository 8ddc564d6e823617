"""Embeds every image of a folder with a trained model.

    mancs embed FOLDER --workdir=W --output=FILE.npz [--flip] [--normalize]
    mancs embed FOLDER --network=market1501 --output=FILE.npz [--csv=people.csv]

The file has embedding, float32 [N, D], and name, the paths below the folder, sorted; where all names are like
Market-1501's (0002_c1s1_000451_03.jpg), pid and camid, int32 [N], too. With a CSV, the images that it lists are
embedded, and the file also has person, camera and split, text [N], as the CSV has them.
"""

from collections.abc import Sequence

from absl import flags

from mancs_jax.cli.command_line import keep_compiled_programs, keep_freed_memory
from mancs_jax.cli.flags import Flags
from mancs_jax.cli.network_flags import define_camera, define_network, network_of
from mancs_jax.common.screen import show, tell

ARGUMENTS = ("one folder of images",)


def define(values: Flags, argv: Sequence[str]) -> None:
    define_network(values)
    values.DEFINE_string("output", None, "File to write, .npz.")
    values.DEFINE_string(
        "csv",
        None,
        "CSV of the people and cameras, with the header path,pid,camid,split. The columns camid and split may be left "
        "out, and pid and camid may be any text.",
    )
    values.DEFINE_integer("batch", 32, "Batch size, over all devices.", lower_bound=1)
    define_camera(values, "images in the folder")
    values.DEFINE_bool("flip", False, "Average the embeddings of an image and of its mirror image.")
    values.DEFINE_bool("normalize", False, "Divide each embedding by its norm.")
    flags.mark_flags_as_required(["output"], values)


def main(values: Flags, arguments: Sequence[str]) -> None:
    """Embeds the folder and writes the file."""
    if not values.output.endswith(".npz"):
        raise ValueError(f"--output={values.output}: the name has to end in .npz")
    source = network_of(values)
    keep_freed_memory()
    # Not at the top: a mistyped flag should not wait for jax.
    from mancs_jax.common.accelerators import unused_accelerator
    from mancs_jax.common.atomic_write import check_writable
    from mancs_jax.data.sources.source import name_faults, name_some
    from mancs_jax.inference.embedder import load
    from mancs_jax.inference.gallery import (
        cameras_by_name,
        create_gallery,
        described_gallery,
        embed_whole,
        find_images,
        labels_of,
        read_labels,
        write_gallery,
    )

    keep_compiled_programs()
    check_writable(values.output)
    if replaced := described_gallery(values.output):
        tell(f"{values.output} replaces {replaced}")
    names, not_images = find_images(arguments[0])  # before the model is loaded
    if not_images:
        show(f"{len(not_images):,} skipped, not an image by name: {name_some(not_images)}")
    labels = read_labels(arguments[0], values.csv) if values.csv else None
    if labels is not None:
        if unlisted := [name for name in names if name not in labels]:
            show(f"{len(unlisted):,} images skipped, not listed in {values.csv}: {name_some(unlisted)}")
        names = sorted(labels)
    if line := unused_accelerator():
        tell(line)
    embedder = load(source, batch=values.batch, flip=values.flip, normalize=values.normalize)
    camera = values.camera
    if labels is not None and camera is None:
        camera = cameras_by_name(names, labels)
    embedding, names, damaged = embed_whole(arguments[0], embedder, names, camera=camera)
    gallery = create_gallery(embedder, embedding, names, labels)
    write_gallery(values.output, gallery)
    if damaged:
        show(f"{len(damaged):,} skipped, damaged: {name_faults(damaged)}")
    unlabelled = [name for name in names if labels is None and labels_of(name) is None]
    if 0 < len(unlabelled) < len(names):
        show(
            f"without pid and camid: {len(unlabelled):,} of {len(names):,} names do not tell them, as "
            f"0002_c1s1_000451_03.jpg does: {name_some(unlabelled)}"
        )
    known = "" if gallery.pid is None else ", with pid and camid"
    show(f"{values.output}: {len(gallery.name):,} embeddings, {gallery.embedding.shape[1]} wide{known}")
