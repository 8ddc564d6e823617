"""Scores a trained network, or anybody's embeddings.

python scripts/evaluate.py --workdir=W [--multi_query] [--rerank] [--dataset=OTHER] [--flip] ...
python scripts/evaluate.py --features=FILE.npz [--distance=cosine] [--rerank --k1=20 --k2=6 --lambda=0.3] [--json=OUT]
"""

from mancs_jax.cli import evaluate
from mancs_jax.cli.command_line import run

if __name__ == "__main__":
    run(evaluate)
