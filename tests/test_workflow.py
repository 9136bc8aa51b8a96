"""The workflow, run for real: a small project from nothing to its tables and figures, then what a user does to it."""

import base64
import json
import os
import re
import shlex
import shutil
import signal
import time
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import torch
from nbclient import NotebookClient
from PIL import Image
from small_project import EPOCHS, PROJECT, RESULTS, SPARSE_RUN, TINY_PRESET, copy_project, sdnet

from sdnet.experiments import catalogue, plan
from sdnet.experiments.settings.files import read_yaml
from sdnet.experiments.settings.loading import load_presets, load_site
from sdnet.models import build

RELEASED_SYSTEMS = """
systems:
  sdnet18-nonnegative: {model: sdnet18, options: {nonnegative: true}}
recipes:
  default: {batch_size: 50}
robustness: {noises: [gaussian], lambdas: [0.1, 0.5], test_images: 20, calibration_images: 20, variants: [paper]}
"""
# Networks are tested in float32 when trained, and during training in its precision: here float32, and bfloat16.
MOVED_BY_PRECISION = {"resnet18": 0, "sdnet18": 3}  # of 60 test images


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path} no longer holds {old!r}, which this test edits"
    path.write_text(text.replace(old, new))


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("epoch")) for path in folder.glob("checkpoints/*/epoch*.pt"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """The project as it is published, with nothing built."""
    return copy_project(tmp_path_factory.mktemp("fresh"))


@pytest.fixture
def own_fresh(tmp_path):
    """The same, to be changed."""
    return copy_project(tmp_path)


# What is built


@pytest.mark.parametrize("table", catalogue.TABLES)
def test_every_table_is_built_in_three_formats(built, table):
    numbers = pd.read_csv(built / RESULTS / f"{table}.csv")
    assert set(numbers.system) == set(EPOCHS) & set(catalogue.SYSTEMS_OF[table])
    assert set(numbers.dataset) == {"digits"}
    assert "SDNet-18" in (built / RESULTS / f"{table}.md").read_text()
    assert r"\begin{tabular}" in (built / RESULTS / f"{table}.tex").read_text()


@pytest.mark.parametrize("figure", catalogue.FIGURES)
def test_every_figure_is_built_as_pdf_and_picture(built, figure):
    pdf = (built / RESULTS / f"{figure}.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert pdf.rstrip().endswith(b"%%EOF")
    picture = Image.open(built / RESULTS / f"{figure}.png")
    picture.load()
    assert min(picture.size) >= 200


@pytest.mark.parametrize("target", [*catalogue.TABLES, *catalogue.FIGURES])
def test_every_notebook_is_kept_executed_and_as_a_page(built, target):
    executed = nbformat.read(built / RESULTS / f"notebooks/{target}.ipynb", as_version=4)
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    page = (built / RESULTS / f"notebooks/{target}.html").read_text()
    assert (
        "<table" if target in catalogue.TABLES else f'<img alt="{target}, results/quick" src="data:image/png;base'
    ) in page


def test_a_notebook_run_by_hand_where_it_lies_writes_what_the_workflow_wrote(project):
    picture = project / RESULTS / "figure6.png"
    by_workflow = picture.read_bytes()
    picture.unlink()
    notebook = nbformat.read(project / "notebooks/figure6.ipynb", as_version=4)
    NotebookClient(notebook, resources={"metadata": {"path": project / "notebooks"}}).execute()
    assert picture.read_bytes() == by_workflow


def test_table_1_says_what_the_result_files_say(built):
    table = pd.read_csv(built / RESULTS / "table1.csv").set_index(["system", "quantity"]).ours
    benchmark = pd.read_csv(built / RESULTS / "benchmark/digits.csv").set_index("system")
    assert benchmark.train_rate_ratio["resnet18"] == 1
    for system in ("resnet18", "sdnet18"):
        epochs, run = EPOCHS[system], built / RESULTS / "runs/digits" / system / "seed0"
        accuracy, history = pd.read_csv(run / "accuracy.csv"), pd.read_csv(run / "history.csv")
        last = accuracy[accuracy.checkpoint == "last"].iloc[0]
        assert list(history.epoch) == list(range(1, epochs + 1))
        assert (last.epoch, last.total) == (epochs, 60)
        assert abs(last.correct - history.test_correct.iloc[-1]) <= MOVED_BY_PRECISION[system]
        assert table[system, "accuracy"] == pytest.approx(100 * last.correct / 60)
        assert table[system, "accuracy_best_epoch"] == pytest.approx(100 * history.test_correct.max() / 60)
        assert table[system, "parameters"] == pytest.approx(last.parameters / 1e6)
        assert table[system, "speed"] == pytest.approx(benchmark.train_images_per_second[system])


def test_nothing_half_written_is_left(built):
    """Files are written under .<name>.<process>; see sdnet/files.py."""
    assert not [path for path in (built / "results").rglob(".*") if path.suffix.removeprefix(".").isdigit()]


def test_every_run_is_described_before_the_first_is_trained(built):
    specs, models = ((built / RESULTS).glob(f"runs/*/*/*/{name}") for name in ("spec.json", "model.pt"))
    last, first = max(path.stat().st_mtime for path in specs), min(path.stat().st_mtime for path in models)
    assert last < first, "what has no description counts as not asked for"


def test_mlflow_has_every_run_with_its_tags_and_curves(built, tracking_uri):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri)
    experiment = client.get_experiment_by_name("sdnet quick")
    for system, epochs in EPOCHS.items():
        folder = built / RESULTS / "runs/digits" / system / "seed0"
        history = pd.read_csv(folder / "history.csv")
        run = client.get_run(json.loads((folder / "mlflow.json").read_text())["run_id"])
        assert run.info.experiment_id == experiment.experiment_id
        assert run.info.status == "FINISHED"
        model = system.removesuffix("-plain")
        expected = {"dataset": "digits", "system": system, "model": model, "seed": "0", "preset": "quick"}
        assert expected.items() <= run.data.tags.items()
        assert {"commit", "device", "precision"} <= set(run.data.tags)
        assert run.data.params["training.epochs"] == str(epochs)
        curve = client.get_metric_history(run.info.run_id, "test_accuracy")
        assert [point.step for point in curve] == list(history.epoch)
        assert [point.value for point in curve] == pytest.approx(list(history.test_correct / history.test_total))
        assert run.data.metrics["final_test_accuracy"] == pytest.approx(curve[-1].value)
        attached = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert {"spec.json", "history.csv", "accuracy.csv"} <= attached


# What runs again, and what does not


def test_a_second_build_has_nothing_to_do(built, snakemake):
    assert "Nothing to be done" in snakemake.succeed(built, "--cores", "2", "quick")


def test_each_missing_file_of_a_table_figure_or_verdict_is_made_again(project, snakemake):
    for path, rule in {"figure2.png": "figure2", "diagnostics.md": "table4", "effects.csv": "claims"}.items():
        (project / RESULTS / path).rename(project / "elsewhere")
        assert snakemake.plan(project, "quick").jobs[rule] == 1, path
        (project / "elsewhere").rename(project / RESULTS / path)


def test_the_end_names_the_report_where_there_is_one(project, snakemake, tracking_uri):
    sentence = f"Read {RESULTS}/report.html; `MLFLOW_TRACKING_URI={tracking_uri} make ui` shows the runs."
    assert sentence in snakemake.succeed(project, "--touch", "--force", f"{RESULTS}/report.html")
    assert "Read " not in snakemake.succeed(project, "--touch", "--force", f"{RESULTS}/table1.csv")


def test_edits_that_change_no_setting_run_nothing(project, snakemake):
    for path in [*project.glob("notebooks/*"), *project.glob("config/**/*.*"), project / "Snakefile"]:
        path.touch()
    edit(project / "workflow/rules/train.smk", "python -m sdnet train", "python  -m sdnet train")
    with open(project / "workflow/rules/train.smk", "a") as rules:
        rules.write("\n# A remark.\n")
    for settings in ("config.yaml", "presets/quick.yaml"):
        with open(project / "config" / settings, "a") as file:
            file.write("\n# A remark.\n")
    edit(project / "config/config.yaml", "https://www.cs.toronto.edu", "https://mirror.example.org")
    assert not snakemake.plan(project, "quick").jobs


def test_an_edited_notebook_runs_alone(project, snakemake):
    edit(project / "notebooks/figure5.ipynb", "The paper shows", "The paper draws")
    planned = snakemake.plan(project, "quick")
    assert planned.drawn == {"figure5"}
    assert not planned.computed


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("config/presets/quick.yaml", "description: ", "description: other words, "),
        ("workflow/report/table1.rst", "Accuracy", "How accurate it is"),
    ],
)
def test_other_words_of_the_report_make_it_again_and_compute_nothing(project, snakemake, file, old, new):
    edit(project / file, old, new)
    planned = snakemake.plan(project, "quick")
    assert planned.jobs["report"] == 1
    assert not {*planned.drawn, *planned.computed, *planned.trained}


