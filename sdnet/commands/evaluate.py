"""What a trained network scores on the clean test images, and what its CSC layers look like there."""

from pathlib import Path

import torch
from torch import Tensor, nn

from sdnet.commands.measuring import measuring
from sdnet.csc import CSCConv2d
from sdnet.csc.network import after_each_code
from sdnet.experiments import results
from sdnet.experiments.places import run_name
from sdnet.runs.images import open_data
from sdnet.runs.network import load_model
from sdnet.runs.spec import read_spec, run_columns
from sdnet.training.evaluate import evaluate as score_of

BINS = 121  # odd, so that zero is inside a bin


class CodeHistogram:
    """Counts of a CSC layer's code entries in bins set by its first batch; open bins take what lies outside."""

    def __init__(self):
        self.zeros, self.counts, self.edges = 0, None, None

    def count(self, layer: CSCConv2d, z: Tensor) -> None:
        """Count the codes of one batch."""
        if self.edges is None:
            reach = 1.1 * float(z.abs().max()) or 1.0
            low = 0.0 if layer.nonnegative else -reach
            self.edges = torch.linspace(low, reach, BINS + 1, device=z.device)
            self.counts = torch.zeros(BINS + 2, dtype=torch.int64, device=z.device)
        nonzero = z[z != 0]
        self.zeros += z.numel() - nonzero.numel()
        self.counts += torch.bincount(torch.bucketize(nonzero, self.edges, right=True), minlength=BINS + 2)

    def rows(self) -> list[dict]:
        """One row per bin; the exact zeros are a bin of their own."""
        edges = [-float("inf"), *self.edges.tolist(), float("inf")]
        bins = [
            {"bin_low": low, "bin_high": high, "count": count}
            for low, high, count in zip(edges, edges[1:], self.counts.tolist(), strict=False)
        ]
        return [{"bin_low": 0.0, "bin_high": 0.0, "count": self.zeros}, *bins]


def evaluate(folder: Path, data_path: Path | None, gpus: int) -> None:
    """Write accuracy.csv, codes.csv and dictionary.csv of a trained run; the last two are empty without CSC layers.

    The dictionary is that of the first CSC layer, whose atoms are pieces of images.
    """
    spec = read_spec(folder / "spec.json")
    run = run_columns(spec)
    with measuring(folder, gpus) as device:
        data = open_data(spec, data_path, device)
        model = load_model(folder, spec, len(data.classes), device)
        names = {layer: name for name, layer in model.named_modules() if isinstance(layer, CSCConv2d)}
        histograms = {layer: CodeHistogram() for layer in names}
        with after_each_code([*names], lambda _, layer, x, z: histograms[layer].count(layer, z)):
            score = score_of(model, data.test, device=device)
    history = results.read(folder / "history.csv", "history")
    common = run | {
        "data_source": data.source,
        "train_images": data.train.num_images,
        "width": spec["model"]["width"],
        "epochs": spec["training"]["epochs"],
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    accuracy = [{"checkpoint": "last", "epoch": len(history), "correct": score.correct, "total": score.total}]
    if len(history):  # imported weights have none
        best = history.loc[history.test_correct.idxmax()]
        counted = {"epoch": int(best.epoch), "correct": int(best.test_correct), "total": int(best.test_total)}
        accuracy.append((accuracy[0] if best.epoch == len(history) else counted) | {"checkpoint": "best_on_test"})
    codes = [
        run | {"layer": names[layer], "lambda": layer.lmbd} | row
        for layer, histogram in histograms.items()
        for row in histogram.rows()
    ]
    files = {
        "dictionary": [run | row for layer in [*names][:1] for row in _dictionary_rows(names[layer], layer)],
        "codes": codes,
        "accuracy": [common | row for row in accuracy],
    }
    for kind, rows in files.items():
        results.write(folder / f"{kind}.csv", kind, rows)
    print(f"{run_name(**run)}: {score.correct} of {score.total} correct")


def _dictionary_rows(name: str, layer: nn.Module) -> list[dict]:
    weight = layer.weight.detach().cpu()
    return [
        {"layer": name, "atom": c, "channel": m, "row": i, "column": j, "value": float(weight[c, m, i, j])}
        for c, m, i, j in torch.cartesian_prod(*map(torch.arange, weight.shape)).tolist()
    ]
