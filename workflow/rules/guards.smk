"""Checks before the first job, messages after the last, and the records of jobs that failed."""


def refuse_missing_profile():
    """Snakemake works without a workflow profile that is not there: on this machine, and by its own defaults."""
    given = get_argument_parser().parse_known_args(sys.argv[1:])[0].workflow_profile
    if given not in (None, "none") and not Path(given).is_dir():
        raise WorkflowError(
            f"--workflow-profile: there is no folder {given}; profiles/ holds {', '.join(sorted(os.listdir('profiles')))}"
        )


def refuse_half_added_targets():
    """A table or figure of one's own is named in several files."""
    named = {
        "TABLES or FIGURES of sdnet/experiments/catalogue.py": catalogue.SYSTEMS_OF,
        "READS of sdnet/experiments/catalogue.py": catalogue.READS,
        "TITLES of sdnet/experiments/labels.py": labels.TITLES,
        "workflow/report/, as an .rst": {
            path.stem for path in Path("workflow/report").glob("*.rst")
        },
    }
    for target in catalogue.SYSTEMS_OF | catalogue.READS | labels.TITLES:
        if lacking := [place for place, names in named.items() if target not in names]:
            raise WorkflowError(
                f"{target} is no whole table or figure: add it to {'; '.join(lacking)} (see docs/extending.md)"
            )


def refuse_swallowed_targets():
    """These options take every word behind them: a target typed there is read as one of their values."""
    given = get_argument_parser().parse_known_args(sys.argv[1:])[0]
    roots = [Path(places.results_of(name)) for name in PRESETS if name != "paper"]
    for option in ("forcerun", "prioritize", "until", "omit_from"):
        taken = [
            word
            for word in getattr(given, option) or ()
            if word in PRESETS or any(Path(word).is_relative_to(root) for root in roots)
        ]
        if taken and not given.targets:
            name = f"--{option.replace('_', '-')}"
            raise WorkflowError(
                f"{name} takes {', '.join(taken)} for its own, and no target is left: put the target first, as in "
                f"snakemake {taken[0]} {name} ..."
            )


def refuse_unknown_targets():
    """Say what there is where something is asked for that no rule makes."""
    presets = [rule.name for rule in workflow.rules if not rule.has_wildcards()]
    timed = {
        f"{places.results_of(name)}/benchmark/{run.dataset}.csv"
        for name in RUNS
        for run in RUNS[name]
    }
    for target in get_argument_parser().parse_known_args(sys.argv[1:])[0].targets:
        if target in PRESETS:
            targets(target)  # or an error here would be told with a traceback
        path = os.path.relpath(target)
        folder = os.path.dirname(path)
        if Path(path).match("runs/*/*/seed*/*") and folder not in RUN:
            raise WorkflowError(
                f"{folder} is no run of any preset; config/presets/ lists their data sets, systems and seeds"
            )
        if (
            folder in RUN
            and os.path.basename(path).startswith(catalogue.OF_ALGORITHM_1)
            and not RUN[folder].has_lambda
        ):
            raise WorkflowError(
                f"nothing makes {target}: Algorithm 1 chooses lambda, which {RUN[folder].system} does not have"
            )
        if Path(path).match("benchmark/*.csv") and path not in timed:
            raise WorkflowError(
                f"{path} is of a data set that its preset does not have; allowed are {', '.join(sorted(timed))}"
            )
        # Snakemake does not know its files by absolute paths.
        typed = target if os.path.isabs(target) else path
        made = any(rule.is_producer(typed) for rule in workflow.rules)
        if target not in presets and not made:
            raise WorkflowError(
                f"nothing makes {target}; what does is a preset ({', '.join(sorted(presets))}; all is the preset paper), "
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


def refuse_without_images():
    """Refuse to fetch images that are gone beside other jobs: Snakemake would first remove all that was made of them."""
    jobs = list(workflow.dag.needrun_jobs())
    made = {file for job in jobs for file in job.output}
    for job in jobs:
        for file in job.input:
            if file in GONE - made or (
                job.rule.name in ("sweep", "calibrate", "renormalise", "stability")
                and file in made
                and not Path(file).exists()
                and file in noisy_images_of(run_of(job.wildcards))
                and any(Path(path).exists() for path in job.output)
            ):
                raise WorkflowError(gone(file))


def say_what_was_made():
    """Where there is something to read, once all is done."""
    files = {file for job in workflow.dag.jobs for file in job.output}
    reports = sorted(file for file in files if Path(file).name == "report.html")
    if reports:
        usual = load_site()
        where = tracking.address()
        named = "" if where == usual.mlflow_uri else f"MLFLOW_TRACKING_URI={where} "
        logger.info(f"Read {' and '.join(reports)}; `{named}make ui` shows the runs.")


def forget_what_fails():
    """Let no job that failed pass for done, even if Snakemake is killed before it ends.

    Snakemake removes its outputs, but records them as made of the present inputs and parameters. Where something made of
    older ones stands, such as a table, the same command would find nothing to do, and the table would stay as it is.
    """
    remove_outputs = Job.cleanup

    async def remove_and_forget(job, skip_outputs):
        await remove_outputs(job, skip_outputs)
        records = workflow.persistence
        for file in job.output:
            if record := records.metadata(file):
                record.params = ["failed"]
                records._write_record(str(file), record)

    Job.cleanup = remove_and_forget  # which Snakemake calls right after such a record


def warn_of_lost_records():
    """Without Snakemake's record of what a file was made of, or with that of --touch, it notices no changed setting."""
    stale = [
        f"{folder}/spec.json"
        for folder, run in RUN.items()
        if is_other(f"{folder}/spec.json", run.spec_json)
    ]
    if stale:
        logger.warning(
            f"{len(stale)} runs are of other settings than the present, which goes unnoticed: Snakemake has no record of "
            "how they were made (.snakemake was removed or not copied with them, or their folder renamed), or was told by "
            f"--touch that they are up to date. To train them anew: snakemake --force {' '.join(stale)}, and then the "
            "same command again"
        )


def is_other(path, planned):
    """Whether a spec.json is not the planned one, and Snakemake does not know."""
    if (
        not os.path.isfile(path)
        or Path(path).read_text(errors="replace").removesuffix("\n") == planned
    ):
        return False
    record = Path(
        ".snakemake/metadata", base64.urlsafe_b64encode(path.encode()).decode()
    )
    return not record.exists() or planned in json.loads(record.read_text())["shellcmd"]


def say_what_failed():
    """Each job that failed, after all its retries, with its log and the error that this ends in."""
    for job in sorted(workflow.scheduler.failed, key=lambda job: job.log[0]):
        path = Path(job.log[0])
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        error = [line for line in lines if line.startswith("error:")][-1:]
        logger.error("\n    ".join([f"{job.rule.name} failed: {path}", *error]))
