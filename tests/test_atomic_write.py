"""A file is the old one or the whole new one."""

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mancs_jax.common.atomic_write import atomic_write, check_writable, read_list, write_json, write_text

pytestmark = pytest.mark.quick


def test_the_name_comes_last(tmp_path):
    path = tmp_path / "below" / "file.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert not path.exists() and temporary.parent == path.parent
    assert path.read_text() == "new" and [file.name for file in path.parent.iterdir()] == ["file.txt"]


def test_after_an_error_the_old_one_is_left_alone(tmp_path):
    (tmp_path / "file.txt").write_text("old")
    with pytest.raises(ValueError, match="half way"), atomic_write(tmp_path / "file.txt") as temporary:
        temporary.write_text("ne")
        raise ValueError("half way")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("file.txt", "old")]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"starts": 3}', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_list_is_put_aside(tmp_path, content, capsys):
    path = tmp_path / "run.json"
    assert read_list(path, "starts") == []
    write_json(path, {"starts": [{"step": 0}]})
    assert read_list(path, "starts") == [{"step": 0}] and not capsys.readouterr().err
    path.write_bytes(content)
    assert read_list(path, "starts") == []
    line = capsys.readouterr().err
    assert line.startswith(f"{path} is damaged (") and line.endswith(") and was renamed to run.json.damaged\n")
    assert not path.exists() and (tmp_path / "run.json.damaged").read_bytes() == content


def test_the_target_of_a_link_is_replaced_and_keeps_its_mode(tmp_path):
    (tmp_path / "disk").mkdir()
    target = tmp_path / "disk" / "target.json"
    target.write_text("old")
    target.chmod(0o660)
    (tmp_path / "link.json").symlink_to("disk/target.json")
    (tmp_path / "dead.json").symlink_to("disk/new.json")
    for name in ("link.json", "dead.json"):
        check_writable(tmp_path / name)
        write_text(tmp_path / name, "new")
        assert (tmp_path / name).is_symlink() and (tmp_path / name).read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o660
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["new.json", "target.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_keeps_its_owner(tmp_path):
    (tmp_path / "a.json").write_text("old")
    os.chown(tmp_path / "a.json", 12345, 23456)
    write_text(tmp_path / "a.json", "new")
    found = (tmp_path / "a.json").stat()
    assert (found.st_uid, found.st_gid, (tmp_path / "a.json").read_text()) == (12345, 23456, "new")


def test_a_read_only_file_is_refused(tmp_path):
    """By root as well, who may write it."""
    path = tmp_path / "a.json"
    path.write_text("old")
    path.chmod(0o444)
    (tmp_path / "link.json").symlink_to(path)
    for name in ("a.json", "link.json", "no/../a.json"):
        for write in (check_writable, lambda path: write_text(path, "new")):
            with pytest.raises(PermissionError, match=rf"^{tmp_path}/{name} is read-only: choose another place"):
                write(tmp_path / name)
    assert path.read_text() == "old" and stat.S_IMODE(path.stat().st_mode) == 0o444


def test_a_pipe_a_socket_and_a_device_are_written_and_stay(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    check_writable(tmp_path / "pipe")
    write_text(tmp_path / "pipe", "by pipe")
    reader.join()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        write_text(tmp_path / "s", "by socket")
        with server.accept()[0] as connection:
            read.append(connection.recv(99).decode())
    assert read == ["by pipe", "by socket"] and (tmp_path / "pipe").is_fifo() and (tmp_path / "s").is_socket()
    before = Path(os.devnull).stat()
    check_writable(os.devnull)
    write_json(os.devnull, {})
    (tmp_path / "null").symlink_to(os.devnull)
    write_json(tmp_path / "null", {})
    assert Path(os.devnull).is_char_device() and Path(os.devnull).stat().st_ino == before.st_ino
    if Path("/dev/full").exists():
        with pytest.raises(OSError, match=r"^/dev/full cannot be written \(No space left on device\)"):
            write_json("/dev/full", {})


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_an_open_file_is_written_where_it_stands(tmp_path, path):
    """A file of its own under that name would lose what has been written already."""
    code = "from mancs_jax.common.atomic_write import write_text as w; from mancs_jax.common.screen import show as s\n"
    code += f"s('before'); w({path!r}, 'text, '); s('behind')"
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "before\ntext, behind\n"


def test_a_file_that_is_mounted_by_itself_is_written_in_its_place(tmp_path, monkeypatch):
    """As into a container, where no other file can take its name."""
    (tmp_path / "a.json").write_text("old")
    number = (tmp_path / "a.json").stat().st_ino

    def replace(*_):
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", replace)
    write_text(tmp_path / "a.json", "new")
    assert [(file.read_text(), file.stat().st_ino) for file in tmp_path.iterdir()] == [("new", number)]


def test_errors_name_the_file_that_was_asked_for(tmp_path):
    line = rf"^{tmp_path}/a cannot be written \(Permission denied\): choose another place$"
    with pytest.raises(OSError, match=line), atomic_write(tmp_path / "a") as temporary:
        raise PermissionError(errno.EACCES, "Permission denied", str(temporary))
    with pytest.raises(OSError, match="'other'"), atomic_write(tmp_path / "a"):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "other")
    write_text(tmp_path / ("n" * 250), "a name as long as disks allow")
    write_text(tmp_path / "\udcff.txt", "a name \udcff that is no UTF-8")
    assert b"\xff.txt" in [os.fsencode(path.name) for path in tmp_path.iterdir()]
    assert (tmp_path / "\udcff.txt").read_text() == "a name \\xff that is no UTF-8"
