"""The script in a process of its own, as it is used, and the builder of walkers that it calls."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from mancs_jax.data import arrays, build, walkers_builder

REPOSITORY = Path(__file__).resolve().parents[1]
NAMES = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0002_c2s1_000551_01.jpg", "0007_c1s1_000001_01.jpg"],
    "query": ["0001_c1s1_001051_00.jpg"],
    "bounding_box_test": ["-1_c1s1_000401_03.jpg", "0000_c1s1_000151_01.jpg", "0001_c2s1_001051_01.jpg.jpg"],
    "gt_bbox": ["0001_c1s1_001051_00.jpg"],
}
TABLE = """\
split      images     ids  distractors    junk  cameras
train           3       2            0       0        2
query           1       1            0       0        1
gallery         3       1            1       1        2
gt_bbox         1       1            0       0        1
"""


def jpeg(value: int) -> bytes:
    return cv2.imencode(".jpg", np.full((16, 8, 3), value, np.uint8))[1].tobytes()


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for folder, names in NAMES.items():
            for value, name in enumerate(names):
                archive.writestr(f"Market-1501-v15.09.15/{folder}/{name}", jpeg(50 * value))
    return path


def prepare_data(*arguments: str):
    return subprocess.run(
        [sys.executable, "-W", "error", REPOSITORY / "scripts" / "prepare_data.py", *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.getenv("PYTHONPATH")]))},
        capture_output=True,
        text=True,
        check=False,
    )


def assert_fails(result, text: str) -> None:
    """The script failed, with one line and no traceback."""
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith("prepare_data: ") and result.stderr.count("\n") == 1
    assert text in result.stderr


def test_prepare_market1501(source, tmp_path):
    root = tmp_path / "root"
    arguments = ["--dataset=market1501", f"--source={source}", f"--root={root}", "--allow_differences"]
    path = build.prepared_path(root, "market1501")
    result = prepare_data(*arguments)
    assert (result.returncode, result.stdout) == (0, f"{TABLE}{path}\n")
    assert "train: 3 images (published: 12,936)" in result.stderr and result.stderr.count("\n") == 1
    split = arrays.load_split("market1501", root, "train", (16, 8))
    assert split.name.tolist() == NAMES["bounding_box_train"] and split.image[:, 0, 0, 0].tolist() == [
        0,
        50,
        100,
    ]

    source.unlink()  # what is prepared does not need it
    again = prepare_data("--dataset=market1501", f"--root={root}")
    note = "exists, nothing was done; --overwrite builds it again"
    assert (again.returncode, again.stdout, again.stderr) == (0, f"{TABLE}{path} {note}\n", "")
    assert_fails(prepare_data(*arguments, "--overwrite"), "does not exist. Market-1501 has to be fetched by hand")
    assert arrays.load_split("market1501", root, "gallery", (16, 8)).pid.tolist() == [-1, 0, 1]


def test_check_writes_nothing(source, tmp_path):
    root = tmp_path / "root"
    arguments = ["--dataset=market1501", f"--source={source}", f"--root={root}", "--check"]
    assert_fails(prepare_data(*arguments), "query: 1 images (published: 3,368)")
    result = prepare_data(*arguments, "--allow_differences")
    assert (result.returncode, result.stdout) == (0, TABLE)
    assert [entry.name for entry in tmp_path.iterdir()] == ["source.zip"]


def test_a_wrong_source_leaves_nothing(source, tmp_path):
    source.write_bytes(source.read_bytes()[:-30])
    arguments = [
        "--dataset=market1501",
        f"--source={source}",
        f"--root={tmp_path / 'root'}",
        "--allow_differences",
    ]
    assert_fails(prepare_data(*arguments), "is not a zip file, or is cut off")
    assert [entry.name for entry in tmp_path.iterdir()] == ["source.zip"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["--dataset=market1501", "--root=unused"],
            "no source is given (--source=ZIP_OR_FOLDER). Market-1501 has to be",
        ),
        (["--dataset=market1501", "--source=x.zip"], "--root=DIR is missing"),
        (
            ["--dataset=walkers", "--source=x.zip", "--root=unused"],
            "walkers is rendered, not read: leave --source out",
        ),
    ],
)
def test_arguments_are_checked(arguments, text):
    assert_fails(prepare_data(*arguments), text)


def test_walkers_is_rendered_into_the_data_set(tmp_path, monkeypatch):
    def render(seed=0):
        yield "query", "0003_c1s1_000001_00.jpg", jpeg(10 + seed)
        yield "bounding_box_train", "0002_c1s1_000002_00.jpg", jpeg(20 + seed)
        yield "bounding_box_train", "0001_c2s1_000001_00.jpg", jpeg(30 + seed)
        yield "bounding_box_test", "0003_c2s1_000003_00.jpg", jpeg(40 + seed)

    monkeypatch.setattr(walkers_builder.walkers, "render", render)
    assert build.build(walkers_builder.Walkers, tmp_path) == build.prepared_path(tmp_path, "walkers")
    assert arrays.split_names("walkers", tmp_path) == ["train", "query", "gallery"]
    train = arrays.load_split("walkers", tmp_path, "train", (16, 8))
    assert (train.pid.tolist(), train.camid.tolist()) == ([1, 2], [2, 1])
    assert train.name.tolist() == ["0001_c2s1_000001_00.jpg", "0002_c1s1_000002_00.jpg"]
    assert train.image[:, 0, 0, 0].tolist() == [30, 20]
    assert walkers_builder.render_splits(seed=5)["query"] == {"0003_c1s1_000001_00.jpg": jpeg(15)}