def test_a_recipe_trains_only_the_runs_that_use_it(project, snakemake):
    edit(project / "config/presets/quick.yaml", "learning_rate: 0.05", "learning_rate: 0.06")
    planned = snakemake.plan(project, "quick")
    assert planned.trained == {str(SPARSE_RUN)}
    assert (planned.jobs["spec"], planned.jobs["train"], planned.jobs["evaluate"]) == (1, 1, 1)
    assert planned.jobs["table1"] == planned.jobs["figure5"] == 1


def test_a_lost_result_is_made_from_the_trained_network(project, snakemake):
    """Snakemake makes a lost intermediate file once something needs it: here the table, lost as well."""
    (project / SPARSE_RUN / "accuracy.csv").unlink()
    (project / RESULTS / "table1.csv").unlink()
    planned = snakemake.plan(project, "quick")
    assert not planned.jobs.keys() & {"spec", "train", "benchmark"}
    assert planned.jobs["evaluate"] == planned.jobs["table1"] == 1


RUN_ON_CIFAR = "results/small/runs/cifar10/sdnet18/seed0"


@pytest.fixture
def made(own_fresh, snakemake):
    """The project with the files of a CIFAR-10 run."""
    made_by_hand(own_fresh, snakemake, f"{RUN_ON_CIFAR}/accuracy.csv")
    return own_fresh


