"""Writing files, fingerprints, and facts about the machine. It imports nothing of mancs_jax; all may import it."""
