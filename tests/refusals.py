"""The one line that refuses a call."""

import pytest


def refused(call, *arguments, error=ValueError, **options) -> str:
    """Returns the message of the error that a call raises, which has to be one line."""
    with pytest.raises(error) as raised:
        call(*arguments, **options)
    line = str(raised.value)
    assert line and "\n" not in line and len(line) < 1000
    return line
