"""Files of MOTChallenge's format: read as they stand, written as they are read, refused in one line."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mot import Tracks, overlaps, read_mot, write_mot

pytestmark = pytest.mark.quick

# Lines of MOT16's kind: results, a detector's, a ground truth's (flag, class, visibility), out of order, an empty line.
TEXT = """\
2,7,10,20,30.5,40,0.75,-1,-1,-1

1,-1, 1.5 ,2,3,4,1,1,0.86
1,3,5,6,7,8
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_file(tmp_path, encoding, end):
    (tmp_path / "a.txt").write_bytes(TEXT.replace("\n", end).encode(encoding))
    found = read_mot(tmp_path / "a.txt")
    assert found.frame.tolist() == [1, 1, 2] and found.number.tolist() == [-1, 3, 7]
    assert found.box.tolist() == [[1.5, 2, 4.5, 6], [5, 6, 12, 14], [10, 20, 40.5, 60]]
    assert found.confidence.tolist() == [1, 1, 0.75]
    assert (found.frame.dtype, found.number.dtype, found.box.dtype) == (np.int64, np.int64, np.float64)


def test_what_is_written_is_read(tmp_path):
    box = np.array([[1.5, 2, 4.75, 6], [-3, 0, 10, 20]])
    tracks = Tracks(np.array([1, 2]), np.array([4, -1]), box, np.array([0.5, 1]))
    write_mot(tmp_path / "below" / "a.txt", tracks)
    text = (tmp_path / "below" / "a.txt").read_text()
    assert text == "1,4,1.50,2.00,3.25,4.00,0.500,-1,-1,-1\n2,-1,-3.00,0.00,13.00,20.00,1.000,-1,-1,-1\n"
    for found, expected in zip(read_mot(tmp_path / "below" / "a.txt"), tracks, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("1,-1,0.1,0.2,0.3,0.4\n2,-1,0,0,0.5,1\n", "a.txt: boxes are fractions of the frame, all within"),
        ("", "a.txt holds no boxes: a MOT file has a line a box: frame,id,x,y,width,height,conf"),
        ("\n\n", "a.txt holds no boxes"),
        ("1,-1,2,3,4,5\n1,-1,2,3\n", "a.txt line 2: 4 fields, not frame,id,x,y,width,height and more"),
        ("1 -1 2 3 4 5\n", "a.txt line 1: 1 fields, not frame,id"),
        ("1e300,1,2,3,4,5\n", "a.txt line 1: a field is larger than 2^53"),
        ("frame,id,x,y,w,h\n", "a.txt line 1: 'frame,id,x,y,w,h' has a field that is no number"),
        ("1,-1,2,,4,5\n", "a.txt line 1: '1,-1,2,,4,5' has a field that is no number"),
        ("1,-1,2,nan,4,5\n", "a.txt line 1: a field is NaN or infinite"),
        ("0,-1,2,3,4,5\n", "a.txt line 1: frame 0 and id -1 have to be whole numbers, and frames begin at 1"),
        ("1,1.5,2,3,4,5\n", "a.txt line 1: frame 1 and id 1.5 have to be"),
        ("1,1,2,3,4,0\n1,2,2,3,-4,5\n", "a.txt line 1: width 4 and height 0 have to be above 0, line 2: width -4"),
        (b"\xff\xfe1,2", "a.txt is no text"),
    ],
)
def test_damaged_files(tmp_path, text, line):
    (tmp_path / "a.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        read_mot(tmp_path / "a.txt")
    assert str(error.value).startswith(f"{tmp_path}/{line}")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"b\.txt: no such file; it has to be a MOT file, a line a box"):
        read_mot(tmp_path / "b.txt")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_mot(tmp_path)


def test_overlaps():
    one, other = [[0, 0, 10, 10], [0, 0, 4, 4]], [[5, 0, 15, 10], [0, 0, 10, 10], [20, 20, 30, 30], [1, 1, 1, 1]]
    np.testing.assert_allclose(overlaps(one, other), [[50 / 150, 1, 0, 0], [0, 0.16, 0, 0]])
    assert overlaps([[1, 1, 1, 1]], [[1, 1, 1, 1]]).tolist() == [[0]] and overlaps(np.zeros((0, 4)), one).shape == (
        0,
        2,
    )


@given(st.lists(st.tuples(*[st.integers(0, 12)] * 4), min_size=2, max_size=2))
def test_overlaps_count_pixels(corners):
    boxes = [[min(a, b), min(c, d), max(a, b), max(c, d)] for a, b, c, d in corners]
    one, other = (np.zeros((12, 12), bool) for _ in range(2))
    for canvas, (x1, y1, x2, y2) in zip((one, other), boxes, strict=True):
        canvas[y1:y2, x1:x2] = True
    union = (one | other).sum()
    expected = (one & other).sum() / union if union else 0
    np.testing.assert_allclose(overlaps(boxes[:1], boxes[1:]), [[expected]])
