"""The script: once in a process of its own, as it is used, and in this one; and the data set that it renders."""

import hashlib
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from tiny_sources import REPOSITORY, image_files, jpeg, run_script, write, write_cuhk03, write_protocol

from mancs_jax.config import by_name, checks
from mancs_jax.data import arrays, images
from mancs_jax.data.prepared import prepared_path
from mancs_jax.data.sources import market1501, walkers
from mancs_jax.data.sources.items import count_items

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


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "source.zip", image_files(NAMES), True, top="Market-1501-v15.09.15/")


def md5_line(path) -> str:
    found = hashlib.md5(path.read_bytes()).hexdigest()
    return f"md5 {found} differs from the published {market1501.MD5}: a repacked copy; contents were checked\n"


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the script in this process; returns (the line with which it exits, "" for success; stdout)."""
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the handlers of the tests stay
    return lambda *arguments: (run_script("prepare_data", *arguments), capsys.readouterr().out)


def start(*arguments):
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "mancs_jax.cli", "prepare-data", *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.getenv("PYTHONPATH")]))},
        capture_output=True,
        text=True,
        check=False,
    )


def test_in_a_process_of_its_own(source, tmp_path):
    root = tmp_path / "root"
    arguments = ["--dataset=market1501", f"--source={source}", f"--root={root}"]
    refused = start(*arguments)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("prepare-data: ") and refused.stderr.count("\n") == 1
    assert "train: 3 images (published: 12,936)" in refused.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["source.zip"]
    result = start(*arguments, "--allow_differences")
    path = prepared_path(root, "market1501")
    assert (result.returncode, result.stdout) == (0, f"{TABLE}{md5_line(source)}{path}\n")
    assert "train: 3 images (published: 12,936)" in result.stderr and result.stderr.count("\n") == 1
    split = arrays.load_split("market1501", root, "train", (16, 8))
    assert split.name.tolist() == NAMES["bounding_box_train"]


def test_what_is_prepared_is_left_alone(run, source, tmp_path):
    root = tmp_path / "root"
    arguments = ["--dataset=market1501", f"--root={root}", "--allow_differences"]
    path = prepared_path(root, "market1501")
    assert run(*arguments, f"--source={source}") == ("", f"{TABLE}{md5_line(source)}{path}\n")
    again = run(*arguments, "--source=gone.zip")
    assert again == ("", f"{TABLE}{path} exists, nothing was done; --overwrite builds it again\n")
    line, _ = run(*arguments, "--source=gone.zip", "--overwrite")
    assert "does not exist. Market-1501 has to be fetched by hand" in line
    assert arrays.load_split("market1501", root, "gallery", (16, 8)).pid.tolist() == [-1, 0, 1]


def test_the_published_zip(run, source, tmp_path, monkeypatch):
    with market1501.open_source(source) as found:
        counts = {split: count_items(items) for split, items in found.splits.items()}
    about = market1501.ABOUT._replace(counts=counts, md5=hashlib.md5(source.read_bytes()).hexdigest())
    monkeypatch.setattr(market1501, "ABOUT", about)
    path = prepared_path(tmp_path / "root", "market1501")
    arguments = ["--dataset=market1501", f"--source={source}"]
    assert run(*arguments, "--check") == ("", f"{TABLE}md5 as published\n")
    assert run(*arguments, f"--root={tmp_path / 'root'}") == ("", f"{TABLE}md5 as published\n{path}\n")


def test_check_writes_nothing(run, source, tmp_path):
    arguments = ["--dataset=market1501", f"--source={source}", f"--root={tmp_path / 'root'}", "--check"]
    assert "query: 1 images (published: 3,368)" in run(*arguments)[0]
    assert run(*arguments, "--allow_differences") == ("", TABLE + md5_line(source))
    assert [entry.name for entry in tmp_path.iterdir()] == ["source.zip"]


def test_cuhk03(run, tmp_path):
    mat, root = write_cuhk03(tmp_path / "cuhk-03.mat"), tmp_path / "root"
    arguments = ["--dataset=cuhk03_labeled", f"--source={mat}", f"--root={root}", "--allow_differences"]
    rows = [
        "train              5       2            0       0        2",
        "query              3       3            0       0        2",
        "gallery            4       3            0       0        2",
        "all_images        12       5            0       0        2",
    ]
    path = str(prepared_path(root, "cuhk03_labeled"))
    line, out = run(*arguments)
    assert line == "" and [out.splitlines()[1], out.splitlines()[3]] == [rows[3], path]
    assert out.splitlines()[2].startswith("no cuhk03_new_protocol_config_labeled.mat is next to it")
    protocol = write_protocol(tmp_path / "protocol.mat")
    line, out = run(*arguments, f"--protocol_file={protocol}", "--overwrite")
    assert (line, out.splitlines()[1:]) == ("", [*rows, path])


def test_ones_own_data(run, tmp_path):
    source = write(tmp_path / "source", {"a.jpg": jpeg(0), "b.jpg": jpeg(1), "c.jpg": jpeg(2), "d.jpg": jpeg(3)}, False)
    rows = ["path,pid,camid,split", "a.jpg,1,1,train", "b.jpg,1,1,query", "c.jpg,1,2,gallery", "d.jpg,2,1,query"]
    (source / "labels.csv").write_text("\n".join(rows))
    flags = ("--dataset=folder", "--name=My-data", f"--source={source}", "--csv=labels.csv", f"--root={tmp_path}")
    line, out = run(*flags)
    assert line == "" and out.splitlines()[1:] == [
        "train           1       1            0       0        1",
        "query           2       2            0       0        1",
        "gallery         1       1            0       0        1",
        "1 ids are in train and in query or gallery",
        "1 ids of query are not in gallery",
        "1 of 2 queries have no match under another camera",
        str(prepared_path(tmp_path, "My-data")),
        "no training is possible: it needs at least two identities",
    ]
    assert arrays.load_split("My-data", tmp_path, "query", (16, 8)).name.tolist() == ["b.jpg", "d.jpg"]


def test_walkers_is_rendered_into_the_data_set(run, tmp_path, monkeypatch):
    def render(seed=0, processes=1):
        yield "query", "0003_c1s1_000001_00.jpg", jpeg(10 + seed)
        yield "bounding_box_train", "0002_c1s1_000002_00.jpg", jpeg(20 + seed)
        yield "bounding_box_train", "0001_c2s1_000001_00.jpg", jpeg(30 + seed)
        yield "bounding_box_test", "0003_c2s1_000003_00.jpg", jpeg(40 + seed)

    monkeypatch.setattr(walkers.walkers, "render", render)
    line, out = run("--dataset=walkers", f"--root={tmp_path}")
    assert (line, out.splitlines()[-1]) == ("", str(prepared_path(tmp_path, "walkers")))
    assert arrays.split_names("walkers", tmp_path) == ["train", "query", "gallery"]
    train = arrays.load_split("walkers", tmp_path, "train", (16, 8))
    assert (train.pid.tolist(), train.camid.tolist()) == ([1, 2], [2, 1])
    assert train.name.tolist() == ["0001_c2s1_000001_00.jpg", "0002_c1s1_000002_00.jpg"]
    expected = [images.decode_image(jpeg(seed), (16, 8), "") for seed in (30, 20)]
    assert (train.image == expected).all()
    with walkers.open_rendered(seed=5) as found:
        assert found.read(found.splits["query"][0].file) == jpeg(15)


def prepare_own(run, place, rows, root="root"):
    """Prepares images with rows pid,camid,split; the lines that are printed below the place of the data set."""
    source = write(place / "source", {f"{i}.jpg": jpeg(i) for i in range(len(rows))}, False)
    lines = [f"{i}.jpg,{row}" for i, row in enumerate(rows)]
    (place / "labels.csv").write_text("\n".join(["path,pid,camid,split", *lines]))
    arguments = ["--dataset=folder", "--name=mine", f"--source={source}", f"--csv={place / 'labels.csv'}"]
    line, out = run(*arguments, f"--root={place / root}")
    assert line == ""
    lines = out.splitlines()
    return lines[lines.index(str(prepared_path(place / root, "mine"))) + 1 :]


def people(number, per_camera=2):
    return [f"{pid},{camid},train" for pid in range(1, number + 1) for camid in (1, 2) for _ in range(per_camera)]


QUERY = ["90,1,query", "90,2,gallery"]
NO_IDENTITY = "no training could be evaluated: there is no query, and no identity can be held out (one "


@pytest.mark.parametrize(
    ("rows", "fine_tuning", "from_scratch"),
    [
        (people(15), "p=8 --config.data.validation_ids=3", "p=12 --config.data.validation_ids=3"),
        (people(4), "p=2 --config.data.validation_ids=2", "p=2 --config.data.validation_ids=2"),
        (people(40) + QUERY, "p=8 --config.data.validation_ids=8", "p=32"),
        (people(3), None, "p=2 --config.data.validation_ids=1"),
        (people(10, per_camera=1) + people(1), None, "p=9 --config.data.validation_ids=1"),
        (people(15, per_camera=1) + QUERY, None, "p=15"),
    ],
)
def test_the_commands_that_train_on_ones_own_data(run, tmp_path, rows, fine_tuning, from_scratch):
    lines = prepare_own(run, tmp_path, rows)
    expected = [("or train from scratch" if fine_tuning else "train on it from scratch", "market:small", from_scratch)]
    if fine_tuning:
        expected.insert(0, ("fine-tune a pretrained model on it", "finetune", fine_tuning))
    train = arrays.load_split("mine", tmp_path / "root", "train", (16, 8))
    for line, (words, recipe, fields) in zip(lines, expected, strict=True):
        workdir = "mine" if recipe == "finetune" else "mine_scratch"
        start = f"{words}: mancs train --config={recipe} --workdir=workdirs/{workdir} --config.data.name=mine "
        assert line == f"{start}--config.data.root={tmp_path / 'root'} --config.data.{fields}"
        # What training does with it:
        numbers = {name: int(number) for name, number in re.findall(r"(p|validation_ids)=(\d+)", fields)}
        held_out = numbers.get("validation_ids", 0)
        if held_out:
            assert len(arrays.hold_out(train, held_out, seed=0)[1].pid) >= held_out
        config = by_name.get_config(recipe).unlock()
        config.data.name, config.data.p, config.data.validation_ids = "mine", numbers["p"], held_out
        checks.validate(config, num_devices=1)
        checks.validate_identities(config, [len(np.unique(train.pid))])


@pytest.mark.parametrize("root", ["my data", "a*b", "it's"])
def test_the_commands_are_quoted(run, tmp_path, root):
    for line in prepare_own(run, tmp_path, people(4), root):
        words = shlex.split(line)
        assert f"--config.data.root={tmp_path / root}" in words and words[-1] == "--config.data.validation_ids=2"


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (people(15, per_camera=1), NO_IDENTITY),
        (people(1), NO_IDENTITY),
        (people(2), "no training is possible: it needs at least two identities"),
        (people(1) + QUERY, "no training is possible: it needs at least two identities"),
    ],
)
def test_no_command_where_none_would_train(run, tmp_path, rows, line):
    [printed] = prepare_own(run, tmp_path, rows)
    assert printed.startswith(line)
