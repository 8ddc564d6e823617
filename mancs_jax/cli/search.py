"""Ranks the images of a gallery for one query image.

    python scripts/search.py QUERY_IMAGE --gallery=FILE.npz --workdir=W [--k=10] [--max_distance=D]
        [--picture=OUT.png --images=FOLDER]

The gallery is a file of scripts/embed.py, made with the same network; the picture shows the query and its answers,
whose files are read below FOLDER, the folder that was embedded.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from mancs_jax.cli.command_line import keep_compiled_programs
from mancs_jax.cli.network_flags import define_network, network_of

ARGUMENTS = ("one query image",)
PICTURES = (".png", ".jpg", ".jpeg", ".webp")  # formats of --picture


def define(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Defines the flags."""
    flags.DEFINE_string("gallery", None, "File of `mancs embed`.", flag_values=values)
    define_network(values)
    flags.DEFINE_integer("k", 10, "Gallery images to find.", lower_bound=1, flag_values=values)
    flags.DEFINE_enum(
        "distance", "euclidean", ["euclidean", "cosine"], "Distance of two embeddings.", flag_values=values
    )
    flags.DEFINE_float(
        "max_distance", None, "Images that are farther are no answers.", lower_bound=0.0, flag_values=values
    )
    flags.DEFINE_string("picture", None, "File to draw the query and its answers in, .png or .jpg.", flag_values=values)
    flags.DEFINE_string("images", None, "Folder of the gallery's images, for --picture.", flag_values=values)
    flags.mark_flags_as_required(["gallery"], values)


def main(values: flags.FlagValues, arguments: Sequence[str]) -> None:
    """Finds the nearest images and prints them in a table."""
    if bool(values.picture) != bool(values.images):
        raise ValueError("--picture=OUT.png and --images=FOLDER go together")
    if values.picture and Path(values.picture).suffix.lower() not in PICTURES:
        raise ValueError(f"--picture={values.picture}: the name has to end in {', '.join(PICTURES)}")
    # Not at the top: a mistyped flag should not wait for jax.
    import mancs_jax
    from mancs_jax.inference.gallery import check_network, load_gallery, picture, table, without_itself
    from mancs_jax.reporting.ranked_lists import write_picture

    query, source = arguments[0], network_of(values)
    keep_compiled_programs()
    gallery = load_gallery(values.gallery)
    embedder = mancs_jax.load(source, batch=1, flip=gallery.flip, normalize=gallery.normalize)
    check_network(gallery, embedder)
    embedding = embedder(query, progress=False)
    found = mancs_jax.search(
        embedding,
        gallery.embedding,
        min(values.k + 1, len(gallery.name)),
        distance=values.distance,
        max_distance=values.max_distance,
    )
    found, itself = without_itself(found, gallery, query, embedding, values.k)
    if itself:
        print(f"the gallery has the query itself, {itself}, which is left out")
    print(table(found, gallery))
    if values.picture:
        write_picture(Path(values.picture), picture(query, found, gallery, values.images, embedder.image_size))
        print(f"picture: {values.picture}")
