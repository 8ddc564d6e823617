"""A trained network from where it lies: a workdir, a shared file, or the networks that come with the package."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from mancs_jax.common.local_path import local_path
from mancs_jax.common.one_process import check_not_forked
from mancs_jax.common.screen import tell
from mancs_jax.config.checks import from_json
from mancs_jax.inference.network import Network
from mancs_jax.inference.network_file import card_of, read_network
from mancs_jax.models.mancs import init_variables
from mancs_jax.training.description import Description
from mancs_jax.weights.shared import CARD, WEIGHTS, shipped_networks, shipped_weights
from mancs_jax.workdir import Workdir


class Trained(NamedTuple):
    """A trained network, and all that is known about it."""

    network: Network
    step: int
    description: Description
    card: dict[str, Any]  # see `network_file.card_of`; of a shared network with its scores and thresholds
    workdir: Workdir | None  # that it comes from; None of a shared network


def load_trained(source: str | Path, *, take_latest: bool = False) -> Trained:
    """Reads a trained network; only parameters and statistics are read, onto the first local device.

    `source` is a workdir, whose best network is taken where validation chose one, otherwise the latest; a file or
    folder of `mancs export --format=weights`; or the name of a pretrained model, as "market1501" ("./market1501" is a
    folder of that name). With `take_latest` the latest network of a workdir replaces a damaged best one; a line on
    stderr says so. Raises FileNotFoundError without a network, and ValueError, one line, where a file is damaged or a
    folder holds several networks, and RuntimeError, one line, in a forked process.
    """
    check_not_forked()
    if (shipped := shipped_weights(source)) is not None:
        return _shared(shipped)
    if exported_path(source) is not None:
        raise ValueError(
            f"{source}: a file, and only its embeddings can be asked for; this needs the parameters: give a workdir or "
            "weights of mancs export --format=weights"
        )
    path = local_path(source)
    if path.suffix in (CARD, WEIGHTS) and path.is_file():
        return _shared(path)
    if (from_workdir := _from_workdir(Workdir(path), take_latest)) is not None:
        return from_workdir
    cards = sorted(card for card in path.glob(f"*{CARD}") if card.with_suffix(WEIGHTS).is_file())
    if len(cards) > 1:
        names = ", ".join(card.with_suffix(WEIGHTS).name for card in cards)
        raise ValueError(f"{source} holds several models: use one of the files {names}")
    if cards:
        return _shared(cards[0])
    raise FileNotFoundError(
        f"{source}: no model there; use the --workdir of a run of mancs train, a file or folder of mancs "
        f"export --format=weights, or a pretrained model: {', '.join(shipped_networks()) or 'none'}"
    )


def exported_path(source: str | Path) -> Path | None:
    """The file that a source names, where it is taken for one of `mancs export`; else None."""
    path = local_path(source)
    if not path.is_file() or shipped_weights(source) is not None:
        return None
    # mancs.jax.json names mancs.jax.
    named = path.with_suffix("") if path.suffix == CARD else path
    return named if named.suffix not in (CARD, WEIGHTS) and named.is_file() else None


def _from_workdir(paths: Workdir, take_latest: bool) -> Trained | None:
    if not (paths.best.is_dir() or paths.latest.is_dir()):
        return None
    # Not at the top: a shared network does without Orbax, which takes half a second.
    from mancs_jax.training.checkpoint import newest_whole, restore_variables

    faults: list[ValueError] = []
    for directory in (paths.best, paths.latest):

        def read(step: int, description: Description, directory: Path = directory) -> Trained:
            config, num_classes = from_json(description.config), description.num_classes
            shapes = jax.eval_shape(lambda: init_variables(config, num_classes))
            network = Network(config, num_classes, restore_variables(directory, step, shapes))
            return Trained(network, step, description, card_of(network, step, description), paths)

        try:
            newest = newest_whole(directory, read)
        except ValueError as error:
            if not take_latest:
                raise
            faults.append(error)  # the other directory may be whole
            continue
        if newest is not None:
            for fault in faults:
                tell(f"{fault}; until then step {newest[0]} of {directory} is taken")
            return newest[1]
    if faults:
        raise faults[-1]
    return None


def _shared(path: Path) -> Trained:
    network, card = read_network(path)
    return Trained(network, card["step"], Description.of(card), card, None)
