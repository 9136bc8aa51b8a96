"""Settings of all tests."""

import signal

import torch

torch.set_num_threads(1)  # tiny tensors can be far slower on several threads

# Where the tests were started in the background Ctrl-C is ignored, and processes that they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
