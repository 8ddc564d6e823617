"""Decodes, checks and resizes images."""

import numbers
import zlib
from collections.abc import Sequence

import cv2
import numpy as np


def decode_image(encoded: bytes, image_size: tuple[int, int] | None, name: str) -> np.ndarray:
    """Decodes an image file and resizes it to (height, width), or not for None: uint8 [height, width, 3], RGB.

    Raises ValueError, with the `name` of the file, where the bytes are not a complete image.
    """
    if fault := _fault_of_file(encoded):
        raise ValueError(f"{name}: {fault}; copy or download it again")
    if (image := _decoded(encoded)) is None:
        raise ValueError(f"{name}: cannot be decoded as an image")
    return resize(image, image_size)


def find_fault(encoded: bytes) -> str | None:
    """Decodes an image file; returns its fault in a few words, None for a complete image."""
    if not encoded:
        return "empty"
    if fault := _fault_of_file(encoded):
        return fault
    return "damaged, or not an image" if _decoded(encoded) is None else None


def _decoded(encoded: bytes) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB) if encoded else None
    except cv2.error:  # for example, a size that OpenCV does not allow
        return None


def _fault_of_file(encoded: bytes) -> str | None:
    """Returns "cut off" for an incomplete JPEG or PNG, "damaged" for wrong checksums of a PNG.

    OpenCV 4 fills up an incomplete JPEG without an error, and OpenCV 5 allocates the size in a damaged PNG, up to 4 GB.
    Bytes after the end are ignored: phones write such files.
    """
    if encoded.startswith(b"\x89PNG"):
        return _fault_of_png(encoded)
    if not encoded.startswith(b"\xff\xd8"):
        return None
    # Segments with a length each come before the scan; one of them may contain a small JPEG with its own end marker.
    at = 2
    while encoded[at : at + 1] == b"\xff" and encoded[at + 1 : at + 2] not in (b"\xda", b"\xd9"):
        at += 1 if encoded[at + 1 : at + 2] == b"\xff" else 2 + int.from_bytes(encoded[at + 2 : at + 4])
    return "cut off" if encoded.find(b"\xff\xd9", at) < 0 else None


def _fault_of_png(encoded: bytes) -> str | None:
    if not encoded.startswith(b"\x89PNG\r\n\x1a\n"):
        return "damaged"
    at, chunk = 8, b""
    while chunk[:4] != b"IEND":
        end = at + 12 + int.from_bytes(encoded[at : at + 4])
        if end > len(encoded):
            return "damaged" if encoded[-8:-4] == b"IEND" else "cut off"
        chunk, checksum = encoded[at + 4 : end - 4], encoded[end - 4 : end]
        is_critical = not chunk[0] & 32  # a capital letter: the image needs this chunk
        if is_critical and zlib.crc32(chunk) != int.from_bytes(checksum):
            return "damaged"
        at = end
    return None


def resize(image: np.ndarray, image_size: tuple[int, int] | None) -> np.ndarray:
    """Resizes uint8 [H, W, 3] to (height, width) as `load_split`; the array itself for its own size or None."""
    height, width = image_size or image.shape[:2]
    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def checked_size(image_size: Sequence[int]) -> tuple[int, int]:
    """Returns (height, width); ValueError, one line, where it is not a pair of positive integers."""
    is_pair = isinstance(image_size, tuple | list) and len(image_size) == 2
    if not is_pair or any(not isinstance(side, numbers.Integral) or side < 1 for side in image_size):
        raise ValueError(f"image_size is {image_size!r}; it has to be (height, width) in pixels, as (256, 128)")
    height, width = image_size
    return height, width
