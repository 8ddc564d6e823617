"""Time and memory of confidence intervals at Market-1501's size, beyond ranking and pair rates.

    python benchmarks/intervals.py [--features=FILE.npz | --labels=DIR] [--repeats=3]

FILE is as for `mancs evaluate`; DIR holds the official label files for drawn embeddings. Without either, labels are
drawn with about the same statistics. Each row is measured in a process of its own; times are of the calls after the
first. Memory is beyond the inputs: embeddings, the values of all pairs, and ranks.
"""

import argparse
from pathlib import Path

from measure import add_input_flags, in_fresh_process, market_size, measured, megabytes, report

from mancs_jax.evaluation import bootstrap, comparison, pair_intervals, paired, per_query, roc
from mancs_jax.evaluation.ranking import hit_ranks

SCORES, DIFFERENCES, RATES = "intervals of scores", "paired differences", "intervals of pair rates and thresholds"


def measure_row(name: str, inputs: tuple, repeats: int) -> dict:
    """One row of the table; to be called in a fresh process."""
    query, gallery = market_size(*inputs)
    compared = comparison.kept(comparison.compare(query, gallery))
    queries = per_query.per_query(hit_ranks(compared), query.pid, query.camid)
    curve = roc.create_roc(compared)
    work = {
        SCORES: lambda: per_query.intervals(queries),
        DIFFERENCES: lambda: paired.differences(queries, queries),
        RATES: lambda: pair_intervals.with_intervals(compared, curve, roc.described(curve)),
    }[name]
    _, times = measured(work, repeats)
    sizes = {"queries": len(query.pid), "gallery": len(gallery.pid)}
    row = {
        "": name,
        "first s": times["first_s"],
        "seconds": times["median_s"],
        "peak MB": megabytes(times["peak_bytes"]),
    }
    return {"row": row, **sizes}


def main(arguments: list[str] | None = None) -> None:
    """Prints a row for each kind of interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_input_flags(parser)
    parser.add_argument("--width", type=int, default=320, help="of drawn embeddings")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls, after the first")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    flags = parser.parse_args(arguments)
    inputs = (flags.features, flags.labels, flags.width)
    found = [in_fresh_process(measure_row, name, inputs, flags.repeats) for name in (SCORES, DIFFERENCES, RATES)]
    sizes = {name: found[0][name] for name in ("queries", "gallery")}
    report([of["row"] for of in found], flags.json, **sizes, draws=bootstrap.DRAWS, repeats=flags.repeats)


if __name__ == "__main__":
    main()