def made_by_hand(project, snakemake, *targets):
    """Place files and those that they are made of, and record them as made, which --touch does."""
    listed = snakemake.succeed(project, "--summary", *targets).split("output_file\t")[1].splitlines()[1:]
    for path in reversed([project / line.split("\t")[0] for line in listed if "\t" in line]):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            path.write_text("made")
    snakemake.succeed(project, "--touch", "--forceall", *targets)


def test_where_a_training_died_after_a_setting_changed_it_is_what_the_same_command_goes_on_with(made, snakemake):
    """Snakemake has removed the weights by then, and recorded the new spec as what they were made of.

    Without `onerror` it ends as if it were killed.
    """
    edit(made / "Snakefile", "onerror:\n    say_what_failed()\n", "")
    edit(made / "config/presets/small.yaml", "default: {epochs: 12}", "default: {epochs: 13}")
    failed = snakemake.fail(made, "--cores", "1", f"{RUN_ON_CIFAR}/accuracy.csv")
    assert "Error in rule train" in failed  # the images are no images
    assert not (made / RUN_ON_CIFAR / "model.pt").exists()
    jobs = snakemake.plan(made, f"{RUN_ON_CIFAR}/accuracy.csv").jobs
    assert {name: jobs[name] for name in ("train", "evaluate")} == {"train": 1, "evaluate": 1}


def test_a_measurement_that_failed_after_a_setting_changed_is_made_by_the_same_command(own_fresh, snakemake):
    """And not passed over, since the figure of the older measurements stands."""
    preset, target = own_fresh / "config/presets/quick.yaml", f"{RESULTS}/figure_stability.pdf"
    preset.write_text(TINY_PRESET)
    made_by_hand(own_fresh, snakemake, target)
    edit(preset, "lambdas: [0.1, 0.5]", "lambdas: [0.1, 0.6]")
    assert snakemake.plan(own_fresh, target).jobs["stability"] == 2
    failed = snakemake.fail(own_fresh, "--cores", "1", target)
    assert "stability failed: results/quick/logs/stability/digits-" in failed  # the weights are no weights
    assert snakemake.plan(own_fresh, target).jobs["stability"] == 2


def test_weights_that_are_the_same_by_content_are_not_measured_again(made, snakemake):
    """Of more than a megabyte, up to which Snakemake compares contents by default."""
    weights, target = made / RUN_ON_CIFAR / "model.pt", f"{RUN_ON_CIFAR}/accuracy.csv"
    weights.write_bytes(bytes(3_000_000))
    snakemake.succeed(made, "--touch", "--forceall", target)
    for content, planned in ((bytes(3_000_000), {}), (bytes(2_999_999) + b"1", {"evaluate": 1})):
        weights.write_bytes(content)
        os.utime(weights, (time.time() + 10, time.time() + 10))
        assert snakemake.plan(made, target).jobs == planned


@pytest.mark.parametrize("how", ["records lost", "record lost", "--touch"])
def test_where_snakemake_has_no_true_record_a_changed_setting_is_told(made, snakemake, how):
    spec, target = f"{RUN_ON_CIFAR}/spec.json", f"{RUN_ON_CIFAR}/accuracy.csv"
    snakemake.succeed(made, "--force", spec)
    if how == "records lost":
        shutil.rmtree(made / ".snakemake")
    elif how == "record lost":
        (made / ".snakemake/metadata" / base64.urlsafe_b64encode(spec.encode()).decode()).unlink()
    assert "of other settings" not in snakemake.succeed(made, target, "-n")
    edit(made / "config/presets/small.yaml", "default: {epochs: 12}", "default: {epochs: 13}")
    if how == "--touch":
        assert "of other settings" not in snakemake.succeed(made, target, "-n"), "Snakemake itself notices"
        snakemake.succeed(made, target, "--touch")
    printed = snakemake.succeed(made, target, "-n")
    assert "1 runs are of other settings than the present" in printed
    (command,) = re.findall(r"To train them anew: snakemake (--force \S+),", printed)
    snakemake.succeed(made, *command.split())
    assert snakemake.plan(made, target).jobs["train"] == 1


def test_where_the_images_are_gone_nothing_is_trained_again(made, snakemake):
    target, images = f"{RUN_ON_CIFAR}/accuracy.csv", made / "data/cifar10.npz"
    images.unlink()
    (made / target).unlink()
    printed = snakemake.fail(made, target, "-n")
    assert "data/cifar10.npz is gone, and results were made of it: bring it back first" in printed
    assert snakemake.plan(made, "data/cifar10.npz").jobs == {"download": 1}
    images.write_text("downloaded anew")
    assert snakemake.plan(made, target).jobs == {"evaluate": 1}


