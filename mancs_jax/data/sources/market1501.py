"""Market-1501 (Zheng et al., ICCV 2015) and its 500,000 distractors: names, published counts, where to get them."""

import re
from contextlib import AbstractContextManager
from pathlib import Path

from mancs_jax.common.local_path import local_path
from mancs_jax.data.sources.items import About, Contents, Counts
from mancs_jax.data.sources.named_folders import Layout, open_folders

HOMEPAGE = "https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html"
TERMS = f"see {HOMEPAGE}; for research only, not to be passed on, not for commercial use"
CITATION = """@inproceedings{zheng2015scalable,
  title={Scalable Person Re-identification: A Benchmark},
  author={Zheng, Liang and Shen, Liyue and Tian, Lu and Wang, Shengjin and Wang, Jingdong and Tian, Qi},
  booktitle={ICCV},
  year={2015}
}"""
MD5 = "65005ab7d12ec1c44de4eeafe813e68a"  # of Market-1501-v15.09.15.zip
CAMERAS = (1, 2, 3, 4, 5, 6)
LAYOUT = Layout(
    folders={"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test", "gt_bbox": "gt_bbox"},
    top_folder="Market-1501-v15.09.15",
    pattern=re.compile(r"(-1|\d{4})_c([1-9])s\d_\d{6}_\d{2}\.jpg(?:\.jpg)?"),  # 38 of the published end in .jpg.jpg
    form="0002_c1s1_000451_03.jpg (id, camera, sequence, frame, box)",
)
ABOUT = About(
    title="Market-1501",
    description="Market-1501: 1,501 people under six cameras on a campus. For research only.",
    homepage=HOMEPAGE,
    citation=CITATION,
    how_to_get=f"Market-1501 has to be fetched by hand: Market-1501-v15.09.15.zip, md5 {MD5}, {TERMS}",
    md5=MD5,
    counts={
        "train": Counts(12936, 751, 0, 0, CAMERAS),
        "query": Counts(3368, 750, 0, 0, CAMERAS),
        "gallery": Counts(19732, 750, 2798, 3819, CAMERAS),
        "gt_bbox": Counts(25259, 1501, 0, 0, CAMERAS),
    },
    last_pid=1501,
)
# Distractors have id 0 and a camera; the rest of their names is not documented. Any other id would be a person.
DISTRACTORS_LAYOUT = Layout(
    folders={"distractors": "images"},
    top_folder="distractors_500k",
    pattern=re.compile(r"(0+)_c([1-9])\D.*\.jpg(?:\.jpg)?"),
    form="0000_c1s1_000151_01.jpg (id 0, camera, ...)",
)
DISTRACTORS_ABOUT = About(
    title="Market-1501+500k",
    description="500,000 distractors for the gallery of Market-1501. For research only.",
    homepage=HOMEPAGE,
    citation=CITATION,
    how_to_get=f"The distractors have to be fetched by hand: distractors_500k.zip, folder images, {TERMS}",
    counts={"distractors": Counts(500_000, 0, 500_000, 0, CAMERAS)},
)


def open_source(path: str | Path) -> AbstractContextManager[Contents]:
    """Opens a zip or a folder of Market-1501; splits train, query, gallery and gt_bbox. Errors: `open_folders`."""
    return open_folders("market1501", ABOUT, LAYOUT, path)


def open_distractors(path: str | Path) -> AbstractContextManager[Contents]:
    """Opens the zip of the 500,000 distractors, its folder `images` or the parent of that; split distractors."""
    path = local_path(path)
    folder = DISTRACTORS_LAYOUT.folders["distractors"]
    return open_folders(
        "market1501_500k", DISTRACTORS_ABOUT, DISTRACTORS_LAYOUT, path.parent if path.name == folder else path
    )
