"""Ranks the images of a gallery for one query image, or for each image of a folder.

    mancs search QUERY --gallery=FILE.npz --workdir=W [--k=10] [--json=OUT.json] [--csv=people.csv]
        [--max_distance=3.1 | --max_fpr=0.001 | --thresholds_of=labelled.json]
        [--picture=OUT.png] [--report=OUT.html] [--images=FOLDER]

The gallery is a file of `mancs embed`, made with the same model. The people in the query images may be unknown. The
query itself is excluded from its results. Picture and page show each query and its results, whose images are read from
FOLDER, the folder that was embedded.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from mancs_jax.cli.command_line import keep_compiled_programs
from mancs_jax.cli.flags import Flags
from mancs_jax.cli.network_flags import define_camera, define_network, network_of
from mancs_jax.cli.threshold_flags import check_threshold, define_threshold, given_threshold
from mancs_jax.common.screen import show, tell

ARGUMENTS = ("one query image or a folder of them",)
PICTURES = (".png", ".jpg", ".jpeg", ".webp")  # formats of --picture


def define(values: Flags, argv: Sequence[str]) -> None:
    values.DEFINE_string("gallery", None, "Embeddings to search: a .npz file of `mancs embed`.")
    define_network(values)
    define_camera(values, "query images")
    values.DEFINE_integer("k", 10, "Number of results for each query.", lower_bound=1)
    define_threshold(values, "Images beyond this distance are not returned.")
    values.DEFINE_string("picture", None, "Image file for a drawing of the query and its results, .png, .jpg or .webp.")
    values.DEFINE_string("report", None, "HTML page of all queries and their results, .html.")
    values.DEFINE_string("json", None, "JSON file to which the results are written.")
    values.DEFINE_string(
        "csv",
        None,
        "CSV of the people and cameras of the queries, as for `mancs embed`. Correct results are then green, wrong "
        "ones red, and those without labels in the gallery grey.",
    )
    values.DEFINE_string("images", None, "Folder of the gallery images, for --picture and --report.")
    flags.mark_flags_as_required(["gallery"], values)


def main(values: Flags, arguments: Sequence[str]) -> None:
    """Finds the nearest images and prints them in a table."""
    if bool(values.picture or values.report) != bool(values.images):
        raise ValueError("--picture=OUT.png or --report=OUT.html and --images=FOLDER go together")
    if values.picture and Path(values.picture).suffix.lower() not in PICTURES:
        raise ValueError(f"--picture={values.picture}: the name has to end in {', '.join(PICTURES)}")
    if values.report and not values.report.endswith(".html"):
        raise ValueError(f"--report={values.report}: the name has to end in .html")
    check_threshold(values)
    # Not at the top: a mistyped flag should not wait for jax.
    from mancs_jax.common.atomic_write import check_writable, write_json, write_text
    from mancs_jax.data.sources.source import name_faults, name_some
    from mancs_jax.evaluation.threshold import described, words_of
    from mancs_jax.inference import answers
    from mancs_jax.inference.embedder import load
    from mancs_jax.inference.gallery import cameras_by_name, check_network, load_gallery, read_labels
    from mancs_jax.reporting.ranked_lists import write_picture

    source = network_of(values)
    keep_compiled_programs()
    for path in filter(None, (values.picture, values.report, values.json)):
        check_writable(path)
    gallery = load_gallery(values.gallery)
    queries = answers.find_queries(arguments[0])
    if queries.not_images:
        show(f"{len(queries.not_images):,} skipped, not an image by name: {name_some(queries.not_images)}")
    labels = read_labels(queries.folder, values.csv, skip_missing=True) if values.csv else None
    number = len(queries.names)
    if values.picture and number > answers.MOST_DRAWN:
        raise ValueError(
            f"--picture draws {answers.MOST_DRAWN} queries at most, and {arguments[0]} has {number:,}: "
            "--report=OUT.html shows all"
        )
    embedder = load(source, batch=1 if number == 1 else 32, flip=gallery.flip, normalize=gallery.normalize)
    check_network(gallery, embedder)
    threshold = given_threshold(values, embedder)
    camera = values.camera
    if labels is not None and camera is None:
        camera = cameras_by_name(queries.names, labels)
    found, damaged = answers.find_answers(
        queries,
        embedder,
        gallery,
        k=values.k,
        camera=camera,
        distance=values.distance,
        max_distance=threshold,
        labels=labels,
    )
    if damaged:
        show(f"{len(damaged):,} skipped, damaged: {name_faults(damaged)}")
    show(answers.as_text(found, gallery, threshold))
    if threshold is not None:
        show(f"threshold: {words_of(threshold, len(gallery.name))}")
    if values.csv and (line := answers.unknown_people(found, gallery)):
        show(line)
    if values.json:
        how = {"distance": values.distance, "k": values.k, **described(threshold), "skipped": damaged}
        write_json(values.json, how | answers.as_json(found, gallery))
        show(f"results: {values.json}")
    if values.images:
        images, faults = answers.result_images(found, gallery, values.images, embedder.image_size)
        if faults:
            tell(
                f"{len(faults):,} of {len(images):,} result images cannot be read in {values.images} and are grey: "
                f"{name_faults(faults)}; --images has to be the folder that was embedded"
            )
    if values.picture:
        write_picture(Path(values.picture), answers.draw(found, gallery, images, embedder.image_size))
        show(f"picture: {values.picture}")
    if values.report:
        shown = answers.page(
            found,
            gallery,
            images,
            embedder.image_size,
            place=values.gallery,
            network=source,
            distance=values.distance,
            max_distance=threshold,
        )
        write_text(values.report, shown)
        show(f"report: {values.report}")
