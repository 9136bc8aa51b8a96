"""Settings of all tests."""

import torch

torch.set_num_threads(1)  # tiny tensors can be far slower on several threads