def test_where_the_noisy_images_are_gone_no_result_is_removed_to_be_made_again(own_fresh, snakemake):
    """To fetch them anew Snakemake would repeat every sweep that was made of them."""
    preset, table = own_fresh / "config/presets/small.yaml", "results/small/table2.csv"
    edit(preset, "test_images: 2000}", "test_images: 2000, noise_source: official}")
    noise = own_fresh / "data/cifar10-c"
    noise.mkdir(parents=True)
    made_by_hand(own_fresh, snakemake, table)
    shutil.rmtree(noise)
    edit(preset, "calibration_images: 1000", "lambdas: [0.1, 0.3]")
    printed = snakemake.fail(own_fresh, "--cores", "1", table)
    assert "data/cifar10-c is gone, and results were made of it: bring it back first" in printed
    assert (own_fresh / RUN_ON_CIFAR / "sweep-gaussian.csv").read_text() == "made"


def test_where_nothing_needs_the_images_that_are_gone_it_is_said_and_goes_on(own_fresh, snakemake):
    made_by_hand(own_fresh, snakemake, "results/small/table2.csv")
    (own_fresh / "data/cifar10.npz").unlink()
    printed = snakemake.succeed(own_fresh, "results/small/table2.csv")
    assert printed.count("data/cifar10.npz is gone, and results were made of it") == 1
    assert "Nothing to be done" in printed


def test_imported_weights_wait_for_no_images(own_fresh, snakemake):
    """They would be removed, to be trained, which they cannot be; and what was measured of them may outlive them."""
    run = "results/released/runs/cifar10/sdnet18-nonnegative/seed0"
    snakemake.succeed(own_fresh, f"{run}/spec.json")
    for name in ("model.pt", "history.csv", "environment.json"):
        (own_fresh / run / name).write_text("imported")
    planned = snakemake.plan(own_fresh, f"{run}/accuracy.csv")
    assert planned.jobs == {"download": 1, "evaluate": 1}
    (own_fresh / run / "accuracy.csv").write_text("measured")
    (own_fresh / run / "model.pt").unlink()
    assert not snakemake.plan(own_fresh, f"{run}/accuracy.csv").jobs


def test_another_address_changes_nothing_and_another_checksum_is_another_data_set(made, snakemake):
    target, config = f"{RUN_ON_CIFAR}/accuracy.csv", made / "config/config.yaml"
    edit(config, "https://www.cs.toronto.edu", "https://mirror.example.org")
    assert not snakemake.plan(made, target).jobs
    edit(config, "md5:c58f30108f718f92721af3b95e74349a", "md5:00000000000000000000000000000000")
    planned = snakemake.plan(made, target)
    assert planned.jobs == {"download": 1, "spec": 1, "train": 1, "evaluate": 1}
    assert planned.trained == {RUN_ON_CIFAR}


def test_a_folder_of_images_may_have_a_space_in_its_name(own_fresh, snakemake):
    edit(own_fresh / "config/config.yaml", "data_dir: data", "data_dir: my data")
    edit(own_fresh / "config/presets/small.yaml", "test_images: 2000}", "test_images: 2000, noise_source: official}")
    printed = snakemake.succeed(own_fresh, f"{RUN_ON_CIFAR}/sweep-shot.csv", "-n", "-p")
    assert "--out 'my data/cifar10.npz'" in printed
    assert "--out 'my data/cifar10-c'" in printed
    assert "--official 'my data/cifar10-c'" in printed


def test_a_data_set_that_is_not_attacked_is_told_where_to_be_named(own_fresh, snakemake):
    edit(own_fresh / "config/presets/quick.yaml", "datasets: [digits]", "datasets: [cifar10]")
    printed = snakemake.fail(own_fresh, "results/quick/table4.csv", "-n")
    assert (
        "results/quick/table4 has nothing to show in the preset quick: adversarial.datasets are cifar10, and the data "
        "sets digits; name one there"
    ) in printed


def test_as_many_jobs_as_cores_is_no_cluster(own_fresh, snakemake):
    """`-j` beside the profile's `cores` is a limit of jobs; only a cluster's jobs ask for a GPU where none is."""
    rule = own_fresh / "workflow/rules/benchmark.smk"
    edit(rule, "{wildcards.dataset}: speed", "{threads} threads, {resources.gpu} GPUs: speed")
    target = "results/quick/benchmark/digits.csv"
    for options in (["--cores", "2"], ["--cores", "2", "-j", "2"]):
        assert "2 threads, 0 GPUs: speed" in snakemake.succeed(own_fresh, *options, "-n", "--", target)
    cluster = snakemake.succeed(own_fresh, "--workflow-profile", "profiles/slurm", "-n", "--", target)
    assert " 1 GPUs: speed" in cluster


