"""Builds TFDS records of a data set: written completely or not at all, readable without its source."""

import contextlib
import errno
import io
import os
import shutil
import uuid
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from mancs_jax.common.local_path import local_path
from mancs_jax.data.prepared import VERSION, prepared_path
from mancs_jax.data.sources.items import Contents

_SCRATCH = ".building-"
_FULL = os.strerror(errno.ENOSPC)


class PersonImages(tfds.core.GeneratorBasedBuilder):
    """The TFDS builder of every data set.

    Features: `image` (the encoded file; decoded uint8 [H, W, 3] RGB), `pid` int32, `camid` int32, `name` text. The
    records keep the order of the contents. Made with `file_format="array_record"`, which needs no TensorFlow;
    `build` does so. What it wrote is read without this class and without the source: `arrays.load_split`, or
    `tfds.builder_from_directory`.
    """

    VERSION = tfds.core.Version(VERSION)
    url_infos = None  # nothing is downloaded

    def __init__(self, *, contents: Contents, **kwargs):
        """Takes the data set, and the rest as TFDS does."""
        self.name = contents.name
        self._contents = contents
        super().__init__(**kwargs)

    def _info(self):
        about, metadata = self._contents.about, self._contents.metadata
        return tfds.core.DatasetInfo(
            builder=self,
            description=about.description,
            homepage=about.homepage,
            citation=about.citation,
            metadata=tfds.core.MetadataDict(metadata) if metadata else None,
            disable_shuffling=True,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "pid": np.int32,
                    "camid": np.int32,
                    "name": tfds.features.Text(),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(items) for split, items in self._contents.splits.items()}

    def _generate_examples(self, items):
        for name, pid, camid, file in items:
            yield name, {"image": self._contents.read(file), "pid": pid, "camid": camid, "name": name}


def build(contents: Contents, root: str | Path, overwrite: bool = False) -> Path:
    """Builds a data set under `root`, completely or not at all.

    TFDS writes into a temporary directory in `root`, which is moved to its place once it is complete. A build
    that is to be overwritten stays in its place until then.

    Args:
      contents: the data set, checked.
      root: directory of all data sets, made if missing.
      overwrite: replace the data set where it exists.

    Returns:
      The data set's directory.

    Raises:
      FileExistsError: the data set exists and is not to be overwritten.
      OSError: `root` cannot be written, or is full; `root` is then as it was.
    """
    root = local_path(root).absolute()
    target = prepared_path(root, contents.name)
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists; overwrite replaces it")
    for leftover in root.glob(f"{_SCRATCH}*"):
        logging.warning("%s is of a build that was killed, or that runs now: delete it if none runs", leftover)
    scratch = root / f"{_SCRATCH}{uuid.uuid4().hex[:8]}"
    builder = PersonImages(contents=contents, data_dir=scratch, file_format="array_record")
    new_folders = [folder for folder in (target.parent, root, *root.parents) if not folder.exists()]
    try:
        _write(builder, root)
        _move_in(Path(builder.data_dir), target, aside=scratch / "replaced")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        for folder in new_folders:
            with contextlib.suppress(OSError):  # after a success they are not empty
                folder.rmdir()
    return target


def _write(builder, root):
    # TFDS prints, on stdout, that it downloads, and where to: neither is so here.
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    except (OSError, RuntimeError) as error:  # array_record raises a RuntimeError where it cannot write
        if isinstance(error, RuntimeError) and "write() failed" not in str(error):
            raise
        reason = _FULL if _FULL in str(error) else error
        raise OSError(f"{root}: {builder.name} cannot be built ({reason}); nothing of it was kept") from error


def _move_in(built, target, aside):
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(aside)
    try:
        built.rename(target)
    except BaseException:
        if aside.exists():
            aside.rename(target)
        raise
