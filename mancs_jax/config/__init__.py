"""Every field of a run, recipes, and their checks. It imports nothing of mancs_jax; all may import it."""
