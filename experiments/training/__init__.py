"""Training runs: settings, updates, checkpoints, devices, and the files of a run."""
