"""A training run: its networks, schedule, folder, checkpoints and log."""
