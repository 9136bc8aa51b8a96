"""What each command of `python -m sdnet` does."""
