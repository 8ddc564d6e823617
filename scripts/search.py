"""Ranks the images of a gallery for one query image.

    python scripts/search.py QUERY_IMAGE --gallery=FILE.npz --workdir=W [--k=10] [--picture=OUT.png --images=FOLDER]

The gallery is a file of scripts/embed.py, made with the same workdir; the picture shows the query and its answers,
whose files are read below FOLDER, the folder that was embedded.
"""

import sys

from absl import app, flags

from mancs_jax.cli.command_line import keep_compiled_programs

FLAGS = flags.FLAGS
flags.DEFINE_string("gallery", None, "Embeddings of the gallery, .npz, by scripts/embed.py.")
flags.DEFINE_string("workdir", None, "Directory of the run of scripts/train.py that embedded the gallery.")
flags.DEFINE_integer("k", 10, "Answers; all, where the gallery has fewer.", lower_bound=1)
flags.DEFINE_enum("distance", "euclidean", ["euclidean", "cosine"], "Distance of two embeddings.")
flags.DEFINE_string("picture", None, "File to draw the query and its answers in, .png or .jpg.")
flags.DEFINE_string("images", None, "Folder of the gallery's images, for --picture.")


def main(argv):
    """Flags, then one call."""
    if len(argv) != 2:
        sys.exit("search: give one query image")
    if bool(FLAGS.picture) != bool(FLAGS.images):
        sys.exit("search: --picture=OUT.png and --images=FOLDER go together")
    # Not at the top: a mistyped flag should not wait for jax.
    from pathlib import Path

    import mancs_jax
    from mancs_jax.inference.gallery import check_network, load_gallery, picture, table
    from mancs_jax.reporting.ranked_lists import write_picture

    query = argv[1]
    keep_compiled_programs()
    try:
        gallery = load_gallery(FLAGS.gallery)
        embedder = mancs_jax.load(FLAGS.workdir, batch=1, flip=gallery.flip, normalize=gallery.normalize)
        check_network(gallery, embedder)
        k = min(FLAGS.k, len(gallery.name))
        found = mancs_jax.search(embedder(query, progress=False), gallery.embedding, k, distance=FLAGS.distance)
        print(table(found, gallery))
        if FLAGS.picture:
            write_picture(Path(FLAGS.picture), picture(query, found, gallery, FLAGS.images, embedder.image_size))
            print(f"picture: {FLAGS.picture}")
    except (ValueError, OSError) as error:
        sys.exit(f"search: {' '.join(str(error).split())}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["gallery", "workdir"])
    app.run(main)
