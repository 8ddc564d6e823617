import hashlib
import struct
import warnings
import zipfile
import zlib

import cv2
import numpy as np
import pytest
from tiny_sources import image_files, jpeg, write

from mancs_jax.data.sources import source
from mancs_jax.data.sources.source import open_source

pytestmark = pytest.mark.quick

FILES = image_files({"query": ["b.jpg", "a.jpg"], "gallery": ["a.jpg"]}) | {"readme.txt": b"text"}


@pytest.mark.parametrize("top", ["", "Top/"])
@pytest.mark.parametrize("as_zip", [True, False])
def test_open_source(tmp_path, as_zip, top):
    hidden = {"query/.DS_Store": b"x", "query/._a.jpg": b"x", "query/Thumbs.db": b"x"}
    path = write(tmp_path / "source", FILES | hidden, as_zip, top)
    if as_zip:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("__MACOSX/query/a.jpg", b"x")
            archive.mkdir(f"{top}gt_bbox/")
    with open_source(path, "Top") as found:
        assert (found.list("query"), found.list("gallery")) == (["a.jpg", "b.jpg"], ["a.jpg"])
        assert found.list("missing") == found.list("gt_bbox") == []
        assert [file for file in ("query/a.jpg", "a.jpg", "query", "query/c.jpg") if found.has(file)] == ["query/a.jpg"]
        assert all(found.read(file) == data for file, data in FILES.items())


def test_a_file_behind_a_link_that_leads_elsewhere_is_not_in_the_folder(tmp_path):
    write(tmp_path / "source", FILES, False)
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (tmp_path / "source" / "query" / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "source" / "query" / "within.jpg").symlink_to(tmp_path / "source" / "query" / "a.jpg")
    (tmp_path / "source" / "outside").symlink_to(tmp_path)
    with open_source(tmp_path / "source") as found:
        has = [file for file in ("query/out.jpg", "query/within.jpg", "outside/secret.jpg") if found.has(file)]
    assert has == ["query/within.jpg"]


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("top", ["Top/", "somebody's copy (1)/"])
def test_a_folder_that_encloses_everything_is_passed_through(tmp_path, as_zip, top):
    beside = {"@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg": b"x", "__MACOSX/query/._a.jpg": b"x", "desktop.ini": b"x"}
    path = write(tmp_path / "source", {f"{top}{file}": data for file, data in FILES.items()} | beside, as_zip)
    with open_source(path, "Top", ["query", "gallery"]) as found:
        assert (found.list("query"), found.list("gallery")) == (["a.jpg", "b.jpg"], ["a.jpg"])
        assert found.top == top.rstrip("/") and all(found.read(file) == data for file, data in FILES.items())


@pytest.mark.parametrize("as_zip", [True, False])
def test_the_only_folder_that_holds_the_others_is_passed_through(tmp_path, as_zip):
    """A file or another folder beside it counts for nothing."""
    files = {"mine-v2/query/a.jpg": jpeg(0), "mine-v2/gallery/b.jpg": jpeg(1), "README.txt": b"x", "docs/a.txt": b"x"}
    with open_source(write(tmp_path / "mine (1)", files, as_zip), "Top", ["query", "gallery"]) as found:
        assert (found.top, found.list("query"), found.list("gallery")) == ("mine-v2", ["a.jpg"], ["b.jpg"])
    for beside in ("other/query/a.jpg", "query/a.jpg"):
        path = write(tmp_path / beside.partition("/")[0], files | {beside: jpeg(2)}, as_zip)
        with open_source(path, "Top", ["query", "gallery"]) as found:
            assert found.top == "" and found.list("query") == (["a.jpg"] if beside.startswith("query") else [])


@pytest.mark.parametrize("top", ["", "Top/", "mine/"])
def test_members_that_begin_with_a_dot_and_a_slash(tmp_path, top):
    path = write(tmp_path / "source", {f"./{top}{file}": data for file, data in FILES.items()}, True)
    with open_source(path, "Top", ["query", "gallery"]) as found:
        assert (found.list("query"), found.top) == (["a.jpg", "b.jpg"], top.rstrip("/"))
        assert found.has("query/a.jpg") and all(found.read(file) == data for file, data in FILES.items())


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_folder_of_files_encloses_nothing(tmp_path, as_zip):
    path = write(tmp_path / "source", {"query/a.jpg": jpeg(0), "query/@eaDir/a.jpg/THUMB.jpg": b"x"}, as_zip)
    with open_source(path, "Top", ["query", "gallery"]) as found:
        assert found.list("query") == ["a.jpg"] and found.top == ""


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


