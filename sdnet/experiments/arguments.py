"""The options of the commands, as a preset wants them."""

from sdnet.experiments.plan import Run
from sdnet.experiments.settings.preset import Preset


def noise_options(run: Run, preset: Preset) -> str:
    """The options of `python -m sdnet sweep` that say which noise and lambdas the preset wants.

    Where noise is official they end in `--official`. The caller adds its folder, `run.official_noise`, which is kept
    out of the rule's params: to move that folder repeats nothing.
    """
    return f"--lambdas {_listed(preset.robustness.lambdas)} {renormalise_options(run, preset)}"


def renormalise_options(run: Run, preset: Preset) -> str:
    """The options of `python -m sdnet renormalise`: the same ones, without lambdas."""
    images, robustness = preset.datasets[run.dataset], preset.robustness
    options = f"--scale {images.noise_scale} --noise-seed {robustness.seed}"
    options += f" --images {robustness.test_images}" if robustness.test_images else ""
    return options + (" --official" if run.official_noise else "")


def calibration_options(run: Run, preset: Preset) -> str:
    """The further options of `python -m sdnet calibrate`."""
    levels, robustness = preset.datasets[run.dataset].noise_levels, preset.robustness
    return (
        f"--levels {levels} --calibration-images {robustness.calibration_images} "
        f"--variants {','.join(robustness.variants)}"
    )


def attack_options(preset: Preset, command: str) -> str:
    """The options of `python -m sdnet attack`, `attack-adaptive` and `diagnose` that say what the preset wants."""
    wanted = preset.adversarial
    lambdas, crafted = _listed(preset.robustness.lambdas), _listed(wanted.lambdas)
    options = f"--lambdas {lambdas} --linf {wanted.linf:g} --l2 {wanted.l2:g} --noise {preset.line_noise}"
    if command == "attack":
        return options + (f" --images {wanted.paper_images}" if wanted.paper_images else "")
    if command == "diagnose":
        square = "square" if "square" in wanted.autoattack else "no-square"
        return options + f" --images {wanted.diagnostic_images} --steps {wanted.steps} --{square}"
    return options + (
        f" --images {wanted.images} --steps {wanted.steps} --restarts {wanted.restarts} --attack-lambdas {crafted}"
        f" --autoattack '{','.join(wanted.autoattack)}' --autoattack-images {wanted.autoattack_images}"
    )


def benchmark_options(dataset: str, preset: Preset) -> str:
    """The options of `python -m sdnet benchmark`: where GPUs share a batch, the part of one is measured."""
    images = preset.datasets[dataset]
    return f"--batch-size {preset.recipes[images.recipe].batch_size // images.gpus}" if images.gpus > 1 else ""


def _listed(values: list[float]) -> str:
    return ",".join(f"{value:.15g}" for value in values)
