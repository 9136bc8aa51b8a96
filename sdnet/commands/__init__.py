"""What each command of `python -m sdnet` does: the joints between settings, networks, data and result files."""
