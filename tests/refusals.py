"""The one line that refuses a call."""

import pytest


def refused(call, *arguments, error=ValueError, most=500, **options) -> str:
    """Returns the message of the error that a call raises: one line of fewer than `most` characters."""
    with pytest.raises(error) as raised:
        call(*arguments, **options)
    line = str(raised.value)
    assert line and "\n" not in line and len(line) < most
    return line
