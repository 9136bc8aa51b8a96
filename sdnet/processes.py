"""Processes that end with the one that started them."""

import os
import signal

import torch


def end_with(parent: int, *_) -> None:
    """See to it that this process ends when its parent is killed, even if that happened already.

    Until then it would hold what it got from there: files that are open, locks among them.

    Args:
        parent: process id.
        *_: what a caller such as a loader passes besides.
    """
    torch.multiprocessing._prctl_pr_set_pdeathsig(signal.SIGKILL)  # on Linux; elsewhere it does nothing
    if os.getppid() != parent:
        os._exit(1)
