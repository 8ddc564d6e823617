"""Reads and writes weights: PyTorch's formats, ImageNet weights, the authors' release, and weights to share."""
