"""Sources of data sets: checks a zip, a folder or a .mat file, and lists its images."""