@pytest.mark.parametrize(
    "member",
    ["../a.jpg", "query/../../a.jpg", "/etc/a.jpg", "query\\a.jpg", link("query/c.jpg")] + ["query/a.jpg"],  # twice
)
def test_odd_members_are_refused(tmp_path, member):
    path = write(tmp_path / "source.zip", FILES, True)
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "a") as archive:  # "Duplicate name"
        archive.writestr(member, jpeg(0))
    name = getattr(member, "filename", member)
    with pytest.raises(ValueError, match="do not belong there") as error, open_source(path, "Top"):
        pass
    assert f"{path}: {name}: " in str(error.value)


def test_encrypted_members_are_refused(tmp_path):
    path = write(tmp_path / "locked.zip", {"query/a.jpg": jpeg(0)}, True)
    data = path.read_bytes()
    at = data.index(b"PK\x01\x02") + 8  # the flags of the member in the central directory
    path.write_bytes(data[:at] + bytes([data[at] | 1]) + data[at + 1 :])
    with pytest.raises(ValueError, match=r"query/a\.jpg: .*encrypted"), open_source(path):
        pass


@pytest.mark.parametrize("as_zip", [True, False])
def test_subfolders_are_refused(tmp_path, as_zip):
    path = write(tmp_path / "source", FILES | {"query/inner/a.jpg": b"x"}, as_zip)
    with open_source(path) as found, pytest.raises(ValueError, match="query/inner: .*do not belong there"):
        found.list("query")


WHOLE = jpeg(1, 128, 64)
PNG = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()


# A segment that holds a small JPEG with an end of its own, as cameras write one.
SMALL = jpeg(2, 8, 8)
WITH_THUMBNAIL = WHOLE[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(SMALL)) + SMALL + WHOLE[2:]


def png_of_size(width: int, height: int) -> bytes:
    """A PNG file whose head claims a size."""
    head = b"IHDR" + struct.pack(">II", width, height) + PNG[24:29]
    return PNG[:12] + head + struct.pack(">I", zlib.crc32(head)) + PNG[33:]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "empty"),
        (b"hello", "damaged, or not an image"),
        (WHOLE[:-2], "cut off"),
        (WHOLE[: len(WHOLE) // 2], "cut off"),
        (PNG[:-12], "cut off"),
        (b"\xff\xd8\xff\xd9", "damaged, or not an image"),
        (png_of_size(1 << 20, 1 << 20), "damaged, or not an image"),  # OpenCV raises
        (png_of_size(4, 4), None),
        (WHOLE + bytes(4096), None),  # phones and macOS write files with bytes after their end
        (WHOLE + b"\xff\xda" + bytes(100), None),
        (PNG + bytes(4096), None),
        (WITH_THUMBNAIL, None),
        (WITH_THUMBNAIL[:-40], "cut off"),
        (WHOLE, None),
        (PNG, None),
    ],
)
@pytest.mark.parametrize("as_zip", [True, False])
def test_unreadable_images_are_named(tmp_path, as_zip, data, problem):
    path = write(tmp_path / "source", FILES | {"query/a.jpg": data}, as_zip)
    with open_source(path) as found:
        unreadable = source.find_unreadable(["gallery/a.jpg", "query/a.jpg", "query/b.jpg"], found.read)
    assert unreadable == ({"query/a.jpg": problem} if problem else {})
    assert source.name_faults(unreadable) == (f"query/a.jpg ({problem})" if problem else "")


def test_a_long_name_that_differs_in_the_directory_and_before_the_data(tmp_path):
    """The message of zipfile repeats both names."""
    name = f"query/{chr(1)}{'n' * 6000}.jpg"
    path = write(tmp_path / "source.zip", FILES | {name: WHOLE}, True)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"n" * 6000, b"m" * 6000, 1))  # the local header comes first
    with open_source(path) as found:
        unreadable = source.find_unreadable([name, "query/b.jpg"], found.read)
    line = source.name_faults(unreadable)
    assert unreadable.keys() == {name} and len(line) < 420
    assert line.startswith(r"query/\x01nnn") and " (cannot be read: File name in directory 'query/" in line
    assert (
        source.name_some([name] * 9)
        == ", ".join([r"query/\x01" + "n" * 268 + "..." + "n" * 135 + ".jpg"] * 5) + " and 4 more"
    )


def test_md5_and_name_some(tmp_path):
    (tmp_path / "file").write_bytes(WHOLE * 3000)
    assert source.md5(tmp_path / "file") == hashlib.md5(WHOLE * 3000).hexdigest()
    assert source.name_some(list("abcde")) == "a, b, c, d, e"
    assert source.name_some(list("abcde") * 300) == "a, b, c, d, e and 1,495 more"


def test_a_zip_with_a_file_without_a_name_is_damaged(tmp_path):
    """zipfile ends a name at its first zero byte, and cannot say of an empty one whether it is a folder."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("people/1.jpg", b"x")
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes().replace(b"people", b"\0eople"))
    with (
        pytest.raises(ValueError, match=r"a\.zip is damaged: a file in it has no name; fetch it again$"),
        open_source(tmp_path / "a.zip"),
    ):
        pass
