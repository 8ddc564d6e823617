"""Encoded images and arrays of any size to uint8 arrays of one size."""

import numbers
import zlib
from collections.abc import Sequence

import cv2
import numpy as np


def decode_image(encoded: bytes, image_size: tuple[int, int] | None, name: str) -> np.ndarray:
    """Decodes and resizes one image file.

    Args:
      encoded: the bytes of the file.
      image_size: (height, width) in pixels; None keeps the size of the file.
      name: the file's name, for the error.

    Returns:
      uint8 [height, width, 3], RGB.

    Raises:
      ValueError: the bytes are not an image, or not the whole of one.
    """
    if fault := _fault_of_file(encoded):
        raise ValueError(f"{name}: {fault}; copy or download it again")
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB) if encoded else None
    except cv2.error:  # for example of a size that OpenCV does not allow
        image = None
    if image is None:
        raise ValueError(f"{name}: cannot be decoded as an image")
    return resize(image, image_size)


def find_fault(encoded: bytes) -> str | None:
    """Decodes an image file.

    Returns:
      What is wrong with it, in a few words; None if it is whole.
    """
    if not encoded:
        return "empty"
    if fault := _fault_of_file(encoded):
        return fault
    try:
        is_image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR) is not None
    except cv2.error:  # for example of a size that OpenCV does not allow
        is_image = False
    return None if is_image else "damaged, or not an image"


def _fault_of_file(encoded: bytes) -> str | None:
    """Tells if a JPEG or PNG file stops before its end ("cut off"), or the checksums of a PNG do not hold ("damaged").

    OpenCV 4 fills up a JPEG that was cut off, and does not complain. OpenCV 5 takes as much memory as a damaged PNG
    asks for, up to 4 GB. Bytes after the end count for nothing: phones write such files.
    """
    if encoded.startswith(b"\x89PNG"):
        return _fault_of_png(encoded)
    if not encoded.startswith(b"\xff\xd8"):
        return None
    # Segments, each with its length, come before the scan; one of them may hold a small JPEG with an end of its own.
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
        is_critical = not chunk[0] & 32  # a capital letter: no picture without this chunk
        if is_critical and zlib.crc32(chunk) != int.from_bytes(checksum):
            return "damaged"
        at = end
    return None


def resize(image: np.ndarray, image_size: tuple[int, int] | None) -> np.ndarray:
    """Resizes uint8 [H, W, 3] to (height, width), as `load_split` says.

    Returns:
      uint8 [height, width, 3]; the array itself where it has that size, or where `image_size` is None.
    """
    height, width = image_size or image.shape[:2]
    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def checked_size(image_size: Sequence[int]) -> tuple[int, int]:
    """Returns (height, width); ValueError, one line, where it is no pair of whole numbers above 0."""
    is_pair = isinstance(image_size, tuple | list) and len(image_size) == 2
    if not is_pair or any(not isinstance(side, numbers.Integral) or side < 1 for side in image_size):
        raise ValueError(f"image_size is {image_size!r}; it has to be (height, width) in pixels, as (256, 128)")
    height, width = image_size
    return height, width
