"""A file is the old one or the whole new one."""

import pytest

from mancs_jax.common.atomic_write import atomic_write, read_list, write_json

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
    assert line.startswith(f"{path} is damaged (") and line.endswith("); it is run.json.damaged now\n")
    assert not path.exists() and (tmp_path / "run.json.damaged").read_bytes() == content
