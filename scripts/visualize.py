"""Draws what a trained network finds and where it looks: report.html in the workdir, pictures in its results/.

python scripts/visualize.py --workdir=W [--rerank] [--dataset=OTHER] [--distance=cosine] [--normalize] [--flip]
"""

from mancs_jax.cli import visualize
from mancs_jax.cli.command_line import run

if __name__ == "__main__":
    run(visualize)
