"""Evaluates a trained model: a workdir in, results on disk and a table out."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from mancs_jax.common import processes
from mancs_jax.common.atomic_write import check_writable, write_json
from mancs_jax.common.environment import environment
from mancs_jax.common.screen import escaped, tell
from mancs_jax.config import checks, names
from mancs_jax.data import arrays
from mancs_jax.data.cameras import each_its_own
from mancs_jax.data.prepared import ALL_IMAGES
from mancs_jax.data.sources.source import name_some
from mancs_jax.data.training_data import join, load_training_data
from mancs_jax.evaluation import cuhk03_classic, protocols, reranking, single_shot
from mancs_jax.evaluation.analyses import NONE, Analyses, analyse, check_analyses
from mancs_jax.evaluation.calibration import calibrated
from mancs_jax.evaluation.comparison import Comparison, kept, within_groups
from mancs_jax.evaluation.distances import check_distance
from mancs_jax.evaluation.labelled import Labelled
from mancs_jax.evaluation.per_query import PerQuery, write_queries
from mancs_jax.evaluation.protocols import Evaluated, Options
from mancs_jax.evaluation.single_shot import SingleShot
from mancs_jax.inference import histogram
from mancs_jax.inference.embedder import Embedder, load
from mancs_jax.inference.forward import embed
from mancs_jax.inference.network import Network
from mancs_jax.inference.trained import Trained, exported_path, load_trained
from mancs_jax.models.mancs import init_variables
from mancs_jax.training.description import Description
from mancs_jax.weights.start import check_start, load_into
from mancs_jax.workdir import Workdir

NETWORK, UNTRAINED, PRETRAINED = "Mancs", "untrained network", "before fine-tuning"
HISTOGRAM = "colour histogram"
RERANKED = f"{NETWORK}, re-ranked"
HELD_OUT = "held-out training identities"
NOBODY = (
    "--calibrate: the run held no identities out, so there are none to calibrate on; train with "
    "--config.data.validation_ids=100, or calibrate embeddings of other people (--features=FILE)"
)

Parts = dict[str, arrays.Split]  # "query" and "gallery", and "gt_bbox" for multi-query; single-shot may have others


class Task(NamedTuple):
    """The protocols and data to evaluate a model on."""

    dataset: str = ""  # to evaluate on; "": the one that the model was trained for
    root: str = ""  # directory of the data sets; "": that of the training
    multi_query: bool = False  # evaluate multi-query too
    distractors: str = ""  # data set whose split "distractors" joins the gallery
    flip: bool = False  # average the embeddings of an image and its mirror image
    baselines: bool = False  # evaluate an untrained network and a colour histogram too
    repeats: int = 100  # galleries drawn, in CUHK03's classic protocol
    single_shot: SingleShot | None = None  # evaluate by the single-shot protocol instead, see `single_shot_parts`
    analyses: Analyses = NONE  # beyond the scores, of the official single-query protocol
    options: Options = protocols.DEFAULT  # of the distances; with re-ranking, the model is evaluated without it too


USUAL = Task()


class HeldOut(NamedTuple):
    """The identities that a run held out, of all its data sets together."""

    query: arrays.Split
    gallery: arrays.Split
    query_source: Int[np.ndarray, " Q"]  # data set of each query, from 0
    gallery_source: Int[np.ndarray, " G"]
    people: str  # how many, and of which data sets


class ModelEvaluation(NamedTuple):
    """A model, the images it was evaluated on, and the results."""

    network: Network
    workdir: Workdir | None  # that it comes from; None of a shared network, whose results are written nowhere
    parts: Parts
    embedded: dict[str, Labelled]  # of each of the parts, by the network; distractors are at the end of the gallery
    results: dict[str, dict[str, Any]]  # name -> result, as written
    queries: dict[str, PerQuery]  # name -> scores of each query; none of CUHK03's classic protocol
    # NETWORK, and RERANKED where asked for, distractors included; empty after single-shot
    comparisons: dict[str, Comparison]


def evaluate(
    source: str | Path,
    task: Task = USUAL,
    *,
    validation: tuple[arrays.Split, arrays.Split] | None = None,
    progress: bool = True,
    write: bool = True,
) -> ModelEvaluation:
    """Evaluates a trained model, and writes the results of a workdir into it.

    Args:
      source: see `mancs_jax.load`.
      task: on what, and by which protocols. A network that was trained on one of CUHK03's classic splits is evaluated
        by the classic protocol on that split, in boxes of either kind.
      validation: (query, gallery) of held-out training identities, to be evaluated on instead of the official ones.
      progress: whether bars are shown.
      write: whether results are written, see `write_results`.

    Returns:
      The results, and what they were made of.

    Raises:
      FileNotFoundError: no network, or the data set is not there.
      OSError: results cannot be written into the workdir.
      ValueError: one line: the data set has no images for the protocol, or the options do not fit.
    """
    if exported_path(source) is not None:
        return _evaluate_exported(load(source, flip=task.flip), task, progress)
    trained = load_trained(source, take_latest=True)
    if write and trained.workdir is not None:
        check_writable(trained.workdir.result("single_query"))
    evaluation = evaluate_network(trained, task, validation=validation, progress=progress)
    if write:
        write_results(evaluation)
    return evaluation


def _evaluate_exported(embedder: Embedder, task: Task, progress: bool) -> ModelEvaluation:
    """Evaluates a file of `mancs export` as the network that it was made of; its parameters are not known here."""
    card = embedder.card
    trained = Trained(Network(embedder.config, card["num_classes"], {}), card["step"], Description.of(card), card, None)

    def embed_all(image: np.ndarray, camid: np.ndarray) -> np.ndarray:
        if not len(image):
            raise ValueError("no images to embed: the split is empty")
        return embedder(image, progress=progress)

    return evaluate_network(trained, task._replace(flip=embedder.flip), embed_all=embed_all, progress=progress)


def write_results(evaluation: ModelEvaluation) -> None:
    """Writes each result to results/ in the workdir of the network, if it has one, with the scores of its queries.

    The files are single_query.json, multi_query_mean.json, ..., with the options that are not the usual ones in the
    name (single_query_reranked.json), and validation.json for held-out identities. Next to each is the file of its
    scores by query (single_query.queries.npz), see `per_query.write_queries`.

    Raises:
      OSError: a file cannot be written.
    """
    if evaluation.workdir is None or not processes.is_writer():
        return
    for name, result in evaluation.results.items():
        is_other_dataset = result["dataset"] != names.sources(evaluation.network.config.data.name)[0]
        stem = _stem(result, is_other_dataset, result["split"] == HELD_OUT)
        write_json(evaluation.workdir.result(stem), result)
        if name in evaluation.queries:
            write_queries(evaluation.workdir.result(stem), {name: evaluation.queries[name]})


def evaluate_network(
    trained: Trained,
    task: Task = USUAL,
    *,
    validation: tuple[arrays.Split, arrays.Split] | None = None,
    embed_all: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    progress: bool = True,
) -> ModelEvaluation:
    """Evaluates a model that is loaded, as `evaluate`, and writes nothing.

    A network that is adapted to cameras embeds each image with the statistics of its camera, and held-out training
    images with its own. `embed_all` stands for a network without parameters: uint8 [N, H, W, 3], cameras [N] ->
    float32 [N, D].
    """
    network, step, description = trained.network, trained.step, trained.description
    config, data = network.config, network.config.data
    dataset, root = task.dataset or names.sources(data.name)[0], task.root or data.root
    # The other kind of boxes shows the same people: those that were trained on are not in the test set.
    testset = data.testset if dataset in names.CUHK03 else 0
    is_classic = testset > 0 and not validation and not task.single_shot
    _check(task, is_classic, root)
    if task.baselines and config.like_pretrained:
        check_start(config)  # the row "before fine-tuning" needs the pretrained model
    if task.analyses.calibrate and not _has_held_out(config):
        raise ValueError(NOBODY)
    parts = _load_parts(task, dataset, root, data, testset, validation)
    _check_draws(parts, task)
    if "query" in parts:
        people, _ = arrays.names_of(dataset, root) if task.analyses.groups is not None else ({}, {})
        task = task._replace(analyses=task.analyses.by_pid(people))
        check_analyses(task.analyses, parts["query"].pid)
    if not validation and (seen := _seen_before(dataset, description.pretrained_on, parts, testset)):
        tell(
            f"a model that this one was made from was trained on {' and '.join(seen)}: it may have seen these "
            "identities, and the scores may be too high"
        )
    embed_by = partial(embed, flip=task.flip, progress=progress)
    # A file of weights that is damaged ends here, before anything is embedded.
    baselines = _baselines(network, embed_by) if task.baselines else {}
    embed_all = embed_all or partial(embed_by, network)
    # Raises an error for too few held-out pairs, so it comes before the evaluation, which takes long.
    card = _calibration(trained, task, root, embed_all)
    camids = [split.camid for split in parts.values()]
    cameras = list(map(_unknown, camids)) if validation else _cameras(network, camids, dataset, root)
    names_of_cameras = {} if validation else arrays.names_of(dataset, root)[1]
    if not validation:
        _tell_of_cameras(trained, cameras, names_of_cameras, dataset)
    embedded = {
        part: Labelled(embed_all(split.image, camera), split.pid, split.camid)
        for (part, split), camera in zip(parts.items(), cameras, strict=True)
    }
    fingerprint: dict[str, str | list[str]] = {part: arrays.fingerprint(split) for part, split in parts.items()}
    if task.distractors:
        embedded["gallery"], fingerprint["distractors"] = _with_distractors(
            embedded["gallery"],
            task.distractors,
            root,
            data.image_size,
            lambda image, camid: embed_all(image, _cameras(network, [camid], task.distractors, root)[0]),
        )

    comparisons = {} if task.single_shot else _compared(embedded, task, progress)
    evaluated: dict[str, Evaluated] = {}
    results: dict[str, dict[str, Any]] = {}
    if task.single_shot:
        evaluated = {name: _single_shot(embedded, task.single_shot, options) for name, options in _ways(task).items()}
    elif is_classic:
        results[NETWORK] = _classic(embedded, task)
    else:
        evaluated = _official(embedded, comparisons, task, progress)
        evaluated[NETWORK] = analyse(comparisons[NETWORK], evaluated[NETWORK], task.analyses, card)
        if names_of_cameras and evaluated[NETWORK].result.get("cameras"):
            names_by_camid = {str(camera): name for camera, name in names_of_cameras.items()}
            evaluated[NETWORK].result["names"] = {"cameras": names_by_camid}
    results |= {name: of.result for name, of in evaluated.items()}
    for name, way in baselines.items():
        baseline = {
            part: Labelled(way(split.image), split.pid, split.camid)
            for part, split in parts.items()
            if part != "gt_bbox"
        }
        options = task.options._replace(rerank=False)
        if is_classic:
            result = _classic(baseline, task)
        else:
            evaluated[name] = (
                _single_shot(baseline, task.single_shot, options)
                if task.single_shot
                else protocols.evaluate_single_query(baseline["query"], baseline["gallery"], options)
            )
            result = evaluated[name].result
        results[name] = result | {"embedding": name, "flip": task.flip and name != HISTOGRAM}

    about_data = {
        "dataset": dataset,
        "split": HELD_OUT if validation else f"test set {testset}" if testset else _name_of_split(parts, dataset),
        "distractors": task.distractors,
        "fingerprint": fingerprint,
        **environment(jax.local_devices()),
    }
    about_model = {
        "embedding": NETWORK,
        "network": trained.card["network"],
        "flip": task.flip,
        "recipe": config.recipe,
        "seed": config.seed,
        "step": step,
        "trained_on": data.name,
        "chosen_on": "last step" if description.best is None else config.choose_on,
        "train_fingerprint": description.data_fingerprint,
        "config": description.config,
    } | {name: trained.card[name] for name in ("adapted", "exported", "camera") if name in trained.card}
    for name, result in results.items():
        results[name] = (result if "embedding" in result else result | about_model) | about_data
    queries = {name: of.queries for name, of in evaluated.items()}
    return ModelEvaluation(network, trained.workdir, parts, embedded, results, queries, comparisons)


def _seen_before(dataset: str, pretrained_on: Sequence[str], parts: Parts, testset: int) -> list[str]:
    """Returns the data sets behind a model that may have the evaluated identities.

    Those of query and gallery are in no training split. The test sets of CUHK03's classic protocol are drawn from the
    identities of all its images, which are the same in boxes of either kind.
    """
    if "query" in parts and not testset:
        return []
    same_people = names.CUHK03 if dataset in names.CUHK03 else (dataset,)
    return [name for name in same_people if name in pretrained_on]


def _cameras(network: Network, camids: Sequence[np.ndarray], dataset: str, root: str) -> list[np.ndarray]:
    """Returns what `embed` takes as the cameras of the images of a data set, of each of its parts: their names, where
    an adapted network may know them."""
    if not network.cameras:
        return list(camids)
    _, name_of = arrays.names_of(dataset, root)
    if not name_of and each_its_own(*camids):  # these numbers name no camera
        return list(map(_unknown, camids))
    return [np.array([name_of.get(camera, str(camera)) for camera in camid.tolist()], np.str_) for camid in camids]


def _tell_of_cameras(trained: Trained, cameras: Sequence[np.ndarray], name_of: Mapping[Any, str], dataset: str) -> None:
    """Says on stderr which cameras of a data set are embedded with statistics that may not be theirs."""
    if each_its_own(*cameras):
        return
    values = [camera for camera in np.unique(np.concatenate(cameras)).tolist() if camera != -1]
    present = [str(name_of.get(camera, camera)) for camera in values]
    if (own := trained.card.get("camera")) is not None and (others := [of for of in present if of != str(own)]):
        tell(
            f"the exported file has the statistics of camera {escaped(str(own))} only: images of "
            f"{_listed(others)} of {dataset} are embedded with them, too"
        )
    if shared := [camera for camera in present if camera in (trained.network.cameras or {})]:
        tell(
            f"images of {_listed(shared)} of {dataset} are embedded with the statistics of the cameras that the model "
            "is adapted to under these names; if they are other cameras, evaluate the model without adaptation"
        )


def _listed(cameras: Sequence[str]) -> str:
    return f"camera{'s' * (len(cameras) > 1)} {name_some(list(map(escaped, cameras)))}"


def _unknown(camid: np.ndarray) -> np.ndarray:
    """Returns cameras for which `embed` uses the network's own statistics: those of training images, whose numbers are
    of other cameras than those that the network is adapted to, and may be those of `join`."""
    return np.full(len(camid), -1)


def _check(task: Task, is_classic: bool, root: str) -> None:
    """Refuses what cannot work before anything is embedded."""
    check_distance(task.options.distance)
    if task.options.rerank:
        reranking.check_options(task.options.k1, task.options.k2, task.options.weight)
    if is_classic and (task.multi_query or task.options.rerank or task.distractors):
        raise ValueError("CUHK03's classic protocol is single-query and single-shot, without re-ranking or distractors")
    if task.single_shot and (task.multi_query or task.distractors):
        raise ValueError(
            "single-shot evaluation has one query and one gallery image an identity: leave multi-query and "
            "distractors out"
        )
    if (task.single_shot or is_classic) and (asked := task.analyses.named()):
        raise ValueError(f"{', '.join(asked)}: only of the official single-query protocol; leave them out")
    if task.distractors and task.baselines:
        raise ValueError("baselines are not evaluated with distractors: leave one of them out")
    if task.distractors and "distractors" not in (present := arrays.split_names(task.distractors, root)):
        raise ValueError(f"{task.distractors} has no split distractors, only {', '.join(present)}")


def _has_held_out(config: ConfigDict) -> bool:
    return config.choose_on == "validation" and config.data.validation_ids > 0


def held_out_images(trained: Trained, root: str) -> HeldOut | None:
    """Reads the identities that a run held out; None if there are none.

    Of several data sets, those that a pretrained or averaged model was trained on are left out, unless none would
    remain.

    Raises:
      FileNotFoundError: a data set is not there.
    """
    if not _has_held_out(trained.network.config):
        return None
    config = checks.from_json(trained.network.config.to_dict()).unlock()
    config.data.root = root
    held_out = load_training_data(config).validation
    unseen = held_out.keys() - set(trained.description.pretrained_on)
    held_out = {name: held_out[name] for name in held_out if name in unseen or not unseen}
    parts = list(zip(*held_out.values(), strict=True))
    query, gallery = (join(splits, list(held_out)) for splits in parts)
    query_source, gallery_source = (
        np.repeat(np.arange(len(splits)), [len(split.pid) for split in splits]) for splits in parts
    )
    people = (
        f"{config.data.validation_ids} held-out training identities of {'each of ' * (len(held_out) > 1)}"
        + " and ".join(held_out)
        + ("" if unseen else ", whom a model that this one was made from may have been trained on")
    )
    return HeldOut(query, gallery, query_source, gallery_source, people)


def embed_held_out(
    held_out: HeldOut, embed_all: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> tuple[Labelled, Labelled]:
    """Embeds query and gallery of held-out identities; `embed_all` is that of `evaluate_network`."""
    query, gallery = (
        Labelled(embed_all(split.image, _unknown(split.camid)), split.pid, split.camid) for split in held_out[:2]
    )
    return query, gallery


def compare_held_out(query: Labelled, gallery: Labelled, held_out: HeldOut, options: Options) -> Comparison:
    """Compares the embedded images of held-out identities, to set thresholds and a calibration on them.

    Only pairs within a data set count: people of different data sets are so easy to tell apart that these pairs would
    lower the false positive rates.
    """
    comparison = protocols.compared(query, gallery, options)
    if not held_out.gallery_source.any():
        return comparison
    return within_groups(comparison, held_out.query_source, held_out.gallery_source)


def _calibration(trained: Trained, task: Task, root: str, embed_all: Callable) -> dict[str, Any] | None:
    """A card with the calibration of the distances of a task: its own, or one that is made on held-out identities."""
    if not task.analyses.calibrate:
        # That of a card holds for the embeddings as they are.
        return None if task.flip or task.options.normalize else trained.card
    held_out = held_out_images(trained, root)
    assert held_out is not None  # see `evaluate_network`
    comparison = compare_held_out(*embed_held_out(held_out, embed_all), held_out, task.options._replace(rerank=False))
    calibration = calibrated({task.options.distance: comparison}, held_out.people)
    if calibration[task.options.distance] is None:
        raise ValueError(
            f"--calibrate: {held_out.people} have too few pairs, or pairs that do not overlap; hold out more"
        )
    return {"calibration": calibration}


def _load_parts(task, dataset, root, data, testset, validation) -> Parts:
    if validation:
        return dict(zip(("query", "gallery"), validation, strict=True))
    wanted = ["query", "gallery", *(["gt_bbox"] if task.multi_query else [])]
    if task.single_shot and not testset:
        wanted = single_shot_parts(arrays.split_names(dataset, root), dataset, root)
        if "query" not in wanted and dataset in names.sources(data.name):
            raise ValueError(
                f"the model was trained on the identities of {dataset}, which has no others (split {wanted[0]}): "
                "scores on them say nothing about other people; evaluate it on another data set (--dataset=NAME)"
            )
    if task.multi_query and "gt_bbox" not in (present := arrays.split_names(dataset, root)):
        raise ValueError(
            f"{dataset} under {root} has no split gt_bbox, only {', '.join(present)}: multi-query needs the images of "
            "each query's person under its camera; prepare the data set with them, or leave multi-query out"
        )
    return {part: arrays.load_split(dataset, root, part, data.image_size, testset) for part in wanted}


def single_shot_parts(present: Sequence[str], dataset: str, root: str) -> list[str]:
    """Returns the splits whose images single-shot evaluation draws from: query and gallery together, which have the
    test identities; of a data set without them, train or all_images.

    Raises:
      ValueError: the data set has none of these splits.
    """
    for wanted in (["query", "gallery"], ["train"], [ALL_IMAGES]):
        if set(wanted) <= set(present):
            return wanted
    raise ValueError(f"{dataset} under {root} has no images for single-shot evaluation, only {', '.join(present)}")


def _name_of_split(parts: Parts, dataset: str) -> str:
    if "query" not in parts:
        return next(iter(parts))
    return "official" if dataset in names.DATASETS else "query and gallery"  # a custom one is not published


def _check_draws(parts: Parts, task: Task) -> None:
    """Refuses single-shot splits that cannot be drawn, or not be re-ranked, before anything is embedded."""
    if not task.single_shot:
        return
    pid, camid = (np.concatenate([getattr(split, label) for split in parts.values()]) for label in ("pid", "camid"))
    first = single_shot.draw(pid, camid, task.single_shot)[0]
    if task.options.rerank:
        num_images = len(first.query) + len(first.gallery)
        reranking.check_options(task.options.k1, task.options.k2, task.options.weight, num_images)


def _single_shot(embedded: dict[str, Labelled], protocol: SingleShot, options: Options) -> Evaluated:
    images = Labelled(*map(np.concatenate, zip(*embedded.values(), strict=True)))
    return single_shot.evaluate(images, protocol, options)


def _with_distractors(gallery: Labelled, dataset: str, root: str, image_size, embed_all) -> tuple[Labelled, list[str]]:
    """(the gallery and behind it all distractors, fingerprints of their blocks); images are in memory in blocks."""
    embeddings, camids, fingerprints = [gallery.embedding], [gallery.camid], []
    for block in arrays.iterate_split(dataset, root, "distractors", image_size):
        embeddings.append(embed_all(block.image, block.camid))
        camids.append(block.camid)
        fingerprints.append(arrays.fingerprint(block))
    camid = np.concatenate(camids)
    pid = np.concatenate([gallery.pid, np.zeros(len(camid) - len(gallery.pid), np.int32)])
    return Labelled(np.concatenate(embeddings), pid, camid), fingerprints


def _ways(task: Task) -> dict[str, Options]:
    return {NETWORK: task.options._replace(rerank=False)} | ({RERANKED: task.options} if task.options.rerank else {})


def _compared(embedded: dict[str, Labelled], task: Task, progress: bool) -> dict[str, Comparison]:
    """NETWORK, and RERANKED where asked for; a report reads their values again for its lists."""
    query, gallery = embedded["query"], embedded["gallery"]
    return {
        name: kept(protocols.compared(query, gallery, options, progress=progress))
        for name, options in _ways(task).items()
    }


def _official(
    embedded: dict[str, Labelled], comparisons: dict[str, Comparison], task: Task, progress: bool
) -> dict[str, Evaluated]:
    """name -> result, single and multi query, each without and with re-ranking, as far as `task` asks for it."""
    query, gallery, results = embedded["query"], embedded["gallery"], {}
    for name, comparison in comparisons.items():
        options, suffix = task.options._replace(rerank=name == RERANKED), name.removeprefix(NETWORK)
        results[name] = protocols.evaluate_single_query(
            query, gallery, options, comparison=comparison, progress=progress
        )
        for pooling in protocols.POOLINGS if task.multi_query else ():
            results[f"{NETWORK}, multi-query ({pooling}){suffix}"] = protocols.evaluate_multi_query(
                query, gallery, embedded["gt_bbox"], pooling, options, progress=progress
            )
    return results


def _classic(embedded: dict[str, Labelled], task: Task) -> dict:
    query, gallery = embedded["query"], embedded["gallery"]
    distances = single_shot.distance_matrix(query.embedding, gallery.embedding, task.options)
    result = cuhk03_classic.evaluate(distances, query.pid, gallery.pid, repeats=task.repeats)
    return result | task.options.described()


def _baselines(network: Network, embed_all: Callable) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Name -> embeddings of images, of the baselines: the network as its training began, and a colour histogram."""
    config, variables = network.config, init_variables(network.config, network.num_classes)
    name = UNTRAINED
    if config.like_pretrained:
        params, batch_stats = load_into(**variables, pretrained=config.pretrained, arch=config.model.arch)
        name, variables = PRETRAINED, {"params": params, "batch_stats": batch_stats}
    first = Network(config, network.num_classes, variables)
    return {name: partial(embed_all, first), HISTOGRAM: histogram.embed}


def _stem(result: dict, is_other_dataset: bool, is_validation: bool) -> str:
    """Name of the file of a result: the protocol, and what about it is not usual."""
    words = ["validation" if is_validation else result["protocol"], result.get("pooling", "")]
    if result["protocol"] == "single_shot":
        cameras = (result["query_camera"], result["gallery_camera"])
        words += [f"{result['num_queries']}_identities", "" if None in cameras else "cameras_{}_{}".format(*cameras)]
        splits, seed = result["num_splits"], result["split_seed"]
        words += [f"{splits}_splits" if splits != single_shot.USUAL.splits else ""]
        words += [f"seed_{seed}" if seed != single_shot.USUAL.seed else ""]
    words += ["flip" if result.get("flip") else "", "cosine" if result["distance"] == "cosine" else ""]
    words += ["normalized" if result["normalize"] and result["protocol"] != "multi_query" else ""]
    words += ["reranked" if result["rerank"] else "", f"on_{result['dataset']}" if is_other_dataset else ""]
    words += ["with", result["distractors"]] if result["distractors"] else []
    words += [] if result["embedding"] == NETWORK else [result["embedding"].replace(" ", "_")]
    return "_".join(filter(None, words))
