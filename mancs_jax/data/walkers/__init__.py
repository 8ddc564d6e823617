"""Synthetic pedestrians in the layout and file names of Market-1501: the data set that every clone carries with it.

`people` draws identities by lot. `canvas`, `clothes` and `figure` draw the body, `scenery` its surroundings. `cameras`
has six cameras and their effects, `pictures` takes one picture, `dataset` lists all pictures, and `processes`
renders them with all cores. `difficulty` sets how hard they are to tell apart.
"""

from mancs_jax.data.walkers.dataset import FOLDERS, render, shots, write_folder
from mancs_jax.data.walkers.processes import render_all

__all__ = ["FOLDERS", "render", "render_all", "shots", "write_folder"]
