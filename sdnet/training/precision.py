"""The precision that a network computes in."""

import torch


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """A context that computes in the given precision.

    Raises:
        ValueError: if it is neither "float32" nor "bfloat16".
    """
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision {precision!r} is unknown; choose float32 or bfloat16")
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
