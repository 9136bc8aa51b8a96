"""SDNet, replicated: from data and settings to every table and figure.

snakemake results/table1.csv                    one table of the paper's preset, and just what it needs
snakemake results/quick/figure6.pdf             the same of another preset: the path names it
snakemake all                                   everything of the paper's preset
snakemake short                                 of another; config/presets/ has them all
"""

import base64
import json
import os
import sys
from pathlib import Path
from typing import get_args

from snakemake.cli import get_argument_parser
from snakemake.exceptions import WorkflowError
from snakemake.jobs import Job

sys.path.insert(0, str(workflow.basedir))
from sdnet.data.corruptions import check_noise
from sdnet.experiments import (
    arguments,
    catalogue,
    devices,
    labels,
    places,
    plan,
    tracking,
)
from sdnet.experiments.settings.files import read_yaml
from sdnet.experiments.settings.loading import load_presets, load_site
from sdnet.experiments.settings.names import DatasetName, Noise


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


try:
    SITE_FILES = ["config/config.yaml", *map(str, workflow.overwrite_configfiles)]
    # Snakemake has read them, and of a key that is given twice it took the last.
    for path in SITE_FILES:
        read_yaml(Path(path))
    typed = ["--config"] if workflow.config_settings.config else []
    SITE = load_site(config, " or ".join(SITE_FILES + typed))
    PRESETS = load_presets()
    RUNS = {name: plan.runs(name, preset, SITE) for name, preset in PRESETS.items()}
    for noise in get_args(Noise):
        check_noise(noise)
except ValueError as error:
    raise WorkflowError(str(error))

# By the results folder and path that Snakemake asks for.
FOLDERS = {places.results_of(name): name for name in PRESETS}
RUN = {
    f"{places.results_of(name)}/runs/{run.name}": run
    for name, runs in RUNS.items()
    for run in runs
}
for folder in map(Path, ("results", *FOLDERS)):
    if os.path.lexists(folder) and not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise WorkflowError(
            f"{folder.absolute()} is no folder that can be written to: move it away, or make it one; "
            "a link to a folder elsewhere does as well"
        )

# Jobs run the Python that runs Snakemake. What differs by site reaches them through the environment, and so is
# no part of any rule: nothing runs again when it changes.
os.environ.setdefault("MLFLOW_TRACKING_URI", SITE.mlflow_uri)
os.environ.update(
    PYTHONUTF8="1",  # whatever the locale, λ is a λ
    PATH=os.pathsep.join([os.path.dirname(sys.executable), os.getenv("PATH", "")]),
    SDNET_DATA_DIR=SITE.data_dir,
    SDNET_JOBS_PER_GPU=str(SITE.jobs_per_gpu),
    SDNET_IMAGENET_ROOT=SITE.imagenet_root or "",
    SDNET_FOLDER_ROOT=SITE.folder_root or "",
)


wildcard_constraints:
    root="|".join(FOLDERS),
    dataset="|".join(get_args(DatasetName)),
    system="[a-z0-9-]+",
    seed=r"\d+",


include: "workflow/rules/devices.smk"
include: "workflow/rules/common.smk"
include: "workflow/rules/guards.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/robustness.smk"
include: "workflow/rules/inversion.smk"
include: "workflow/rules/adversarial.smk"
include: "workflow/rules/benchmark.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        targets("paper"),
        "results/logs/tracked",


# One target rule for every other preset, by its name.
for name in [name for name in PRESETS if name != "paper"]:
    if name in ("runs", "logs", "notebooks", *(rule.name for rule in workflow.rules)):
        raise WorkflowError(
            f"config/presets/{name}.yaml: {name} is the name of a rule, or of a folder of results; rename the file"
        )

    rule:
        name:
            name
        input:
            lambda wildcards, name=name: targets(name),
            f"{places.results_of(name)}/logs/tracked",


forget_what_fails()
if not workflow.remote_exec:  # on a cluster's nodes Snakemake asks for what it likes
    refuse_missing_profile()
    warn_of_lost_records()
    refuse_swallowed_targets()
    refuse_unknown_targets()
    refuse_unknown_resources()


onstart:
    refuse_without_images()


onsuccess:
    say_what_was_made()


onerror:
    say_what_failed()
