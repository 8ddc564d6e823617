"""Quotes file names and messages of libraries in our own messages: on one line, and not too long.

A library may repeat what a damaged file says, as a name of thousands of bytes.
"""

from mancs_jax.common.screen import escaped

LONGEST = 200  # characters


def reason_of(error: BaseException) -> str:
    """Returns the message of a library's error as `shortened`, or the name of its class where it has none."""
    return shortened(" ".join(str(error).split())) or type(error).__name__


def shortened(text: str, longest: int = LONGEST) -> str:
    """Returns a text on one line, as `escaped`; `...` replaces the middle of one with more than `longest` characters.

    The end is kept, because suffixes of files and the reasons of libraries stand there.
    """
    text = escaped(text)
    end = (longest - 3) // 3
    return text if len(text) <= longest else f"{text[: longest - 3 - end]}...{text[len(text) - end :]}"
