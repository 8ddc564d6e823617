"""Encoded images and arrays of any size to uint8 arrays of one size."""

import numbers
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
    if is_cut_off(encoded):
        raise ValueError(f"{name}: cut off; copy or download it again")
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB) if encoded else None
    except cv2.error:  # for example of a size that OpenCV does not allow
        image = None
    if image is None:
        raise ValueError(f"{name}: cannot be decoded as an image")
    return resize(image, image_size)


def is_cut_off(encoded: bytes) -> bool:
    """Tells if a JPEG or PNG file stops before its end. Bytes after the end count for nothing: phones write such files.

    OpenCV 4 fills up a JPEG that was cut off, and does not complain. OpenCV 5 takes as much memory as a chunk of a PNG
    says that it has, up to 4 GB.
    """
    if encoded.startswith(b"\x89PNG"):
        at = 8
        while encoded[at + 4 : at + 8] not in (b"IEND", b""):
            at += 12 + int.from_bytes(encoded[at : at + 4])
        return encoded[at + 4 : at + 8] != b"IEND"
    if not encoded.startswith(b"\xff\xd8"):
        return False
    # Segments, each with its length, come before the scan; one of them may hold a small JPEG with an end of its own.
    at = 2
    while encoded[at : at + 1] == b"\xff" and encoded[at + 1 : at + 2] not in (b"\xda", b"\xd9"):
        at += 1 if encoded[at + 1 : at + 2] == b"\xff" else 2 + int.from_bytes(encoded[at + 2 : at + 4])
    return encoded.find(b"\xff\xd9", at) < 0


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
