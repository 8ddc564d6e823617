"""Attributes of people from CSV and .mat files."""

import numpy as np
import pytest
import scipy.io

from mancs_jax.data.sources.csv_table import Listed
from mancs_jax.data.sources.labels import names_of, parse_labels
from mancs_jax.evaluation import groups
from mancs_jax.evaluation.groups import numbered, read_groups


def test_csv(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("\ufeffpid,age,bag\n0007,10, yes \n8,9,\n\n9,,no\n", encoding="utf-8")
    assert read_groups(file) == {"age": {"0007": "10", "8": "9"}, "bag": {"0007": "yes", "9": "no"}}


def test_a_mat_file_as_that_of_market1501(tmp_path):
    def table(ids, **fields):
        return {name: np.uint8(values) for name, values in fields.items()} | {
            "image_index": np.array(ids, dtype=object)
        }

    test = table(["0001", "0003", "0004"], gender=[1, 2, 2], up=[1, 2, 1], upblack=[1, 2, 1], upred=[2, 1, 1])
    train = table(["0002", "0007"], gender=[2, 1], up=[2, 2], upblack=[1, 1], upred=[1, 2])
    scipy.io.savemat(tmp_path / "a.mat", {"market_attribute": {"test": test, "train": train}})
    assert read_groups(tmp_path / "a.mat") == {
        "gender": {"0001": "male", "0003": "female", "0004": "female", "0002": "female", "0007": "male"},
        "sleeves": {"0001": "long", "0003": "short", "0004": "long", "0002": "short", "0007": "short"},
        "upper-body colour": {"0001": "red", "0003": "black", "0004": "other", "0002": "other", "0007": "red"},
    }
    scipy.io.savemat(tmp_path / "b.mat", {"people": {"image_index": [3.0, 4.0], "height": [1.5, 2.0]}})
    assert read_groups(tmp_path / "b.mat") == {"height": {"3": "1.5", "4": "2.0"}}


def test_people_by_name(tmp_path):
    (tmp_path / "a.csv").write_text("pid,age\n anna ,old\n0003,young\nben,old\n3b,old\n")
    read = read_groups(tmp_path / "a.csv")
    assert read == {"age": {"anna": "old", "0003": "young", "ben": "old", "3b": "old"}}
    # As `labels.names_of` has them: the third of a column is "3" itself, which needs no name.
    assert numbered(read, {1: "anna", 2: "eva", 4: "3b"}) == {"age": {1: "old", 3: "young", 4: "old"}}
    assert numbered(read, {1: "3", 3: "anna"}) == {"age": {1: "young", 3: "old"}}
    assert numbered(read, {1: "anna", 3: "eva"}) == {"age": {1: "old"}}  # pid 3 is eva, not "3"
    assert numbered(read, {}) == {"age": {3: "young"}}
    assert numbered({"age": {7: "old"}}, {1: "anna"}) == {"age": {7: "old"}}


def test_names_with_zeros_in_front(tmp_path):
    (tmp_path / "a.csv").write_text("pid,age\n0002,old\n0007,young\n")
    read = read_groups(tmp_path / "a.csv")
    for names in (["0002", "0007", "unknown"], ["0002", "2", "unknown"]):
        labels = parse_labels(
            "path,pid\n" + "".join(f"{i}.png,{name}\n" for i, name in enumerate(names)),
            Listed(tmp_path, frozenset(f"{i}.png" for i in range(3))),
            "people.csv",
        )
        people = {int(pid): name for pid, name in names_of(labels)["people"].items()}
        expected = {label.pid: {"0002": "old", "0007": "young"}.get(label.person) for label in labels}
        found = numbered(read, people)["age"]
        assert {pid: found.get(pid) for pid in expected} == expected
    assert numbered(read, {}) == {"age": {2: "old", 7: "young"}}
    both = {"age": {"0002": "old", "2": "young"}}
    assert numbered(both, {1: "0002", 3: "unknown"}) == {"age": {1: "old", 2: "young"}}
    with pytest.raises(ValueError, match=r"^age of pid 2 is old and young: keep one of them$"):
        numbered(both, {})


@pytest.mark.parametrize("pid", [np.nan, np.inf])
def test_a_pid_that_is_no_number_names_the_file(tmp_path, pid):
    scipy.io.savemat(tmp_path / "a.mat", {"people": {"image_index": [1.0, pid], "height": [1.5, 2.0]}})
    with pytest.raises(ValueError, match=rf"a\.mat, image_index: pid {pid} is neither an integer from 1 nor a name"):
        read_groups(tmp_path / "a.mat")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column pid, or no rows"),
        ("id,age\n1,2\n", "has no column pid, or no rows"),
        ("pid\n1\n", "has no attributes: it has to have a column for each attribute after pid"),
        ("pid,age\n1,2,3\n", "line 2: it has another number of cells than the first line"),
        ("pid,age\n1\n", "line 2: it has another number of cells than the first line"),
        ("pid,age\n,2\n", "line 2: pid '' is neither an integer from 1 nor a name"),
        ("pid,age\n0,2\n", "line 2: pid '0' is neither an integer from 1 nor a name"),
        ("pid,age\n1.5,2\n", "line 2: pid '1.5' is neither"),
        ("pid,age\n1,2\n1,3\n", "age of pid 1 is 2 and 3: keep one of them"),
        ("pid,age\n" + "".join(f"{i},{i}\n" for i in range(1, 60)), "age has 59 values, more than 50"),
    ],
)
def test_mistakes_are_one_line(tmp_path, text, message):
    file = tmp_path / "a.csv"
    file.write_text(text)
    with pytest.raises(ValueError) as error:
        read_groups(file)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_other_files_are_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist: give a CSV file with a column pid"):
        read_groups(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00pid")
    with pytest.raises(ValueError, match="is no CSV file in UTF-8"):
        read_groups(tmp_path / "a.csv")
    (tmp_path / "a.mat").write_text("pid,age\n1,2\n")
    with pytest.raises(ValueError, match="is no .mat file of version 7 or older"):
        read_groups(tmp_path / "a.mat")
    scipy.io.savemat(tmp_path / "b.mat", {"x": np.ones(3)})
    with pytest.raises(ValueError, match=f"has no struct with a field {groups.PIDS}"):
        read_groups(tmp_path / "b.mat")
    scipy.io.savemat(tmp_path / "c.mat", {"x": {"image_index": [1, 2], "age": [1, 2, 3]}})
    with pytest.raises(ValueError, match="age has 3 values for 2 identities"):
        read_groups(tmp_path / "c.mat")
