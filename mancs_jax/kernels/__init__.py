"""Building blocks with gradients of their own: fewer bytes move, and XLA's slow paths on CPU are avoided."""
