"""Synthetic pedestrians in the layout and file names of Market-1501: the data set that every clone carries with it.

`people` says who walks, `canvas`, `clothes` and `figure` draw the body, `scenery` is what surrounds it, `cameras` what
six cameras do to it, `pictures` takes one picture and `dataset` says which pictures there are. `difficulty` sets how
hard they are to tell apart.
"""

from mancs_jax.data.walkers.dataset import FOLDERS, render, shots, write_folder

__all__ = ["FOLDERS", "render", "shots", "write_folder"]
