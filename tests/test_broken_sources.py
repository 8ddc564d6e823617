"""What is broken in a source -> the one line that `mancs prepare-data` says about it, with nothing kept."""

import errno
import os
import re
import tempfile
import zipfile

import numpy as np
import pytest
from tiny_sources import (
    CUHK03_NAMES,
    DUKE,
    image_files,
    jpeg,
    market_files,
    run_script,
    write,
    write_cuhk03,
    write_protocol,
)

from mancs_jax.data.sources import cuhk03


@pytest.fixture
def run(monkeypatch):
    """Runs the script, which has to fail in one line."""
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the handlers of the tests stay

    def fails(*arguments):
        line = run_script("prepare_data", *arguments)
        assert line.startswith("prepare-data: ") and "\n" not in line
        return line

    return fails


# Each of these takes what is to be broken, and returns a function: scratch folder -> arguments of the script.
def given(dataset: str, source, *more: str) -> list[str]:
    return [f"--dataset={dataset}", f"--source={source}", *more]


def market(changes: dict[str, bytes | None], *more: str):
    files = {name: data for name, data in (market_files() | changes).items() if data is not None}
    more = more or ("--allow_differences",)
    return lambda path: given("market1501", write(path / "source.zip", files, True), *more)


def damaged(change):
    def make(path):
        source = write(path / "source.zip", market_files(), True)
        source.write_bytes(change(source.read_bytes()))
        return given("market1501", source, "--allow_differences")

    return make


def distractors(*names: str):
    return lambda path: given("market1501_500k", write(path / "source", image_files({"images": names}), False))


def duke(changes: dict[str, list[str]]):
    return lambda path: given("dukemtmc_reid", write(path / "source", image_files(DUKE | changes), False))


def mat(*more: str, **changes):
    return lambda path: given("cuhk03_detected", write_cuhk03(path / "x.mat", **changes), *more)


def protocol(**changes):
    def make(path):
        file = write_protocol(path / "protocol.mat", **changes)
        return given("cuhk03_labeled", write_cuhk03(path / "x.mat"), f"--protocol_file={file}")

    return make


def raw(dataset: str, name: str, content: bytes):
    def make(path):
        (path / name).write_bytes(content)
        return given(dataset, path / name)

    return make


