"""The tables and figures: of which networks each is, and which files it reads."""

from sdnet.experiments.plan import Run
from sdnet.experiments.settings.networks import has_lambda
from sdnet.experiments.settings.preset import Preset

# Systems of each table and figure; those that a preset has are shown.
TABLES = {
    "table1": ("resnet18", "resnet34", "mdeq", "scn", "scn18", "sdnet18", "sdnet34"),
    "table2": ("resnet18", "scn", "sdnet18", "sdnet18-nonnegative"),
    "table3": ("resnet18", "scn", "sdnet18", "sdnet18-nonnegative"),
    "table4": ("resnet18", "sdnet18", "sdnet18-nonnegative"),
    "table5": ("sdnet18", "sdnet18-iter4", "sdnet18-iter8"),
    "table6": ("sdnet18", "sdnet18-all", "sdnet34", "sdnet34-all"),
    "readings": ("sdnet18", "sdnet18-nonnegative"),
    "control": ("resnet18", "sdnet18", "sdnet18-nonnegative"),
}
FIGURES = {
    "figure1": ("sdnet18", "sdnet18-nonnegative"),
    "figure2": ("sdnet18", "sdnet18-nonnegative"),
    "figure3": ("sdnet18", "sdnet18-nonnegative"),
    "figure4": ("sdnet18-all-plain",),
    "figure5": ("sdnet18", "sdnet18-nonnegative", "sdnet18-all", "sdnet18-all-nonnegative"),
    "figure6": ("sdnet18", "sdnet18-nonnegative"),
    "figure_attacks": ("resnet18", "sdnet18", "sdnet18-nonnegative"),
    "figure_transfer": ("sdnet18", "sdnet18-nonnegative"),
    "figure_stability": ("resnet18", "sdnet18", "sdnet18-nonnegative", "sdnet18-iter4", "sdnet18-iter8"),
}
SYSTEMS_OF = TABLES | FIGURES
# What each reads: files of every run that it shows, for every noise where a name has a star, and speeds.
READS: dict[str, list[str]] = {
    "table1": ["accuracy.csv", "benchmark"],
    "table2": ["accuracy.csv", "sweep-*.csv", "calibration-*.csv", "adaptive-*.csv"],
    "table3": ["accuracy.csv", "sweep-*.csv", "calibration-*.csv", "adaptive-*.csv"],
    "table4": ["accuracy.csv", "attack-paper.csv", "attack-adaptive.csv", "diagnostics.csv"],
    "table5": ["accuracy.csv", "calibration-*.csv", "adaptive-*.csv"],
    "table6": ["accuracy.csv", "benchmark"],
    "readings": ["accuracy.csv", "codes.csv", "sweep-*.csv", "calibration-*.csv", "adaptive-*.csv"],
    "control": ["accuracy.csv", "sweep-*.csv", "calibration-*.csv", "adaptive-*.csv", "renormalised-*.csv"],
    "figure1": ["accuracy.csv", "inversion.npz"],
    "figure2": ["accuracy.csv", "sweep-*.csv"],
    "figure3": ["accuracy.csv", "calibration-*.csv", "peaks-*.csv", "lines-*.csv", "sweep-*.csv", "adaptive-*.csv"],
    "figure4": ["accuracy.csv", "inversion.csv", "inversion.npz"],
    "figure5": ["accuracy.csv", "dictionary.csv"],
    "figure6": ["accuracy.csv", "codes.csv"],
    "figure_attacks": ["accuracy.csv", "attack-adaptive.csv"],
    "figure_transfer": ["accuracy.csv", "attack-adaptive.csv"],
    "figure_stability": ["accuracy.csv", "stability.csv"],
}
# Of the first seed alone: checks of the attacks, whose pass or failure is not averaged.
OF_FIRST_SEED = ("diagnostics",)
OF_ALGORITHM_1 = ("calibration", "peaks", "lines", "adaptive")  # files for each noise, of networks with a lambda


def _that_read(file: str) -> tuple[str, ...]:
    return tuple(name for name, files in READS.items() if file in files)


