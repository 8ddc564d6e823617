"""Likelihood ratios by logistic and by isotonic regression: fitted on some people, measured on others.

    python benchmarks/calibration.py HELD_OUT.npz TEST.npz [--distance euclidean cosine]

Both files have embeddings of one model with their people and cameras, as `mancs embed --csv` writes them and `mancs
evaluate --features` reads them; docs/verify.md shows the commands. HELD_OUT has people that the model was not trained
on, TEST other people. Cllr is the cost of the fitted ratios, in bits; the minimum is that of the best monotone mapping
of the same pairs.
"""

import argparse
from pathlib import Path

import numpy as np
from measure import report
from scipy.optimize import isotonic_regression

from mancs_jax.evaluation import calibration
from mancs_jax.evaluation.comparison import Comparison, compare
from mancs_jax.evaluation.distances import from_pair
from mancs_jax.evaluation.features import load_features
from mancs_jax.evaluation.pairs import pair_blocks


def isotonic(comparison: Comparison) -> calibration.Knots:
    """Fits a monotone mapping by pool-adjacent-violators; both kinds of pairs have equal total weight.

    One pair of each kind is added at both ends (Laplace's rule of succession), without which the ratios there are 0 and
    infinite.
    """
    same, other = [], []
    for block in pair_blocks(comparison):
        values = block.values.astype(np.float64)
        same.append(from_pair(values[block.positive], comparison.distance))
        values[block.positive] = np.inf
        other.append(from_pair(values[np.isfinite(values)], comparison.distance))
    kinds = [np.concatenate(of) for of in (same, other)]
    at, place = np.unique(np.concatenate(kinds), return_inverse=True)
    is_same = np.arange(len(place)) < len(kinds[0])
    shares = [np.bincount(place[of], minlength=len(at)) / max(of.sum(), 1) for of in (is_same, ~is_same)]
    ends = [(1 / len(of),) for of in kinds]
    of_same, of_other = (np.concatenate([end, share, end]) for end, share in zip(ends, shares, strict=True))
    weights = of_same + of_other
    pooled = isotonic_regression(of_same / weights, weights=weights, increasing=False)
    at = np.concatenate([at[:1], at, at[-1:]])
    knots = []
    for start, end in zip(pooled.blocks[:-1], pooled.blocks[1:], strict=True):
        value = float(np.log(pooled.x[start]) - np.log1p(-pooled.x[start]))
        knots += [[float(at[start]), value], [float(at[end - 1]), value]]
    return knots


def main(arguments: list[str] | None = None) -> None:
    """Prints a row for each distance and mapping."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("held_out", type=Path, metavar="HELD_OUT", help=".npz of embeddings to fit on")
    parser.add_argument("test", type=Path, metavar="TEST", help=".npz of embeddings to measure on")
    parser.add_argument("--distance", nargs="+", default=["euclidean", "cosine"], choices=["euclidean", "cosine"])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    flags = parser.parse_args(arguments)
    parts = [load_features(file) for file in (flags.held_out, flags.test)]
    rows = []
    for distance in flags.distance:
        held_out, test = (compare(part["query"], part["gallery"], distance=distance) for part in parts)
        for name, fit in (("logistic", calibration.fit), ("isotonic", isotonic)):
            if (knots := fit(held_out)) is None:
                raise ValueError(f"{flags.held_out} has too few pairs, or pairs that do not overlap")
            if (found := calibration.quality(test, knots)) is None:
                raise ValueError(f"{flags.test} has pairs of one kind only")
            cost, least = found["cllr"], found["min_cllr"]
            above = 100 * (cost / least - 1) if least else None
            rows.append(
                {
                    "distance": distance,
                    "mapping": name,
                    "Cllr": f"{cost:.4f}",
                    "minimum Cllr": f"{least:.4f}",
                    "above the minimum %": above,
                }
            )
    report(rows, flags.json, pairs=found["num_positive_pairs"] + found["num_negative_pairs"])


if __name__ == "__main__":
    main()
