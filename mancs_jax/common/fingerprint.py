"""Fingerprints of data, embeddings and networks."""

import hashlib

import numpy as np


def fingerprint(*parts: str | np.ndarray) -> str:
    """Returns 32 hex digits of text (as UTF-8) and arrays (bytes in C order; pass shapes and dtypes as text)."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).data)
    return digest.hexdigest()