def test_what_a_preset_cannot_show_is_refused_before_any_job(fresh, snakemake):
    printed = snakemake.fail(fresh, "results/wide/figure4.pdf", "-n")
    assert (
        "results/wide/figure4 has nothing to show in the preset wide: it is of sdnet18-all-plain, none of which"
        in printed
    )


# What is typed


def readme_commands() -> list[str]:
    """The snakemake commands that stand on a line of their own, and need no imported weights."""
    lines = [line.split("#")[0].strip() for line in (PROJECT / "README.md").read_text().splitlines()]
    return [line for line in lines if line.startswith("snakemake ") and "results/released/" not in line]


COMMANDS = [
    *(f"{line} -n" for line in readme_commands()),
    "snakemake --config mlflow_uri=sqlite:///other.db quick -n",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_work_exactly_as_typed(fresh, snakemake, command):
    printed = snakemake.succeed(fresh, *shlex.split(command)[1:])
    target = next(word for word in shlex.split(command)[1:] if re.fullmatch(r"all|quick|small|short|results/.*", word))
    rule = Path(target).stem
    assert re.search(rf"^{rule} +1$", printed, re.MULTILINE), printed
    assert not (fresh / "results").exists()


def test_all_trains_every_run_of_the_paper_on_one_gpu_each(fresh, snakemake):
    preset, site = load_presets(fresh / "config/presets")["paper"], load_site(read_yaml(fresh / "config/config.yaml"))
    runs = plan.runs("paper", preset, site)
    shown = {
        run.name for target in catalogue.TABLES | catalogue.FIGURES for run in catalogue.runs_of(target, runs, preset)
    }
    printed = snakemake.succeed(fresh, "--cores", "8", "--resources", "gpu=4", "all", "-n", "-p")
    trained = re.findall(r"-m sdnet train (\S+)/spec\.json --gpus (\d+)", printed)
    assert sorted(trained) == sorted((f"results/runs/{name}", "1") for name in shown)


def test_imagenet_joins_with_its_root_on_four_gpus_under_three_noises(own_fresh, snakemake):
    for folder in ("imagenet/train", "imagenet/val"):
        (own_fresh / folder).mkdir(parents=True)
    options = ["--config", "imagenet_root=imagenet", "--cores", "8", "--resources", "gpu=4"]
    printed = snakemake.succeed(own_fresh, "results/table1.csv", "results/table3.csv", *options, "-n", "-p")
    runs = rf"results/runs/imagenet/({'|'.join(catalogue.TABLES['table1'] + catalogue.TABLES['table3'])})/seed\d"
    trained = set(re.findall(rf"-m sdnet train {runs}/spec\.json --gpus (\d)", printed))
    swept = set(re.findall(rf"-m sdnet sweep \$\(dirname {runs}/model\.pt\) --noise (\w+)", printed))
    assert {"resnet18", "resnet34", "sdnet18", "sdnet34"} <= {system for system, _ in trained}
    assert {gpus for _, gpus in trained} == {"4"}
    assert {noise for _, noise in swept} == {"gaussian", "shot", "impulse"}
    (benchmark,) = re.findall(r"-m sdnet benchmark (.*imagenet.*)", printed)
    assert "--batch-size 128 " in benchmark, "the part that one of 4 GPUs has of 512"


def test_every_measurement_is_asked_for_what_the_preset_says(own_fresh, snakemake):
    """Attacks on a network with a lambda try the images against ResNet-18, too."""
    asked = "noises: [shot], seed: 3"
    (own_fresh / "config/presets/quick.yaml").write_text(TINY_PRESET.replace("noises: [gaussian]", asked))
    targets = [str(RESULTS / name) for name in ("table4.csv", "control.csv", "figure_stability.pdf")]
    printed = snakemake.succeed(own_fresh, "--cores", "1", *targets, "-n", "-p")
    commands = {" ".join(words.split()) for words in re.findall(r"-m sdnet (.*model\.pt\) .*) --gpus", printed)}
    images, lambdas = "--scale cifar --noise-seed 3 --images 20", "--lambdas 0.1,0.5"
    attacked = f"{lambdas} --linf 64 --l2 2 --noise shot"
    of_each = {
        "sweep": f"--noise shot {lambdas} {images}",
        "renormalise": f"--noise shot {images}",
        "stability": f"--noise shot {lambdas} {images}",
        "attack": f"{attacked} --images 20",
        "attack-adaptive": f"{attacked} --images 10 --steps 3 --restarts 1 --attack-lambdas 0.1"
        " --autoattack '' --autoattack-images 1",
        "diagnose": f"{attacked} --images 5 --steps 3 --no-square",
    }
    fitted = f"{of_each['sweep']} --levels interleaved --calibration-images 20 --variants paper"
    undefended, defended = (f"{RESULTS}/runs/digits/{system}/seed0" for system in ("resnet18", "sdnet18"))
    reference = dict.fromkeys(("attack-adaptive", "diagnose"), f" --reference {undefended}")
    assert {command for command in commands if not command.startswith("evaluate")} == {
        *(f"{name} $(dirname {undefended}/model.pt) {words}" for name, words in of_each.items()),
        *(
            f"{name} $(dirname {defended}/model.pt) {words}{reference.get(name, '')}"
            for name, words in (of_each | {"calibrate": fitted}).items()
        ),
    }


def test_imported_weights_are_tested_and_never_trained(own_fresh, snakemake):
    """Figure 2 of the preset `released` from a checkpoint in the authors' layout; without it, what to do is said."""
    preset = own_fresh / "config/presets/released.yaml"
    preset.write_text(TINY_PRESET[: TINY_PRESET.index("systems:")] + "imported: true\n" + RELEASED_SYSTEMS)
    refused = snakemake.fail(own_fresh, "--cores", "2", "results/released/figure2.pdf")
    run = "results/released/runs/digits/sdnet18-nonnegative/seed0"
    assert f"{run} is not trained: its weights are imported with python -m sdnet import-released CHECKPOINT" in refused
    assert not (own_fresh / "results").exists(), "before any job, or CIFAR-10's noise would be downloaded first"

    network = build("sdnet18", 10, width=4, in_channels=1, nonnegative=True)
    names = {"conv1": "layer0.0.dn", "bn1": "layer0.1", "fc": "linear"}
    state = {}
    for key, value in network.state_dict().items():
        module, entry = key.rsplit(".", 1)
        if entry != "eigenvector":
            state[f"{names.get(module, module)}.{entry}"] = value
    torch.save(state, own_fresh / "model_best.pth.tar")
    sdnet(own_fresh, snakemake.environment, "import-released", "model_best.pth.tar")
    planned = snakemake.plan(own_fresh, "released")
    assert not planned.trained
    assert {"table2", "table3", "figure2", "figure6"} <= planned.drawn
    assert not {"table1", "table6", "figure4"} & planned.drawn, (
        "no speeds without ResNet-18, no network that is not there"
    )
    snakemake.succeed(own_fresh, "--cores", "2", "results/released/figure2.pdf")
    accuracy = pd.read_csv(own_fresh / run / "accuracy.csv")
    assert accuracy[["checkpoint", "epochs", "total"]].to_numpy().tolist() == [["last", 0, 60]]


# What goes wrong


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        (
            "config/presets/quick.yaml",
            "width:",
            "widht: 16\nwidth:",
            "config/presets/quick.yaml: unknown key 'widht'; allowed are description, extends, width,",
        ),
        (
            "config/config.yaml",
            "jobs_per_gpu: 1",
            "jobs_per_gpu: 1\njobs_per_gpu: 2",
            "config/config.yaml is not valid YAML: jobs_per_gpu is given twice",
        ),
        (
            "config/config.yaml",
            "imagenet_root: null",
            "imagenet_root: notebooks",
            "config/config.yaml or --configfile: imagenet_root: given 'notebooks', which has no folder train/;",
        ),
    ],
)
def test_a_wrong_setting_is_refused_in_one_sentence_before_any_job(own_fresh, snakemake, file, old, new, sentence):
    edit(own_fresh / file, old, new)
    printed = snakemake.fail(own_fresh, "--cores", "2", "quick")
    assert printed.count(sentence) == 1, printed
    assert "Traceback" not in printed
    assert not (own_fresh / "results").exists()


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (
            "-n quick --config jobs_per_gpu=0",
            "config/config.yaml or --config: jobs_per_gpu: given 0 (int); input should",
        ),
        (
            "-n table2",
            "nothing makes table2; what does is a preset (all, full, long, quick, released, short, small, wide; "
            "all is the preset paper), "
            "or a file such as results/table2.csv or, of the preset quick, results/quick/table2.csv",
        ),
        ("-n notebooks/table2.ipynb", "nothing makes notebooks/table2.ipynb; what does is a preset"),
        (
            "-n results/quick/runs/digits/sdnet19/seed0/accuracy.csv",
            "results/quick/runs/digits/sdnet19/seed0 is no run of any preset; config/presets/ lists",
        ),
        (
            "-n results/quick/benchmark/cifar10.csv",
            "results/quick/benchmark/cifar10.csv is of a data set that its preset does not have; allowed are results/",
        ),
        (
            "-n {project}/results/quick/benchmark/digits.csv",
            "/results/quick/benchmark/digits.csv; what does is a preset",
        ),
        ("-n --resources gpus=4 gpu=1 quick", "--resources: given gpus, which no rule asks for; allowed are disk_mb,"),
        ("-n --configfile myne.yaml quick", "--configfile: there is no file myne.yaml"),
        (
            "-n --forcerun figure4 results/quick/table1.csv",
            "--forcerun takes results/quick/table1.csv for its own, and no target is left: put the target first, as in "
            "snakemake results/quick/table1.csv --forcerun ...",
        ),
        ("-n --omit-from figure4 quick", "--omit-from takes quick for its own, and no target is left"),
        ("-n --prioritize train quick", "--prioritize takes quick for its own, and no target is left"),
    ],
)
def test_what_is_mistyped_is_answered_in_one_sentence(fresh, snakemake, typed, sentence):
    printed = snakemake.fail(fresh, *typed.format(project=fresh).split())
    assert printed.count(sentence) == 1, printed
    assert "Traceback" not in printed


