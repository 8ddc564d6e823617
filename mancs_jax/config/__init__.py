"""Every field of a run, recipes, and their checks."""
