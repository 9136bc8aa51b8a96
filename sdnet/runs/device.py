"""The device that a command computes on, and what it is capable of."""

import os
import platform
import sys

import torch


def choose_device(leased: tuple[int, ...]) -> torch.device:
    """The first leased GPU, else the CPU, with a warning if torch cannot use what is leased.

    From now on, no GPU rounds the float32 of convolutions to 10 bits (TF32), which is torch's default.
    """
    torch.backends.cudnn.allow_tf32 = False
    if leased and not torch.cuda.is_available():
        print(
            f"warning: torch {torch.__version__} cannot use GPU {', '.join(map(str, leased))}, which nvidia-smi lists; "
            "working on the CPU (see docs/faq.md)",
            file=sys.stderr,
        )
        return torch.device("cpu")
    return torch.device("cuda" if leased else "cpu")


def device_name(device: torch.device) -> str:
    """What the device calls itself."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 by itself; imitating it takes several times as long as float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if platform.machine() in ("x86_64", "AMD64"):  # where the other test asks for AVX-512, with or without bfloat16
        return torch.cpu._is_avx512_bf16_supported()
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def precision_on(device: torch.device, wanted: str) -> str:
    """A recipe's precision; "float32" in place of a "bfloat16" that the device does not have."""
    return "float32" if wanted == "bfloat16" and not has_bfloat16(device) else wanted


def recipe_on(device: torch.device, spec: dict) -> dict:
    """The recipe as `training.loop.fit` takes it, in the device's `precision_on`."""
    recipe = {key: value for key, value in spec["training"].items() if key != "batch_size"}
    return recipe | {"precision": precision_on(device, recipe["precision"])}
