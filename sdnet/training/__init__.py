"""Training: the loop and its steps, schedule and checkpoints, shared by processes or repeated to the bit if asked for,
evaluation on clean images, and the plain loop that all of it is compared with.
"""
