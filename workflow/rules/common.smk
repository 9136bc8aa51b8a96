"""What the rules look up: runs by their paths, and the files that they need; and what a person is told."""

RUN_FOLDER = "{root}/runs/{dataset}/{system}/seed{seed}"


def tables_and_figures(name):
    """Every one of a preset."""
    root = plan.results_folder(name)
    tables, figures = plan.targets(RUNS[name], PRESETS[name])
    if not RUNS[name]:
        raise WorkflowError(
            f"the preset {name} has no images: config/config.yaml, or your --configfile, names no folder of "
            f"{', '.join(PRESETS[name].datasets)} (imagenet_root, folder_root)"
        )
    if not (tables or figures):
        raise WorkflowError(
            f"the preset {name} has nothing to show: no table or figure has enough of its networks "
            f"({', '.join(PRESETS[name].systems)}) on its data sets; see TABLES and FIGURES of sdnet/experiments/plan.py"
        )
    return [f"{root}/{table}.csv" for table in tables] + [
        f"{root}/{figure}.pdf" for figure in figures
    ]


def targets(name):
    """All that a preset comes to: its tables and figures, and the report with the verdict on the paper's claims."""
    return tables_and_figures(name) + [f"{plan.results_folder(name)}/report.html"]


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


def refuse_without_images():
    """Before any job: images that are gone are fetched first and alone, or all that was made of them is lost."""
    jobs = list(workflow.dag.needrun_jobs())
    made = {file for job in jobs for file in job.output}
    for job in jobs:
        for file in job.input:
            if file in GONE - made or (
                job.rule.name in ("sweep", "calibrate", "stability")
                and file in made
                and not Path(file).exists()
                and file in noisy_images_of(run_of(job.wildcards))
                and any(Path(path).exists() for path in job.output)
            ):
                raise WorkflowError(gone(file))


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
            # Of a network that is there Snakemake takes this for the lack of a rule, and goes on.
            raise WorkflowError(gone(path))
    return images


def noisy_images_of(run):
    """The folder of official noisy images that a run is tested on, if Snakemake downloads it."""
    return (
        [run.official_noise]
        if run.official_noise and run.dataset in plan.DOWNLOADED
        else []
    )


def noise_minutes(wildcards):
    """How long a job of one noise may take; on ImageNet generating the noise alone takes hours."""
    return 1440 if wildcards.dataset in ("imagenet", "folder") else 240


def noise_options(wildcards):
    """What the preset wants of noise, as options of a command."""
    return plan.noise_options(run_of(wildcards), preset_of(wildcards))


def shown_runs(wildcards, target):
    """The runs that a table or figure shows."""
    preset = FOLDERS[wildcards.root]
    runs = plan.runs_of(target, RUNS[preset], PRESETS[preset])
    if not runs:
        raise WorkflowError(
            f"{wildcards.root}/{target} has nothing to show: it is of {', '.join(plan.systems_of(target))}, and the "
            f"preset {preset} has none of them on images or under noise that it shows"
        )
    return runs


def shown_files(wildcards, target, names):
    """The result files that a table or figure reads; a star stands for a noise, "benchmark" for speeds."""
    files, preset = [], preset_of(wildcards)
    for run in shown_runs(wildcards, target):
        noises = [
            noise
            for noise in plan.noises_of(target, preset)
            if noise in plan.noises_on(run.dataset, preset)
        ]
        for name in names:
            if name == "benchmark":
                files.append(f"{wildcards.root}/benchmark/{run.dataset}.csv")
            elif "*" not in name:
                files.append(f"{wildcards.root}/runs/{run.name}/{name}")
            elif name.startswith("sweep") or settings.has_lambda(
                run.spec["model"]["name"]
            ):
                files += [
                    f"{wildcards.root}/runs/{run.name}/{name.replace('*', noise)}"
                    for noise in noises
                ]
    return list(dict.fromkeys(files))


def fitted_line(wildcards):
    """The line of Algorithm 1 that a network under attack predicts by, if it has a lambda."""
    run = run_of(wildcards)
    noise = plan.line_noise(preset_of(wildcards))
    return (
        [f"{RUN_FOLDER}/lines-{noise}.csv"]
        if settings.has_lambda(run.spec["model"]["name"])
        else []
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
    options = plan.attack_options(preset_of(wildcards), command)
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


def refuse_unknown_targets():
    """Say what there is where something is asked for that no rule makes."""
    presets = [rule.name for rule in workflow.rules if not rule.has_wildcards()]
    timed = {
        f"{plan.results_folder(name)}/benchmark/{run.dataset}.csv"
        for name in RUNS
        for run in RUNS[name]
    }
    for target in get_argument_parser().parse_known_args(sys.argv[1:])[0].targets:
        path = target if os.path.isabs(target) else os.path.relpath(target)
        folder = os.path.dirname(path)
        if Path(path).match("runs/*/*/seed*/*") and folder not in RUN:
            raise WorkflowError(
                f"{folder} is no run of any preset; config/presets/ lists their data sets, systems and seeds"
            )
        if Path(path).match("benchmark/*.csv") and path not in timed:
            raise WorkflowError(
                f"{path} is of a data set that its preset does not have; allowed are {', '.join(sorted(timed))}"
            )
        made = any(rule.is_producer(path) for rule in workflow.rules)
        if target not in presets and not made and not Path(path).is_file():
            raise WorkflowError(
                f"nothing makes {target}; what does is a preset ({', '.join(sorted(presets))}), "
                "or a file such as results/table2.csv or, of the preset quick, results/quick/table2.csv"
            )


def refuse_unknown_resources():
    """A limit of what no rule asks for would limit nothing."""
    known = {"disk_mb"}.union(*(rule.resources for rule in workflow.rules))
    if unknown := workflow.global_resources.keys() - known:
        allowed = [name for name in sorted(known) if not name.startswith("_")]
        raise WorkflowError(
            f"--resources: given {', '.join(sorted(unknown))}, which no rule asks for; allowed are {', '.join(allowed)}"
        )


def say_what_was_made():
    """Where there is something to read, once all is done."""
    files = {file for job in workflow.dag.jobs for file in job.output}
    reports = sorted(file for file in files if Path(file).name == "report.html")
    if reports:
        logger.info(f"Read {' and '.join(reports)}; `make ui` shows the runs.")


def forget_what_failed():
    """Let no job that failed pass for done.

    Snakemake removes its outputs, but records them as made of the present inputs and parameters. Where something made of
    older ones stands, such as a table, the same command would find nothing to do, and the table would stay as it is.
    """
    records = workflow.persistence
    for file in {file for job in workflow.scheduler.failed for file in job.output}:
        if record := records.metadata(file):
            record.params = ["failed"]
            records._write_record(str(file), record)


def say_what_failed():
    """Each job that failed, after all its retries, with its log and the error that this ends in."""
    for job in sorted(workflow.scheduler.failed, key=lambda job: job.log[-1]):
        path = Path(job.log[-1])
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        error = [line for line in lines if line.startswith("error:")][-1:]
        logger.error("\n    ".join([f"{job.rule.name} failed: {path}", *error]))
