"""Test images reconstructed from a trained network's codes (Figure 4), and one code taken apart (Figure 1)."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

import sdnet.csc
from sdnet.commands.measuring import measuring
from sdnet.csc import csc_layers
from sdnet.experiments import results
from sdnet.robustness.batches import as_input
from sdnet.runs.images import EVALUATION_BATCH
from sdnet.runs.network import load_model
from sdnet.runs.noisy import open_split
from sdnet.runs.spec import read_spec, run_columns

SHOWN = 5  # images of Figure 4
PARTS = 4  # code channels of Figure 1


def invert(folder: Path, data_path: Path | None, images: int, gpus: int) -> None:
    """Write inversion.csv, how well each layer's code gives the images back, and inversion.npz, some pictures of it.

    In double precision: what a deep layer's reconstruction owes to the image is many digits below what all share.

    Args:
        folder: of a trained run.
        data_path: as in `images.open_data`.
        images: how many test images, class-balanced; the pictures are of different classes.
        gpus: devices to hold.

    Raises:
        ValueError: if the network has no CSC layer, or one that `sdnet.csc.invert` refuses.
    """
    spec = read_spec(folder / "spec.json")
    with measuring(folder, gpus) as device:
        test = open_split(spec, data_path, "test", images)
        model = load_model(folder, spec, len(test.classes), device).double()
        layers = csc_layers(model)
        if not layers:
            raise ValueError(f"{folder}: {spec['model']['name']} has no CSC layer, so there is no code to invert")
        pixels, labels = map(np.concatenate, zip(*test.clean(), strict=True))
        x = as_input(pixels, model)
        shown = np.sort(np.unique(labels, return_index=True)[1])[:SHOWN]
        names = {module: name for name, module in model.named_modules()}
        rows, pictures = [], []
        for depth, layer in enumerate(tqdm(layers, "invert", unit="layer", disable=None), start=1):
            back = torch.cat([sdnet.csc.invert(model, part, depth - 1) for part in x.split(EVALUATION_BATCH)])
            scores = _scores(back, x)
            common = run_columns(spec) | {"data_source": test.data_source, "depth": depth, "layer": names[layer]}
            rows += [
                common | {"image": int(image)} | {name: float(score[i]) for name, score in scores.items()}
                for i, image in enumerate(test.indices)
            ]
            amplified = x.mean(0) + (back - back.mean(0)) / scores["contrast"].view(-1, 1, 1, 1)
            pictures.append(_as_bytes(amplified[shown]))
        parts = _parts(model, x[shown[:1]])
    results.write_arrays(
        folder / "inversion.npz",
        indices=test.indices[shown],
        images=pixels[shown],
        pictures=np.stack(pictures),
        **parts,
    )
    results.write(folder / "inversion.csv", "inversion", rows)
    means = results.read(folder / "inversion.csv", "inversion").groupby(["depth", "layer"])
    print(means[list(scores)].mean().to_string(float_format="{:.3g}".format))


def _scores(back: Tensor, x: Tensor) -> dict[str, Tensor]:
    """How like the images x (N, M, H, W) their reconstructions are, (N,) each; columns of inversion.csv.

    `contrast` and `correlation` are of what differs from the mean over the images, in both.
    """
    error = (back.clamp(0, 1) - x).square().flatten(1).mean(1)
    ours, theirs = (back - back.mean(0)).flatten(1), (x - x.mean(0)).flatten(1)
    return {
        "psnr_db": -10 * error.log10(),
        "contrast": ours.norm(dim=1) / theirs.norm(dim=1),
        "correlation": torch.cosine_similarity(ours, theirs, eps=0),
    }


@torch.no_grad()
def _parts(model: nn.Sequential, image: Tensor) -> dict[str, np.ndarray]:
    """What A(z) of one image (1, M, H, W) is a sum of at the first CSC layer, the channels that give most first.

    Returns:
        of the strongest channels the numbers `channels` (P,), codes `codes` (P, H', W'), atoms `atoms` (P, M, k, k),
        and what each adds to the layer's input, `terms` (P, M, H, W); and `sums` (C, H, W, M), the images of the
        first 1, 2, ... channels as bytes. The last one is A(z).
    """
    first, x = csc_layers(model)[0], model.normalize(image)
    z = first(x)
    alone = torch.eye(z.shape[1]).to(z)[:, :, None, None] * z  # (C, C, H', W'): channel c of code c, the others zero
    terms = first.reconstruct(alone, x.shape[-2:])
    order = terms.flatten(1).norm(dim=1).argsort(descending=True)
    strongest = order[:PARTS]
    return {
        "channels": strongest.cpu().numpy(),
        "codes": z[0, strongest].float().cpu().numpy(),
        "atoms": first.weight[strongest].float().cpu().numpy(),
        "terms": terms[strongest].float().cpu().numpy(),
        "sums": _as_bytes(model.normalize.inverse(terms[order].cumsum(0))),
    }


def _as_bytes(images: Tensor) -> np.ndarray:
    """Images (N, M, H, W) as uint8 pixels, (N, H, W, M), clipped."""
    return (255 * images.clamp(0, 1)).round().byte().permute(0, 2, 3, 1).cpu().numpy()
