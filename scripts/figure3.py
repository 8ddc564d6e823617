"""Draws figure 3 of the paper for both recipes: python scripts/figure3.py --output=figure3.svg."""

from pathlib import Path

from absl import app, flags

from mancs_jax.config import recipes

FLAGS = flags.FLAGS
flags.DEFINE_string("output", "figure3.svg", "File to write.")


def main(_):
    from mancs_jax.reporting.curriculum import figure_3

    drawn = {"paper": recipes.market(), "authors": recipes.market("authors")}
    Path(FLAGS.output).write_text(figure_3(drawn))
    print(FLAGS.output)


if __name__ == "__main__":
    app.run(main)
