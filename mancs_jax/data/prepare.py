"""Prepares a data set: `mancs prepare-data` in one call."""

import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import numpy as np

from mancs_jax.common.atomic_write import check_writable
from mancs_jax.common.local_path import local_path
from mancs_jax.common.screen import tell
from mancs_jax.config import names
from mancs_jax.data import arrays, build
from mancs_jax.data.cameras import UNKNOWN
from mancs_jax.data.prepared import is_prepared, prepared_path
from mancs_jax.data.sources import cuhk01, cuhk03, dukemtmc_reid, folder, market1501, walkers
from mancs_jax.data.sources.items import About, Contents, Counts, check, count, count_items

# Data set -> its published facts, and the function that opens its source.
READERS: dict[str, tuple[About, Callable[..., AbstractContextManager[Contents]]]] = {
    "market1501": (market1501.ABOUT, market1501.open_source),
    "market1501_500k": (market1501.DISTRACTORS_ABOUT, market1501.open_distractors),
    "dukemtmc_reid": (dukemtmc_reid.ABOUT, dukemtmc_reid.open_source),
    "cuhk01": (cuhk01.ABOUT, cuhk01.open_source),
    **{f"cuhk03_{boxes}": (cuhk03.ABOUT, partial(cuhk03.open_source, boxes=boxes)) for boxes in cuhk03.COUNTS},
}
HOW_TO_GET = {dataset: about.how_to_get for dataset, (about, _) in READERS.items()} | {
    "folder": "A folder of your own needs --name as well, and --csv where its names are not as Market-1501's"
}


def prepare(
    dataset: str,
    source: str | None,
    root: str | None,
    *,
    protocol_file: str | None = None,
    name: str | None = None,
    csv: str | None = None,
    only_check: bool = False,
    overwrite: bool = False,
    allow_differences: bool = False,
) -> str:
    """Builds a data set under `root` where it is missing, or only checks its source.

    Returns the text to print: the table of the splits, notes, and the path of the data set. Raises ValueError or
    OSError where the source is missing or wrong, or `root` cannot be written.
    """
    refuse_arguments(dataset, source, protocol_file, name, csv)
    if not root:
        if not only_check:
            raise ValueError("--root=DIR is missing: the directory of the prepared data sets")
        root = ""
    prepared = name or dataset
    if not only_check and is_prepared(root, prepared) and not overwrite:
        path = prepared_path(root, prepared)
        return f"{table(count_prepared(prepared, root))}\n{path} exists, nothing was done; --overwrite builds it again"
    if not only_check:
        check_writable(local_path(root), folder=True)
    if dataset == "walkers":
        tell("rendering walkers on all cores, half a minute on two")
    with open_contents(dataset, source, protocol_file, name, csv) as contents:
        notes = check(contents, source or dataset, allow_differences)
        if only_check:
            counts, last_lines = {split: count_items(items) for split, items in contents.splits.items()}, []
        else:
            path = build.build(contents, root, overwrite)
            counts, last_lines = count_prepared(prepared, root), [str(path), *how_to_train(prepared, root)]
    return "\n".join([table(counts), *notes, *last_lines])


def how_to_train(dataset: str, root: str) -> list[str]:
    """Returns training commands that fit a custom data set, or why it cannot be trained on; otherwise [].

    Fine-tuning comes first. It needs two held-out identities, because with one every score is perfect.
    """
    splits = arrays.split_names(dataset, root)
    if dataset in names.DATASETS or "train" not in splits:
        return []
    train = arrays.open_split(dataset, root, "train")
    num_ids = len(np.unique(train.pid))
    eligible = arrays.eligible_to_hold_out(train.pid, train.camid)[1]
    held_out = min(max(num_ids // 5, 2), eligible, max(num_ids - 2, 1))  # so that two are left to train on
    # Without a query, a trained model can be evaluated only on held-out identities.
    held_out_from_scratch = 0 if "query" in splits else held_out
    if "query" not in splits and not held_out:
        return [
            "no training could be evaluated: there is no query, and no identity can be held out (one with two images "
            "under each of two cameras, and others to train on)"
        ]
    if num_ids - held_out_from_scratch < 2:
        return ["no training is possible: it needs at least two identities"]

    def command(recipe: str, workdir: str, most_ids: int, held_out: int) -> str:
        fields = {"name": dataset, "root": root, "p": min(most_ids, num_ids - held_out)}
        fields |= {"validation_ids": held_out} if held_out else {}
        flags = " ".join(f"--config.data.{field}={shlex.quote(str(value))}" for field, value in fields.items())
        return f"mancs train --config={recipe} --workdir=workdirs/{workdir} {flags}"

    from_scratch = command("market:small", f"{dataset}_scratch", 32, held_out_from_scratch)
    if held_out < 2 or num_ids - held_out < 2:
        return [f"train on it from scratch: {from_scratch}"]
    return [
        f"fine-tune a pretrained model on it: {command('finetune', dataset, 8, held_out)}",
        f"or train from scratch: {from_scratch}",
    ]


def refuse_arguments(
    dataset: str, source: str | None, protocol_file: str | None, name: str | None, csv: str | None
) -> None:
    """Raises ValueError where an argument is missing, or is not for this data set."""
    if dataset == "walkers" and source:
        raise ValueError("walkers is rendered, not read: leave --source out")
    if dataset != "walkers" and not source:
        raise ValueError(f"no source is given (--source=ZIP_OR_FOLDER). {HOW_TO_GET[dataset]}")
    if dataset == "folder" and not name:
        raise ValueError("--name=NAME is missing: the name of the data set")
    if name:
        folder.check_name(name)
    if dataset != "folder" and (name or csv):
        raise ValueError(f"--name and --csv are for --dataset=folder, not for {dataset}")
    if protocol_file and dataset not in names.CUHK03:
        raise ValueError(f"--protocol_file is for CUHK03, not for {dataset}")


def open_contents(
    dataset: str, source: str | None, protocol_file: str | None, name: str | None, csv: str | None
) -> AbstractContextManager[Contents]:
    """Opens the source of a data set, after `refuse_arguments`."""
    if dataset == "walkers":
        return walkers.open_rendered()
    assert source is not None
    if dataset == "folder":
        assert name is not None
        return folder.open_own(name, source, csv)
    options = {"protocol_file": protocol_file} if dataset in names.CUHK03 else {}
    return READERS[dataset][1](source, **options)


def count_prepared(dataset: str, root: str) -> dict[str, Counts]:
    """Counts the splits of a prepared data set from its records."""
    records = {split: arrays.open_split(dataset, root, split) for split in arrays.split_names(dataset, root)}
    return {split: count(labels.pid, labels.camid) for split, labels in records.items()}


def table(counts: dict[str, Counts]) -> str:
    """Returns the counts of the splits as text, one line a split, and a line where no cameras are known."""
    cameras = {camid for size in counts.values() for camid in size.cameras}
    has_cameras = len(cameras) < max(2, sum(size.images for size in counts.values()))
    width = max(len(split) for split in ["split  ", *counts]) + 1
    lines = [f"{'split':<{width}}{'images':>9}{'ids':>8}{'distractors':>13}{'junk':>8}{'cameras':>9}"]
    lines += [
        f"{split:<{width}}{size.images:>9,}{size.ids:>8,}{size.distractors:>13,}{size.junk:>8,}"
        f"{len(size.cameras) if has_cameras else '-':>9}"
        for split, size in counts.items()
    ]
    lines += [] if has_cameras else [UNKNOWN]
    return "\n".join(lines)
