from pathlib import Path

import cv2
import documents
import pytest
from tiny_sources import image_files, jpeg, noise, write

from mancs_jax.config.names import DATASETS
from mancs_jax.data import build
from mancs_jax.data.arrays import load_split
from mancs_jax.data.sources import folder
from mancs_jax.data.sources.items import Item

pytestmark = pytest.mark.quick

PNG = cv2.imencode(".png", noise(7))[1].tobytes()
BMP = cv2.imencode(".bmp", noise(8))[1].tobytes()
FILES = {"people/b 1.jpg": jpeg(1), "people/a.png": PNG, "c.bmp": BMP, "g/d.jpg": jpeg(2), "g/e.jpeg": jpeg(3)}
TABLE = """\
path,pid,camid,split
people/b 1.jpg,12,0,train
people/a.png,7,31,train

c.bmp,3,1,query
g/d.jpg,3,2,gallery
"g/e.jpeg",-1,2,gallery
"""
SPLITS = {
    "train": [Item("people/a.png", 7, 31, "people/a.png"), Item("people/b 1.jpg", 12, 0, "people/b 1.jpg")],
    "query": [Item("c.bmp", 3, 1, "c.bmp")],
    "gallery": [Item("g/d.jpg", 3, 2, "g/d.jpg"), Item("g/e.jpeg", -1, 2, "g/e.jpeg")],
}


@pytest.mark.parametrize(("as_zip", "top"), [(True, ""), (True, "mine/"), (False, "")])
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv(tmp_path, as_zip, top, inside, encoding):
    table = TABLE.replace("\n", "\r\n").encode(encoding)
    path = tmp_path / ("mine.zip" if as_zip else "mine")
    write(path, FILES | ({"labels.csv": table} if inside else {}), as_zip, top)
    file = "labels.csv"
    if not inside:
        file = tmp_path / "labels.csv"
        file.write_bytes(table)
    with folder.open_own("Mine", path, file) as found:
        assert found.splits == SPLITS and found.name == "Mine"
        assert all(found.read(name) == data for name, data in FILES.items())


def test_a_csv_without_cameras(tmp_path):
    """Each image gets a camera of its own, over all splits."""
    lines = [line.split(",") for line in TABLE.splitlines()]
    table = "\n".join(",".join(line[:2] + line[3:]) for line in lines)
    write(tmp_path / "mine", FILES | {"labels.csv": table.encode()}, False)
    with folder.open_own("mine", tmp_path / "mine", "labels.csv") as found:
        items = [item for split in found.splits.values() for item in split]
        assert [item[:2] for item in items] == [item[:2] for split in SPLITS.values() for item in split]
    assert sorted(item.camid for item in items) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("form", ["images/{}", "./{}", "images//{}", "{absolute}/{}", "images\\{}"])
def test_paths_of_a_csv_may_begin_elsewhere(tmp_path, as_zip, form):
    path = write(tmp_path / ("images.zip" if as_zip else "images"), {"a.jpg": jpeg(1), "b/c.jpg": jpeg(2)}, as_zip)
    lines = [form.format(file, absolute=path) + f",{i + 1},0,train" for i, file in enumerate(("a.jpg", "b/c.jpg"))]
    (tmp_path / "labels.csv").write_text("\n".join(["path,pid,camid,split", *lines]))
    with folder.open_own("mine", path, tmp_path / "labels.csv") as found:
        assert [(item.file, item.pid) for item in found.splits["train"]] == [("a.jpg", 1), ("b/c.jpg", 2)]


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("top", ["", "v2/"])
@pytest.mark.parametrize("form", ["data/images/{}", "./data/images/{top}{}", "images/{top}{}", "{tail}/{}"])
def test_paths_of_a_csv_may_begin_with_any_end_of_the_path_of_the_source(tmp_path, monkeypatch, as_zip, top, form):
    monkeypatch.chdir(tmp_path)
    path = Path("data", "images.zip" if as_zip else "images")
    path.parent.mkdir()
    write(path, {"a.jpg": jpeg(1), "b/c.jpg": jpeg(2), "data/images/b/c.jpg": jpeg(3)}, as_zip, top)
    tail = f"{tmp_path.name}/data/images"
    line = form.format("a.jpg", top=top, tail=tail)
    table = tmp_path / "labels.csv"
    table.write_text(f"path,pid,camid,split\n{line},1,0,train\ndata/images/b/c.jpg,2,0,train\n")
    with folder.open_own("mine", path, table) as found:
        # A path that names a file in the source means this file.
        assert {item.file for item in found.splits["train"]} == {"a.jpg", "data/images/b/c.jpg"}
    table.write_text("path,pid,camid,split\nother/images/a.jpg,1,0,train\n")
    with pytest.raises(ValueError, match="path 'other/images/a.jpg' is no file in"), folder.open_own("m", path, table):
        pass


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize(("name", "shown"), [("a\0.jpg", r"'a\\x00.jpg'"), ("a" * 5000, r"'a+\.\.\.a+'")])
def test_names_that_no_disk_has(tmp_path, as_zip, name, shown):
    path = write(tmp_path / "images", {"b.jpg": jpeg(1)}, as_zip)
    (tmp_path / "labels.csv").write_text(f"path,pid,camid,split\nb.jpg,1,0,train\n{name},2,0,train\n")
    refusal = pytest.raises(ValueError, match=f"labels.csv line 3: path {shown} is no file in")
    with refusal, folder.open_own("mine", path, tmp_path / "labels.csv"):
        pass


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("table", ["labels.csv", "images/labels.csv"])
def test_a_csv_in_a_folder_that_encloses_everything(tmp_path, as_zip, table):
    files = {"a.jpg": jpeg(1), "labels.csv": b"path,pid,camid,split\na.jpg,1,0,train\n"}
    path = write(tmp_path / "source", files, as_zip, "images/")
    with folder.open_own("mine", path, table) as found:
        assert found.splits == {"train": [Item("a.jpg", 1, 0, "a.jpg")]}