def cut_mat(path):
    whole = write_cuhk03(path / "x.mat").read_bytes()
    return raw("cuhk03_labeled", "x.mat", whole[: len(whole) // 2])(path)


def zip_without_mat(path):
    files = {"cuhk03_release/README.md": b"x"}
    return given("cuhk03_labeled", write(path / "cuhk03_release.zip", files, True))


def table(text: str | bytes, name: str = "mine", link: bool = False):
    def make(path):
        source = write(path / "source", {"a.jpg": jpeg(0), "b.jpg": jpeg(1)}, False)
        (path / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        (path / "outside.jpg").write_bytes(jpeg(2))
        if link:
            (source / "link.jpg").symlink_to(path / "outside.jpg")
        return given("folder", source, f"--name={name}", f"--csv={path / 'labels.csv'}")

    return make


def labels(*lines: str, **options):
    return table("\n".join(["path,pid,camid,split", *lines]), **options)


def damaged_table(path):
    source = write(path / "source.zip", {"labels.csv": b"path,pid,camid,split\n", "a.jpg": jpeg(0)}, True)
    content = bytearray(source.read_bytes())
    content[content.index(b"path,pid")] ^= 255
    source.write_bytes(content)
    return given("folder", source, "--name=mine", "--csv=labels.csv")


def own(*names: str):
    return lambda path: given("folder", write(path / "source", image_files({"query": names}), False), "--name=mine")


QUERY = "query/0001_c1s1_001051_00.jpg"
MARKET_PAGE = r".*zheng-lab\.cecs\.anu\.edu\.au/Project/project_reid\.html; for research only"
ROWS = {
    # Zips and folders
    "nothing there": (
        lambda path: given("market1501", path / "missing.zip"),
        r"missing\.zip does not exist\. Market-1501 has to be fetched by hand" + MARKET_PAGE,
    ),
    "no zip": (raw("market1501", "page.zip", b"<html>"), r"page\.zip is not a zip file, or is cut off" + MARKET_PAGE),
    "a zip that is cut off": (damaged(lambda data: data[:-30]), r"source\.zip is not a zip file, or is cut off"),
    "a damaged member": (
        damaged(lambda data: data.replace(b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xe1", 1)),
        r"1 unreadable: bounding_box_train/0002_c1s1_000451_03\.jpg \(cannot be read: Bad CRC-32",
    ),
    # Market-1501
    "missing folders": (
        market(dict.fromkeys(market_files()) | {"photos/a.jpg": jpeg(0)}),
        r"no images in a folder bounding_box_train, query, bounding_box_test, gt_bbox" + MARKET_PAGE,
    ),
    "a truncated image": (market({QUERY: jpeg(0)[:-100]}), rf"1 unreadable: {QUERY} \(cut off\).*" + MARKET_PAGE),
    "a photo among the images": (market({"query/me.jpg": jpeg(0)}), r"query/me\.jpg: not named as 0002_c1s1_000451_03"),
    "a camera that is not there": (
        market({"query/0001_c7s1_001051_00.jpg": jpeg(0)}, "--check"),
        r"query: 3 images \(published: 3,368\).*unknown cameras: 7",
    ),
    "an id that is not there": (
        market({"query/1502_c1s1_001051_00.jpg": jpeg(0)}, "--check"),
        r"query: ids above 1501: 1502;.* \(allow_differences builds it as it is\)",
    ),
    "an empty split": (market({QUERY.replace("query", "gt_bbox"): None}, "--check"), r"gt_bbox: no images"),
    "people among the distractors": (
        distractors("0000_c1s1_000151_01.jpg", "0002_c1s1_000451_03.jpg"),
        r"images/0002_c1s1_000451_03\.jpg: not named as 0000_c1s1_.*distractors_500k\.zip" + MARKET_PAGE,
    ),
    "too few distractors": (distractors("0000_c1s1_000151_01.jpg"), r"distractors: 1 images \(published: 500,000\)"),
    # DukeMTMC-reID
    "Market-1501 given as DukeMTMC-reID": (
        duke({"query": ["0001_c1s1_001051_00.jpg"]}),
        r"not named as 0001_c2_f0046182\.jpg .*withdrawn by its authors in 2019",
    ),
    "an incomplete DukeMTMC-reID": (duke({}), r"train: 2 images \(published: 16,522\), 1 ids \(published: 702\)"),
    # CUHK03
    "a .mat that is cut off": (cut_mat, r"x\.mat: not an HDF5 file .*or cut off \(.*truncated"),
    "a zip without the .mat": (zip_without_mat, r"cuhk03_release\.zip: there is no cuhk-03\.mat in it"),
    "a folder without the .mat": (
        lambda path: given("cuhk03_labeled", path),
        r"there is no cuhk-03\.mat in it, nor in a folder cuhk03_release",
    ),
    "no detected boxes": (mat(boxes=["labeled"]), r"x\.mat: there is no cell 'detected' .*, but #refs#, labeled"),
    "no test sets": (mat(testsets=None), r"x\.mat: there is no cell 'testsets'"),
    "a test set of somebody else": (
        mat(testsets=[[(1, 1)], [(2, 3)]]),
        r"test set 2 has \(pair, person\) \(2, 3\), whom it has no images of",
    ),
    "too few images": (mat(), r"all_images: 12 images \(published: 14,097\).*testsets: 2 of 1 or 2 people \(published"),
    "images of another type": (
        mat("--allow_differences", image=np.zeros((4, 4, 3))),
        r"12 unreadable: 1_001_1_01\.png \(cannot be read: float64 \[4, 4, 3\] is not an RGB image\)",
    ),
    "no protocol file": (mat("--protocol_file=gone.mat"), r"gone\.mat does not exist; .*zhunzhong07"),
    "a protocol file that is none": (
        lambda path: [*mat()(path), f"--protocol_file={path / 'x.mat'}"],
        r"x\.mat is not a file of the 767/700 protocol \(MATLAB v5; NotImplementedError",
    ),
    "a protocol without queries": (protocol(query_idx=None), r"767/700 protocol \(MATLAB v5; KeyError: 'query_idx'\)"),
    "an index out of range": (protocol(query_idx=np.array([13])), r"ValueError: an index is out of range"),
    "the protocol of other boxes": (
        protocol(filelist=np.array([[name] for name in [*CUHK03_NAMES[:-1], "2_002_2_08.png"]], object)),
        r"protocol\.mat does not belong to these images: .*'2_002_2_08\.png'.*one file for labeled and one for det",
    ),
    # One's own data
    "no header": (table("a.jpg,1,1,train\n"), r"labels\.csv line 1: is 'a\.jpg,1,1,train'; it has to be 'path,pid,ca"),
    "a CSV without people": (table("path,camid,split\na.jpg,1,train\n"), r"line 1: is 'path,camid,split'; it has to"),
    "a camera that the header lacks": (table("path,pid,split\na.jpg,1,1,train\n"), r"csv line 2: 4 fields, not 3$"),
    "an empty camera": (labels("a.jpg,1,,train"), r"line 2: camid '' is neither an integer from 0 nor a name"),
    "a CSV without lines": (labels(), r"mine: no images are listed"),
    "no text": (table(b"path\xff"), r"labels\.csv: not a CSV in UTF-8"),
    "an open quote": (labels('"a.jpg,1,1,train'), r"labels\.csv line 2: unexpected end of data"),
    "a field too few": (labels("a.jpg,1,train"), r"labels\.csv line 2: 3 fields, not 4"),
    "a path upwards": (labels("../outside.jpg,1,1,train"), r"line 2: path '\.\./outside\.jpg' is not one below"),
    "a link that leads out": (
        labels("link.jpg,1,1,train", link=True),
        r"line 2: path 'link\.jpg' is no file in .*source",
    ),
    "a missing image": (labels("a.jpg,1,1,train", "c.jpg,1,1,train"), r"line 3: path 'c\.jpg' is no file in"),
    "a path twice": (labels("a.jpg,1,1,train", "", "a.jpg,2,1,query"), r"line 4: path 'a\.jpg' is there already"),
    "several wrong lines": (
        labels("a.jpg,1.0,1,train", "b.jpg,-2,1,train"),
        r"labels\.csv line 2: pid '1.0' is neither an integer from -1 nor a name, line 3: pid '-2' is neither an "
        r"integer from -1 nor a name$",
    ),
    "a camera below 0": (labels("a.jpg,1,-1,train"), r"line 2: camid '-1' is neither an integer from 0 nor a name"),
    "an id too large": (labels("a.jpg,2147483648,1,train"), r"line 2: pid '2147483648' is neither an integer"),
    "a path from the root": (labels("/etc/passwd,1,1,train"), r"line 2: path '/etc/passwd' is not one below .*source"),
    "a query of nobody": (
        labels("a.jpg,0,1,query", "b.jpg,0,1,gallery"),
        r"line 2: pid 0 in query is no person, but a distractor: number people from 1, or leave it out$",
    ),
    "junk to learn": (labels("a.jpg,-1,1,train"), r"line 2: pid -1 in train is no person, but junk: number people"),
    "a path in two forms": (
        labels("./a.jpg,1,1,train", "source/a.jpg,1,1,train"),
        r"line 3: path 'source/a\.jpg' is there already, in line 2",
    ),
    "a damaged CSV in a zip": (damaged_table, r"labels\.csv: cannot be read \(Bad CRC-32"),
    "an unknown split": (labels("a.jpg,1,1,test"), r"line 2: split 'test' is not one of train, query, gallery, gt_bb"),
    "query without gallery": (labels("a.jpg,1,1,query"), r"query and gallery go together, but only query has images"),
    "an image that is none": (
        lambda path: [*labels("b.jpg,1,1,train")(path), f"--source={write(path / 'source', {'b.jpg': b'x'}, False)}"],
        r"1 unreadable: b\.jpg \(damaged, or not an image\)$",
    ),
    "names without labels": (own("a.jpg"), r"query/a\.jpg: not named as 0002_c1_\.\.\. \(id, camera\)"),
    "no CSV": (lambda path: [*labels()(path), "--csv=gone.csv"], r"there is no gone\.csv, neither on disk nor in"),
    "a name with a slash": (labels(name="../mine"), r"'\.\./mine' cannot be the name of a data set"),
    "a name that is taken": (labels(name="market1501"), r"'market1501' cannot be the name of a data set"),
    # Arguments
    "no source": (lambda path: ["--dataset=market1501"], r"no source is given \(--source=ZIP_OR_FOLDER\)\. Market-15"),
    "a folder without a name": (lambda path: ["--dataset=folder", "--source=x"], r"--name=NAME is missing"),
    "a CSV for Market-1501": (market({}, "--csv=x.csv"), r"--name and --csv are for --dataset=folder, not for mark"),
    "a protocol for Market-1501": (market({}, "--protocol_file=x"), r"--protocol_file is for CUHK03, not for market"),
    "a source for walkers": (lambda path: ["--dataset=walkers", "--source=x"], r"walkers is rendered, not read: leave"),
}


@pytest.mark.parametrize(("make", "line"), ROWS.values(), ids=ROWS)
def test_a_broken_source(run, tmp_path, make, line):
    root = tmp_path / "root"
    assert re.search(line, run(*make(tmp_path), f"--root={root}"))
    assert not root.exists()


def test_no_root(run, tmp_path):
    assert "--root=DIR is missing: the directory of the prepared data sets" in run(*market({})(tmp_path))


def test_a_root_that_is_a_file(run, tmp_path):
    (tmp_path / "root").write_bytes(b"x")
    line = run(*market({})(tmp_path), f"--root={tmp_path / 'root'}")
    assert "root cannot be written (" in line and (tmp_path / "root").read_bytes() == b"x"


def test_no_room_to_unpack(run, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with zipfile.ZipFile(tmp_path / "cuhk03_release.zip", "w") as archive:
        archive.write(write_cuhk03(tmp_path / "x.mat"), "cuhk03_release/cuhk-03.mat")
    monkeypatch.setattr(cuhk03.shutil, "copyfileobj", full)
    line = run("--dataset=cuhk03_labeled", f"--source={tmp_path / 'cuhk03_release.zip'}", "--check")
    assert f"cannot be unpacked into {tempfile.gettempdir()} (see TMPDIR): [Errno 28] No space left" in line


def test_whatever_is_damaged_inside_a_mat_file_gets_one_line(tmp_path):
    whole = write_cuhk03(tmp_path / "x.mat").read_bytes()
    lines = 0
    for place in range(512, len(whole), 211):
        damaged = bytearray(whole)
        damaged[place] ^= 255
        (tmp_path / "x.mat").write_bytes(damaged)
        try:
            with cuhk03.open_source(tmp_path / "x.mat", "labeled"):
                pass
        except ValueError as error:
            assert "x.mat" in str(error) and "\n" not in str(error).strip()
            lines += 1
    assert lines > 0
