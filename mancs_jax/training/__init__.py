"""Training: state, compiled step, loop, checkpoints, logs."""
