"""Synthetic pedestrians in the layout and file names of Market-1501: the data set that every clone carries with it.

`people` samples identities. `canvas`, `clothes` and `figure` draw the body, `scenery` its surroundings. `cameras`
has six cameras and their effects, `pictures` takes one picture, and `dataset` lists and renders all of them.
`difficulty` sets how hard they are to tell apart.
"""

from mancs_jax.data.walkers.dataset import FOLDERS, render, shots, write_folder

__all__ = ["FOLDERS", "render", "shots", "write_folder"]
