import zipfile

import pytest

from mancs_jax.common.quoted import reason_of, shortened

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("text", "longest", "expected"),
    [
        ("", 9, ""),
        ("123456789", 9, "123456789"),
        ("1234567890", 9, "1234...90"),
        ("a" * 9999 + ".jpg", 15, "a" * 8 + "....jpg"),
        ("a\x1b[2J\nb", 20, r"a\x1b[2J\nb"),
        ("\x00" * 100, 15, "\\x00\\x00...\\x00"),
    ],
)
def test_a_text_that_is_too_long_loses_its_middle(text, longest, expected):
    assert shortened(text, longest) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (zipfile.BadZipFile("Bad CRC-32\n for file 'a.jpg'"), "Bad CRC-32 for file 'a.jpg'"),
        (EOFError(), "EOFError"),
        (KeyError("no such item"), "'no such item'"),
    ],
)
def test_the_reason_of_a_library(error, expected):
    assert reason_of(error) == expected


def test_the_reason_of_a_library_is_short():
    reason = reason_of(RuntimeError("\x00" * 5000 + " at the end"))
    assert len(reason) == 200 and reason.startswith(r"\x00\x00") and reason.endswith(r"\x00 at the end")
