"""What the scripts and notebooks call: train a network in a workdir and score it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from configs import default
from mancs_jax import config as configuration
from mancs_jax.data import arrays
from mancs_jax.evaluation import histogram, protocols
from mancs_jax.evaluation.embed import make_embed
from mancs_jax.reporting.curves import write_curves
from mancs_jax.reporting.ranked_lists import ranked_lists, write_picture
from mancs_jax.training import checkpoint
from mancs_jax.training.log import environment
from mancs_jax.training.loop import train
from mancs_jax.training.state import create_train_state

NETWORK = "Mancs"
LOCK = ".lock"  # file of a workdir that the process which trains there holds
NUM_DRAWN = 8  # queries in results/ranked_lists.png


def train_and_evaluate(
    config: ConfigDict, workdir: str | Path, *, allow_config_change: bool = False
) -> dict[str, dict[str, Any]] | None:
    """Trains, from the latest checkpoint in `workdir` if there is one, and scores the trained network.

    Args:
      config: every field of `configs/default.py`.
      workdir: receives config.json, run.json, metrics.jsonl, tensorboard/, checkpoints/, best/ and results/.
      allow_config_change: go on from a checkpoint that was made with another configuration or other data.

    Returns:
      The results as `evaluate` gives them; None if a signal stopped the run, whose state is then saved.

    Raises:
      ValueError, FileNotFoundError: configuration, data or checkpoint do not fit, or another process trains there;
        nothing has been changed.
      Diverged: a loss is not finite; what was saved stays.
    """
    devices, workdir = jax.local_devices(), Path(workdir)
    configuration.validate(config, default.get_config(), len(devices))
    with only_process(workdir):
        saved = checkpoint.peek(workdir / checkpoint.LATEST)
        if saved is None:
            configuration.validate_pretrained(config)
        split, validation = load_training_data(config)
        labels = arrays.relabel(split.pid)
        about = {
            "config": config.to_dict(),
            "num_classes": int(labels.max()) + 1,
            "data_fingerprint": arrays.fingerprint(split),
            "best": saved["best"] if saved else None,
        }
        if saved:
            check_resume(workdir, saved, about, allow_config_change)
        validate = None
        if validation:
            embed = make_embed(config, about["num_classes"], devices, progress=False)

            def validate(state):
                variables = {"params": state.params, "batch_stats": state.batch_stats}
                scores = score(*(embed(variables, part.image) for part in validation), *validation)
                return {"mAP": scores["mAP"], "mAP_plain": scores["mAP_plain"], "rank-1": scores["cmc"][0]}

        if not train(config, workdir, split.image, labels, about, devices, validate):
            return None
        write_curves(workdir)
        return evaluate(workdir, validation=validation, baselines=config.eval_baselines)


@contextmanager
def only_process(workdir: Path) -> Iterator[None]:
    """Holds a workdir for this process alone: two that write checkpoints to one place would destroy each other's.

    Raises:
      ValueError: another process holds it.
    """
    made = [parent for parent in (workdir, *workdir.parents) if not parent.exists()]
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        with (workdir / LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message = f"{workdir}: another process trains there; wait for it or choose another --workdir"
                raise ValueError(message) from None
            yield
    finally:
        # A run that was refused leaves nothing behind.
        if [path.name for path in workdir.iterdir()] == [LOCK]:
            (workdir / LOCK).unlink()
            for parent in made:
                parent.rmdir()


def load_training_data(config: ConfigDict) -> tuple[arrays.Split, tuple[arrays.Split, arrays.Split] | None]:
    """The images to train on, and the (query, gallery) of the identities held out for validation, if any."""
    split = arrays.load_split(config.data.name, config.data.root, "train", config.data.image_size)
    configuration.validate_identities(config, len(np.unique(split.pid)))
    if not config.data.validation_ids:
        return split, None
    split, query, gallery = arrays.hold_out(split, config.data.validation_ids, config.seed)
    return split, (query, gallery)


def check_resume(workdir: Path, saved: dict[str, Any], about: dict[str, Any], allow_config_change: bool) -> None:
    """Compares a run with the latest checkpoint in its workdir; raises ValueError with a line of what differs."""
    changed = configuration.differences(saved["config"], about["config"])
    if saved["data_fingerprint"] != about["data_fingerprint"]:
        changed.append("the training images or their identities")
    if saved["num_classes"] != about["num_classes"]:
        raise ValueError(
            f"{workdir} was trained on {saved['num_classes']} identities, now there are {about['num_classes']} "
            f"({'; '.join(changed)}); undo the change or choose another --workdir"
        )
    if changed and not allow_config_change:
        raise ValueError(
            f"{workdir} holds a run with another configuration ({'; '.join(changed)}); undo the change, choose another "
            "--workdir, or go on all the same with --allow_config_change"
        )


def evaluate(
    workdir: str | Path,
    *,
    root: str | None = None,
    validation: tuple[arrays.Split, arrays.Split] | None = None,
    baselines: bool = False,
    progress: bool = True,
) -> dict[str, dict[str, Any]]:
    """Scores the network of a workdir, single query.

    Args:
      workdir: of a run of `train_and_evaluate`; what is in best/ is scored where validation chose it, else the latest.
      root: directory of the data sets, where it is not the one that the run was trained from.
      validation: (query, gallery) of held-out training identities, to be scored instead of the official ones.
      baselines: score an untrained network and a colour histogram beside it.
      progress: whether a bar is shown.

    Returns:
      name -> result. The network's is written to results/single_query.json (results/validation.json for held-out
      identities), the baselines' beside it, and results/ranked_lists.png shows what it finds for some queries.

    Raises:
      FileNotFoundError: no checkpoint, or the data set is not there.
    """
    workdir, devices = Path(workdir), jax.local_devices()
    config, about, variables = checkpoint.load_trained(workdir)
    data = config.data
    query, gallery = validation or (
        arrays.load_split(data.name, root or data.root, part, data.image_size) for part in ("query", "gallery")
    )
    embed = make_embed(config, about["num_classes"], devices, progress)
    embeddings = {NETWORK: [embed(variables, part.image) for part in (query, gallery)]}
    if baselines:
        untrained = untrained_variables(config, about["num_classes"])
        embeddings["untrained network"] = [embed(untrained, part.image) for part in (query, gallery)]
        embeddings["colour histogram"] = [histogram.embed(part.image) for part in (query, gallery)]
    scored_on = {
        "dataset": data.name,
        "split": "held-out training identities" if validation else "query and gallery",
        "fingerprint": {"query": arrays.fingerprint(query), "gallery": arrays.fingerprint(gallery)},
        **environment(devices),
    }
    of_network = {
        "recipe": config.recipe,
        "seed": config.seed,
        "step": about["step"],
        "train_fingerprint": about["data_fingerprint"],
        "config": about["config"],
    }
    results = {}
    stem = "validation" if validation else "single_query"
    for name, pair in embeddings.items():
        results[name] = score(*pair, query, gallery) | {"embedding": name} | scored_on
        if name == NETWORK:
            results[name] |= of_network
        suffix = "" if name == NETWORK else "_" + name.replace(" ", "_")
        protocols.write_result(workdir / "results" / f"{stem}{suffix}.json", results[name])
    rows = np.random.default_rng(0).choice(len(query.pid), min(NUM_DRAWN, len(query.pid)), replace=False)
    picture = ranked_lists(query, gallery, *embeddings[NETWORK], rows)
    write_picture(workdir / "results" / "ranked_lists.png", picture)
    return results


def score(query_embedding: np.ndarray, gallery_embedding: np.ndarray, query: arrays.Split, gallery: arrays.Split):
    """The single-query result of embeddings [Q, D] and [G, D] of two splits."""
    return protocols.single_query(
        query_embedding, query.pid, query.camid, gallery_embedding, gallery.pid, gallery.camid
    )


def untrained_variables(config: ConfigDict, num_classes: int) -> dict[str, Any]:
    """The variables that training starts from, without pretrained weights: what the architecture alone can do."""
    state = create_train_state(config, num_classes, optax.identity())
    return {"params": state.params, "batch_stats": state.batch_stats}
