"""Sources of data sets: a zip, a folder or a .mat file, checked, becomes named items."""
