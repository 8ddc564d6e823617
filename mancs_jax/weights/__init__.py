"""Weights in files of other programs: ImageNet, the authors, PyTorch's formats."""
