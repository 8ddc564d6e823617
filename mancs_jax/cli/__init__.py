"""The commands: flags, then one call. One module a command; `main` is the program `mancs`.

It may import all of mancs_jax. Nothing imports it but `scripts/` and tests.
"""
