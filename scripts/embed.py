"""Embeds every image of a folder with a trained network.

    python scripts/embed.py FOLDER --workdir=W --output=FILE.npz [--flip] [--normalize]

The file has embedding, float32 [N, D], and name, the paths below the folder, sorted; where all names are like
Market-1501's (0002_c1s1_000451_03.jpg), pid and camid, int32 [N], too.
"""

import sys

from absl import app, flags

from mancs_jax.cli.command_line import keep_compiled_programs, keep_freed_memory

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Directory of a run of scripts/train.py.")
flags.DEFINE_string("output", None, "File to write, .npz.")
flags.DEFINE_integer("batch", 32, "Images that go through all devices together.", lower_bound=1)
flags.DEFINE_bool("flip", False, "Average the embeddings of an image and of its mirror image.")
flags.DEFINE_bool("normalize", False, "Divide each embedding by its norm.")


def main(argv):
    """Flags, then one call."""
    if len(argv) != 2 or not FLAGS.output.endswith(".npz"):
        sys.exit("embed: give one folder and --output=FILE.npz")
    keep_freed_memory()
    # Not at the top: a mistyped flag should not wait for jax.
    import mancs_jax
    from mancs_jax.inference.gallery import embed_folder, image_names, write_gallery

    keep_compiled_programs()
    try:
        image_names(argv[1])  # before the network is loaded
        embedder = mancs_jax.load(FLAGS.workdir, batch=FLAGS.batch, flip=FLAGS.flip, normalize=FLAGS.normalize)
        gallery = embed_folder(argv[1], embedder)
        write_gallery(FLAGS.output, gallery)
    except (ValueError, OSError) as error:
        sys.exit(f"embed: {' '.join(str(error).split())}")
    labels = "" if gallery.pid is None else ", with pid and camid"
    print(f"{FLAGS.output}: {len(gallery.name):,} embeddings, {gallery.embedding.shape[1]} wide{labels}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir", "output"])
    app.run(main)
