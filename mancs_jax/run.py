"""Trains a model in a workdir and evaluates it: the entry point of commands and notebooks."""

import errno
import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from mancs_jax.common import processes
from mancs_jax.common.atomic_write import read_list, write_json
from mancs_jax.common.local_path import local_path
from mancs_jax.common.one_process import check_not_forked
from mancs_jax.common.out_of_memory import suggesting_less_memory
from mancs_jax.common.screen import show, tell
from mancs_jax.config import checks as configuration
from mancs_jax.config import names
from mancs_jax.data import arrays
from mancs_jax.data.cameras import has_match
from mancs_jax.data.training_data import load_training_data
from mancs_jax.evaluation import cuhk03_classic, metrics
from mancs_jax.evaluation.comparison import compare
from mancs_jax.evaluation.labelled import Labelled, check_known
from mancs_jax.evaluation.ranking import hit_ranks
from mancs_jax.evaluation.results import table
from mancs_jax.inference.forward import embed
from mancs_jax.inference.network import Network
from mancs_jax.scoring import NETWORK, Task, evaluate, write_results
from mancs_jax.training import checkpoint
from mancs_jax.training.description import Description
from mancs_jax.training.loop import train
from mancs_jax.training.state import TrainState
from mancs_jax.visualize import write_report
from mancs_jax.weights.start import check_start, data_sets_before, with_pretrained_model
from mancs_jax.workdir import Workdir

NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK)  # of some cluster disks
SAME_IN_ALL_SPLITS = ("dataset", "recipe", "seed", "distance", "normalize", "flip", "repeats", "gallery_seed", "config")


def train_and_evaluate(
    config: ConfigDict, workdir: str | Path, *, allow_config_change: bool = False, report: bool = True
) -> dict[str, dict[str, Any]] | None:
    """Trains, from the latest checkpoint in `workdir` if there is one, and evaluates the trained model.

    The workdir gets config.json, run.json, metrics.jsonl, tensorboard/, checkpoints/, best/, results/ and report.html
    with its images (unless `report` is False). With `allow_config_change` a checkpoint with another configuration or
    other data is resumed, too.

    Returns the results of `scoring.evaluate`, with " on NAME" after their names where there are several data sets; None
    if a signal stopped the run, whose state is then saved. Raises ValueError or FileNotFoundError where configuration,
    data or checkpoint do not fit, or another process uses the workdir: nothing has changed then; and Diverged where a
    loss is not finite: checkpoints are kept.
    """
    check_not_forked()
    devices, paths, config = jax.devices(), Workdir(local_path(workdir)), with_pretrained_model(config)
    configuration.validate(config, len(devices))
    checkpoint.check_path(paths.latest)
    for name in names.sources(config.data.name):
        arrays.check_dataset(name, config.data.root)
    _check_test_set(config)
    if not paths.latest.is_dir():  # a resumed run was checked when it started
        _check_matches(config)
    with locked(paths):
        latest = checkpoint.peek(paths.latest)
        saved = latest[1] if latest else None
        processes.meet("looked for checkpoints")  # before one process makes the directory
        if saved is None:
            check_start(config)
        split, num_ids, validation = load_training_data(config)
        labels, fingerprint = arrays.relabel(split.pid), arrays.fingerprint(split)
        description = Description(
            config=config.to_dict(),
            num_classes=sum(num_ids),
            data_fingerprint=fingerprint,
            best=saved.best if saved else None,
            pretrained_on=saved.pretrained_on if saved else data_sets_before(config, fingerprint),
        )
        if saved:
            check_resume(paths.root, saved, description, allow_config_change)
        validate = partial(_validate, config, description.num_classes, validation) if validation else None

        with suggesting_less_memory(config):
            is_finished = train(config, paths, split.image, labels, num_ids, description, devices, validate)
        if not is_finished:
            return None
        # A test set that selected the checkpoint is evaluated in any case.
        held_out = {} if config.choose_on == "test" else validation
        tasks = {
            name: Task(dataset=name, baselines=config.eval_baselines) for name in held_out or with_test_set(config)
        }
        results: dict[str, dict[str, Any]] = {}
        for name, task in tasks.items():
            evaluation = evaluate(paths.root, task, validation=held_out.get(name), write=False)
            is_first, suffix = not results, "" if len(tasks) == 1 else f" on {name}"
            results |= {f"{result}{suffix}": value for result, value in evaluation.results.items()}
            try:
                write_results(evaluation)
                if report and is_first and processes.is_writer():
                    write_report(paths.root, evaluation, task)
            except OSError:
                show(table(results))  # so that a full disk does not lose the scores
                raise
        return results


def with_test_set(config: ConfigDict) -> list[str]:
    """Returns the data sets of `config.data.name` that have a query and a gallery."""
    data = config.data

    def has_test_set(name: str) -> bool:
        return {"query", "gallery"} <= set(arrays.split_names(name, data.root))

    return [name for name in names.sources(data.name) if data.testset or has_test_set(name)]


def _check_test_set(config: ConfigDict) -> None:
    """Refuses, before the first step, data sets on which the trained model could not be evaluated."""
    data = config.data
    if data.testset or (data.validation_ids and config.choose_on == "validation") or with_test_set(config):
        return
    present = arrays.split_names(names.sources(data.name)[0], data.root)
    missing = [part for part in ("query", "gallery") if part not in present]
    raise ValueError(
        f"{data.name} under {data.root} has no split {' and '.join(missing)}, only {', '.join(present)}: the trained "
        "model could not be evaluated; prepare the data set with them, or hold training identities out, as with "
        "--config.data.validation_ids=20"
    )


