"""`python -m sdnet plan`: its jobs are the workflow's, and its images are those that the commands process."""

import re
import shlex
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_project import PROJECT, copy_project

from sdnet.__main__ import cli
from sdnet.commands import work
from sdnet.data.corruptions import CALIBRATION_LEVELS
from sdnet.data.datasets import load
from sdnet.experiments import arguments, plan
from sdnet.experiments.labels import duration
from sdnet.experiments.settings.files import read_yaml
from sdnet.experiments.settings.loading import load_presets, load_site
from sdnet.experiments.settings.preset import Preset
from sdnet.models import MODELS, build
from sdnet.runs.network import build_model, load_model, save_model

SITE = load_site(read_yaml(PROJECT / "config/config.yaml"))
PRESETS = load_presets(PROJECT / "config/presets")
OF_RUNS = {
    "spec",
    "train",
    "evaluate",
    "invert",
    "sweep",
    "calibrate",
    "renormalise",
    "stability",
    "attack",
    "attack_adaptive",
    "diagnose",
}
TINY = {
    "description": "an untrained network",
    "width": 4,
    "seeds": [0],
    "datasets": {"digits": {"train_images": 40, "test_images": 30}},
    "systems": {"resnet18": {"model": "resnet18"}, "sdnet18": {"model": "sdnet18"}},
    "recipes": {"default": {"epochs": 1}},
    "robustness": {"noises": ["gaussian"], "lambdas": [0.1, 0.5], "test_images": 20, "calibration_images": 20},
    "adversarial": {
        "datasets": ["digits"],
        "images": 10,
        "lambdas": [0.1, 0.5],
        "steps": 5,
        "restarts": 1,
        "autoattack": [],
        "autoattack_images": 1,
        "diagnostic_images": 10,
    },
}


def test_the_jobs_are_those_of_the_workflow(snakemake, tmp_path):
    names = ["quick", "paper", "short"]
    planned = {name: plan.runs(name, PRESETS[name], SITE) for name in names}
    counted, shared = Counter(), []
    for name, runs in planned.items():
        counted += Counter(job.rule for run in runs for job in work.jobs(run, runs, PRESETS[name], SITE))
        shared += [job.split()[0] for job in work.shared_jobs(runs, PRESETS[name])]
    jobs = snakemake.plan(copy_project(tmp_path), "quick", "all", "short").jobs
    assert counted == {rule: jobs[rule] for rule in OF_RUNS}
    assert shared.count("benchmark") == jobs["benchmark"] == 4
    assert all(shared.count(target) == jobs[target] == 3 for target in ("table4", "figure2", "track"))


def test_what_is_known_without_the_data_agrees_with_it():
    digits = load("digits", None)
    assert tuple(work.NUMBER_OF_IMAGES["digits"].values()) == (len(digits.train_images), len(digits.test_images))
    assert work.PARAMETERS.keys() == MODELS.keys()


@pytest.mark.parametrize("name", ["resnet18", "sdnet18", "sdnet18-all", "scn"])
def test_the_weights_have_about_the_size_that_is_said(name):
    parameters = sum(p.numel() for p in build(name, 10).parameters())
    assert parameters / 1e6 == pytest.approx(work.PARAMETERS[name], rel=0.1)


def tiny(**changes):
    """The preset, its runs and the last one, of SDNet-18."""
    preset = Preset.model_validate(TINY | changes)
    planned = plan.runs("tiny", preset, SITE)
    return preset, planned, planned[-1]


def jobs_of_last(**changes):
    preset, planned, run = tiny(**changes)
    return {job.rule: job for job in work.jobs(run, planned, preset, SITE)}


def test_epochs_train_on_all_training_images_and_test_on_all_test_images():
    jobs = jobs_of_last(recipes={"default": {"epochs": 3}})
    assert (jobs["train"].trained, jobs["train"].passed, jobs["evaluate"].passed) == (3 * 40, 3 * 30, 30)
    assert "train" not in jobs_of_last(imported=True)


