"""Layers with custom gradients, which move fewer bytes and avoid XLA's slow paths on CPU."""
