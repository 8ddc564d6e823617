"""Variants, for recipe files that begin with `from configs import recipes`."""

from mancs_jax.config.recipes import COMMON, authors, scratch, small, vary

__all__ = ["COMMON", "authors", "scratch", "small", "vary"]