def test_no_more_images_are_counted_than_there_are():
    def asked(tested, calibrated):
        robustness = TINY["robustness"] | {"test_images": tested, "calibration_images": calibrated}
        attacked = ("paper_images", "images", "autoattack_images", "diagnostic_images")
        adversarial = TINY["adversarial"] | {"autoattack": ["apgd-ce"]} | dict.fromkeys(attacked, tested)
        return jobs_of_last(robustness=robustness, adversarial=adversarial)

    assert asked(500, 600) == asked(30, 40)


@pytest.mark.parametrize("tested", ["val", "test"])
def test_images_in_class_folders_are_counted_by_split(tmp_path, tested):
    for split, count in {"train": 3, tested: 2}.items():
        (tmp_path / split / "cat").mkdir(parents=True)
        for name in (*(f"{number}.PNG" for number in range(count)), "notes.txt"):
            (tmp_path / split / "cat" / name).touch()
    preset = Preset.model_validate(TINY | {"datasets": {"folder": {"test_images": 9}}})
    site = SITE.model_copy(update={"folder_root": str(tmp_path)})
    assert work.image_counts("folder", preset, site) == (3, 2)


def test_a_job_takes_its_start_and_its_images_at_their_speeds():
    assert work.Speed(100, 1000, 10).seconds(work.Job("any", 200, 3000, 40), start=5) == 5 + 2 + 3 + 4


def test_a_run_leaves_its_weights_two_checkpoints_and_adversarial_images():
    def left(of=-1, **changes):
        preset, planned, _ = tiny(**changes)
        return work.result_bytes(planned[of], planned, preset)

    quiet = {"adversarial": {"datasets": []}}
    weights = left(imported=True, **quiet)
    assert weights == pytest.approx(4 * work.PARAMETERS["sdnet18"] * 1e6 / 16**2), "of width 4, not 64"
    assert left(**quiet) == pytest.approx((1 + 2 * 2) * weights), "with a momentum of each weight"
    adam = {"epochs": 1, "optimizer": "adam"}
    assert left(recipes={"default": adam}, **quiet) == pytest.approx((1 + 2 * 3) * weights)
    resnet18, sdnet18 = (left(of) - left(of, **quiet) for of in (0, 1))
    assert resnet18 == pytest.approx(2 * 10 * 4 * 16**2), "10 images in float32, in either norm"
    assert sdnet18 == pytest.approx(2 * resnet18), "at two lambdas"


def test_what_is_downloaded_is_the_images_and_their_official_noise():
    sizes = {"cifar10": {"noise_source": "official"}, "cifar100": {}, "digits": {}}
    preset, planned, _ = tiny(datasets=sizes)
    assert work.data_gigabytes(planned) == 2 * work.DOWNLOADED_GB + work.NOISY_GB
    assert {job for job in work.shared_jobs(planned, preset) if job.startswith("cifar")} == {
        "cifar10",
        "cifar100",
        "cifar10-c",
    }
    assert work.data_gigabytes([]) == 0


@pytest.fixture(scope="module")
def processed(tmp_path_factory):
    """Images that the commands pass through an SDNet-18, by command and by whether gradients are taken."""
    preset, folder = Preset.model_validate(TINY), tmp_path_factory.mktemp("runs")
    planned = plan.runs("tiny", preset, SITE)
    counts = Counter()

    def counting(*arguments):
        model = load_model(*arguments)
        model.register_forward_pre_hook(lambda _, x: counts.update({torch.is_grad_enabled(): len(x[0])}))
        return model

    homes = {run.system: folder / run.name for run in planned}
    for run in planned:
        homes[run.system].mkdir(parents=True)
        (homes[run.system] / "spec.json").write_text(run.spec_json)
        save_model(build_model(run.spec, 10), homes[run.system] / "model.pt")
    home, reference, seen = str(homes["sdnet18"]), str(homes["resnet18"]), {}
    noise = f"--noise gaussian {arguments.noise_options(planned[1], preset)}"
    strong = f"{arguments.attack_options(preset, 'attack-adaptive')} --reference {reference}"
    with pytest.MonkeyPatch.context() as patch:
        for module in ("sweep", "calibrate", "renormalise", "target"):
            patch.setattr(f"sdnet.commands.{module}.load_model", counting)
        for module in ("attack", "diagnose"):
            patch.setattr(f"sdnet.commands.{module}.tuned_lambda", lambda run, *_: 0.5 if run == Path(home) else None)
        for command, options in {
            f"attack {reference}": arguments.attack_options(preset, "attack"),
            f"attack-adaptive {reference}": arguments.attack_options(preset, "attack-adaptive"),
            f"sweep {home}": noise,
            f"calibrate {home}": f"{noise} {arguments.calibration_options(planned[1], preset)}",
            f"renormalise {home}": f"--noise gaussian {arguments.renormalise_options(planned[1], preset)}",
            f"attack {home}": arguments.attack_options(preset, "attack"),
            f"attack-adaptive {home}": strong,
            f"diagnose {home}": f"{arguments.attack_options(preset, 'diagnose')} --reference {reference}",
        }.items():
            counts.clear()
            cli.main(shlex.split(f"{command} {options} --gpus 0"), standalone_mode=False)
            seen[command.split()[0].replace("-", "_")] = (counts[False], counts[True])
    return {job.rule: job for job in work.jobs(planned[1], planned, preset, SITE)}, seen


