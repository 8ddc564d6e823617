"""Training: state, compiled step, loop, batches, checkpoints, logs."""
