"""Fixtures of several files of tests."""

from gallery_stores import gallery, place, server  # noqa: F401
