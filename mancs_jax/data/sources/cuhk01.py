"""CUHK01 (Li et al., ACCV 2012): names, published counts, where to get it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mancs_jax.common.local_path import local_path
from mancs_jax.data.sources.items import About, Contents, Counts
from mancs_jax.data.sources.named_folders import Layout, open_folders

HOMEPAGE = "https://www.ee.cuhk.edu.hk/~xgwang/CUHK_identification.html"
IMAGES_A_VIEW = 2  # of each identity
LAYOUT = Layout(
    folders={"train": "campus"},
    top_folder="CUHK01",
    pattern=re.compile(r"(\d{4})00([1-4])\.png"),  # identity, number of the image
    form="0001003.png (identity, 00, image 1 to 4)",
)
ABOUT = About(
    title="CUHK01",
    description="CUHK01: 971 people under two cameras on a campus, two images a view. For research only.",
    homepage=HOMEPAGE,
    citation="""@inproceedings{li2012human,
  title={Human Reidentification with Transferred Metric Learning},
  author={Li, Wei and Zhao, Rui and Wang, Xiaogang},
  booktitle={ACCV},
  year={2012}
}""",
    how_to_get=(
        f"CUHK01 has to be asked for at {HOMEPAGE}: a folder campus of 3,884 images; for research only, not to be "
        "passed on"
    ),
    counts={"train": Counts(3884, 971, 0, 0, (1, 2))},
    last_pid=971,
)


@contextmanager
def open_source(path: str | Path) -> Iterator[Contents]:
    """Opens a zip or a folder of CUHK01, or its folder `campus`.

    All images are in the split train: the data set has no official split into training and test identities. Images 1
    and 2 of an identity are its first view, camera 1, images 3 and 4 the second, camera 2. Errors: `open_folders`.
    """
    path = local_path(path)
    path = path.parent if path.name == LAYOUT.folders["train"] else path
    with open_folders("cuhk01", ABOUT, LAYOUT, path) as contents:
        splits = {
            split: [item._replace(camid=(item.camid - 1) // IMAGES_A_VIEW + 1) for item in items]
            for split, items in contents.splits.items()
        }
        yield contents._replace(splits=splits)
