"""How often confidence intervals contain the truth, in simulations where it is known.

    python benchmarks/coverage.py scores [--repeats=500]
    python benchmarks/coverage.py differences [--repeats=500]
    python benchmarks/coverage.py rates [--repeats=500]

`scores` simulates test sets of identities of varying difficulty with several queries each. A 95 % interval should
contain the score of the whole population in 95 % of the test sets. Percentile, BCa and studentised intervals draw
identities; the naive interval draws queries, as if they were independent. `differences` compares two models of equal
quality, as mancs compare does: 5 % of the differences should be significant. `rates` simulates embeddings, and asks for
the true positive rate at a false positive rate of 1 %.

`scores` and `differences` use only NumPy. The generator of test set r is `numpy.random.default_rng([seed, r])`.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from measure import report

from mancs_jax.evaluation import bootstrap, pair_intervals, paired, per_query, roc
from mancs_jax.evaluation.comparison import compare, kept
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.metrics import HitRanks
from mancs_jax.evaluation.per_query import PerQuery

DIFFICULTY, OF_QUERY, OF_MODEL = 1.5, 0.7, 0.5  # standard deviations of logits
EASE = 2.0  # mean logit, which makes rank-1 about 81 %, as that of market1501
MOST_QUERIES = 8  # of an identity: from 1 to 8, 4.5 on average, as in Market-1501
NUM_MATCHES = 5
SCORES = ("rank-1", "mAP_plain", "mAP", "mINP")
IDENTITIES = (750, 100, 50, 20)
NORMAL = NormalDist()
BOUNDS = np.array([0.5 - bootstrap.CONFIDENCE / 2, 0.5 + bootstrap.CONFIDENCE / 2])


class Logits(NamedTuple):
    """Simulated queries: how easily the next image of the person is found."""

    pid: np.ndarray  # int [Q]
    value: np.ndarray  # [Q]


def simulated_logits(rng: np.random.Generator, num_identities: int) -> Logits:
    """Draws the queries of a test set; identities of one difficulty have easy and hard queries."""
    number = rng.integers(1, MOST_QUERIES + 1, num_identities)
    pid = np.repeat(np.arange(1, num_identities + 1), number)
    difficulty = rng.normal(EASE, DIFFICULTY, num_identities)[pid - 1]
    return Logits(pid, difficulty + rng.normal(0, OF_QUERY, len(pid)))


def of_model(rng: np.random.Generator, logits: Logits) -> Logits:
    """Draws a model of the usual quality: it finds some identities easier, and others harder."""
    own = rng.normal(0, OF_MODEL, logits.pid[-1])
    return logits._replace(value=logits.value + own[logits.pid - 1])


def ranked(rng: np.random.Generator, logits: Logits) -> PerQuery:
    """Draws the ranks of the matches: the images in front of each are geometrically distributed."""
    share = np.clip(1 / (1 + np.exp(-logits.value)), 0.01, None)
    ranks = np.cumsum(rng.geometric(share[:, None], (len(share), NUM_MATCHES)), axis=1)
    hits = HitRanks(ranks.astype(np.int32), np.full(len(share), NUM_MATCHES, np.int32))
    return per_query.per_query(hits, logits.pid, np.ones(len(share), np.int32))


def true_scores(num_identities: int = 400_000, seed: int = 0) -> dict[str, float]:
    """Scores of the population, from a test set so large that its own error does not matter."""
    rng = np.random.default_rng([seed, 2**31])
    queries = ranked(rng, simulated_logits(rng, num_identities))
    return {name: float(per_query.score_values(queries)[name].mean()) for name in SCORES}


class Draws(NamedTuple):
    """Means of S scores in a test set, and in its bootstrap draws."""

    mean: np.ndarray  # [S]
    error: np.ndarray  # [S], standard error by linearisation
    of_draws: np.ndarray  # [draws, S]
    errors_of_draws: np.ndarray  # [draws, S]
    influence: np.ndarray  # [I, S], of each identity


def drawn(values: np.ndarray, pid: np.ndarray, seed: int) -> Draws:
    """Draws the units of `pid` and computes what the kinds of intervals need."""
    people, unit = np.unique(pid, return_inverse=True)
    weights = bootstrap.identity_weights(len(people), seed=seed)
    number = np.bincount(unit).astype(float)
    sums = np.stack([np.bincount(unit, column) for column in values.T], axis=1)
    mean, means = values.mean(axis=0), bootstrap.weighted_means(values, unit, weights)
    totals = (weights @ number)[:, None]
    # sum of w (S - mean n)^2 over the identities, for each draw's own mean
    square = (
        weights @ sums**2 - 2 * means * (weights @ (sums * number[:, None])) + means**2 * (weights @ number**2)[:, None]
    )
    influence = sums - mean * number[:, None]
    error = np.sqrt((influence**2).sum(axis=0)) / number.sum()
    return Draws(mean, error, means, np.sqrt(np.maximum(square, 0)) / totals, influence)


def percentile(draws: Draws) -> np.ndarray:
    return np.stack([bootstrap.interval(column) for column in draws.of_draws.T])


def bias_corrected(draws: Draws) -> np.ndarray:
    """BCa (Efron, 1987); the acceleration is that of the linearised mean."""
    found = []
    for mean, column, influence in zip(draws.mean, draws.of_draws.T, draws.influence.T, strict=True):
        share = np.clip(np.mean(column < mean) + np.mean(column == mean) / 2, 1e-4, 1 - 1e-4)
        bias = NORMAL.inv_cdf(float(share))
        acceleration = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
        z = bias + np.array([NORMAL.inv_cdf(bound) for bound in BOUNDS])
        levels = [NORMAL.cdf(bias + value / (1 - acceleration * value)) for value in z]
        found.append(np.quantile(column, levels))
    return np.array(found)


def studentised(draws: Draws) -> np.ndarray:
    t = (draws.of_draws - draws.mean) / np.maximum(draws.errors_of_draws, 1e-12)
    return np.stack([draws.mean - end * draws.error for end in np.quantile(t, BOUNDS[::-1], axis=0)], axis=1)


KINDS: dict[str, Callable[[Draws], np.ndarray]] = {
    "percentile": percentile,
    "BCa": bias_corrected,
    "studentised": studentised,
}


def score_coverage(repeats: int, seed: int, sizes: tuple[int, ...] = IDENTITIES) -> list[dict[str, Any]]:
    """Returns a row for each number of identities and kind: coverage and mean width for rank-1 and mAP."""
    truth = true_scores(seed=seed)
    wanted = np.array([truth[name] for name in SCORES])
    rows = []
    for size in sizes:
        ends: dict[str, list[np.ndarray]] = {}
        for repeat in range(repeats):
            rng = np.random.default_rng([seed, repeat])
            queries = ranked(rng, simulated_logits(rng, size))
            values_of_score = per_query.score_values(queries)
            values = np.stack([values_of_score[name] for name in SCORES], axis=1)
            by_identity = drawn(values, queries.pid, seed=repeat)
            for name, kind in KINDS.items():
                ends.setdefault(f"{name}, by identity", []).append(kind(by_identity))
            if size == max(sizes):
                by_query = drawn(values, np.arange(len(values)), seed=repeat)
                ends.setdefault("percentile, by query (naive)", []).append(percentile(by_query))
        for name, found in ends.items():
            low, high = np.moveaxis(np.array(found), 2, 0)
            covered = ((low <= wanted) & (wanted <= high)).mean(axis=0)
            width = (high - low).mean(axis=0)
            row: dict[str, Any] = {"identities": size, "interval": name}
            row |= {f"coverage %, {score}": 100 * float(covered[i]) for i, score in enumerate(SCORES)}
            row |= {f"width, {score}": 100 * float(width[i]) for i, score in enumerate(SCORES[:2])}
            rows.append(row)
    return rows


def equal_models(repeats: int, seed: int, sizes: tuple[int, ...] = IDENTITIES) -> list[dict[str, Any]]:
    """Returns a row for each number of identities: how often two models of equal quality differ significantly."""
    rows = []
    for size in sizes:
        significant = []
        for repeat in range(repeats):
            rng = np.random.default_rng([seed, repeat])
            logits = simulated_logits(rng, size)
            first, second = (ranked(rng, of_model(rng, logits)) for _ in range(2))
            found = paired.differences(first, second)
            significant.append([found[name]["significant"] for name in SCORES])
        share = np.mean(significant, axis=0)
        rows.append(
            {"identities": size} | {f"significant %, {name}": 100 * float(share[i]) for i, name in enumerate(SCORES)}
        )
    return rows


def simulated_embeddings(rng: np.random.Generator, num_identities: int) -> tuple[Labelled, Labelled]:
    """Draws two query and four gallery images of each identity, in which some people vary more than others."""
    pid = np.arange(1, num_identities + 1)
    centre = rng.normal(size=(num_identities, 6))
    spread = 0.35 * np.exp(rng.normal(0, 0.4, num_identities))

    def drawn_images(number: int, camid: int) -> Labelled:
        of = np.repeat(pid, number)
        noise = rng.normal(size=(len(of), 6)) * spread[of - 1, None]
        return Labelled((centre[of - 1] + noise).astype(np.float32), of, np.full(len(of), camid))

    return drawn_images(2, 1), drawn_images(4, 2)


def true_rate(max_fpr: float, seed: int, num_identities: int = 4000) -> tuple[float, float]:
    """(true positive rate, threshold) of the population, from a test set whose own error does not matter."""
    query, gallery = simulated_embeddings(np.random.default_rng([seed, 2**31]), num_identities)
    at = roc.at_rate(roc.create_roc(compare(query, gallery)), max_fpr)
    return at["tpr"], at["distance"]


def rate_coverage(repeats: int, seed: int, sizes: tuple[int, ...] = (100, 50)) -> list[dict[str, Any]]:
    """Returns a row for each number of identities: coverage and mean width of the intervals of pair rates."""
    max_fpr, rows = roc.RATES[0], []
    tpr, distance = true_rate(max_fpr, seed)
    for size in sizes:
        covered, widths, naive = [], [], []
        for repeat in range(repeats):
            query, gallery = simulated_embeddings(np.random.default_rng([seed, repeat]), size)
            compared = kept(compare(query, gallery))
            curve = roc.create_roc(compared)
            at = pair_intervals.with_intervals(compared, curve, roc.described(curve))["at"][0]
            ends = at["tpr_interval"], at["distance_interval"] or [0.0, np.inf]
            low, high = bootstrap.wilson(at["tpr"], curve.num_positives)
            covered.append([ends[0][0] <= tpr <= ends[0][1], ends[1][0] <= distance <= ends[1][1], low <= tpr <= high])
            widths.append(ends[0][1] - ends[0][0])
            naive.append(high - low)
        share = np.mean(covered, axis=0)
        rows.append(
            {
                "identities": size,
                "coverage %, TPR": 100 * float(share[0]),
                "coverage %, threshold": 100 * float(share[1]),
                "width, TPR": 100 * float(np.mean(widths)),
                "coverage %, TPR by pair (naive)": 100 * float(share[2]),
                "width by pair (naive)": 100 * float(np.mean(naive)),
            }
        )
    return rows


SIMULATIONS = {"scores": score_coverage, "differences": equal_models, "rates": rate_coverage}


def main(arguments: list[str] | None = None) -> None:
    """Prints a row for each number of identities and kind of interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("simulation", choices=list(SIMULATIONS))
    parser.add_argument("--repeats", type=int, default=500, help="simulated test sets")
    parser.add_argument("--identities", type=int, nargs="+", help="of a test set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    flags = parser.parse_args(arguments)
    sizes = (tuple(flags.identities),) if flags.identities else ()
    rows = SIMULATIONS[flags.simulation](flags.repeats, flags.seed, *sizes)
    report(rows, flags.json, repeats=flags.repeats, draws=bootstrap.DRAWS)


if __name__ == "__main__":
    main()
