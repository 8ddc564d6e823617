"""The directory of a prepared data set."""

from pathlib import Path

from mancs_jax.common.local_path import local_path

VERSION = "1.0.0"
ALL_IMAGES = "all_images"  # a split with every image, from which others are selected; TFDS reserves "all"


def prepared_path(root: str | Path, dataset: str) -> Path:
    """Returns the directory of a data set: `root/<dataset>/<version>`."""
    return local_path(root).absolute() / dataset / VERSION


def is_prepared(root: str | Path, dataset: str) -> bool:
    """Returns whether a complete data set is under `root`."""
    return (prepared_path(root, dataset) / "dataset_info.json").is_file()
