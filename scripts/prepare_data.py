"""Prepares a data set for training and evaluation, or only checks it.

python scripts/prepare_data.py --dataset=market1501 --source=Market-1501-v15.09.15.zip --root=DIR
python scripts/prepare_data.py --dataset=walkers --root=DIR
"""

import functools
import signal
import sys

from absl import app, flags, logging

from mancs_jax.data import arrays, build, market1501, walkers_builder

FLAGS = flags.FLAGS
flags.DEFINE_enum("dataset", None, ["market1501", "walkers"], "Data set to prepare.", required=True)
flags.DEFINE_string(
    "source",
    None,
    f"Zip or folder of the data set. {market1501.HOW_TO_GET}. walkers needs none: it is rendered.",
)
flags.DEFINE_string("root", None, "Directory of the prepared data sets (config.data.root).")
flags.DEFINE_bool("check", False, "Only read the source and report; write nothing.")
flags.DEFINE_bool("overwrite", False, "Build the data set again where it exists.")
flags.DEFINE_bool("allow_differences", False, "Build although the counts differ from the published set.")


def prepare(
    dataset: str,
    source: str | None,
    root: str | None,
    *,
    check: bool = False,
    overwrite: bool = False,
    allow_differences: bool = False,
) -> str:
    """Builds a data set under `root` where it is missing, or checks its source.

    Returns:
      What to print: the table of the splits, and the path of the data set.

    Raises:
      ValueError, OSError: the source is missing or wrong, or `root` cannot be written.
    """
    if dataset == "walkers" and source:
        raise ValueError("walkers is rendered, not read: leave --source out")
    if check:
        return table(count_source(dataset, source, allow_differences))
    if not root:
        raise ValueError("--root=DIR is missing: the directory of the prepared data sets")
    path = build.prepared_path(root, dataset)
    if build.is_prepared(root, dataset) and not overwrite:
        note = " exists, nothing was done; --overwrite builds it again"
    else:
        if dataset == "walkers":
            print("rendering walkers, half a minute on one core", file=sys.stderr)
        build.build(functools.partial(create_builder, dataset, source, allow_differences), root, overwrite)
        note = ""
    return f"{table(count_prepared(dataset, root))}\n{path}{note}"


def count_source(dataset: str, source: str | None, allow_differences: bool) -> dict[str, market1501.Counts]:
    """Reads and checks a source, writes nothing, and counts its splits."""
    if dataset == "walkers":
        names = {split: list(images) for split, images in walkers_builder.render_splits().items()}
    else:
        found = market1501.open_source(source)
        market1501.check_source(found, allow_differences)
        names = found.names
    return {split: market1501.count_names(in_split) for split, in_split in names.items()}


def count_prepared(dataset: str, root: str) -> dict[str, market1501.Counts]:
    """Counts the splits of a prepared data set from its records."""
    labels = {
        split: arrays.labels(arrays.read_records(dataset, root, split)) for split in arrays.split_names(dataset, root)
    }
    return {split: market1501.count(pid, camid) for split, (pid, camid, _) in labels.items()}


def create_builder(dataset: str, source: str | None, allow_differences: bool, **kwargs):
    """Returns the TFDS builder of a data set."""
    if dataset == "walkers":
        return walkers_builder.Walkers(**kwargs)
    return market1501.Market1501(source=source, allow_differences=allow_differences, **kwargs)


def table(counts: dict[str, market1501.Counts]) -> str:
    """Returns the counts of the splits as text, one line a split."""
    lines = [f"{'split':<8}{'images':>9}{'ids':>8}{'distractors':>13}{'junk':>8}{'cameras':>9}"]
    lines += [
        f"{split:<8}{found.images:>9,}{found.ids:>8,}{found.distractors:>13,}{found.junk:>8,}{len(found.cameras):>9}"
        for split, found in counts.items()
    ]
    return "\n".join(lines)


def main(_):
    logging.set_verbosity(logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a build that is stopped is cleared away
    try:
        print(
            prepare(
                FLAGS.dataset,
                FLAGS.source,
                FLAGS.root,
                check=FLAGS.check,
                overwrite=FLAGS.overwrite,
                allow_differences=FLAGS.allow_differences,
            )
        )
    except (ValueError, OSError) as error:
        sys.exit(f"prepare_data: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit("prepare_data: stopped; what was not complete is gone")


if __name__ == "__main__":
    app.run(main)