def test_the_images_of_noise_are_counted_exactly(processed):
    """But for variants of Algorithm 1 that choose the same lambda, and share a pass over the 20 test images."""
    jobs, seen = processed
    assert seen["sweep"] == (jobs["sweep"].passed, 0)
    assert seen["renormalise"] == (jobs["renormalise"].passed, 0)
    spared, shared = divmod(jobs["calibrate"].passed - seen["calibrate"][0], 20)
    assert (shared, seen["calibrate"][1]) == (0, 0)
    assert 0 <= spared <= 3 * (1 + len(work.SEVERITIES))


@pytest.mark.parametrize("command", ["attack", "attack_adaptive", "diagnose"])
def test_the_images_of_attacks_are_counted_roughly(processed, command):
    jobs, seen = processed
    passed, differentiated = seen[command]
    assert jobs[command].differentiated == pytest.approx(differentiated, rel=0.25)
    assert jobs[command].passed == pytest.approx(passed, rel=0.25)


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_is_explained(monkeypatch, capsys, name):
    monkeypatch.chdir(PROJECT)
    cli.main(["plan", "--preset", name], standalone_mode=False)
    page = capsys.readouterr().out
    assert f"preset     {name}: " in page
    assert "differentiated by attacks: numbers of images" in page
    assert all(system in page for system in PRESETS[name].systems)


def test_a_network_that_no_table_or_figure_shows_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(copy_project(tmp_path))
    systems = "systems: {resnet18: {model: resnet18}, sdnet18: {model: sdnet18}, mine: {model: sdnet18}}\n"
    Path("config/presets/mine.yaml").write_text(f"description: my own\nextends: quick\n{systems}")
    for name, said in (("mine", 1), ("quick", 0)):
        cli.main(["plan", "--preset", name], standalone_mode=False)
        assert capsys.readouterr().out.count("does not train mine, which no table or figure shows") == said


