"""Variants, for recipe files that begin with `from configs import recipes`."""

from mancs_jax.config.recipes import COMMON, authors, small, vary

__all__ = ["COMMON", "authors", "small", "vary"]
