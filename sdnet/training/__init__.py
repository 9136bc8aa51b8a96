"""Training: the loop, its schedule, its checkpoints, and evaluation on clean images."""