def test_hours_are_estimated_from_a_measurement(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(copy_project(tmp_path))
    quick = Path("config/presets/quick.yaml")
    systems = "systems:\n  resnet18: {model: resnet18}\n  sdnet18: {model: sdnet18}\n"
    quick.write_text(quick.read_text().replace("width: 16", "width: 4") + systems)
    cli.main(["plan", "--preset", "quick", "--measure", "--gpus", "0"], standalone_mode=False)
    page = capsys.readouterr().out
    (row,) = [line for line in page.splitlines() if line.startswith("all ")]
    assert re.search(r" \d+ (s|min)$", row), row
    assert "at once on an otherwise idle machine" in page


def test_a_noise_that_is_not_whole_is_refused(monkeypatch, error_of):
    monkeypatch.delitem(CALIBRATION_LEVELS["released"], "shot")
    monkeypatch.chdir(PROJECT)
    assert error_of("plan", "--preset", "small").startswith("noise 'shot' is not in CALIBRATION_LEVELS['released'] of")


def test_the_hours_are_those_of_every_job(monkeypatch, capsys):
    speed = work.Speed(trained=100, passed=1000, differentiated=10)
    machine = SimpleNamespace(speed=lambda *_: speed, start=2, name="a machine", unit="job", at_once=4)
    monkeypatch.setattr("sdnet.commands.speed.leased_machine", lambda gpus: nullcontext(machine))
    monkeypatch.chdir(PROJECT)
    cli.main(["plan", "--preset", "quick", "--measure"], standalone_mode=False)
    page, planned = capsys.readouterr().out, plan.runs("quick", PRESETS["quick"], SITE)
    jobs = [job for run in planned for job in work.jobs(run, planned, PRESETS["quick"], SITE)]
    of_runs = sum(2 + job.trained / 100 + job.passed / 1000 + job.differentiated / 10 for job in jobs)
    (row,) = [line for line in page.splitlines() if line.startswith("all ")]
    assert row.endswith(f"  {duration(of_runs)}")
    total = of_runs + 2 * len(work.shared_jobs(planned, PRESETS["quick"]))
    assert f"a machine: {duration(total)} of one job; {duration(total / 4)} with 4 at once" in page


def test_a_file_of_one_s_own_settings_wins_key_by_key(monkeypatch, capsys, tmp_path):
    """As `snakemake --configfile` has it: one address changes, the others stay."""
    monkeypatch.chdir(PROJECT)
    own = tmp_path / "mine.yaml"
    own.write_text("downloads: {cifar10: {urls: ['file:///here.tar.gz']}}\n")
    cli.main(["plan", "--preset", "small", "--configfile", str(own)], standalone_mode=False)
    assert "preset     small: " in capsys.readouterr().out
    own.write_text("data_dri: x\n")
    with pytest.raises(ValueError, match=r"config/config.yaml or .*mine.yaml: unknown key 'data_dri'"):
        cli.main(["plan", "--preset", "small", "--configfile", str(own)], standalone_mode=False)


def test_an_unknown_preset_is_refused(monkeypatch):
    monkeypatch.chdir(PROJECT)
    with pytest.raises(ValueError, match=r"^preset: given 'tiny'; allowed are .*paper"):
        cli.main(["plan", "--preset", "tiny"], standalone_mode=False)


def test_what_is_not_in_its_tables_yet_is_named():
    preset = PRESETS["quick"]
    run = plan.runs("quick", preset, SITE)[0]
    unknown = replace(run, spec=run.spec | {"model": run.spec["model"] | {"name": "unheard"}})
    with pytest.raises(ValueError, match=r"unheard is not in PARAMETERS of sdnet/commands/work\.py; add it there"):
        work.result_bytes(unknown, [unknown], preset)


def test_attacks_are_counted_on_the_images_that_each_of_them_gets():
    def attacked(rule, **changes):
        return jobs_of_last(adversarial=TINY["adversarial"] | changes)[rule]

    def auto(images, *names):
        return attacked("attack_adaptive", autoattack=[*names], autoattack_images=images).differentiated

    first = auto(5, "apgd-ce") - auto(5)
    assert first == pytest.approx(2 * 2 * 5 * 100), "in two norms, at two lambdas"
    assert auto(10, "apgd-ce") - auto(10) == pytest.approx(2 * first)
    later = auto(5, "apgd-ce", "apgd-t") - auto(5, "apgd-ce")
    assert later == pytest.approx(9 * work.SURVIVORS * first), "nine targets, for those that are left"
    for rule, limit in {"attack": "paper_images", "diagnose": "diagnostic_images"}.items():
        every, half = (attacked(rule, **{limit: n}) for n in (10, 5))
        assert (every.passed, every.differentiated) == (2 * half.passed, 2 * half.differentiated)


def test_adversarial_images_take_the_space_of_the_size_that_is_asked_for(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split / "cat").mkdir(parents=True)
        (tmp_path / split / "cat" / "1.png").touch()
    site = SITE.model_copy(update={"folder_root": str(tmp_path)})

    def left(size):
        changes = {
            "datasets": {"folder": {"image_size": size}},
            "adversarial": TINY["adversarial"] | {"datasets": ["folder"]},
        }
        preset = Preset.model_validate(TINY | changes)
        planned = plan.runs("tiny", preset, site)
        return work.result_bytes(planned[-1], planned, preset)

    assert left(64) - left(32) == pytest.approx(2 * 2 * 10 * 4 * 3 * (64**2 - 32**2))