BENCHMARKED, SWEPT, CALIBRATED = map(_that_read, ("benchmark", "sweep-*.csv", "adaptive-*.csv"))
RENORMALISED = _that_read("renormalised-*.csv")
ATTACKED, STABLE, INVERTED = map(_that_read, ("attack-adaptive.csv", "stability.csv", "inversion.npz"))
# Of codes, of lambda or of Algorithm 1 alone: a network without a lambda has no place there.
OF_LAMBDA_ALONE = ("table5", "readings", *(f"figure{number}" for number in range(1, 7)), "figure_transfer")
OF_LAMBDA = (*CALIBRATED, "figure_attacks", *STABLE, *OF_LAMBDA_ALONE)  # with nothing to show where no network has one
REFERENCE = "resnet18"  # speed, memory and stability are measured against its


def targets(planned: list[Run], preset: Preset) -> list[str]:
    """The tables and figures that a preset has runs for."""
    trained = {(run.dataset, run.system) for run in planned}
    return [name for name in SYSTEMS_OF if not nothing_to_show(name, trained, preset)]


def nothing_to_show(target: str, trained: set[tuple[str, str]], preset: Preset) -> str:
    """Why a table or figure cannot be made of some networks of a preset; nothing if it can.

    Args:
        target: the table or figure.
        trained: data sets and networks, as of `plan.networks`.
        preset: theirs.
    """
    own = {one for one in trained if one[1] in SYSTEMS_OF[target] and shows(target, one[0], preset)}
    if not own:
        attacked = preset.adversarial.datasets
        if target in ATTACKED and set(attacked).isdisjoint(preset.datasets):
            has = ", ".join(preset.datasets)
            return f"adversarial.datasets are {', '.join(attacked) or 'none'}, and the data sets {has}; name one there"
        return (
            f"it is of {', '.join(SYSTEMS_OF[target])}, none of which is there on images or under noise that it shows"
        )
    measured = {dataset for dataset, name in trained if name == REFERENCE}
    if target in BENCHMARKED and (without := {dataset for dataset, _ in own} - measured):
        return f"speeds are measured against that of {REFERENCE}, which is not trained on {', '.join(sorted(without))}"
    if target in OF_LAMBDA and not any(has_lambda(preset.systems[name].model) for _, name in own):
        return f"none of its networks ({', '.join(sorted({name for _, name in own}))}) has a lambda"
    return ""


def file_of(target: str) -> str:
    """The file of a table or figure that Snakemake makes, in a results folder; others stand beside it."""
    return f"{target}.csv" if target in TABLES else f"{target}.pdf"


def has_speed(system: str) -> bool:
    """Whether some table shows the speed and memory of a network."""
    return any(system in SYSTEMS_OF[table] for table in BENCHMARKED)


def noises_of(target: str, dataset: str, preset: Preset) -> list[str]:
    """The noises that a table or figure shows on a data set; Table 2 has Gaussian noise alone."""
    alone = {"table2": "gaussian", "figure_stability": preset.line_noise}
    return [noise for noise in preset.noises_on(dataset) if noise == alone.get(target, noise)]


def shows(target: str, dataset: str, preset: Preset) -> bool:
    """Whether a table or figure shows a data set of the preset: attacked, or tested under a noise that it shows."""
    if target in (*SWEPT, *CALIBRATED, *STABLE):
        return bool(noises_of(target, dataset, preset))
    return target not in ATTACKED or dataset in preset.adversarial.datasets


def systems_of(target: str, preset: Preset) -> list[str]:
    """The networks of a preset that a table or figure can show."""
    return [
        name
        for name in SYSTEMS_OF[target]
        if name in preset.systems and (target not in OF_LAMBDA_ALONE or has_lambda(preset.systems[name].model))
    ]


def runs_of(target: str, planned: list[Run], preset: Preset) -> list[Run]:
    """The runs that a table or figure shows."""
    systems = systems_of(target, preset)
    return [run for run in planned if run.system in systems and shows(target, run.dataset, preset)]
