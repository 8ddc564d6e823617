"""Evaluates a trained model, or embeddings from any source.

mancs evaluate --workdir=W [--multi_query] [--rerank] [--dataset=OTHER] [--flip] ...
mancs evaluate --network=market1501 --root=data ...
mancs evaluate --network=market1501 --root=data --dataset=cuhk01 --single_shot --identities=486 ...
mancs evaluate --workdir=W [--open_set] [--calibrate] [--groups=FILE] ...
mancs evaluate --features=FILE.npz [--distance=cosine] [--rerank --k1=20 --k2=6 --lambda=0.3] [--json=OUT]
mancs evaluate --features=FILE.npz --csv=people.csv ...
"""

from collections.abc import Sequence
from typing import Any

from mancs_jax.cli.analysis_flags import analyses_of, define_analyses
from mancs_jax.cli.command_line import keep_compiled_programs
from mancs_jax.cli.distance_flags import define_distance, distance_options
from mancs_jax.cli.flags import Flags
from mancs_jax.cli.network_flags import define_network
from mancs_jax.common.screen import show

ARGUMENTS = ()
OF_RERANKING = ("k1", "k2", "lambda")
OF_WORKDIR = ("root", "dataset", "multi_query", "distractors", "flip", "baselines", "repeats")
OF_SINGLE_SHOT = ("splits", "identities", "seed", "query_camera", "gallery_camera")


def define(values: Flags, argv: Sequence[str]) -> None:
    define_network(values)
    values.DEFINE_string(
        "features",
        None,
        "Embeddings to evaluate instead: a .npz file with query [Q, D], gallery [G, D], query_pid, query_camid, "
        "gallery_pid, gallery_camid, and for multi-query multi_query, multi_query_pid, multi_query_camid; or a folder "
        "with a .npy file for each, which may be larger than memory. Ids as in Market-1501: -1 is junk, 0 a "
        "distractor.",
    )
    values.DEFINE_string(
        "queries",
        "",
        "If --features is a file of mancs embed: the folder in it whose images are the queries; the others are the "
        "gallery. Without it each image of a person is a query.",
    )
    values.DEFINE_string(
        "csv",
        None,
        "If --features is a file of mancs embed: CSV of the people and cameras, with the header "
        "path,pid,camid,split. The columns camid and split may be left out, and pid and camid may be any text.",
    )
    values.DEFINE_string(
        "json",
        None,
        "File to which the results are written. The scores of each query go to a file next to it, whose name "
        "ends in .queries.npz; mancs compare reads both.",
    )
    values.DEFINE_integer(
        "gallery_size",
        0,
        "Number of images of other people for which the table of thresholds shows the expected number of false alarms "
        "per query; 0: as many as the gallery that is evaluated.",
        lower_bound=0,
    )
    define_distance(values, "Divide each embedding by its norm. Multi-query does so in any case.")
    values.DEFINE_string("root", "", "Directory of the data sets, if not the one used in training.")
    values.DEFINE_string("dataset", "", "Data set to evaluate on, if not the one used in training (cross-domain).")
    values.DEFINE_bool("multi_query", False, "Evaluate multi-query as well, pooled by mean and by max.")
    values.DEFINE_string("distractors", "", "Data set of distractors to add to the gallery: market1501_500k.")
    values.DEFINE_bool("flip", False, "Average the embeddings of an image and of its mirror image.")
    values.DEFINE_bool("baselines", False, "Evaluate an untrained network and a colour histogram too.")
    values.DEFINE_integer("repeats", 100, "For CUHK03's classic protocol: number of randomly sampled galleries.")
    define_analyses(values)
    _define_single_shot(values)


def _define_single_shot(values: Flags) -> None:
    values.DEFINE_bool(
        "single_shot",
        False,
        "Use the single-shot protocol instead, as usual for CUHK01, VIPeR, PRID and GRID: one image of each "
        "test identity under one camera is the query, one image of each under another is the gallery; mean and "
        "standard deviation over random splits. Images are those of the splits query and gallery, or, of a data set "
        "without them, of train.",
    )
    values.DEFINE_integer("splits", 10, "For --single_shot: number of random splits.")
    values.DEFINE_integer(
        "identities",
        0,
        "For --single_shot: number of test identities that each split samples from those seen by both cameras; 0: all.",
    )
    values.DEFINE_integer("seed", 0, "For --single_shot: seed of the splits.")
    values.DEFINE_integer(
        "query_camera",
        None,
        "For --single_shot: camera (camid) that the queries come from; give --gallery_camera, too. By default the "
        "lower of two cameras; with more cameras, each split samples two cameras for each identity.",
    )
    values.DEFINE_integer(
        "gallery_camera", None, "For --single_shot: camera (camid) that the gallery comes from, see --query_camera."
    )


