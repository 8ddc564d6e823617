"""Reads and writes weights of other programs: ImageNet weights, the authors' release, PyTorch's formats."""
