"""Where a prepared data set lies under a root."""

from pathlib import Path

from mancs_jax.common.local_path import local_path

VERSION = "1.0.0"
ALL_IMAGES = "all_images"  # a split with every image, from which others are chosen; TFDS keeps "all" for itself


def prepared_path(root: str | Path, dataset: str) -> Path:
    """Returns where a data set lies under `root` once it is built: `root/<dataset>/<version>`."""
    return local_path(root).absolute() / dataset / VERSION


def is_prepared(root: str | Path, dataset: str) -> bool:
    """Tells whether a data set lies, complete, under `root`."""
    return (prepared_path(root, dataset) / "dataset_info.json").is_file()
