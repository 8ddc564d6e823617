"""Fixtures of several files of tests."""

import importlib
from pathlib import Path

import pytest
from absl import logging
from gallery_stores import gallery, place, server  # noqa: F401


@pytest.fixture
def warnings_are_logged():
    """Other modules, once imported, keep absl to errors."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    yield
    logging.set_verbosity(before)


@pytest.fixture
def load_benchmark(monkeypatch):
    """Imports modules of benchmarks/ by their names."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module
