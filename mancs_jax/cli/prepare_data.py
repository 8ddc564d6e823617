"""Prepares a data set for training and evaluation, or only checks it.

mancs prepare-data --dataset=market1501 --source=Market-1501-v15.09.15.zip --root=DIR
mancs prepare-data --dataset=cuhk03_detected --source=cuhk-03.mat --protocol_file=FILE --root=DIR
mancs prepare-data --dataset=folder --name=MYDATA --source=FOLDER --csv=FILE --root=DIR
mancs prepare-data --dataset=walkers --root=DIR
"""

import signal
from collections.abc import Sequence

from absl import flags

from mancs_jax.cli.flags import Flags
from mancs_jax.common.screen import show
from mancs_jax.config import names

ARGUMENTS = ()


def define(values: Flags, argv: Sequence[str]) -> None:
    values.DEFINE_enum("dataset", None, [*names.DATASETS, "folder"], "Data set to prepare; folder: your own.")
    values.DEFINE_string(
        "source",
        None,
        "Zip or folder of the data set, or cuhk-03.mat. walkers needs none: it is rendered. Without it, a message says "
        "where to get the data set.",
    )
    values.DEFINE_string("root", None, "Directory of the prepared data sets (config.data.root).")
    values.DEFINE_string(
        "protocol_file", None, "For CUHK03, 767/700: cuhk03_new_protocol_config_*.mat, if not next to it."
    )
    values.DEFINE_string("name", None, "For --dataset=folder: name of the data set, as config.data.name.")
    values.DEFINE_string(
        "csv", None, "For --dataset=folder: CSV with the header path,pid,camid,split; camid may be left out."
    )
    values.DEFINE_bool("check", False, "Only read and check the source; write nothing.")
    values.DEFINE_bool("overwrite", False, "Build the data set again if it exists.")
    values.DEFINE_bool("allow_differences", False, "Build although the counts differ from the published set.")
    flags.mark_flags_as_required(["dataset"], values)


def main(values: Flags, arguments: Sequence[str]) -> None:
    """Prepares or checks the data set and prints its counts."""
    # Not at the top: a mistyped flag should not wait for TFDS.
    from absl import logging

    from mancs_jax.data.prepare import prepare

    logging.set_verbosity(logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a build that is stopped is cleared away
    try:
        show(
            prepare(
                values.dataset,
                values.source,
                values.root,
                protocol_file=values.protocol_file,
                name=values.name,
                csv=values.csv,
                only_check=values.check,
                overwrite=values.overwrite,
                allow_differences=values.allow_differences,
            )
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; what was not complete is gone") from None
