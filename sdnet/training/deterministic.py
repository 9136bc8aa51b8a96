"""The same bits each time."""

import contextlib
import os
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Have PyTorch compute by algorithms that give the same bits each time; False leaves everything as it is.

    On a CPU they do so anyway, for the same number of threads; on a GPU some sums are otherwise made in whatever order
    their terms arrive. Enter before the first matrix product on a GPU.

    Raises:
        RuntimeError: inside, from an operation that has no such algorithm.
    """
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # by NVIDIA: one of the two under which cuBLAS repeats
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
