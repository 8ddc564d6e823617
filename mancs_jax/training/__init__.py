"""Training: state, compiled step, loop, batches, checkpoints, logs, many processes.

It may import `data`, `models`, `losses`, `weights`, `config`, `workdir` and `common`.
"""
