"""What the rules look up: runs by their paths, and the files that they need."""

RUN_FOLDER = "{root}/runs/{dataset}/{system}/seed{seed}"


def tables_and_figures(name):
    """Every one of a preset."""
    root = places.results_of(name)
    shown = catalogue.targets(RUNS[name], PRESETS[name])
    if not RUNS[name]:
        raise WorkflowError(
            f"the preset {name} has no images: set "
            f"{' or '.join(f'{dataset}_root' for dataset in PRESETS[name].datasets)} in config/config.yaml"
        )
    if not shown:
        raise WorkflowError(
            f"the preset {name} has nothing to show: no table or figure has enough of its networks "
            f"({', '.join(PRESETS[name].systems)}) on its data sets; see TABLES and FIGURES of sdnet/experiments/catalogue.py"
        )
    return [f"{root}/{catalogue.file_of(target)}" for target in shown]


def targets(name):
    """All that a preset comes to: its tables and figures, and the report with the verdict on the paper's claims.

    Every file of these, so that one that is missing is made again.
    """
    shown = [Path(path).stem for path in tables_and_figures(name)]
    return [
        str(file.apply_wildcards({"root": places.results_of(name)}))
        for rule in (*shown, "claims", "report")
        for file in workflow.get_rule(rule).output
    ]


def preset_of(wildcards):
    """The preset whose results folder a path is in."""
    return PRESETS[FOLDERS[wildcards.root]]


def run_of(wildcards):
    """The planned run that a path belongs to."""
    path = RUN_FOLDER.format(**wildcards)
    if path not in RUN:
        raise WorkflowError(
            f"{path} is no run of the preset {FOLDERS[wildcards.root]}: given {wildcards.dataset}, "
            f"{wildcards.system}, seed {wildcards.seed}; config/presets/ lists its data sets, systems and seeds"
        )
    return RUN[path]


def first_seed(name):
    """One run of each network of a preset."""
    return [run for run in RUNS[name] if run.seed == PRESETS[name].seeds[0]]


def images_of(run):
    """The file that a run's images are read from, if Snakemake makes it."""
    return (
        [f"{SITE.data_dir}/{run.dataset}.npz"] if run.dataset in plan.DOWNLOADED else []
    )


GONE = set()  # images that networks were trained on, and that are not there any more


def gone(path):
    """What to do about images that are not there any more."""
    return (
        f"{path} is gone, and results were made of it: bring it back first, by hand, by a link to where it is now, "
        f"or with: snakemake {path}"
    )


def training_images(wildcards):
    """The images that a run is trained on; none where its weights are imported.

    To download a file anew, Snakemake would remove all networks that were trained on it, and train them again.
    """
    run, folder = run_of(wildcards), Path(RUN_FOLDER.format(**wildcards))
    if not run.spec["training"]["epochs"]:
        # Not model.pt, which may be removed once all is measured.
        if not (folder / "history.csv").exists():
            raise WorkflowError(
                f"{folder} is not trained: its weights are imported with python -m sdnet import-released CHECKPOINT"
            )
        return []
    images, trained = images_of(run), folder / "model.pt"
    for path in images:
        if trained.exists() and not Path(path).exists():
            if path not in GONE:
                logger.warning(gone(path))
            GONE.add(path)
            # Where model.pt exists, Snakemake takes this error for a missing rule and goes on with that file.
            raise WorkflowError(gone(path))
    return images


def noisy_images_of(run):
    """The folder of official noisy images that a run is tested on, if Snakemake downloads it."""
    return (
        [run.official_noise]
        if run.official_noise and run.dataset in plan.DOWNLOADED
        else []
    )


def test_images(wildcards):
    """The file of the images that a run is tested on, whose age does not matter, if Snakemake makes it."""
    return ancient(images_of(run_of(wildcards)))


def noisy_images(wildcards):
    """The folder of official noisy images that a run is tested on, whose age does not matter, if Snakemake makes it."""
    return ancient(noisy_images_of(run_of(wildcards)))


def noise_minutes(wildcards):
    """How long a job of one noise may take; on ImageNet generating the noise alone takes hours."""
    return 1440 if wildcards.dataset in ("imagenet", "folder") else 240


def noise_options(wildcards):
    """What the preset wants of noise, as options of a command; the next word is `official_noise`."""
    return arguments.noise_options(run_of(wildcards), preset_of(wildcards))


def official_noise(wildcards, output):
    """Where the official noise is. Snakemake reruns nothing for a param that takes `output`: the folder may be moved."""
    folder = run_of(wildcards).official_noise
    return [folder] if folder else []


def shown_runs(wildcards, target):
    """The runs that a table or figure shows."""
    name = FOLDERS[wildcards.root]
    trained = {(run.dataset, run.system) for run in RUNS[name]}
    if why := catalogue.nothing_to_show(target, trained, PRESETS[name]):
        raise WorkflowError(
            f"{wildcards.root}/{target} has nothing to show in the preset {name}: {why}"
        )
    return catalogue.runs_of(target, RUNS[name], PRESETS[name])


def shown_files(wildcards, target, names):
    """The result files that a table or figure reads; a star stands for a noise, "benchmark" for speeds."""
    files, preset = [], preset_of(wildcards)
    for run in shown_runs(wildcards, target):
        for name in names:
            if name == "benchmark":
                files.append(f"{wildcards.root}/benchmark/{run.dataset}.csv")
            elif (
                name.startswith(catalogue.OF_FIRST_SEED) and run.seed != preset.seeds[0]
            ):
                continue
            elif "*" not in name:
                files.append(f"{wildcards.root}/runs/{run.name}/{name}")
            elif not name.startswith(catalogue.OF_ALGORITHM_1) or run.has_lambda:
                files += [
                    f"{wildcards.root}/runs/{run.name}/{name.replace('*', noise)}"
                    for noise in catalogue.noises_of(target, run.dataset, preset)
                ]
    return list(dict.fromkeys(files))


def fitted_line(wildcards):
    """The line of Algorithm 1 that a network under attack predicts by, if it has a lambda."""
    run = run_of(wildcards)
    noise = preset_of(wildcards).line_noise
    return [f"{RUN_FOLDER}/lines-{noise}.csv"] if run.has_lambda else []


def chosen_lambdas(wildcards):
    """The lambdas of Algorithm 1 under a noise, if the network has a lambda."""
    return (
        [f"{RUN_FOLDER}/adaptive-{{noise}}.csv"] if run_of(wildcards).has_lambda else []
    )


def undefended_folder(wildcards):
    """The folder of the undefended network whose adversarial images are tried on a run, or None."""
    other = plan.undefended(run_of(wildcards), RUNS[FOLDERS[wildcards.root]])
    return other and f"{wildcards.root}/runs/{other.name}"


def undefended_images(wildcards):
    """The adversarial images of the undefended network, if the preset has that run."""
    folder = undefended_folder(wildcards)
    return [f"{folder}/adversarial.npz"] if folder else []


def attack_options(wildcards, command):
    """What the preset wants of attacks, as options of a command."""
    options = arguments.attack_options(preset_of(wildcards), command)
    folder = undefended_folder(wildcards)
    return options + (
        f" --reference {folder}" if folder and command != "attack" else ""
    )


def in_report(path, category, label):
    """An output that `snakemake --report` shows, with the caption of its name."""
    return report(
        path,
        caption=f"../report/{Path(path).stem}.rst",
        category=category,
        labels={"shown": label, "results": "{root}"},
    )
