"""Speed and memory of networks, each against ResNet-18 of the same run (Tables 1 and 6)."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats
from tqdm import tqdm

from sdnet.commands.contender import Contender, rates
from sdnet.experiments import results
from sdnet.experiments.devices import lease
from sdnet.runs.device import choose_device, device_name
from sdnet.runs.spec import image_size, read_spec
from sdnet.training.step import WARM_UP

REFERENCE = "resnet18"
PAPER = Path(__file__).parents[2] / "config" / "paper_values.csv"
ROUNDS = 13  # of which the first warms up; the networks take turns, so that a busy machine slows all alike
SLOW, ROUNDS_OF_SLOW = 1.0, 5  # a network with steps of so many seconds sits out the other rounds
STEPS = ("train", "inference")
TRAIN_RATIO = ("train_rate_ratio_low", "train_rate_ratio", "train_rate_ratio_high")


def benchmark(spec_paths: tuple[Path, ...], out: Path, batch_size: int | None, gpus: int) -> None:
    """Measure the networks of some runs in turns, write the result file `out`, and print the ratios beside the paper's.

    Raises:
        ValueError: if resnet18, which the ratios are taken against, is not among them, or they differ in data set,
            image size or width.
    """
    specs = [read_spec(path) for path in spec_paths]
    systems = [spec["system"] for spec in specs]
    if REFERENCE not in systems:
        raise ValueError(f"benchmark: {', '.join(systems)} given; {REFERENCE} must be among them, the ratios need it")
    alike = {
        "data set": [spec["dataset"]["name"] for spec in specs],
        "image size": [image_size(spec) for spec in specs],
        "width": [spec["model"]["width"] for spec in specs],
        "batch size": [batch_size or spec["training"]["batch_size"] for spec in specs],
    }
    for what, values in alike.items():
        if len(set(values)) > 1:
            given = ", ".join(map(str, dict.fromkeys(values)))
            raise ValueError(f"benchmark: given runs of {what} {given}; networks are compared at one")
    with lease(gpus, alone=True) as devices:
        device = choose_device(devices)
        contenders, memory = [], []

        def entered(spec: dict) -> Contender:
            return Contender(spec, batch_size or spec["training"]["batch_size"], device)

        if device.type == "cuda":
            _memory(entered(specs[0]), 0)  # what libraries then keep is not counted as the first network's
        for spec in specs:
            others = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
            contenders.append(entered(spec))
            memory.append(_memory(contenders[-1], others))
        by_clock, by_processor = _in_turns(contenders)
    ratios = against(by_clock if device.type == "cuda" else by_processor, systems.index(REFERENCE))
    reference_bytes, reference_peak = memory[systems.index(REFERENCE)]
    rows = [
        _about(contender)
        | {f"{name}_images_per_second": rate for name, rate in zip(STEPS, clock, strict=True)}
        | {"saved_bytes": saved, "peak_memory_bytes": peak}
        | dict(zip(TRAIN_RATIO, ratio, strict=True))
        | {"saved_bytes_ratio": saved / reference_bytes}
        for contender, clock, ratio, (saved, peak) in zip(
            contenders, np.nanmedian(by_clock, axis=0), ratios[..., STEPS.index("train")].T, memory, strict=True
        )
    ]
    results.write(out, "benchmark", rows)
    _, inference, _ = ratios[..., STEPS.index("inference")]
    peaks = [peak / reference_peak if peak else None for _, peak in memory]
    print(_page(pd.DataFrame(rows).assign(inference_rate_ratio=inference, peak_memory_ratio=peaks)))


def _in_turns(contenders: list[Contender]) -> np.ndarray:
    """Rates by the clock and by processor time, (2, turns, networks, STEPS); NaN of a network that sat a turn out."""
    turns = np.full((ROUNDS, len(contenders), len(STEPS), 2), np.nan)
    for turn in tqdm(range(ROUNDS), "benchmark", disable=None):
        for k, one in enumerate(contenders):
            if turn < ROUNDS_OF_SLOW or (len(one.x) / turns[1, k, :, 0]).sum() < SLOW:
                turns[turn, k] = [rates(getattr(one, f"{name}_step"), one) for name in STEPS]
    return np.moveaxis(turns[1:], -1, 0)


def against(measured: np.ndarray, reference: int) -> np.ndarray:
    """Ratios to one network, turn by turn: lower end of the 95% interval, geometric mean, upper end, (3, networks, n).

    Args:
        measured: rates, (turns, networks, n); NaN where a turn has none.
        reference: which of the networks the others are compared with.
    """
    ratios = np.log(measured / measured[:, [reference]])
    count = np.isfinite(ratios).sum(axis=0)
    spread = stats.t.ppf(0.975, count - 1) * np.nanstd(ratios, axis=0, ddof=1) / np.sqrt(count)
    return np.exp(np.nanmean(ratios, axis=0) + np.multiply.outer([-1, 0, 1], spread))


def _memory(contender: Contender, others: int) -> tuple[int, int | None]:
    """What the newest network keeps for its backward pass, and its peak on a GPU that held `others` bytes before it."""
    saved = contender.saved_bytes()
    if contender.device.type != "cuda":
        return saved, None
    for _ in range(WARM_UP):
        contender.train_step()
    torch.cuda.reset_peak_memory_stats(contender.device)
    contender.train_step()
    return saved, torch.cuda.max_memory_allocated(contender.device) - others


def _about(contender: Contender) -> dict:
    spec = contender.spec
    return {
        "dataset": spec["dataset"]["name"],
        "system": spec["system"],
        "width": spec["model"]["width"],
        "device": device_name(contender.device),
        "precision": contender.precision,
        "batch_size": len(contender.x),
        "threads": torch.get_num_threads(),
    }


def paper_ratios(dataset: str) -> dict[str, dict[str, float]]:
    """The paper's training rate and memory of each network against ResNet-18's, by quantity and network."""
    values = pd.read_csv(PAPER)
    values = values[values.table.isin(["table1", "table6"]) & (values.dataset == dataset)]
    printed = {
        quantity: values[values.quantity == quantity].drop_duplicates("system").set_index("system").value
        for quantity in ("speed", "memory")
    }
    return {name: (of / of[REFERENCE]).to_dict() if REFERENCE in of else {} for name, of in printed.items()}


def _page(rows: pd.DataFrame) -> str:
    """The measurements as a person reads them: each with its ratio, and the paper's in brackets."""
    first, paper = rows.iloc[0], paper_ratios(rows.dataset[0])
    on_gpu = rows.peak_memory_bytes.notna().all()

    def shown(value: str, fmt: str, ratio: str, quantity: str | None = None) -> list[str]:
        brackets = rows.system.map(paper.get(quantity, {}))
        return [
            f"{number:{fmt}}  x{share:.2f}" + ("" if pd.isna(of_paper) else f" ({of_paper:.2f})")
            for number, share, of_paper in zip(rows[value], rows[ratio], brackets, strict=True)
        ]

    rows = rows.assign(saved_mb=rows.saved_bytes / 1e6, peak_mb=rows.peak_memory_bytes.astype(float) / 1e6)
    columns = {
        "network": rows.system,
        "training images/s": shown("train_images_per_second", ",.1f", "train_rate_ratio", "speed"),
        "95% interval": [
            f"x{low:.2f} to {high:.2f}" for low, _, high in rows[list(TRAIN_RATIO)].itertuples(index=False)
        ],
        "inference images/s": shown("inference_images_per_second", ",.1f", "inference_rate_ratio"),
        "kept for backward, MB": shown("saved_mb", ",.1f", "saved_bytes_ratio", None if on_gpu else "memory"),
    }
    if on_gpu:
        columns["peak, MB"] = shown("peak_mb", ",.1f", "peak_memory_ratio", "memory")
    clock = "the clock" if on_gpu else "processor time, which other programs disturb less than the clock"
    of_each = [", ".join(map(str, rows[name].unique())) for name in ("batch_size", "precision")]
    return (
        f"{first.dataset}, width {first.width}, batch size {', '.join(of_each)}, {first.device}.\n"
        f"x: against {REFERENCE} of this run, rates by {clock}; in brackets the paper's ratio.\n\n"
        + pd.DataFrame(columns).to_string(index=False)
    )