def main(values: Flags, arguments: Sequence[str]) -> None:
    """Evaluates and prints the table."""
    if sum(map(bool, (values.workdir, values.network, values.features))) != 1:
        raise ValueError("give one of --workdir=DIRECTORY of a run, --network=NAME and --features=FILE.npz")
    if values.features and (given := [f"--{name}" for name in (*OF_WORKDIR, "single_shot") if values[name].present]):
        raise ValueError(f"the file of --features says what it is evaluated on; leave {', '.join(given)} out")
    if values.queries and not values.features:
        raise ValueError("--queries goes with --features=FILE of mancs embed")
    if values.csv and not values.features:
        raise ValueError(
            "--csv goes with --features=FILE of mancs embed; mancs prepare-data takes the CSV of a data set"
        )
    if not values.rerank and (given := [f"--{name}" for name in OF_RERANKING if values[name].present]):
        raise ValueError(f"without --rerank there is no use for {', '.join(given)}")
    if not values.single_shot and (given := [f"--{name}" for name in OF_SINGLE_SHOT if values[name].present]):
        raise ValueError(f"without --single_shot there is no use for {', '.join(given)}")
    # Not at the top: a mistyped flag should not wait for jax.
    from mancs_jax.common.atomic_write import check_writable, is_opened, write_json
    from mancs_jax.common.local_path import local_path
    from mancs_jax.evaluation import results
    from mancs_jax.evaluation.further_tables import further_tables
    from mancs_jax.evaluation.per_query import write_queries
    from mancs_jax.workdir import queries_path

    keep_compiled_programs()
    if values.json:
        check_writable(values.json)
        keeps_queries = not is_opened(local_path(values.json))
        if keeps_queries:
            check_writable(queries_path(values.json))
    evaluation = None
    options, analyses = distance_options(values), analyses_of(values)
    if values.features:
        from mancs_jax.evaluation.features import SINGLE_QUERY, evaluate_file  # without what networks need

        content, queries_by_row = evaluate_file(
            values.features, options, queries=values.queries, csv=values.csv, analyses=analyses
        )
        rows = {SINGLE_QUERY: content} | {name: of for name, of in content.items() if name.startswith("multi_query")}
    else:
        from mancs_jax.evaluation.single_shot import SingleShot
        from mancs_jax.scoring import Task, evaluate, write_results

        fields: dict[str, Any] = {name: values[name].value for name in OF_WORKDIR}
        if values.single_shot:
            protocol: dict[str, Any] = {name: values[name].value for name in OF_SINGLE_SHOT}
            fields["single_shot"] = SingleShot(**protocol)
        task = Task(**fields, analyses=analyses, options=options)
        evaluation = evaluate(values.workdir or values.network, task, write=False)
        content = rows = evaluation.results
        queries_by_row = evaluation.queries
    show(results.table(rows))
    if not values.single_shot and (line := results.interval_note(rows)):
        show(line)
    show(results.splits(rows) if values.single_shot else results.matches(rows))
    if values.features and (line := results.distractors(content)):
        show(line)
    if verification := results.verification_table(rows, values.gallery_size):
        show(f"\n{verification}\n{results.verification_note(rows, values.gallery_size)}")
    for text in further_tables(rows):
        show(f"\n{text}")
    # After the screen: a disk that is full or read-only takes no result away.
    if values.json:
        write_json(values.json, content)
        if queries_by_row and keeps_queries:
            write_queries(values.json, queries_by_row)
    written = []
    if evaluation and evaluation.workdir:
        write_results(evaluation)
        written = [str(evaluation.workdir.results)]
    written += [values.json] if values.json else []
    show(f"results: {', '.join(written) or 'not written to a file; use --json=FILE'}")
