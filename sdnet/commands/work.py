"""What the jobs of a preset have to do, in images, and what they leave on the disk: before anything runs.

The work of attacks is a rough estimate: they go on with images that withstood those before, whose number is guessed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdnet.data.corruptions import CALIBRATION_LEVELS, RELEASED_LAMBDA_MAX, SEVERITIES
from sdnet.data.datasets import INFO
from sdnet.experiments import catalogue, plan
from sdnet.experiments.plan import IMAGE_SUFFIXES, Run
from sdnet.experiments.settings.datasets import NUMBER_OF_IMAGES
from sdnet.experiments.settings.preset import Preset
from sdnet.experiments.settings.site import Site

INVERTED_IMAGES = 100
# ASSUME: that many of the images withstand the first attack; those that try again or harder get no more.
SURVIVORS = 0.1
AUTOATTACK_STEPS = {"apgd-ce": 100, "apgd-t": 9 * 100, "fab-t": 9 * 100}  # of its standard version
SQUARE_QUERIES = 5000
WEAKER_STEPS = 68  # of step a' of the ladder of attacks, all settings together
DIAGNOSED_STEPS = 18.5  # of D2, D4, D5 and D11, in steps of the attack under test; itself included
DIAGNOSED_ATTACKS = 17
PASSES = 3  # of an attack, besides its steps: clean, at its end, and judged
PARAMETERS = {  # million, at width 64 (Table 1)
    "resnet18": 11.2,
    "resnet34": 21.1,
    "mdeq": 11.1,
    "scn": 0.7,
    "scn18": 11.2,
    "sdnet18": 11.2,
    "sdnet34": 21.1,
    "sdnet18-all": 11.2,
    "sdnet34-all": 21.1,
}
DOWNLOADED_GB = 0.35  # a data set of CIFAR: the archive, and the images made of it
NOISY_GB = 3.5  # CIFAR-10-C: the archive, and its four noises


@dataclass(frozen=True)
class Job:
    """One job of the workflow.

    Attributes:
        rule: its rule.
        trained: images of whole training steps: forward, backward, update.
        passed: images of forward passes alone.
        differentiated: images of forward passes and of the gradient by the image: what attacks are made of.
    """

    rule: str
    trained: float = 0
    passed: float = 0
    differentiated: float = 0


KINDS = ("trained", "passed", "differentiated")  # see `Job`


@dataclass(frozen=True)
class Speed:
    """What a machine does with one network, in images per second; see `Job` for the kinds."""

    trained: float
    passed: float
    differentiated: float

    def seconds(self, job: Job, start: float) -> float:
        """How long a job takes, `start` of which is what any job takes before it begins."""
        return start + sum(getattr(job, kind) / getattr(self, kind) for kind in KINDS)


def jobs(run: Run, planned: list[Run], preset: Preset, site: Site) -> Iterator[Job]:
    """The jobs of one run, without those that it shares with others."""
    images, recipe, robustness = preset.datasets[run.dataset], run.spec["training"], preset.robustness
    targets = _targets(run, planned, preset)
    train_images, test_images = image_counts(run.dataset, preset, site)
    yield Job("spec")
    if not preset.imported:
        yield Job("train", trained=recipe["epochs"] * train_images, passed=recipe["epochs"] * test_images)
    yield Job("evaluate", passed=test_images)
    if targets & set(catalogue.INVERTED):
        yield Job("invert", passed=INVERTED_IMAGES)
    adjustable = run.has_lambda
    grid = len(robustness.lambdas) if adjustable else 1
    swept, calibrated = _noises(run, targets & set(catalogue.SWEPT), preset), set()
    if adjustable:
        calibrated = _noises(run, targets & set(catalogue.CALIBRATED), preset)
        if targets & set(catalogue.ATTACKED):
            calibrated |= {preset.line_noise}
    noisy_images = min(robustness.test_images or test_images, test_images)
    fitted_images = min(robustness.calibration_images, train_images)
    released = sum(value <= RELEASED_LAMBDA_MAX for value in robustness.lambdas)
    for _ in swept | calibrated:
        yield Job("sweep", passed=len(SEVERITIES) * noisy_images * grid)
    for noise in calibrated:
        passed = noisy_images + len(CALIBRATION_LEVELS[images.noise_levels][noise]) * fitted_images * grid
        passed += len(robustness.variants) * (len(SEVERITIES) + 1) * noisy_images
        if "released" in robustness.variants:
            noisy_levels = len(CALIBRATION_LEVELS["released"][noise]) - 1  # no clean images there
            passed += noisy_levels * noisy_images * released
        yield Job("calibrate", passed=passed)
    for _ in _noises(run, targets & set(catalogue.RENORMALISED), preset):
        yield Job("renormalise", passed=2 * len(SEVERITIES) * noisy_images * (1 + adjustable))
    if targets & set(catalogue.STABLE):
        yield Job("stability")  # of the first layer alone: not counted
    if targets & set(catalogue.ATTACKED):
        reference = plan.undefended(run, planned) is not None
        yield from _attacks(preset, adjustable, grid, test_images, reference, run.seed == preset.seeds[0])


def _attacks(
    preset: Preset, adjustable: bool, grid: int, test_images: int, reference: bool, diagnosed: bool
) -> Iterator[Job]:
    """The attacks on one network, in both norms (sdnet/robustness/ladder.py)."""
    wanted, norms = preset.adversarial, 2
    judged = grid + adjustable  # passes to see what becomes of an attacked image at every lambda
    images = min(wanted.paper_images or test_images, test_images)
    yield Job("attack", passed=images * (judged * (norms + 1) + norms * PASSES), differentiated=norms * images * 20)

    images = min(wanted.images, test_images)
    tried = min(wanted.autoattack_images, images)
    defended = 2 if adjustable else 1  # the lambda of training, and the tuned one
    crafted = len({*wanted.lambdas, 0.1}) if adjustable else 1
    strong = 2 * wanted.steps
    restarts = 1 + (wanted.restarts - 1) * SURVIVORS
    steps = 20 + WEAKER_STEPS + crafted * wanted.steps + defended * 2 * strong * restarts
    attempts = 1 + 6 + crafted + 2 * defended
    if adjustable:  # steps e and f: summed over about half of the lambdas; two soft gradients, at twice the cost
        steps += strong * (crafted / 2 + 2 * 2 + 1 + reference + 1)
        attempts += 5 + reference
    auto = [AUTOATTACK_STEPS[name] for name in wanted.autoattack if name != "square"]
    auto_steps = auto[0] + SURVIVORS * sum(auto[1:]) if auto else 0
    queries = SURVIVORS * SQUARE_QUERIES * ("square" in wanted.autoattack)
    yield Job(
        "attack_adaptive",
        passed=images * (judged * (norms * attempts + 1) + norms * attempts * PASSES)
        + norms * defended * tried * queries,
        differentiated=norms * (images * steps + defended * tried * auto_steps),
    )

    if not diagnosed:
        return
    images = min(wanted.diagnostic_images, images)
    yield Job(
        "diagnose",
        passed=images * (judged + norms * defended * (2 * wanted.steps + DIAGNOSED_ATTACKS * PASSES + queries)),
        differentiated=norms * defended * images * DIAGNOSED_STEPS * wanted.steps,
    )


def shared_jobs(planned: list[Run], preset: Preset) -> list[str]:
    """What jobs do that several runs share: downloads, benchmarks, tables, figures, and what concludes a preset."""
    targets = catalogue.targets(planned, preset)
    datasets = {run.dataset for run in planned}
    downloads = [*_downloaded(planned), *(f"{name}-c" for name in _downloaded(planned, noisy=True))]
    measured = datasets if set(catalogue.BENCHMARKED) & set(targets) else set()
    concluding = ("claims", "report", "track", "all")
    return [*downloads, *(f"benchmark {name}" for name in measured), *targets, *concluding]


def image_counts(dataset: str, preset: Preset, site: Site) -> tuple[int, int]:
    """How many training and test images a preset takes of a data set."""
    if dataset == "folder":
        root = Path(site.folder_root)
        test = root / ("val" if (root / "val").is_dir() else "test")
        found = tuple(
            sum(path.suffix.lower() in IMAGE_SUFFIXES for path in part.glob("*/*")) for part in (root / "train", test)
        )
    else:
        found = _entry("NUMBER_OF_IMAGES", NUMBER_OF_IMAGES, dataset, "experiments/settings/datasets.py").values()
    chosen = preset.datasets[dataset]
    train, test = (
        min(wanted or n, n) for wanted, n in zip((chosen.train_images, chosen.test_images), found, strict=True)
    )
    return train, test


def _entry(name: str, table: dict, key: str, file: str = "commands/work.py") -> Any:
    if key not in table:
        raise ValueError(f"{key} is not in {name} of sdnet/{file}; add it there")
    return table[key]


def result_bytes(run: Run, planned: list[Run], preset: Preset) -> float:
    """About what a run leaves on the disk: weights, two checkpoints, adversarial images."""
    model, recipe = run.spec["model"], run.spec["training"]
    parameters = 1e6 * _entry("PARAMETERS", PARAMETERS, model["name"]) * (model["width"] / 64) ** 2
    states = 2 if recipe["optimizer"] == "adam" else 1
    weights = 4 * parameters * (1 + (0 if preset.imported else 2 * (1 + states)))
    if not _targets(run, planned, preset) & set(catalogue.ATTACKED):
        return weights
    about = INFO[run.dataset]
    values = about.channels * (preset.datasets[run.dataset].image_size or about.size) ** 2
    defended = 2 if run.has_lambda else 1
    return weights + 2 * defended * 4 * values * preset.adversarial.images


def data_gigabytes(planned: list[Run]) -> float:
    """What is downloaded for a preset and kept, in GB."""
    return DOWNLOADED_GB * len(_downloaded(planned)) + NOISY_GB * len(_downloaded(planned, noisy=True))


def _downloaded(planned: list[Run], noisy: bool = False) -> set[str]:
    """The data sets that Snakemake downloads, or those whose official noisy images it does."""
    return {run.dataset for run in planned if run.official_noise or not noisy} & set(plan.DOWNLOADED)


def _targets(run: Run, planned: list[Run], preset: Preset) -> set[str]:
    """The tables and figures that show a run."""
    return {target for target in catalogue.targets(planned, preset) if catalogue.runs_of(target, [run], preset)}


def _noises(run: Run, targets: set[str], preset: Preset) -> set[str]:
    """The noises under which these tables and figures show a run."""
    return {noise for target in targets for noise in catalogue.noises_of(target, run.dataset, preset)}
