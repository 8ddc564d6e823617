"""The files that a command line writes and those that it reads, for `common.outputs.check_outputs`."""

from collections.abc import Sequence
from pathlib import Path

from mancs_jax.cli.flags import Flags
from mancs_jax.common.atomic_write import is_opened
from mancs_jax.weights.shared import CARD, WEIGHTS, shipped_weights
from mancs_jax.workdir import Workdir, queries_path

OUTPUTS = ("output", "json", "picture", "report", "receipt")  # flags of files that are written
INPUTS = (
    "gallery",
    "features",
    "source",
    "csv",
    "protocol_file",
    "images",
    "groups",
)  # of files and folders that are read
NETWORKS = ("workdir", "network", "average_with", "thresholds_of")

Paths = dict[str, Path]  # name for a message -> path


def outputs_and_inputs(values: Flags, arguments: Sequence[str]) -> tuple[Paths, Paths, Paths]:
    """Lists what a command writes and reads.

    Args:
      values: its flags, parsed, with expanded paths.
      arguments: those that are no flags: images, or folders of them.

    Returns:
      (files that are written, files that are read, folders in which nothing may be written).
    """
    given = {flag.name: flag.value for flag in map(values.__getitem__, values) if flag.value}
    outputs = {f"--{name}={given[name]}": Path(given[name]) for name in OUTPUTS if name in given}
    if not outputs:  # of a command that writes only into its workdir
        return {}, {}, {}
    if "format" in values:
        outputs = _export_paths(given["output"], given.get("format", ""))
    if "baselines" in values and not is_opened(Path(given["json"])):  # mancs evaluate
        outputs[f"the scores by query of --json={given['json']}"] = queries_path(given["json"])
    if "weight" in values:  # mancs adapt
        outputs = _export_paths(str(Path(given["output"]) / Path(given["output"]).name), "weights")
    inputs = {f"--{name}={given[name]}": Path(given[name]) for name in INPUTS if name in given}
    inputs |= {argument: Path(argument) for argument in arguments}
    if "other_row" in values:  # mancs compare
        inputs |= {f"the scores by query of {argument}": queries_path(argument) for argument in arguments}
    read = {name: path for name, path in inputs.items() if path.is_dir()}
    inputs |= {f"{file} of {name}": file for name, path in read.items() for file in path.glob("*.npy")}
    folders = read if "picture" in given else {}  # where it would be taken for one of the images
    for name in NETWORKS:
        if name in given:
            label = f"--{name}={given[name]}"
            files, workdir_folders = _network_paths(given[name])
            inputs |= {f"{file}, which belongs to {label}": file for file in files}
            folders |= {f"{folder}, which belongs to {label}": folder for folder in workdir_folders}
    for card in Path(given.get("root", "")).glob("*/*/dataset_info.json") if "root" in given else ():
        folders[f"the data set {card.parent}"] = card.parent
    return outputs, inputs, folders


def _export_paths(output: str, format: str) -> Paths:
    """The files that `mancs export` writes: some come with a card."""
    name, path = f"--output={output}", Path(output)
    if format == "weights":
        stem = path.with_name(path.name.removesuffix(WEIGHTS))
        return {name: stem.with_name(f"{stem.name}{WEIGHTS}"), f"the card of {name}": Path(f"{stem}{CARD}")}
    if (format or path.suffix.removeprefix(".")) == "jax":
        return {name: path, f"the card of {name}": path.with_name(f"{path.name}{CARD}")}
    return {name: path}


def _network_paths(source: str) -> tuple[list[Path], list[Path]]:
    """(files, folders) that a model is read from, see `inference.trained.load_trained`."""
    path = shipped_weights(source) or Path(source)
    if path.is_dir():
        workdir = Workdir(path)
        files = [workdir.config, workdir.starts, workdir.metrics]
        files += [file for weights in path.glob(f"*{WEIGHTS}") for file in (weights, weights.with_suffix(CARD))]
        return files, [workdir.latest, workdir.best, workdir.tensorboard]
    if path.suffix == WEIGHTS:
        return [path, path.with_suffix(CARD)], []
    if path.suffix == CARD:  # mancs.jax.json names mancs.jax
        return [path, path.with_suffix(WEIGHTS), path.with_suffix("")], []
    return [path, path.with_name(f"{path.name}{CARD}")], []
