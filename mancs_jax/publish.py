"""Makes the two files of a network that people share, with its scores and its thresholds."""

import re
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mancs_jax.common.atomic_write import check_writable, read_list
from mancs_jax.common.local_path import local_path
from mancs_jax.config.names import DISTANCES, sources
from mancs_jax.data import arrays
from mancs_jax.evaluation import roc
from mancs_jax.evaluation.bootstrap import FEW_PAIRS, wilson
from mancs_jax.evaluation.calibration import calibrated, quality
from mancs_jax.evaluation.comparison import Comparison, compare, kept
from mancs_jax.evaluation.protocols import Options
from mancs_jax.inference.forward import embed
from mancs_jax.inference.network import averaged, without_classifiers
from mancs_jax.inference.network_file import card_of, read_network, rounded, write_network
from mancs_jax.inference.trained import Trained, load_trained
from mancs_jax.scoring import (
    NETWORK,
    ModelEvaluation,
    Task,
    compare_held_out,
    embed_held_out,
    evaluate_network,
    held_out_images,
)
from mancs_jax.version import __version__
from mancs_jax.weights.shared import CARD, NAME, WEIGHTS
from mancs_jax.weights.start import data_sets_behind
from mancs_jax.workdir import Workdir

PROGRAMS = ("mancs", "train.py", "__main__.py")  # that start a training; others have words of their own
SUBCOMMAND = re.compile("[a-z][a-z0-9_-]*")
FIELD = re.compile(r"(?:no)?config(?:\.\w+)*")
FLAG = re.compile("--?[A-Za-z]|--$")  # -1 is a value


def export_network(
    workdir: str | Path,
    name: str,
    folder: str | Path = ".",
    *,
    dtype: str = "float16",
    root: str = "",
    scores: bool = True,
    classifiers: bool = True,
    average_with: str | Path = "",
    average_share: float = 0.5,
    thresholds_of: str | Path = "",
) -> tuple[Path, dict[str, Any]]:
    """Writes NAME.safetensors and NAME.json of a trained network.

    With `average_with`, each number is a mean of two networks: of a training, and of the one that it went on from, or
    of another that it began with (Izmailov et al., UAI 2018; Wortsman et al., ICML 2022).

    The card has the scores of the rounded network on the official query and gallery. Where the run held identities
    out, it has thresholds on distances and a calibration, the mapping from distance to likelihood ratio, too: they were
    set on these identities, and next to each stand the rates, or the quality, on the people of the official query and
    gallery.

    A run on all identities has no held-out ones to set them on. With `thresholds_of` it takes those of a model of the
    same training that held people out. The rates and the quality next to them are its own.

    Args:
      workdir: of a training.
      name: of the files: letters, digits, "_", "-" and ".".
      folder: of the files; it is made.
      dtype: of the kernels in the file, "float16" or "float32".
      root: directory of the data sets, where it is not the one of the training.
      scores: whether it is scored, which needs the data set.
      classifiers: whether the file has the classifiers of the training identities. Embeddings do not need them, and
        fine-tuning on other identities replaces them.
      average_with: another network of the same shape, see `mancs_jax.load`; "" for none.
      average_share: of that network in the mean, between 0 and 1. Choose it on held-out identities.
      thresholds_of: a shared network whose card has thresholds; "" for none.

    Returns:
      The path of the card, and the card.

    Raises:
      FileNotFoundError: no network, or the data set is not there.
      ValueError: one line: the name, a number that is too large for `dtype`, a network of another shape, or thresholds
        that do not fit.
      OSError: cannot be written.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a valid model name: use only letters, digits, _, - and ., as in my_model")
    folder = local_path(folder)
    for suffix in (WEIGHTS, CARD):
        check_writable(folder / f"{name}{suffix}")
    trained = load_trained(workdir)
    if trained.network.cameras:
        raise ValueError(f"{workdir}: the model is adapted to cameras; share the two files of mancs adapt as they are")
    data = trained.network.config.data
    if scores:
        for source in sources(data.name):
            arrays.check_dataset(source, root or data.root)
    borrowed = _borrowed(thresholds_of, trained.network.config, scores) if thresholds_of else {}
    description = trained.description
    network, made_with = trained.network, {"mancs_jax": __version__} | _start_of(trained.workdir)
    other = load_trained(average_with) if average_with else None
    if other:
        made_with["averaged_with"] = {"network": other.card["network"], "step": other.step, "share": average_share}
        network = averaged(network, other.network, average_share)
        also = data_sets_behind(other.card, description.data_fingerprint)
        description = description._replace(pretrained_on=sorted(also.union(description.pretrained_on)))
    network = rounded(network if classifiers else without_classifiers(network), dtype)
    card = {"name": name, "dtype": dtype} | card_of(network, trained.step, description)
    description = description._replace(config=card["config"])  # its paths are not those of this machine
    trained = trained._replace(network=network, description=description, card=card)
    card["made_with"] = made_with
    if scores:
        card |= _scores(trained, root or data.root, borrowed)
    path = write_network(folder, name, network, card, dtype)
    read_network(path)  # which refuses what a reader would refuse
    return path, card


def _start_of(workdir: Workdir | None) -> dict[str, Any]:
    """Command and revision of a run's first start, without the paths of its machine."""
    if workdir is None or not (starts := read_list(workdir.starts, "starts")):
        return {}
    first = starts[0]
    return {"command": without_paths(first["command"])} | {name: first[name] for name in ("git", "versions", "date")}