@pytest.mark.parametrize("form", ["{}", "mine/{}"])
def test_a_zip_with_another_name_than_its_top_folder(tmp_path, form):
    path = write(tmp_path / "mydata (1).zip", FILES, True, "mine/")
    table = "\n".join(["path,pid,camid,split", f"{form.format('c.bmp')},1,0,train"])
    (tmp_path / "labels.csv").write_text(table)
    with folder.open_own("mine", path, tmp_path / "labels.csv") as found:
        assert found.splits == {"train": [Item(form.format("c.bmp"), 1, 0, "c.bmp")]}
    files = image_files({"query": ["1_c1.jpg"], "bounding_box_test": ["1_c2.jpg"]})
    path = write(tmp_path / "other (2).zip", files, True, "x/")
    with folder.open_own("mine", path) as found:
        assert list(found.splits) == ["query", "gallery"]


def test_what_opencv_decodes_is_stored_as_it_is(tmp_path):
    write(tmp_path / "mine", FILES | {"labels.csv": TABLE.encode()}, False)
    with folder.open_own("Mine-2", tmp_path / "mine", "labels.csv") as found:
        build.build(found, tmp_path / "root")
    train = load_split("Mine-2", tmp_path / "root", "train", (16, 8))
    assert train.name.tolist() == ["people/a.png", "people/b 1.jpg"]
    assert (train.pid.tolist(), train.camid.tolist()) == ([7, 12], [31, 0])
    assert (train.image[0] == noise(7)[..., ::-1]).all()
    assert (load_split("Mine-2", tmp_path / "root", "query", (16, 8)).image[0] == noise(8)[..., ::-1]).all()


@pytest.mark.parametrize("as_zip", [True, False])
def test_names_as_in_market1501(tmp_path, as_zip):
    names = {
        "bounding_box_train": ["12345_c17_x.png", "1_c2.jpeg"],
        "query": ["0007_c1s1_000001_00.jpg"],
        "bounding_box_test": ["-1_c2 a.jpg", "0007_c2f3.jpg"],
    }
    path = write(tmp_path / "mine", image_files(names), as_zip, "mine/" if as_zip else "")
    with folder.open_own("mine", path) as found:
        assert {split: [item[:3] for item in items] for split, items in found.splits.items()} == {
            "train": [("bounding_box_train/12345_c17_x.png", 12345, 17), ("bounding_box_train/1_c2.jpeg", 1, 2)],
            "query": [("query/0007_c1s1_000001_00.jpg", 7, 1)],
            "gallery": [("bounding_box_test/-1_c2 a.jpg", -1, 2), ("bounding_box_test/0007_c2f3.jpg", 7, 2)],
        }
        assert all(found.read(item.file) for items in found.splits.values() for item in items)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            dict(bounding_box_train=["0_c1.jpg", "1_c1.jpg"], query=["0000_c1.jpg"], bounding_box_test=["0_c2.jpg"]),
            r"mine: bounding_box_train/0_c1\.jpg: pid 0 in train is no person, but a distractor: number people from 1, "
            r"or leave it out, query/0000_c1\.jpg: pid 0 in query is no person",
        ),
        ({"bounding_box_train": ["-1_c1.jpg"]}, "pid -1 in train is no person, but junk: number people from 1"),
        (
            {"query": ["1_c1.jpg"], "bounding_box_test": ["-1_c1.jpg"]},
            "^mine: no person of query is in gallery under another camera, so that no score is possible; leave the",
        ),
        ({"query": ["1_c1.jpg"], "bounding_box_test": ["2_c2.jpg", "0_c2.jpg"]}, "no person of query is in gallery"),
        ({"query": ["1_c1.jpg"], "bounding_box_test": ["1_c1b.jpg"]}, "is in gallery under another camera"),
    ],
)
def test_names_that_could_not_be_scored(tmp_path, names, words):
    path = write(tmp_path / "mine", image_files(names), False)
    with pytest.raises(ValueError, match=words), folder.open_own("mine", path):
        pass


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "ü", "a.b", *DATASETS])
def test_names_of_data_sets(name):
    with pytest.raises(ValueError, match="cannot be the name of a data set: it may have letters, digits, _ and -"):
        folder.check_name(name)
    folder.check_name("My_data-2")


def test_the_csv_of_cuhk03_pair_1_as_the_documents_make_it(tmp_path, monkeypatch):
    names = {"train": ["0000_00.jpg", "0000_04.jpg", "0002_05.jpg"], "val": ["0000_09.jpg", "0001_03.jpg"]}
    path = write(tmp_path / "labeled", image_files(names) | {"train_resized/0000_00.jpg": jpeg(9)}, False)
    monkeypatch.chdir(tmp_path)
    (block,) = documents.python_blocks(documents.REPOSITORY / "docs" / "data.md")
    exec(block, {})
    rows = [("train/0000_00.jpg", 1, 1), ("train/0000_04.jpg", 1, 1), ("train/0002_05.jpg", 3, 2)]
    rows += [("val/0000_09.jpg", 4, 2), ("val/0001_03.jpg", 5, 1)]
    with folder.open_own("cuhk03_pair1", path, "cuhk03_pair1.csv") as found:
        assert found.splits == {"train": [Item(name, pid, camid, name) for name, pid, camid in rows]}