def test_what_a_table_or_figure_of_one_s_own_lacks_is_said(own_fresh, snakemake):
    (own_fresh / "workflow/report/figure6.rst").unlink()
    printed = snakemake.fail(own_fresh, "-n", "quick")
    assert "figure6 is no whole table or figure: add it to workflow/report/, as an .rst" in printed


def test_a_noise_of_one_s_own_is_checked_before_any_job(own_fresh, snakemake):
    edit(own_fresh / "Snakefile", "get_args(Noise)", "('fog',)")
    printed = snakemake.fail(own_fresh, "-n", "quick")
    assert "noise 'fog' is unknown; choose one of gaussian, shot, speckle, impulse (sdnet/data/" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("name", ["train", "runs"])
def test_a_preset_of_a_name_that_is_taken_is_refused(own_fresh, snakemake, name):
    shutil.copy(own_fresh / "config/presets/quick.yaml", own_fresh / f"config/presets/{name}.yaml")
    printed = snakemake.fail(own_fresh, "--dry-run", "quick")
    assert f"config/presets/{name}.yaml: {name} is the name of a rule, or of a folder of results; rename" in printed


def test_a_preset_of_images_that_no_folder_is_named_of_says_so(own_fresh, snakemake):
    preset = "description: large\nextends: quick\ndatasets:\n  imagenet: {}\n"
    (own_fresh / "config/presets/mine.yaml").write_text(preset)
    printed = snakemake.fail(own_fresh, "--dry-run", "mine")
    assert "the preset mine has no images: set imagenet_root in config/config.yaml" in printed
    assert "Traceback" not in printed


