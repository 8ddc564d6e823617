"""Walkers as a data set to be built: rendered, without a folder in between."""

from collections.abc import Iterator
from contextlib import contextmanager

from mancs_jax.data import walkers
from mancs_jax.data.sources import market1501
from mancs_jax.data.sources.items import About, Contents, Item
from mancs_jax.data.sources.named_folders import parse_name

ABOUT = About("Walkers", "Walkers: rendered people under several cameras, for tests and demos.")


@contextmanager
def open_rendered(seed: int = 0) -> Iterator[Contents]:
    """Renders walkers, laid out and named as Market-1501, with all cores."""
    images: dict[str, bytes] = {}
    splits: dict[str, list[Item]] = {}
    split_of = {folder: split for split, folder in market1501.LAYOUT.folders.items()}
    for folder, name, jpeg in walkers.render(seed, processes=None):
        file = f"{folder}/{name}"
        images[file] = jpeg
        item = Item(name, *parse_name(name, market1501.LAYOUT), file)
        splits.setdefault(split_of[folder], []).append(item)
    ordered = {split: sorted(splits[split]) for split in split_of.values() if split in splits}
    yield Contents("walkers", ABOUT, ordered, images.__getitem__)
