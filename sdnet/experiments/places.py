"""Where results are, named from the project's folder. Training needs this, too: no import."""


def results_of(preset: str) -> str:
    """`results` for the preset `paper`, `results/<preset>` for any other."""
    return "results" if preset == "paper" else f"results/{preset}"


def run_name(dataset: str, system: str, seed: int) -> str:
    """What a run is called, and where it is below `runs/`."""
    return f"{dataset}/{system}/seed{seed}"