def without_paths(words: Sequence[str]) -> str:
    """Returns the command of a training as it may be published: its recipe, and the fields that it changes.

    Of the recipe's file and of the weights it has only the names. All other words may hold a folder or the name of a
    user: --workdir, the arguments of a program of one's own, the file through which a notebook reaches its kernel.

    Args:
      words: as `record_start` keeps them: the name of the program and its arguments.
    """
    if Path(words[0]).name not in PROGRAMS:
        return "train_and_evaluate(config, workdir)"  # from Python
    command = f"mancs {words[1]}" if words[1:] and SUBCOMMAND.fullmatch(words[1]) else "mancs train"
    kept = []
    for word, following in pairwise([*words[1:], "--"]):
        flag, equals, value = word.partition("=")
        name = flag.removeprefix("-").removeprefix("-")
        if not flag.startswith("-") or not FIELD.fullmatch(name) or name == "config.data.root":
            continue
        if not equals and not FLAG.match(following):
            equals, value = "=", following  # in two words
        value = Path(value).name if name in ("config", "config.pretrained") else value
        kept.append(f"--{name}{equals}{value}")
    return " ".join([command, *kept, "--workdir=W"])


def _borrowed(source: str | Path, config: ConfigDict, scores: bool) -> dict[str, Any]:
    """The thresholds and the calibration of another network's card; one line where they are not for this network."""
    other = load_trained(source)
    if not other.card.get("thresholds"):
        raise ValueError(f"--thresholds_of={source}: its card has no thresholds; use a model that was evaluated")
    if config.data.validation_ids or not scores:
        raise ValueError(
            "--thresholds_of is for an evaluated model that was trained on all identities: this one "
            + ("held identities out and sets its own" if scores else "is not evaluated")
        )
    for name, other_value, value in (
        ("data set", other.card["trained_on"], config.data.name),
        ("model", other.network.config.model, config.model),
        ("size of images", other.network.config.data.image_size, config.data.image_size),
    ):
        if other_value != value:
            raise ValueError(f"--thresholds_of={source}: its {name} is another, so its distances are, too")
    if not other.network.config.data.validation_ids:
        raise ValueError(f"--thresholds_of={source}: its thresholds are borrowed, too; use the model that set them")
    taken = {name: other.card[name] for name in ("thresholds", "calibration") if other.card.get(name)}
    return {
        name: of | {"set_on": f"{of['set_on']}, by the network {other.card['network']}"} for name, of in taken.items()
    }


def _scores(trained: Trained, root: str, borrowed: dict[str, Any]) -> dict[str, Any]:
    test = evaluate_network(trained, Task(root=root))
    test_scores = {name: value for name, value in test.results[NETWORK].items() if name != "config"}
    config, entries = trained.network.config, dict(borrowed)
    if held_out := held_out_images(trained, root):
        query, gallery = embed_held_out(held_out, partial(embed, trained.network, progress=True))
        compared = {
            distance: kept(compare_held_out(query, gallery, held_out, Options(distance=distance)))
            for distance in DISTANCES
        }
        points = {distance: _points(comparison) for distance, comparison in compared.items()}
        entries = {
            "thresholds": {"set_on": held_out.people} | points,
            "calibration": calibrated(compared, held_out.people),
        }
    on = f"the people of query and gallery of {sources(config.data.name)[0]}, {test.results[NETWORK]['split']}"
    compared = by_distance(test) if entries else {}
    for name, measure in (("thresholds", _measured), ("calibration", measured_calibration)):
        if name in entries:
            measured = {distance: measure(entries[name][distance], compared[distance]) for distance in DISTANCES}
            entries[name] = {"set_on": entries[name]["set_on"], "measured_on": on, **measured}
    return {"scores": test_scores, "thresholds": None, "calibration": None} | entries


def by_distance(evaluation: ModelEvaluation) -> dict[str, Comparison]:
    """Compares query and gallery by each distance."""
    query, gallery = evaluation.embedded["query"], evaluation.embedded["gallery"]
    return {distance: kept(compare(query, gallery, distance=distance)) for distance in DISTANCES}


def measured_calibration(mapping: dict[str, Any] | None, comparison: Comparison) -> dict[str, Any] | None:
    """The same mapping with its quality on other people; None where there is no mapping."""
    return mapping and mapping | {"measured_on": quality(comparison, mapping["knots"])}


def _points(comparison: Comparison) -> list[dict[str, Any]]:
    """Distances at the false positive rates of `roc.RATES` on people held out, and the rates there.

    `pairs` are all negative pairs. Where a threshold accepts fewer than ten of them, `fpr_interval` is Wilson's.
    """
    curve = roc.create_roc(comparison)
    # A rate of less than one negative pair would be a guess.
    points = [roc.at_rate(curve, rate) for rate in roc.RATES if rate * curve.num_negatives >= 1]

    def rates(at: dict[str, Any]) -> dict[str, Any]:
        is_few = at["fpr"] * curve.num_negatives < FEW_PAIRS - 0.5  # of a whole number of pairs
        ends = wilson(at["fpr"], curve.num_negatives) if is_few else None
        return {"fpr": at["fpr"], "tpr": at["tpr"], "pairs": curve.num_negatives, "fpr_interval": ends}

    return [
        {"max_distance": at["distance"], "max_fpr": at["max_fpr"], "set_on": rates(at)}
        for at in points
        if at["distance"] is not None
    ]


def _measured(points: list[dict[str, Any]], comparison: Comparison) -> list[dict[str, Any]]:
    """The same points with the rates that they give on other people."""
    limits = [point["max_distance"] for point in points]
    return [
        point | {"measured_on": {"fpr": rates["fpr"], "tpr": rates["tpr"]}}
        for point, rates in zip(points, roc.rates_within(comparison, limits), strict=True)
    ]
