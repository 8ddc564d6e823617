"""Training images of one data set or several, and the identities that are held out."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from mancs_jax.config.checks import validate_identities
from mancs_jax.config.names import sources
from mancs_jax.data import arrays
from mancs_jax.data.arrays import Split


class TrainingData(NamedTuple):
    """The result of `load_training_data`."""

    split: Split  # of all sources in order, with distinct identities and cameras
    num_ids: tuple[int, ...]  # identities of each source in `split`
    validation: dict[str, tuple[Split, Split]]  # source -> (query, gallery) that select the best checkpoint; {}: none


def load_training_data(config: ConfigDict) -> TrainingData:
    """Reads the training images of every data set in `config.data.name`, and holds out identities.

    Raises FileNotFoundError where one is not prepared, and ValueError, one line, where a batch or the identities to
    hold out do not fit the data.
    """
    data, names = config.data, sources(config.data.name)
    splits = [arrays.load_split(name, data.root, "train", data.image_size, data.testset) for name in names]
    validate_identities(config, [_count_identities(split) for split in splits])
    validation = {}
    for i, name in enumerate(names):
        if data.unused_ids:
            splits[i] = arrays.leave_out(splits[i], data.unused_ids, config.seed)
        if config.choose_on == "test":
            size, testset = data.image_size, data.testset
            query, gallery = (arrays.load_split(name, data.root, part, size, testset) for part in ("query", "gallery"))
            validation[name] = query, gallery
        elif data.validation_ids:
            splits[i], query, gallery = arrays.hold_out(splits[i], data.validation_ids, config.seed)
            validation[name] = query, gallery
    return TrainingData(join(splits, names), tuple(map(_count_identities, splits)), validation)


def join(splits: Sequence[Split], names: Sequence[str]) -> Split:
    """Concatenates splits, with images of one size, of the data sets `names`.

    Identities and cameras are renumbered so that data sets do not share them; distractors (0) and junk (-1) stay. Image
    names get the name of the data set as prefix. A single split is returned unchanged.
    """
    if len(splits) == 1:
        return splits[0]
    joined, last_pid, last_camid = [], 0, 0
    for split, name in zip(splits, names, strict=True):
        pid = np.where(split.pid > 0, split.pid + last_pid, split.pid).astype(np.int32)
        camid = (split.camid - split.camid.min() + last_camid + 1).astype(np.int32)
        joined.append(Split(split.image, pid, camid, np.char.add(f"{name}/", split.name)))
        last_pid, last_camid = max(last_pid, int(pid.max())), int(camid.max())
    return Split(*(np.concatenate(fields) for fields in zip(*joined, strict=True)))


def _count_identities(split: Split) -> int:
    return len(np.unique(split.pid))
