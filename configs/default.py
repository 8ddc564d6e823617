"""The fields of every recipe, for recipe files that begin with `from configs import default`."""

from mancs_jax.config.defaults import get_config

__all__ = ["get_config"]
