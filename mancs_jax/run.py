"""What the scripts and notebooks call: train a network in a workdir and score it."""

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
from mancs_jax.training.log import environment, record_start
from mancs_jax.training.loop import train
from mancs_jax.training.state import create_train_state

NETWORK = "Mancs"
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
      ValueError, FileNotFoundError: configuration, data or checkpoint do not fit; nothing has been changed.
      Diverged: a loss is not finite; what was saved stays.
    """
    devices, workdir = jax.local_devices(), Path(workdir)
    configuration.validate(config, default.get_config(), len(devices))
    split, validation = load_training_data(config)
    labels = arrays.relabel(split.pid)
    about = {
        "config": config.to_dict(),
        "num_classes": int(labels.max()) + 1,
        "data_fingerprint": arrays.fingerprint(split),
        "best": None,
    }
    about["best"] = check_resume(workdir, about, allow_config_change)
    record_start(workdir, about["config"], devices, about["data_fingerprint"])
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
    return evaluate(workdir, baselines=config.eval_baselines)


def load_training_data(config: ConfigDict) -> tuple[arrays.Split, tuple[arrays.Split, arrays.Split] | None]:
    """The images to train on, and the (query, gallery) of the identities held out for validation, if any."""
    pid, _, _ = arrays.labels(arrays.read_records(config.data.name, config.data.root, "train"))
    configuration.validate_identities(config, len(np.unique(pid)) - config.data.validation_ids)
    split = arrays.load_split(config.data.name, config.data.root, "train", config.data.image_size)
    if not config.data.validation_ids:
        return split, None
    split, query, gallery = arrays.hold_out(split, config.data.validation_ids, config.seed)
    return split, (query, gallery)


def check_resume(workdir: Path, about: dict[str, Any], allow_config_change: bool) -> float | None:
    """Compares a run with the latest checkpoint in its workdir, if there is one.

    Returns:
      The best validation score up to that checkpoint, None without one.

    Raises:
      ValueError: configuration or data differ; the line lists every difference.
    """
    saved = checkpoint.peek(workdir / checkpoint.LATEST)
    if saved is None:
        return None
    changed = configuration.differences(saved["config"], about["config"])
    if saved["data_fingerprint"] != about["data_fingerprint"]:
        changed.append("the training images or their identities")
    if saved["num_classes"] != about["num_classes"]:
        raise ValueError(
            f"{workdir} was trained on {saved['num_classes']} identities, the data now has {about['num_classes']}; "
            "choose another --workdir"
        )
    if changed and not allow_config_change:
        raise ValueError(
            f"{workdir} holds a run with another configuration ({'; '.join(changed)}); undo the change, choose another "
            "--workdir, or go on all the same with --allow_config_change"
        )
    return saved["best"]


def evaluate(
    workdir: str | Path, *, root: str | None = None, baselines: bool = False, progress: bool = True
) -> dict[str, dict[str, Any]]:
    """Scores the network of a workdir on query and gallery, single query.

    Args:
      workdir: of a run of `train_and_evaluate`.
      root: directory of the data sets, where it is not the one that the run was trained from.
      baselines: score an untrained network and a colour histogram beside it.
      progress: whether a bar is shown.

    Returns:
      name -> result. The network's is written to results/single_query.json, the baselines' beside it, and
      results/ranked_lists.png shows what it finds for some queries.

    Raises:
      FileNotFoundError: no checkpoint, or the data set is not there.
    """
    workdir, devices = Path(workdir), jax.local_devices()
    config, about, variables = checkpoint.load_trained(workdir)
    data = config.data
    query, gallery = (
        arrays.load_split(data.name, root or data.root, part, data.image_size) for part in ("query", "gallery")
    )
    embed = make_embed(config, about["num_classes"], devices, progress)
    embeddings = {NETWORK: [embed(variables, part.image) for part in (query, gallery)]}
    if baselines:
        untrained = untrained_variables(config, about["num_classes"])
        embeddings["untrained network"] = [embed(untrained, part.image) for part in (query, gallery)]
        embeddings["colour histogram"] = [histogram.embed(part.image) for part in (query, gallery)]
    made_with = {
        "dataset": data.name,
        "fingerprint": {"query": arrays.fingerprint(query), "gallery": arrays.fingerprint(gallery)},
        "train_fingerprint": about["data_fingerprint"],
        "recipe": config.recipe,
        "seed": config.seed,
        "step": about["step"],
        "config": about["config"],
        **environment(devices),
    }
    results = {name: score(*pair, query, gallery) | {"embedding": name} for name, pair in embeddings.items()}
    for name, result in results.items():
        suffix = "" if name == NETWORK else "_" + name.replace(" ", "_")
        protocols.write_result(workdir / "results" / f"single_query{suffix}.json", result | made_with)
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