def _check_matches(config: ConfigDict) -> None:
    """Refuses a custom data set without a match for any query; `prepare` checked all other data sets."""
    data = config.data
    if data.validation_ids and config.choose_on == "validation":
        return
    for name in set(with_test_set(config)).difference(names.DATASETS):
        query, gallery = (arrays.open_split(name, data.root, part) for part in ("query", "gallery"))
        try:
            check_known(query.pid)
        except ValueError as error:
            raise ValueError(f"{name} under {data.root}: {error}, and prepare the data set again") from None
        query_labels, gallery_labels = (
            zip(part.pid.tolist(), part.camid.tolist(), strict=True) for part in (query, gallery)
        )
        if not has_match(query_labels, gallery_labels):
            raise ValueError(
                f"{name} under {data.root}: no person of query is in gallery under another camera, so that the "
                "trained model could not be evaluated; fix the data set, or hold training identities out, as with "
                "--config.data.validation_ids=20"
            )


def _validate(
    config: ConfigDict, num_classes: int, validation: Mapping[str, tuple[arrays.Split, arrays.Split]], state: TrainState
) -> dict[str, float]:
    """Evaluates a training state on each source's (query, gallery), and with several sources on their mean."""
    network = Network(config, num_classes, {"params": state.params, "batch_stats": state.batch_stats})
    scores_by_source = {}
    for name, parts in validation.items():
        query, gallery = (Labelled(embed(network, part.image), part.pid, part.camid) for part in parts)
        scores = metrics.scores(hit_ranks(compare(query, gallery)))
        scores_by_source[name] = {"mAP": scores["mAP"], "mAP_plain": scores["mAP_plain"], "rank-1": scores["cmc"][0]}
    if len(scores_by_source) == 1:
        return scores_by_source.popitem()[1]
    by_name = {
        f"{name}/{metric}": value for name, scores in scores_by_source.items() for metric, value in scores.items()
    }
    means = {
        metric: float(np.mean([scores[metric] for scores in scores_by_source.values()]))
        for metric in ("mAP", "mAP_plain", "rank-1")
    }
    return by_name | means


def train_and_evaluate_splits(
    config: ConfigDict, workdir: str | Path, *, allow_config_change: bool = False
) -> dict[str, dict[str, Any]] | None:
    """Trains and evaluates on each of the 20 splits of CUHK03's classic protocol; errors as `train_and_evaluate`.

    The workdir gets the workdirs testset_01 to testset_20 (`data.testset` 1 to 20), and results/cuhk03_classic.json
    with all splits that are done; another call resumes with the first one that is not. Returns the mean over the splits
    under `NETWORK`, see `cuhk03_classic.over_splits`; None if a signal stopped it.
    """
    workdir = local_path(workdir)
    path = Workdir(workdir).result("cuhk03_classic")
    splits = read_list(path, "splits")
    previous = splits[0]["config"] if splits else config.to_dict()
    changed = configuration.differences(previous, _with_testset(config, previous["data"]["testset"]).to_dict())
    if changed and not allow_config_change:
        raise ValueError(_other_configuration(workdir, changed))
    for testset in range(len(splits) + 1, names.NUM_TESTSETS + 1):
        split_workdir = workdir / f"testset_{testset:02d}"
        results = train_and_evaluate(
            _with_testset(config, testset), split_workdir, allow_config_change=allow_config_change
        )
        if results is None:
            return None
        splits.append(results[NETWORK])
        write_json(path, _over_splits(splits))
        jax.clear_caches()  # compiled programs of all splits together exceed Linux's limit of mapped regions
    return {NETWORK: _over_splits(splits)}


def _over_splits(splits: list[dict[str, Any]]) -> dict[str, Any]:
    common = {name: splits[-1][name] for name in SAME_IN_ALL_SPLITS}
    return cuhk03_classic.over_splits(splits) | common | {"splits": splits}


def _with_testset(config: ConfigDict, testset: int) -> ConfigDict:
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.data.testset = testset
    return config


@contextmanager
def locked(workdir: Workdir) -> Iterator[None]:
    """Locks a workdir, because two runs would destroy each other's checkpoints (ValueError: it is locked)."""
    if not processes.is_writer():  # which locks it for all
        yield
        return
    new_folders = [parent for parent in (workdir.root, *workdir.root.parents) if not parent.exists()]
    workdir.root.mkdir(parents=True, exist_ok=True)
    try:
        with workdir.lock.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message = f"{workdir.root}: another process trains there; wait for it or choose another --workdir"
                raise ValueError(message) from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                tell(
                    f"{workdir.root}: its file system has no locks ({error.strerror}), so that nothing prevents a "
                    "second run: never start two in it"
                )
            yield
    finally:
        # A refused run leaves no files.
        if [path.name for path in workdir.root.iterdir()] == [workdir.lock.name]:
            workdir.lock.unlink()
            for folder in new_folders:
                folder.rmdir()


def check_resume(workdir: Path, saved: Description, description: Description, allow_config_change: bool) -> None:
    """Compares a run with the latest checkpoint in its workdir (ValueError, one line: the differences)."""
    changed = configuration.differences(saved.config, description.config)
    if saved.data_fingerprint != description.data_fingerprint:
        changed.append("the training images or their identities")
    if saved.num_classes != description.num_classes:
        raise ValueError(
            f"{workdir} was trained on {saved.num_classes} identities, now there are {description.num_classes} "
            f"({'; '.join(changed)}); undo the change or choose another --workdir"
        )
    if changed and not allow_config_change:
        raise ValueError(_other_configuration(workdir, changed))


def _other_configuration(workdir: Path, changed: Sequence[str]) -> str:
    return (
        f"{workdir} has a run with another configuration ({'; '.join(changed)}); undo the change, choose another "
        "--workdir, or resume anyway with --allow_config_change"
    )
