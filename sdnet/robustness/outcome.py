"""What becomes of an attacked image, whoever attacked it, and the conditions under which a network is attacked."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sdnet.csc import evaluation_mode
from sdnet.robustness.batches import as_input


@dataclass(frozen=True)
class Outcome:
    """The fate of N attacked images; the predictions and distances are those of the images that are returned."""

    index: np.ndarray  # position in the data set
    label: np.ndarray
    clean_pred: np.ndarray
    adv_pred: np.ndarray
    broken: np.ndarray  # bool: the clean or the adversarial image is misclassified
    margin: np.ndarray  # of the adversarial image, see `margin`
    linf: np.ndarray  # distance from the clean image, in pixels of [0, 1]
    l2: np.ndarray
    images: np.ndarray  # the adversarial images, (N, channels, H, W) in [0, 1]

    @property
    def robust_accuracy(self) -> float:
        """The share of images that are not broken."""
        return 1 - float(self.broken.mean())


def check_radius(caller: str, eps: float, norm: str) -> None:
    """Refuse what is no radius of a ball of images in [0, 1].

    Raises:
        ValueError: if it is negative or not finite, or larger than 1 in the L-inf norm.
    """
    if not 0 <= eps < math.inf or (norm == "linf" and eps > 1):
        raise ValueError(f"{caller}: eps is {eps}; give a radius in pixels of [0, 1]: 8 grey levels are 8/255")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """max over j != y of logit_j, minus logit_y (N,): positive where the image is misclassified."""
    others = logits.scatter(1, y[:, None], -math.inf).amax(dim=1)
    return others - logits.gather(1, y[:, None]).squeeze(1)


@contextmanager
def frozen_in_float32(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients to parameters, full float32; afterwards everything is as it was found."""
    required = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    device = next(model.parameters()).device
    with evaluation_mode(model), torch.autocast(device.type, enabled=False), _full_float32():
        try:
            model.requires_grad_(False)
            yield
        finally:
            for parameter, flag in required:
                parameter.requires_grad_(flag)


@contextmanager
def _full_float32() -> Iterator[None]:
    """No product of float32 is rounded to TF32 or bfloat16, whichever of torch's switches allowed that."""
    cuda, cpu = torch.backends.cudnn, torch.backends.mkldnn
    operations = cuda.conv, cuda.rnn, torch.backends.cuda.matmul, cpu.conv, cpu.rnn, cpu.matmul
    found = [operation.fp32_precision for operation in operations]

    def allow(tf32: bool, matmul: str, precisions: list[str]) -> None:
        cuda.allow_tf32 = tf32
        torch.set_float32_matmul_precision(matmul)
        for operation, precision in zip(operations, precisions, strict=True):  # last: the older switches set these, too
            operation.fp32_precision = precision

    full = ["ieee"] * len(operations)
    for operation in operations:
        operation.fp32_precision = "ieee"
    try:
        older = cuda.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:  # raised where the older switch, here on, disagrees with the operations
        older = True, torch.get_float32_matmul_precision()
    try:
        allow(False, "highest", full)
        yield
    finally:
        allow(*older, found)


@torch.no_grad()
def checked_batch(
    model: nn.Module, images: Tensor | np.ndarray, labels: Tensor | np.ndarray
) -> tuple[Tensor, Tensor, Tensor]:
    """Images as the network takes them, labels, and the logits of the clean images.

    Raises:
        ValueError: if there is no image, an image has not one label, pixels are not in [0, 1], the network does not
            compute in float32 (or float64), its logits are not finite, it has one class alone, or labels are none of
            its classes.
    """
    x = as_input(images, model).detach()
    y = torch.as_tensor(labels, device=x.device).long()
    if not len(x):
        raise ValueError("attack: a batch is empty; give at least one image")
    if y.shape != (len(x),):
        raise ValueError(
            f"attack: {len(x)} images have labels of shape {tuple(y.shape)}; give each image the number of its class"
        )
    if not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(
            f"attack: pixels range from {x.min():.3g} to {x.max():.3g}; give images in [0, 1], "
            "and let the network normalise them"
        )
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"attack: the network computes in {x.dtype}; convert it with model.float()")
    logits = model(x)
    if not torch.isfinite(logits).all():
        raise ValueError("attack: the network's logits are not finite on clean images; train it again")
    if logits.shape[1] < 2:
        raise ValueError("attack: the network has one class; an attack needs another one to be mistaken for")
    if y.min() < 0 or y.max() >= logits.shape[1]:
        raise ValueError(f"attack: labels range from {y.min()} to {y.max()}; the network has {logits.shape[1]} classes")
    return x, y, logits


@torch.no_grad()
def judge(
    model: nn.Module, x: Tensor, y: Tensor, clean: Tensor, adversarial: Tensor, norm: str, eps: float
) -> dict[str, np.ndarray]:
    """Count the errors on adversarial images, once they are known to be in the ball and in [0, 1].

    Args:
        model: the attacked network.
        x: clean images, (N, channels, H, W).
        y: labels, (N,).
        clean: logits of x, (N, classes).
        adversarial: as x.
        norm: "linf" or "l2".
        eps: radius of the ball.

    Returns:
        the columns of `Outcome`, without index.

    Raises:
        RuntimeError: if an image is outside.
    """
    delta = (adversarial - x).flatten(1).double()
    distance = {"linf": delta.abs().amax(dim=1), "l2": delta.norm(dim=1)}
    # Room for rounding: pixels of at most 1 are known to 6e-8 in float32, norms to a relative 1e-6.
    inside = distance[norm].max() <= eps * (1 + 1e-5) + 1e-6 and adversarial.min() >= 0 and adversarial.max() <= 1
    if not inside:
        raise RuntimeError(f"attack: an image left the {norm} ball of radius {eps} or [0, 1]; the attack has a bug")
    logits = model(adversarial)
    predicted, clean_predicted = logits.argmax(dim=1), clean.argmax(dim=1)
    columns = {
        "label": y,
        "clean_pred": clean_predicted,
        "adv_pred": predicted,
        "broken": (predicted != y) | (clean_predicted != y),
        "margin": margin(logits, y),
        **distance,
        "images": adversarial,
    }
    return {name: column.cpu().contiguous().numpy() for name, column in columns.items()}
