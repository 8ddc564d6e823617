"""The TFDS builder of walkers: synthetic people, rendered into the data set without a folder in between."""

import tensorflow_datasets as tfds

from mancs_jax.data import build, market1501, walkers


def render_splits(seed: int = 0) -> dict[str, dict[str, bytes]]:
    """Renders walkers.

    Returns:
      split -> file name -> bytes of a JPEG file; names sorted. Splits without images are left out.
    """
    folders: dict[str, dict[str, bytes]] = {}
    for folder, name, jpeg in walkers.render(seed=seed):
        folders.setdefault(folder, {})[name] = jpeg
    return {
        split: dict(sorted(folders[folder].items()))
        for split, folder in market1501.FOLDERS.items()
        if folder in folders
    }


class Walkers(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of walkers, laid out and named as Market-1501; made with `file_format="array_record"`."""

    name = "walkers"
    VERSION = tfds.core.Version(build.VERSION)
    url_infos = None  # nothing is downloaded

    def __init__(self, *, seed: int = 0, **kwargs):
        """Args: `seed` of the rendering; the rest as in TFDS."""
        self._seed = seed
        super().__init__(**kwargs)

    def _info(self):
        return build.person_info(
            self, description="Walkers: rendered people under several cameras, for tests and demos."
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(images) for split, images in render_splits(self._seed).items()}

    def _generate_examples(self, images):
        return build.records(market1501.examples(list(images), images.__getitem__))
