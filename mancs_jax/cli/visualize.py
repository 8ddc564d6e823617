"""Writes the report of a trained model: report.html in the workdir, and images in its results/.

mancs visualize --workdir=W [--rerank] [--dataset=OTHER] [--distance=cosine] [--normalize] [--flip]
                [--open_set] [--calibrate] [--groups=FILE]
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from mancs_jax.cli.analysis_flags import analyses_of, define_analyses
from mancs_jax.cli.command_line import keep_compiled_programs
from mancs_jax.cli.distance_flags import define_distance, distance_options
from mancs_jax.cli.flags import Flags
from mancs_jax.common.screen import show

ARGUMENTS = ()


def define(values: Flags, argv: Sequence[str]) -> None:
    values.DEFINE_string("workdir", None, "Directory of a run of `mancs train`.")
    values.DEFINE_string("root", "", "Directory of the data sets, if not the one used in training.")
    values.DEFINE_string("dataset", "", "Data set to evaluate on, if not the one used in training (cross-domain).")
    values.DEFINE_bool("flip", False, "Average the embeddings of an image and of its mirror image.")
    define_distance(values, "Divide each embedding by its norm.")
    define_analyses(values)
    flags.mark_flags_as_required(["workdir"], values)


def main(values: Flags, arguments: Sequence[str]) -> None:
    """Evaluates, writes the report and prints its path."""
    if Path(values.workdir).is_file():
        raise ValueError(
            f"--workdir={values.workdir} is a file: a report shows masks and curves of a run; give its folder"
        )
    from mancs_jax.common.atomic_write import check_writable
    from mancs_jax.scoring import Task, evaluate
    from mancs_jax.visualize import write_report
    from mancs_jax.workdir import Workdir

    task = Task(
        dataset=values.dataset,
        root=values.root,
        flip=values.flip,
        analyses=analyses_of(values),
        options=distance_options(values),
    )
    keep_compiled_programs()
    if Path(values.workdir).is_dir():  # a run that is not there has a line of its own
        check_writable(Workdir(Path(values.workdir)).report)
    path = write_report(values.workdir, evaluate(values.workdir, task), task)
    show(f"report: {path}\nimages: {path.parent / 'results'}")