def test_a_preset_that_shows_nothing_says_so_instead_of_doing_nothing(own_fresh, snakemake):
    preset = "description: one network\nextends: quick\nsystems:\n  mine: {model: resnet18}\n"
    (own_fresh / "config/presets/mine.yaml").write_text(preset)
    assert "the preset mine has nothing to show" in snakemake.fail(own_fresh, "--cores", "2", "--dry-run", "mine")
    assert snakemake.plan(own_fresh, "quick").jobs["train"] > 0, "others go on"


def test_a_wrong_setting_of_one_s_own_file_is_told_with_its_name(own_fresh, snakemake, tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("data_dri: elsewhere\n")
    printed = snakemake.fail(own_fresh, "--cores", "2", "--configfile", str(own), "--", "quick")
    assert f"config/config.yaml or {own}: unknown key 'data_dri'" in printed


def test_an_archive_that_is_not_the_expected_one_is_refused_and_not_kept(own_fresh, snakemake):
    archive = own_fresh / "mirror" / "cifar-10-python.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(b"not the archive that was asked for")
    edit(own_fresh / "config/config.yaml", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", archive.as_uri())
    printed = snakemake.fail(own_fresh, "--cores", "2", "data/cifar10.npz")
    log = (own_fresh / "logs/download-cifar10.log").read_text()
    assert log.count("could not be downloaded") == 1, log
    assert "another file (expected md5:c58f30108f718f92721af3b95e74349a, got md5:" in log
    assert "set the address and checksum of a mirror you trust in config/config.yaml" in printed
    assert printed.count("Error in rule download:") == 3
    (end,) = printed.split("download failed: logs/download-cifar10.log\n")[1:]
    assert end.startswith("    error: cifar-10-python.tar.gz"), "once, not for each attempt"
    assert "Logfile" not in end, "at the very end"
    assert not [path for path in (own_fresh / "data").iterdir() if path.suffix != ".lock"]


def test_a_second_snakemake_is_refused_and_the_first_goes_on(own_fresh, snakemake):
    (own_fresh / "config/presets/quick.yaml").write_text(TINY_PRESET)
    target = str(RESULTS / "runs/digits/resnet18/seed0/model.pt")
    first = snakemake.start(own_fresh, "--cores", "1", target)
    while not list((own_fresh / ".snakemake/locks").glob("*")):
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.02)
    printed = snakemake.fail(own_fresh, "--cores", "1", target)
    assert "make sure that no other Snakemake process is trying to create the same files" in printed
    assert "--unlock" in printed, "which is what to do after a power loss"
    printed, _ = first.communicate()
    assert first.returncode == 0, printed
    assert (own_fresh / target).exists()


def test_a_results_folder_that_cannot_be_written_to_is_named(own_fresh, snakemake):
    """That it cannot is played by a file in its place: as root, permissions do not count."""
    (own_fresh / "results").write_text("no folder")
    printed = snakemake.fail(own_fresh, "--cores", "1", "results/quick/table1.csv")
    assert "is no folder that can be written to" in printed
    assert (own_fresh / "results").read_text() == "no folder"
    (own_fresh / "results").unlink()
    (own_fresh / "results").symlink_to("not-mounted")
    assert "is no folder that can be written to" in snakemake.fail(own_fresh, "-n", "results/quick/table1.csv")
    (own_fresh / "results").unlink()
    (own_fresh / "results").mkdir()
    (own_fresh / "results/small").symlink_to("not-mounted")
    printed = snakemake.fail(own_fresh, "-n", "results/small/table1.csv")
    assert "results/small is no folder that can be written to" in printed


def test_a_workflow_profile_that_is_not_there_is_refused(own_fresh, snakemake):
    printed = snakemake.fail(own_fresh, "--workflow-profile", "profiles/slrm", "-n", "--", "results/quick/table1.csv")
    assert "there is no folder profiles/slrm; profiles/ holds default, slurm" in printed


def test_a_failing_notebook_is_kept_up_to_its_cell_and_stops_no_other(project, snakemake):
    def change(name, position, cell):
        path = project / f"notebooks/{name}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        notebook.cells.insert(position % (len(notebook.cells) + 1), cell)
        nbformat.write(notebook, path)

    change("figure5", -2, nbformat.v4.new_code_cell("1 / 0"))  # in front of the last cell, which saves the figure
    change("table1", -1, nbformat.v4.new_code_cell("raise RuntimeError('after the table was written')"))
    change("figure6", -1, nbformat.v4.new_markdown_cell("A remark."))
    results = project / RESULTS
    before = (results / "figure6.pdf").stat().st_mtime_ns
    printed = snakemake.fail(project, "--cores", "2", "quick")

    for name, error in {"figure5": "ZeroDivisionError", "table1": "RuntimeError"}.items():
        log = (results / f"logs/{name}.log").read_text()
        executed = nbformat.read(results / f"notebooks/{name}.ipynb", as_version=4)
        code = [cell for cell in executed.cells if cell.cell_type == "code"]
        failed = [cell for cell in code if any(output.output_type == "error" for output in cell.outputs)]
        assert len(failed) == 1
        (cell,) = failed
        done = code[: code.index(cell)]
        assert done
        assert all(earlier.execution_count for earlier in done), "the executed copy must show what ran"
        assert f"notebooks/{name}.ipynb failed in cell [{cell.execution_count}]: {error}" in log
        assert error in printed, "the log of a failed job belongs on the screen"
        assert '"cell_type"' not in printed, "and not the notebook"
        assert not list(results.glob(f"{name}.*")), "of a failed job no output may remain"
    assert (results / "figure6.pdf").stat().st_mtime_ns > before

    for name in ("figure5", "table1", "figure6"):
        shutil.copy(PROJECT / f"notebooks/{name}.ipynb", project / "notebooks")
    planned = snakemake.plan(project, "quick")
    assert planned.drawn == {"figure5", "figure6", "table1"}
    assert not planned.computed


def test_an_interrupted_training_goes_on_and_ends_in_the_same_weights(built, project, snakemake, tracking_uri):
    """Ctrl-C, and the same command again; test_kills.py is about what nobody ends."""
    run, target = project / SPARSE_RUN, str(SPARSE_RUN / "accuracy.csv")
    for path in run.iterdir():
        if path.name != "spec.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    process = snakemake.start(project, "--cores", "2", target)
    while max(checkpoints(run), default=0) < 3:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate()
    assert process.returncode != 0, printed
    assert not (run / "model.pt").exists(), "training was over before it could be stopped"
    stopped_at = checkpoints(run)[-1]
    first_epochs = pd.read_csv(run / "history.csv").train_seconds[: stopped_at - 1]
    snakemake.succeed(project, "--cores", "2", target)

    history, undisturbed = (pd.read_csv(folder / SPARSE_RUN / "history.csv") for folder in (project, built))
    assert list(history.train_seconds[: stopped_at - 1]) == list(first_epochs), "it began anew instead of going on"
    pd.testing.assert_frame_equal(
        history.drop(columns="train_seconds"), undisturbed.drop(columns="train_seconds"), check_exact=True
    )
    for name in ("accuracy.csv", "codes.csv", "dictionary.csv"):
        assert (run / name).read_text() == (built / SPARSE_RUN / name).read_text()
    weights, expected = (torch.load(folder / SPARSE_RUN / "model.pt", weights_only=True) for folder in (project, built))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)

    from mlflow import MlflowClient

    client, run_id = MlflowClient(tracking_uri), json.loads((run / "mlflow.json").read_text())["run_id"]
    curve = client.get_metric_history(run_id, "test_accuracy")
    assert [point.step for point in curve] == list(history.epoch), "MLflow must have each epoch once"
    assert client.get_run(run_id).info.status == "FINISHED"
