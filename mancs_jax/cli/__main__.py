"""`python -m mancs_jax.cli COMMAND`."""

from mancs_jax.cli.main import main

if __name__ == "__main__":  # a process that renders imports this module again
    main()
