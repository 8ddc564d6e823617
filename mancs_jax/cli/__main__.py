"""`python -m mancs_jax.cli COMMAND`."""

from mancs_jax.cli.main import main

main()
