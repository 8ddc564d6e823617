"""The commands: flags, then one call. One module a command; `main` is the program `mancs`."""
