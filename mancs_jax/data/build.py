"""Builds TFDS records of a data set, completely or not at all."""

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
from mancs_jax.common.quoted import reason_of
from mancs_jax.data.prepared import VERSION, prepared_path
from mancs_jax.data.sources.items import Contents

_SCRATCH = ".building-"
_FULL = os.strerror(errno.ENOSPC)


class PersonImages(tfds.core.GeneratorBasedBuilder):
    """The TFDS builder of every data set.

    Features: `image` (the encoded file; decoded uint8 [H, W, 3] RGB), `pid` int32, `camid` int32, `name` text, in the
    order of the contents. `file_format="array_record"` needs no TensorFlow. Reading needs neither this class nor the
    source: `arrays.load_split`, or `tfds.builder_from_directory`.
    """

    VERSION = tfds.core.Version(VERSION)
    url_infos = None  # nothing is downloaded

    def __init__(self, *, contents: Contents, **kwargs):
        """Takes the data set, and the arguments of TFDS."""
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
    """Builds a checked data set under `root`, completely or not at all, and returns its directory.

    TFDS writes to a temporary directory in `root`, which is renamed once it is complete. Until then, a build that is
    overwritten stays in place. Raises FileExistsError where the data set exists and may not be overwritten, and OSError
    where `root` cannot be written or the disk is full; `root` is then as before.
    """
    root = local_path(root).absolute()
    target = prepared_path(root, contents.name)
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists; overwrite replaces it")
    for leftover in root.glob(f"{_SCRATCH}*"):
        logging.warning("%s belongs to a build that was killed or still runs: delete it if none runs", leftover)
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
    # TFDS prints on stdout that it downloads, which it does not here.
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    except (OSError, RuntimeError) as error:  # array_record raises a RuntimeError where it cannot write
        if isinstance(error, RuntimeError) and "write() failed" not in str(error):
            raise
        reason = _FULL if _FULL in str(error) else reason_of(error)
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
