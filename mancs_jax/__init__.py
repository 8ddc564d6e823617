"""Mancs (Wang et al., ECCV 2018) in JAX: person re-identification with attention and curriculum sampling."""

__version__ = "0.1.0"
