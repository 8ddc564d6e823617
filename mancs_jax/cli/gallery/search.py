"""Finds the images of a gallery that are nearest to a query image, or to each image of a folder.

    mancs gallery search IMAGE --gallery=people.gallery --network=market1501 [--k=10]
        [--max_distance=3.1 | --max_fpr=0.001 | --thresholds_of=labelled.json]
        [--camera=3] [--person=7] [--name='2026-11/*'] [--since=2026-11-30] [--before=2026-12-01] [--by_person]
        [--report=answers.html] [--json=answers.json]

Filters are applied before distances are computed, so there are k results if k images match them. The query itself is
excluded from its results.
"""

from collections.abc import Sequence

from mancs_jax.cli.command_line import keep_compiled_programs
from mancs_jax.cli.flags import Flags
from mancs_jax.cli.gallery_flags import define_filters, define_gallery, filters_of
from mancs_jax.cli.network_flags import define_camera, define_network, network_of
from mancs_jax.cli.threshold_flags import check_threshold, define_threshold, given_threshold
from mancs_jax.common.screen import show

ARGUMENTS = ("one query image or a folder of them",)


def define(values: Flags, argv: Sequence[str]) -> None:
    define_gallery(values)
    define_network(values)
    define_filters(values)
    define_camera(values, "query images", "query_camera")
    values.DEFINE_integer("k", 10, "Number of results for each query.", lower_bound=1)
    define_threshold(values, "Images beyond this distance are not returned.")
    values.DEFINE_bool("by_person", False, "Return only the nearest image of each person.")
    values.DEFINE_bool("index", False, "Use an approximate index (FAISS, or HNSW of pgvector).")
    values.DEFINE_string("report", None, "HTML page of queries and their results, .html.")
    values.DEFINE_string("json", None, "JSON file to which the results are written.")
    values.DEFINE_string("images", None, "Folder of the gallery images, if not the one that they were added from.")


def main(values: Flags, arguments: Sequence[str]) -> None:
    """Finds the nearest images and prints them in a table."""
    if values.report and not values.report.endswith(".html"):
        raise ValueError(f"--report={values.report}: the name has to end in .html")
    source = network_of(values)
    check_threshold(values)
    # Not at the top: a mistyped flag should not wait for jax.
    from mancs_jax.common.atomic_write import check_writable, write_json, write_text
    from mancs_jax.data.sources.source import name_faults, name_some
    from mancs_jax.evaluation.threshold import words_of
    from mancs_jax.gallery import answers
    from mancs_jax.gallery.gallery import Gallery
    from mancs_jax.inference.answers import find_queries
    from mancs_jax.inference.embedder import load

    keep_compiled_programs()
    for path in filter(None, (values.report, values.json)):
        check_writable(path)
    with Gallery(values.gallery) as gallery:
        facts = gallery.facts
    queries = find_queries(arguments[0])
    if queries.not_images:
        show(f"{len(queries.not_images):,} files skipped, no images by name: {name_some(queries.not_images)}")
    batch = 1 if len(queries.names) == 1 else 32
    embedder = load(source, batch=batch, flip=facts.flip, normalize=facts.normalize)
    with Gallery(values.gallery, embedder) as gallery:
        how = answers.How(
            values.k,
            values.distance,
            given_threshold(values, embedder),
            values.by_person,
            values.index,
            filters_of(values),
            values.query_camera,
        )
        answered, damaged = answers.find_answers(gallery, queries, how)
        number, recall = len(gallery), gallery.store.recall
    if damaged:
        show(f"{len(damaged):,} images skipped, damaged: {name_faults(damaged)}")
    if recall:
        show("index: recall@10 " + ", ".join(f"{share:.3f} ({name})" for name, share in recall.items()))
    show(answers.as_text(answered, how))
    if how.max_distance is not None:
        show(f"threshold: {words_of(how.max_distance, number)}")
    if values.json:
        write_json(values.json, answers.as_json(answered, how, facts))
        show(f"results: {values.json}")
    if values.report:
        write_text(
            values.report,
            answers.page(answered, how, values.gallery, number, source, embedder.image_size, values.images),
        )
        show(f"report: {values.report}")
