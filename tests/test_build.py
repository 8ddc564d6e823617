import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from refusals import refused
from tiny_sources import jpeg

from mancs_jax.data import build
from mancs_jax.data.prepared import VERSION, prepared_path
from mancs_jax.data.sources.items import About, Contents, Item

pytestmark = [pytest.mark.quick, pytest.mark.usefixtures("warnings_are_logged")]

IMAGES = {"a.jpg": jpeg(0), "b.jpg": jpeg(1), "c.jpg": jpeg(2)}
SPLITS = {"train": [Item("b.jpg", 3, 1, "b.jpg"), Item("x", -1, 2, "a.jpg")], "query": [Item("c.jpg", 0, 6, "c.jpg")]}


def make(images=IMAGES, name: str = "tiny", **fields) -> Contents:
    return Contents(name, About("Tiny", "For a test."), SPLITS, images.__getitem__, **fields)


def read_back(path: Path) -> dict[str, list[dict]]:
    builder = tfds.builder_from_directory(path)
    decoders = {"image": tfds.decode.SkipDecoding()}
    return {split: list(builder.as_data_source(split=split, decoders=decoders)) for split in builder.info.splits}


@pytest.mark.parametrize("name", ["tiny", "MyData-2", "7_x"])
def test_build_stores_the_files_in_their_order(tmp_path, capsys, name):
    path = build.build(make(name=name, metadata={"testsets": [[1], [2, 3]]}), tmp_path / "deep" / "root")
    assert path == tmp_path / "deep" / "root" / name / VERSION
    assert path == prepared_path(tmp_path / "deep" / "root", name)
    assert read_back(path) == {
        split: [
            {"image": IMAGES[item.file], "pid": item.pid, "camid": item.camid, "name": item.name.encode()}
            for item in items
        ]
        for split, items in SPLITS.items()
    }
    assert [entry.name for entry in path.parents[1].iterdir()] == [name]
    assert str(tmp_path) not in (path / "dataset_info.json").read_text()
    builder = tfds.builder_from_directory(path)
    assert dict(builder.info.metadata) == {"testsets": [[1], [2, 3]]}
    decoded = builder.as_data_source(split="query")[0]["image"]
    assert decoded.shape == (16, 8, 3) and decoded.dtype == np.uint8
    assert "tensorflow" not in sys.modules
    assert capsys.readouterr() == ("", "")


def fail_at(file: str, error: BaseException):
    def read(wanted):
        if wanted == file:
            raise error
        return IMAGES[wanted]

    return make()._replace(read=read)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError()])
def test_a_build_that_fails_leaves_nothing(tmp_path, error):
    root = tmp_path / "new" / "root"
    with pytest.raises(type(error)):
        build.build(fail_at("c.jpg", error), root)
    assert list(tmp_path.iterdir()) == []
    root.mkdir(parents=True)
    with pytest.raises(type(error)):
        build.build(fail_at("a.jpg", error), root)
    assert list(root.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    class FullDisk:
        def __init__(self, *_):
            pass

        def write(self, _):
            raise RuntimeError("write() failed: No space left on device; writing x.array_record; at byte 4096")

    monkeypatch.setattr(array_record_module, "ArrayRecordWriter", FullDisk)
    line = f"{tmp_path / 'root'}: tiny cannot be built (No space left on device); nothing of it was kept"
    assert refused(build.build, make(), tmp_path / "root", error=OSError) == line
    assert list(tmp_path.iterdir()) == []


def test_an_existing_build_is_replaced_only_on_request_and_only_by_a_complete_one(tmp_path):
    old = build.build(make(), tmp_path)
    before = read_back(old)
    changed = make(IMAGES | {"c.jpg": jpeg(99)})
    with pytest.raises(FileExistsError, match="exists"):
        build.build(changed, tmp_path)
    with pytest.raises(ZeroDivisionError):
        build.build(fail_at("c.jpg", ZeroDivisionError()), tmp_path, overwrite=True)
    assert read_back(old) == before
    assert build.build(changed, tmp_path, overwrite=True) == old
    assert read_back(old)["query"][0]["image"] == jpeg(99)
    assert read_back(old)["train"] == before["train"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny"]


def test_the_old_build_comes_back_when_the_new_one_cannot_be_moved_in(tmp_path, monkeypatch):
    path = build.build(make(), tmp_path / "root")
    before = read_back(path)
    rename = Path.rename

    def fail(self, target):
        if target == path and self.name == VERSION:
            raise OSError("no space left")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no space left"):
        build.build(make(), tmp_path / "root", overwrite=True)
    assert read_back(path) == before
    assert [entry.name for entry in (tmp_path / "root").iterdir()] == ["tiny"]


def test_a_killed_build_is_pointed_out_and_left_alone(tmp_path, caplog):
    leftover = tmp_path / ".building-0123abcd"
    leftover.mkdir()
    build.build(make(), tmp_path)
    assert str(leftover) in caplog.text and leftover.exists()
