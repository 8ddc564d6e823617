"""Mancs (Wang et al., ECCV 2018) in JAX: person re-identification with attention and curriculum sampling.

After training: `load` makes a function of images out of a workdir, `search` finds the nearest of a gallery.
"""

from importlib import import_module

__version__ = "0.1.0"

# Where each name is: found at its first use, so that importing the package does not wait for jax.
_HOMES = {
    "load": "mancs_jax.inference.embedder",
    "search": "mancs_jax.inference.search",
    "build_index": "mancs_jax.inference.index",
    "load_index": "mancs_jax.inference.index",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
