"""Market-1501 (Zheng et al., ICCV 2015): its names, its published counts, and its TFDS builder."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from mancs_jax.data import build

HOMEPAGE = "https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html"
HOW_TO_GET = (
    "Market-1501 has to be fetched by hand: Market-1501-v15.09.15.zip, md5 65005ab7d12ec1c44de4eeafe813e68a, "
    f"see {HOMEPAGE}; for research only, not to be passed on, not for commercial use"
)
CITATION = """@inproceedings{zheng2015scalable,
  title={Scalable Person Re-identification: A Benchmark},
  author={Zheng, Liang and Shen, Liyue and Tian, Lu and Wang, Shengjin and Wang, Jingdong and Tian, Qi},
  booktitle={ICCV},
  year={2015}
}"""
TOP_FOLDER = "Market-1501-v15.09.15"
FOLDERS = {
    "train": "bounding_box_train",
    "query": "query",
    "gallery": "bounding_box_test",
    "gt_bbox": "gt_bbox",
}
# Of the published names, 38 end in .jpg.jpg.
NAME = re.compile(r"(-1|\d{4})_c([1-9])s\d_\d{6}_\d{2}\.jpg(?:\.jpg)?")


class Counts(NamedTuple):
    """What a split holds."""

    images: int
    ids: int  # people: neither distractors nor junk
    distractors: int  # images of pid 0
    junk: int  # images of pid -1
    cameras: tuple[int, ...]


PUBLISHED = {
    "train": Counts(12936, 751, 0, 0, (1, 2, 3, 4, 5, 6)),
    "query": Counts(3368, 750, 0, 0, (1, 2, 3, 4, 5, 6)),
    "gallery": Counts(19732, 750, 2798, 3819, (1, 2, 3, 4, 5, 6)),
    "gt_bbox": Counts(25259, 1501, 0, 0, (1, 2, 3, 4, 5, 6)),
}


def parse_name(name: str) -> tuple[int, int]:
    """Returns (pid, camid) of a file name such as `0002_c1s1_000451_03.jpg`.

    The other numbers are the sequence, the frame and the box. pid is -1 for junk and 0 for a distractor; the
    first camera is 1.

    Raises:
      ValueError: the name is not of this form.
    """
    found = NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"{name!r} is not a name such as 0002_c1s1_000451_03.jpg (id, camera, sequence, frame, box)")
    return int(found[1]), int(found[2])


def count(pid: np.ndarray, camid: np.ndarray) -> Counts:
    """Counts a split from its labels, int [N] each."""
    return Counts(
        images=len(pid),
        ids=len(np.unique(pid[pid > 0])),
        distractors=int(np.sum(pid == 0)),
        junk=int(np.sum(pid == -1)),
        cameras=tuple(np.unique(camid).tolist()),
    )


def count_names(names: Sequence[str]) -> Counts:
    """Counts a split from its file names."""
    return count(*np.array([parse_name(name) for name in names], np.int32).reshape(-1, 2).T)


def open_source(path: str | Path | None) -> build.Source:
    """Lists a zip or a folder of Market-1501, with or without its top folder, and checks the names.

    Raises:
      FileNotFoundError: there is nothing at `path`.
      ValueError: it is None, or no zip, or holds none of the four folders, or something that does not belong
        in them.
    """
    if not path:
        raise ValueError(f"no source is given (--source=ZIP_OR_FOLDER). {HOW_TO_GET}")
    try:
        source = build.open_source(path, FOLDERS, TOP_FOLDER)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{error}. {HOW_TO_GET}") from error
    bad = [f"{folder}/{name}" for folder, name in build.list_files(source) if not NAME.fullmatch(name)]
    if bad:
        raise ValueError(
            f"{path}: {build.name_some(bad)}: not named as 0002_c1s1_000451_03.jpg (id, camera, sequence, "
            "frame, box); take out of these folders what does not belong to Market-1501"
        )
    return source


def find_differences(names: Mapping[str, Sequence[str]]) -> list[str]:
    """Compares the file names of each split with the published set.

    Returns:
      One text for each split that differs and for each conflict of splits; empty for the published set.
    """
    differences = []
    for split, published in PUBLISHED.items():
        if text := _compare(count_names(names.get(split, ())), published):
            differences.append(f"{split}: {text}")
    people = {split: {parse_name(name)[0] for name in names.get(split, ())} - {-1, 0} for split in FOLDERS}
    if shared := people["train"] & (people["query"] | people["gallery"]):
        differences.append(f"{len(shared):,} ids are in train and in query or gallery")
    if people["gallery"] and (unmatched := people["query"] - people["gallery"]):
        differences.append(f"{len(unmatched):,} ids of query are not in gallery")
    return differences


def check_source(source: build.Source, allow_differences: bool = False) -> None:
    """Checks the counts and every image, and names all that is wrong in one message.

    Args:
      source: what `open_source` returned.
      allow_differences: where the counts differ from the published set, log a warning instead of an error. An
        image that cannot be read is an error in any case.

    Raises:
      ValueError: there are differences that are not allowed, or unreadable images.
    """
    differences, unreadable = find_differences(source.names), build.find_unreadable(source)
    problems = [f"{len(unreadable):,} unreadable: {build.name_some(unreadable)}"] if unreadable else []
    if differences and not allow_differences:
        problems.append(
            f"differs from the published Market-1501: {'; '.join(differences)} (allow_differences builds it as it is)"
        )
    if problems:
        raise ValueError(f"{source.path}: {'; '.join(problems)}; fetch or unpack it again")
    if differences:
        logging.warning("%s differs from the published Market-1501: %s", source.path, "; ".join(differences))


def examples(names: Sequence[str], read: Callable[[str], bytes]) -> Iterator[build.Example]:
    """Yields the examples of one split, in the given order.

    Args:
      names: file names in Market-1501's form.
      read: file name -> bytes of the file.
    """
    for name in names:
        yield build.Example(name, *parse_name(name), read(name))


class Market1501(tfds.core.GeneratorBasedBuilder):
    """TFDS builder: splits train, query, gallery and gt_bbox.

    Made with `file_format="array_record"`, which needs no TensorFlow; `build.build` does so. What it wrote is
    read without it and without its source: `arrays.load_split`, or `tfds.builder_from_directory`.
    """

    name = "market1501"
    VERSION = tfds.core.Version(build.VERSION)
    url_infos = None  # nothing is downloaded

    def __init__(self, *, source: str | Path | None = None, allow_differences: bool = False, **kwargs):
        """Takes `source` as `open_source`, `allow_differences` as `check_source`, the rest as TFDS does."""
        self._source = source
        self._allow_differences = allow_differences
        super().__init__(**kwargs)

    def _info(self):
        return build.person_info(
            self,
            description="Market-1501: 1,501 people under six cameras on a campus. For research only.",
            homepage=HOMEPAGE,
            citation=CITATION,
        )

    def _split_generators(self, dl_manager):
        source = open_source(self._source)
        check_source(source, self._allow_differences)
        return {split: self._generate_examples(source, split) for split in source.names}

    def _generate_examples(self, source, split):
        return build.records(examples(source.names[split], lambda name: source.read(source.folders[split], name)))


def _compare(found, published):
    if not found.images:
        return "no images"
    counted = zip(Counts._fields[:4], found, published, strict=False)
    texts = [f"{has:,} {what} (published: {wants:,})" for what, has, wants in counted if has != wants]
    if missing := sorted(set(published.cameras) - set(found.cameras)):
        texts.append(f"missing cameras: {', '.join(map(str, missing))}")
    if unknown := sorted(set(found.cameras) - set(published.cameras)):
        texts.append(f"unknown cameras: {', '.join(map(str, unknown))}")
    return ", ".join(texts)
