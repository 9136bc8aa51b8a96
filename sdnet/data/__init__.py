"""Data sets, their download and conversion, the four noises, and the loaders that feed training."""
