"""The ladder of attacks on a trained run: it counts right, keeps each image's fate, and goes on when killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from small_run import make_spec
from tqdm import tqdm

from sdnet.__main__ import main
from sdnet.commands import attack_results
from sdnet.commands.attack import Campaign, Effort, attack_adaptively, attack_as_the_paper
from sdnet.commands.attacked import adversarial_images, tuned_lambda
from sdnet.commands.diagnose import diagnose
from sdnet.commands.parts import Parts
from sdnet.commands.target import Defence, Target
from sdnet.commands.train import train
from sdnet.csc import csc_layers, use_lambda
from sdnet.experiments import arguments, catalogue, results
from sdnet.experiments.claims.claim import load_claims
from sdnet.experiments.columns import TOGETHER
from sdnet.experiments.tables import attack_checks
from sdnet.experiments.tables import attacks as attack_tables
from sdnet.models import build
from sdnet.robustness.adaptive_attacks import AlgorithmOne
from sdnet.robustness.autoattack import STANDARD
from sdnet.robustness.calibration import Calibration
from sdnet.robustness.diagnostics import Check
from sdnet.robustness.ladder import AT_LAMBDA0, adaptive_attempts, craft, paper_attempt, weaker_attempts
from sdnet.robustness.outcome import Outcome
from sdnet.robustness.pgd import PGD, STEP_SIZE, attack
from sdnet.robustness.sweep import evaluate_at
from sdnet.runs.network import load_model, save_model
from sdnet.runs.spec import read_spec

CPU = torch.device("cpu")
RADII = {"linf": 0.1, "l2": 0.8}
LAMBDAS = (0.1, 0.4, 0.8)
DEFENCE = Defence(LAMBDAS, "gaussian")
EFFORT = Effort((0.4,), steps=4, restarts=2, autoattack=("apgd-ce",), autoattack_images=8)
IMAGES = 24
RUN = {"dataset": "digits", "system": "sdnet18", "seed": 0}
LINE = {
    "variant": "paper",
    "noise": "gaussian",
    "slope": 0.0,
    "intercept": 0.6,  # no value of LAMBDAS
    "r_squared": 1.0,
    "lambda_min": 0.1,
    "lambda_max": 0.8,
    "residual_min": 0.0,
    "residual_max": 1.0,
    "lambda0": 0.1,
    "definition": "norm",
}


def make_run(folder, model, **training):
    spec = make_spec(folder, **training)
    spec.write_text(spec.read_text().replace('"sdnet18"', f'"{model}"'))
    train(spec, None, gpus=0)
    if model != "resnet18":
        results.write(folder / "lines-gaussian.csv", "lines", [RUN | LINE])
    return folder


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """Runs of ResNet-18 and SDNet-18 on digits, trained for seconds and attacked by both protocols."""
    root = tmp_path_factory.mktemp("attacked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "mlflow", None)
        runs = {model: make_run(root / model, model, epochs=20) for model in ("resnet18", "sdnet18")}
    for model, run in runs.items():
        reference = None if model == "resnet18" else runs["resnet18"]
        attack_as_the_paper(run, None, RADII, IMAGES, DEFENCE, gpus=0)
        attack_adaptively(run, None, RADII, IMAGES, DEFENCE, EFFORT, reference, gpus=0)
    return runs


def test_that_the_tuned_lambda_is_not_to_be_tried_is_said_before_the_first_attack(attacked, monkeypatch):
    monkeypatch.setattr("sdnet.commands.attack.tuned_lambda", lambda *_: 0.55)
    monkeypatch.setattr(Campaign, "run", stopped)
    with pytest.raises(ValueError, match=r"^--lambdas lacks 0\.55, to which .*attack-paper\.csv is tuned; give it too"):
        attack_adaptively(attacked["sdnet18"], None, RADII, IMAGES, DEFENCE, EFFORT, None, gpus=0)


@pytest.mark.parametrize(
    ("classes", "effort", "message"),
    [
        (3, {"autoattack": STANDARD}, "apgd-t needs at least 4 classes, and the network has 3; leave it out: --auto"),
        (10, {"lambdas": (0.1, -1)}, r"the lambdas to try are \[0.1, -1.0\]; give at least one, none negative"),
    ],
)
def test_what_cannot_be_tried_is_said_before_the_first_attack(attacked, monkeypatch, classes, effort, message):
    monkeypatch.setattr("sdnet.commands.attack.Target", lambda *_: SimpleNamespace(classes=classes))
    with pytest.raises(ValueError, match=message):
        attack_adaptively(attacked["sdnet18"], None, RADII, IMAGES, DEFENCE, replace(EFFORT, **effort), None, gpus=0)


def test_an_attack_starts_from_the_images_of_its_own_norm_that_its_title_names(attacked, tmp_path, monkeypatch):
    """Each attack stands for a number, which fills its images."""
    run, made = shutil.copytree(attacked["sdnet18"], tmp_path / "run"), []

    def numbered(attempt, model, images, labels, *, indices, start, calibration):
        made.append((attempt, start))
        unknown, filled = np.zeros(len(labels)), np.full(np.moveaxis(images, 3, 1).shape, len(made) / 100, np.float32)
        return Outcome(indices, labels, labels, labels, unknown > 0, unknown, unknown, unknown, filled)

    monkeypatch.setattr("sdnet.commands.attack.craft", numbered)
    attack_adaptively(run, None, RADII, IMAGES, DEFENCE, EFFORT, attacked["resnet18"], gpus=0)
    theirs = results.read_arrays(attacked["resnet18"] / "adversarial.npz")
    for norm in RADII:
        of_norm = {one: (number, start) for number, (one, start) in enumerate(made, 1) if one.pgd.norm == norm}
        (crafted,) = (
            number
            for one, (number, _) in of_norm.items()
            if (one.step, one.lmbd, one.pgd.loss) == ("c", 0.1, "cross-entropy")
        )
        starts = {one.start: start for one, (_, start) in of_norm.items()}
        assert starts.keys() == {"", AT_LAMBDA0, "images against resnet18"}
        assert starts[""] is None
        assert starts[AT_LAMBDA0] == pytest.approx(crafted / 100)
        assert np.array_equal(starts["images against resnet18"], theirs[f"{norm}_lambda0"])


@pytest.mark.parametrize("name", ["resnet18", "sdnet18"])
def test_what_is_printed_of_all_attacks_is_the_worst_of_each_norm(attacked, name):
    run = attacked[name]
    target = Target(run, None, IMAGES, DEFENCE, CPU)
    table = pd.read_csv(run / "attack-adaptive.csv")
    worst = table[(table.step == "worst") & ((table.choice != "given") | ~(table["lambda"] > 0.1))]
    _, *lines = attack_results._page(table.to_dict("records"), target).splitlines()
    assert len(lines) == len(worst) > 0
    assert [int(line.split()[-2]) for line in lines] == worst.correct.tolist()


def test_algorithm_1_takes_the_mean_residual_of_the_batch_that_it_classifies(attacked, tmp_path):
    run = shutil.copytree(attacked["sdnet18"], tmp_path / "run")
    target = Target(run, None, IMAGES, DEFENCE, CPU)
    batch = target.images[:5], target.labels[:5]
    residuals = evaluate_at(target.model, [batch], [0.1], 0.1).residuals[0]
    line = RUN | LINE | {"slope": 0.4 / residuals.mean()}
    results.write(run / "lines-gaussian.csv", "lines", [line | {"intercept": 0.05}])
    judged = Target(run, None, IMAGES, DEFENCE, CPU).judge(*batch)
    assert judged["residual"] == pytest.approx(residuals)
    assert judged["lambda_hat"] == pytest.approx([0.45] * 5)
    at_that = evaluate_at(target.model, [batch], [judged["lambda_hat"][0]]).correct[0]
    assert list(judged["correct"][-1]) == list(at_that)


def rows_of(run, protocol, **wanted):
    rows = results.read(run / f"attack-{protocol}.csv", f"attack-{protocol}")
    for name, value in wanted.items():
        column = rows[name.replace("lmbd", "lambda")]
        rows = rows[column.isna() if value is None else column == value]
    return rows


# The ladder


def ladder(lambda0=0.1, tuned=0.8, attacks=STANDARD, reference="images against resnet18"):
    paper = paper_attempt("linf", 8 / 255, lambda0)
    adaptive = adaptive_attempts(
        paper, tuned=tuned, lambdas=(0.4,), steps=50, restarts=5, attacks=attacks, reference=reference
    )
    return [paper, *weaker_attempts(paper, std=0.2), *adaptive]


def test_the_strong_attacks_take_twice_the_steps_restarts_and_both_losses():
    attempts = ladder()
    strong = {(one.pgd.steps, one.pgd.restarts, one.pgd.loss) for one in attempts if one.step == "c"}
    assert strong == {(100, 5, "cross-entropy"), (100, 5, "margin")}
    assert {one.pgd.steps for one in attempts if one.step == "b"} == {50}
    assert {one.pgd.steps for one in attempts if one.step in "ef"} == {100}
    assert {one.softness for one in attempts if one.step == "e"} == {None, 0.25, 0}
    for one in attempts:
        if one.step in "bcef":
            assert one.pgd.success == "any"
            assert one.pgd.steps * one.pgd.step_size == pytest.approx(2.5 * one.pgd.eps), "it crosses the ball"


def test_an_attempt_is_made_as_it_says(monkeypatch):
    model, start = build("sdnet18", 10, width=4), np.zeros((2, 3, 8, 8))
    line = Calibration(0.0, 0.6, 1.0, 0.1, 0.8, 0.0, 1.0, 0.1, "norm")
    softened, made = [], []

    @contextmanager
    def soften(network, share):
        softened.append(share)
        yield

    def record(target, batches, pgd, *, lambdas, starts, indices):
        renewed = target.every if type(target) is AlgorithmOne else None
        made.append((renewed, csc_layers(model)[0].lmbd, pgd, lambdas, starts is start))

    monkeypatch.setattr("sdnet.robustness.ladder.softer_backward", soften)
    monkeypatch.setattr("sdnet.robustness.ladder.attack", record)
    attempts = ladder(attacks=())
    for one in attempts:
        given = start if one.start else None
        craft(one, model, start, np.zeros(2, int), indices=np.arange(2), start=given, calibration=line)
    assert softened == [0.25, 0]
    assert made == [
        (10 if one.algorithm1 else None, one.lmbd, one.pgd, one.ascend or None, bool(one.start)) for one in attempts
    ]


@pytest.mark.parametrize("options", [{}, {"tuned": 0.1}, {"lambda0": None, "tuned": None}])
def test_no_two_attacks_of_a_ladder_have_the_same_name(options):
    attempts = ladder(**options)
    assert len({(one.step, one.title, one.lmbd) for one in attempts}) == len(attempts)
    assert all(one.pgd.eps <= 8 / 255 for one in attempts)


def test_the_ladder_has_every_step_and_without_a_lambda_those_that_need_none():
    assert [*dict.fromkeys(one.step for one in ladder())] == ["a", "a'", "b", "c", "d", "e", "f"]
    assert [*dict.fromkeys(one.step for one in ladder(lambda0=None, tuned=None))] == ["a", "a'", "b", "c", "d"]
    assert "d" not in {one.step for one in ladder(attacks=())}


def test_an_adaptive_attacker_crafts_at_the_lambda_of_the_prediction():
    attempts = ladder()
    assert [one.lmbd for one in attempts if one.step == "b"] == [0.1, 0.4, 0.8]
    assert {one.lmbd for one in attempts if one.step in "cd"} == {0.1, 0.8}
    aware = [one for one in attempts if one.step == "e"]
    assert {one.lmbd for one in aware} == {0.8}
    assert {one.start for one in aware} == {"", AT_LAMBDA0, "images against resnet18"}
    assert [one.ascend for one in aware if one.ascend] == [(0.1, 0.4, 0.8)]
    assert [one.ascend for one in ladder(tuned=0.3) if one.ascend] == [(0.1, 0.3)], "none above that of the prediction"


def test_the_paper_s_attack_is_pgd_20_and_its_last_iterate_counts():
    paper = paper_attempt("l2", 0.5, 0.1)
    assert (paper.pgd.steps, paper.pgd.step_size, paper.pgd.success, paper.pgd.restarts) == (20, 0.125, "last", 1)


@pytest.mark.parametrize(
    ("norm", "eps", "steps_of_the_other_norm"),
    [("linf", 8 / 255, {(10, 1 / 4), (7, 1 / 4)}), ("l2", 0.5, {(n, 4 / 255) for n in (7, 10, 20)})],
)
def test_the_weaker_settings_are_those_that_might_explain_the_paper_s_29_percent(norm, eps, steps_of_the_other_norm):
    """Steps as shares of the radius; 20 of 2/255 within 8/255 are the paper's attack itself."""
    weaker = [one.pgd for one in weaker_attempts(paper_attempt(norm, eps, 0.1), std=0.2)]
    tried = sorted((pgd.eps / eps, pgd.steps, pgd.step_size / pgd.eps) for pgd in weaker)
    expected = [(0.2, 20, 1 / 4), *((1, *pair) for pair in {(10, 0.4), (1, 1), *steps_of_the_other_norm})]
    assert np.array(tried) == pytest.approx(np.array(sorted(expected)))
    assert {pgd.success for pgd in weaker} == {"last"}


# Its counts


@pytest.mark.parametrize("norm", RADII)
def test_an_attack_of_the_ladder_leaves_what_the_attack_alone_leaves(attacked, norm):
    run = attacked["sdnet18"]
    target = Target(run, None, IMAGES, DEFENCE, CPU)
    batches = [(target.images, target.labels)]
    alone = attack(target.model, batches, paper_attempt(norm, RADII[norm], 0.1).pgd, indices=target.indices)
    for protocol in ("paper", "adaptive"):
        (row,) = (
            rows_of(run, protocol, norm=norm, step="a", lmbd=0.1, choice="given")
            .query(f"attack != '{TOGETHER}'")
            .itertuples()
        )
        assert (row.correct, row.total) == ((~alone.broken).sum(), IMAGES)
    (step,) = {one.pgd for one in adaptive(norm) if one.step == "b"}
    with use_lambda(target.model, 0.4):
        known = attack(target.model, batches, step, indices=target.indices)
    (row,) = rows_of(run, "adaptive", norm=norm, step="b", lambda_attack=0.4, lmbd=0.4, choice="given").itertuples()
    assert row.correct == (~known.broken).sum()


def adaptive(norm):
    paper = paper_attempt(norm, RADII[norm], 0.1)
    return adaptive_attempts(
        paper, tuned=0.8, lambdas=EFFORT.lambdas, steps=EFFORT.steps, restarts=2, attacks=(), reference=""
    )


@pytest.mark.parametrize("model", ["resnet18", "sdnet18"])
@pytest.mark.parametrize("norm", RADII)
def test_counts_and_each_image_s_fate_agree_and_no_attack_is_worse_than_all_together(attacked, norm, model):
    run = attacked[model]
    with np.load(run / "attack-adaptive.npz") as fates:
        robust, steps, lambdas = fates[f"{norm}_robust"], fates[f"{norm}_step"], list(fates["lambdas"])
        broken_by, distance = fates[f"{norm}_broken_by"], fates[f"{norm}_{norm}"]
        clean = fates["correct"]
    assert robust.shape == (len(steps), len(lambdas) + (model == "sdnet18"), IMAGES)
    assert np.nanmax(distance) <= RADII[norm] + 1e-6
    assert (robust[steps != "d"] <= clean).all(), "broken where it is misclassified clean"
    worst = rows_of(run, "adaptive", norm=norm, step="worst", choice="given")
    assert list(worst.correct) == list(robust.all(axis=0)[: len(lambdas)].sum(axis=1))
    for step in set(steps):
        together = rows_of(run, "adaptive", norm=norm, step=step, attack=TOGETHER, choice="given")
        expected = robust[steps == step].all(axis=0)[: len(lambdas)]
        if step == "d":  # of a part of the images alone
            attacked_images = (broken_by[steps == "d"] != "").any(axis=0) | ~np.isnan(
                fates_of(run, norm, "adv_pred")[steps == "d"]
            ).all(axis=0)
            expected = expected[:, attacked_images]
            assert set(together.total) == {8}
        assert list(together.correct) == list(expected.sum(axis=1))
        assert (worst.correct.to_numpy() <= together.correct.to_numpy() + IMAGES - together.total.to_numpy()).all()


def fates_of(run, norm, name):
    with np.load(run / "attack-adaptive.npz") as fates:
        return fates[f"{norm}_{name}"]


def test_a_choice_of_lambda_is_the_one_that_it_says(attacked):
    run = attacked["sdnet18"]
    with np.load(run / "attack-paper.npz") as fates:
        robust, clean = fates["linf_robust"][0], fates["correct"]
    rows = rows_of(run, "paper", norm="linf").set_index("choice")
    best = robust[:-1].sum(axis=1).argmax()
    assert rows["lambda"]["tuned"] == LAMBDAS[best] == tuned_lambda(run, "linf", RADII["linf"])
    assert (rows.correct["tuned"], rows.clean_correct["tuned"]) == (robust[best].sum(), clean[best].sum())
    even, odd = (robust[:-1, half::2].sum(axis=1).argmax() for half in (0, 1))
    assert rows.correct["held-out"] == robust[odd, 0::2].sum() + robust[even, 1::2].sum()
    assert rows.clean_correct["held-out"] == clean[odd, 0::2].sum() + clean[even, 1::2].sum()
    assert rows["lambda"]["algorithm1"] == pytest.approx(0.6)
    gains = 100 * (rows.correct[["tuned", "held-out", "algorithm1"]] - robust[0].sum()) / IMAGES
    assert list(rows.gain[gains.index]) == pytest.approx(list(gains))
    (itself,) = rows[rows.gain.isna()].itertuples()  # over which the others gain
    assert (itself.Index, itself[rows.columns.get_loc("lambda") + 1]) == ("given", LAMBDAS[0])
    others = rows[rows.gain.notna()]
    assert (others.gain_low <= others.gain).all()
    assert (others.gain <= others.gain_high).all()


def test_each_choice_of_lambda_counts_its_own_clean_images():
    clean, survived = (np.arange(20) < np.array(counts)[:, None] for counts in ((20, 18, 16, 14), (2, 12, 6, 9)))
    target = SimpleNamespace(lambda0=0.1, lambdas=LAMBDAS, clean={"correct": clean})
    rows = attack_results._counts(target, survived, np.arange(20), LAMBDAS, 0.6)
    columns = ["choice", "lambda", "clean_correct", "correct", "total", "gain"]
    assert [[row[name] for name in columns] for row in rows] == [
        ["given", 0.1, 20, 2, 20, None],
        ["given", 0.4, 18, 12, 20, 50],
        ["given", 0.8, 16, 6, 20, 20],
        ["tuned", 0.4, 18, 12, 20, 50],
        ["held-out", 0.4, 18, 12, 20, 50],
        ["algorithm1", 0.6, 14, 9, 20, 35],
    ]


@pytest.mark.parametrize("norm", RADII)
def test_over_all_attacks_a_lambda_is_chosen_that_was_attacked_as_hard_as_any(attacked, norm):
    """Of 0.4 only step b was made."""
    rows = rows_of(attacked["sdnet18"], "adaptive", norm=norm)
    hard = sorted(set(rows[rows.step == "c"].lambda_attack.dropna()))
    assert 0.1 in hard
    assert 0.4 in set(rows[rows.step == "b"].lambda_attack)
    with np.load(attacked["sdnet18"] / "attack-adaptive.npz") as fates:
        robust = fates[f"{norm}_robust"].all(axis=0)[[LAMBDAS.index(lmbd) for lmbd in hard]]
    worst = rows[rows.step == "worst"].set_index("choice")
    assert worst.correct["tuned"] == robust.sum(axis=1).max()
    even, odd = (robust[:, half::2].sum(axis=1).argmax() for half in (0, 1))
    assert worst.correct["held-out"] == robust[odd, 0::2].sum() + robust[even, 1::2].sum()
    assert worst["lambda"]["held-out"] == pytest.approx((hard[even] + hard[odd]) / 2)


def test_algorithm_1_predicts_at_its_own_lambda(attacked):
    run = attacked["sdnet18"]
    target = Target(run, None, IMAGES, DEFENCE, CPU)
    with use_lambda(target.model, 0.6), torch.no_grad():
        x = torch.from_numpy(target.images).permute(0, 3, 1, 2) / 255
        correct = target.model(x).argmax(dim=1).numpy() == target.labels
    assert np.array_equal(target.clean["correct"][-1], correct)
    assert np.array_equal(target.clean["lambda_hat"], np.full(IMAGES, 0.6))


def test_attacked_images_are_judged_in_the_precision_that_they_were_crafted_in(attacked):
    target, seen = Target(attacked["sdnet18"], None, IMAGES, DEFENCE, CPU), set()
    hook = csc_layers(target.model)[0].register_forward_hook(
        lambda *_: seen.add(torch.backends.cudnn.conv.fp32_precision)
    )
    target.judge(target.images, target.labels)
    hook.remove()
    assert seen == {"ieee"}
    assert torch.backends.cudnn.conv.fp32_precision != "ieee", "the default allows less"


def test_adversarial_images_of_another_radius_are_refused(attacked):
    target = Target(attacked["resnet18"], None, IMAGES, DEFENCE, CPU)
    with pytest.raises(
        ValueError, match=r"adversarial\.npz has no images within radius 0\.4 in the l2 norm; attack both"
    ):
        adversarial_images(attacked["resnet18"], "l2", 0.4, target)


@pytest.mark.parametrize("norm", RADII)
def test_adversarial_images_made_of_others_are_refused(attacked, norm):
    """As of another data set, whose images have the same numbers and the same size."""
    target = Target(attacked["sdnet18"], None, IMAGES, DEFENCE, CPU)
    assert adversarial_images(attacked["resnet18"], norm, RADII[norm], target).shape == (IMAGES, 1, 16, 16)
    target.images = target.images[::-1]
    with pytest.raises(ValueError, match=r"adversarial\.npz is of other images than are attacked here"):
        adversarial_images(attacked["resnet18"], norm, RADII[norm], target)


def test_the_images_that_are_kept_are_adversarial_where_it_was_found_so(attacked):
    run = attacked["resnet18"]
    model = load_model(run, read_spec(run / "spec.json"), 10, CPU)
    with np.load(run / "adversarial.npz") as kept:
        images, index = torch.from_numpy(kept["linf_lambda0"]), kept["index"]
    target = Target(run, None, IMAGES, DEFENCE, CPU)
    assert np.array_equal(index, target.indices)
    with torch.no_grad():
        left = model(images).argmax(dim=1).numpy() == target.labels
    (row,) = rows_of(run, "adaptive", norm="linf", step="c").query("attack.str.contains('cross-entropy')").itertuples()
    assert row.correct == (left & target.clean["correct"][0]).sum()


@pytest.mark.parametrize("start", ["", "the others"])
def test_an_attack_in_small_batches_leaves_what_one_batch_leaves(attacked, tmp_path, monkeypatch, start):
    run = shutil.copytree(attacked["sdnet18"], tmp_path / "run")
    target = Target(run, None, IMAGES, DEFENCE, CPU)
    attempt, left = replace(paper_attempt("l2", RADII["l2"], 0.1), start=start), []
    for size in (IMAGES, IMAGES // 3):
        monkeypatch.setattr("sdnet.commands.target.EVALUATION_BATCH", size)
        campaign = Campaign(target, f"in batches of {size}")
        campaign.starts["the others"] = adversarial_images(attacked["resnet18"], "l2", RADII["l2"], target)
        fate, images = campaign.run(attempt, target.batches(), tqdm(disable=True))
        columns = {name: fate.columns[name] for name in ("residual", "l2", "loss_start", "loss_end")}
        left.append(columns | {"rows": fate.rows, "images": images})
    one_batch, small_batches = left
    assert one_batch.keys() == small_batches.keys()
    for name, values in one_batch.items():
        np.testing.assert_allclose(small_batches[name], values, rtol=1e-2, atol=1e-3)  # 20 steps let rounding grow


# Kills and damage


def test_a_killed_attack_goes_on_and_ends_in_the_same_results(attacked, tmp_path):
    undisturbed = attacked["resnet18"]
    run = tmp_path / "run"
    run.mkdir()
    for name in ("spec.json", "model.pt", "attack-paper.csv"):
        (run / name).write_bytes((undisturbed / name).read_bytes())
    command = [sys.executable, "-m", "sdnet", "attack-adaptive", str(run), "--linf", "25.5", "--l2", "0.8"]
    command += ["--images", str(IMAGES), "--steps", "4", "--restarts", "2", "--autoattack", "apgd-ce"]
    command += ["--autoattack-images", "8", "--gpus", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start_and_wait_for(count):
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)
        while len(list(run.glob("parts/*/*.npz"))) < count:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
        return process

    def parts():
        return {path: path.stat().st_mtime_ns for path in run.glob("parts/*/*.npz")}

    process = start_and_wait_for(4)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (run / "attack-adaptive.csv").exists()
    kept = parts()
    process = start_and_wait_for(len(kept) + 1)
    assert kept.items() < (now := parts()).items(), "what was there is neither made again nor forgotten"
    assert len({path.parent for path in now}) == 1
    _, log = process.communicate()
    assert process.returncode == 0, log
    assert (run / "attack-adaptive.csv").read_text() == (undisturbed / "attack-adaptive.csv").read_text()
    for name in ("attack-adaptive.npz", "adversarial.npz"):
        with np.load(run / name) as one, np.load(undisturbed / name) as other:
            assert set(one) == set(other)
            for array in one:
                np.testing.assert_array_equal(one[array], other[array])
    assert not (run / "parts").exists(), "what is written needs no parts"
    of_linf = rows_of(run, "adaptive", norm="linf", choice="given").query(f"attack != '{TOGETHER}'")
    assert [line for line in log.splitlines() if line.startswith("linf")] == [
        f"linf {number}/{len(of_linf)}  {row.step}: {row.attack}: {100 * row.correct / row.total:.1f}% of {row.total} "
        "images robust"
        for number, row in enumerate(of_linf.itertuples(), 1)
    ]


def stopped(*_, **__):
    raise KeyboardInterrupt


def change_lines(run):
    results.write(run / "lines-gaussian.csv", "lines", [RUN | LINE | {"intercept": 0.3}])


def change_weights(run):
    model = load_model(run, read_spec(run / "spec.json"), 10, CPU)
    list(model.parameters())[-1].data += torch.linspace(-1, 1, 10)
    save_model(model, run / "model.pt")


@pytest.mark.parametrize("change", [change_lines, change_weights])
def test_a_stopped_attack_forgets_its_parts_where_what_they_depend_on_has_changed(
    attacked, tmp_path, monkeypatch, change
):
    run = shutil.copytree(attacked["sdnet18"], tmp_path / "run")
    monkeypatch.setattr("sdnet.commands.target.EVALUATION_BATCH", 4)

    def attack_two_batches(folder):
        attack_as_the_paper(folder, None, {"linf": 0.1}, 8, DEFENCE, gpus=0)

    with monkeypatch.context() as patch:
        todo = iter([craft, stopped])
        patch.setattr("sdnet.commands.attack.craft", lambda *given, **options: next(todo)(*given, **options))
        with pytest.raises(KeyboardInterrupt):
            attack_two_batches(run)
    assert len(list(run.glob("parts/*/*.npz"))) == 1
    change(run)
    fresh = shutil.copytree(run, tmp_path / "fresh", ignore=shutil.ignore_patterns("parts"))
    for folder in (run, fresh):
        attack_two_batches(folder)
    with np.load(run / "attack-paper.npz") as one, np.load(fresh / "attack-paper.npz") as other:
        for array in other:
            np.testing.assert_array_equal(one[array], other[array])


def test_a_part_is_computed_once_and_again_where_it_is_damaged_or_depends_on_other_things(tmp_path, capsys):
    computed = []

    def compute():
        computed.append(len(computed))
        return {"x": np.arange(1000) + len(computed)}

    parts = Parts(tmp_path / "parts", "settings", b"weights")
    first = parts.get("a", compute)["x"]
    assert np.array_equal(Parts(tmp_path / "parts", "settings", b"weights").get("a", compute)["x"], first)
    assert len(computed) == 1
    Parts(tmp_path / "parts", "settings", b"other weights").get("a", compute)
    parts.get("b", compute)
    assert len(computed) == 3
    for path in tmp_path.glob("parts/*/*.npz"):
        path.write_bytes(path.read_bytes()[:-40])
    parts.get("a", compute)
    assert len(computed) == 4
    assert "is damaged" in capsys.readouterr().err
    parts.clear()
    assert len(list(tmp_path.glob("parts/*"))) == 1, "those of the other weights"


# Checks of the attacks


@pytest.fixture(scope="module")
def diagnosed(attacked):
    """The runs, of which 10 of the 24 attacked images were diagnosed: others than the first 10."""
    for model, run in attacked.items():
        reference = None if model == "resnet18" else attacked["resnet18"]
        diagnose(run, None, RADII, 10, DEFENCE, steps=4, square=False, reference=reference, gpus=0)
    return attacked


@pytest.mark.parametrize("model", ["resnet18", "sdnet18"])
def test_every_check_is_made_in_both_norms_at_both_lambdas(diagnosed, model):
    run = diagnosed[model]
    checks = results.read(run / "diagnostics.csv", "diagnostics")
    expected = {f"D{k}" for k in (2, 3, 4, 5, 8, 9, 10, 11)} | {"D1" if model == "resnet18" else "D7"}
    for norm in RADII:
        at = {0.1, tuned_lambda(run, norm, RADII[norm])} if model == "sdnet18" else {None}
        of_norm = checks[checks.norm == norm]
        assert set(of_norm["lambda"].dropna()) == at - {None}
        for _, of_lambda in of_norm.groupby("lambda", dropna=False):
            assert set(of_lambda.check) == expected
    assert set(checks.images) == {10}
    assert not (run / "parts").exists()


def test_images_made_elsewhere_are_tried_where_they_are_foreign(diagnosed):
    """D7: the undefended network's at either lambda, and at the tuned one those made at that of training."""
    checks = results.read(diagnosed["sdnet18"] / "diagnostics.csv", "diagnostics")
    tried = checks[checks.check == "D7"].groupby(["norm", "lambda"]).what.apply(list)
    undefended, own = (
        f"accuracy left by {name}, above the attack's" for name in ("images against resnet18", AT_LAMBDA0)
    )
    for norm, eps in RADII.items():
        assert tried[norm][0.1] == [undefended]
        if (tuned := tuned_lambda(diagnosed["sdnet18"], norm, eps)) != 0.1:
            assert tried[norm][tuned] == [undefended, own]
    assert (checks["lambda"] != 0.1).any(), "no norm has another lambda than that of training"


@pytest.mark.parametrize("norm", RADII)
def test_images_crafted_against_another_network_are_compared_as_images_of_the_same_digits(diagnosed, norm):
    """D7, counted again."""
    run, eps = diagnosed["sdnet18"], RADII[norm]
    target = Target(run, None, 10, DEFENCE, CPU)
    with np.load(diagnosed["resnet18"] / "adversarial.npz") as kept:
        crafted = dict(zip(kept["index"].tolist(), kept[f"{norm}_lambda0"], strict=True))
    assert list(target.indices) != list(crafted)[:10]
    foreign = np.stack([crafted[index] for index in target.indices.tolist()])
    distance = (foreign - target.images.transpose(0, 3, 1, 2) / 255).reshape(10, -1)
    assert np.linalg.norm(distance, {"linf": np.inf, "l2": 2}[norm], axis=1).max() <= eps + 1e-6
    settings = PGD(norm, eps, 4, STEP_SIZE * eps / 4)
    own = attack(target.model, [(target.images, target.labels)], settings, indices=target.indices)
    with torch.no_grad():
        right = target.model(torch.from_numpy(foreign)).argmax(dim=1).numpy() == target.labels
    left = (right & target.clean["correct"][0]).mean() - own.robust_accuracy
    checks = results.read(run / "diagnostics.csv", "diagnostics")
    checks = checks[(checks.norm == norm) & (checks["lambda"] == 0.1) & (checks.check == "D7")]
    assert list(checks.value) == pytest.approx([100 * left])


def test_stopped_diagnostics_go_on_unless_what_they_depend_on_has_changed(attacked, tmp_path, monkeypatch):
    run, other = (shutil.copytree(attacked[name], tmp_path / name) for name in ("sdnet18", "resnet18"))
    clean = np.moveaxis(Target(run, None, IMAGES, DEFENCE, CPU).images, -1, 1).astype(np.float32) / 255
    attacks = []

    def counted(*given, **options):
        attacks.append(given)
        return attack(*given, **options)

    monkeypatch.setattr("sdnet.commands.diagnose.attack", counted)
    monkeypatch.setattr("sdnet.robustness.diagnostics.more_steps", stopped)

    def made_again(limit=10, square=False):
        before = len(attacks)
        with pytest.raises(KeyboardInterrupt):
            diagnose(run, None, RADII, limit, DEFENCE, steps=4, square=square, reference=other, gpus=0)
        return len(attacks) > before

    assert made_again()
    assert not made_again()
    assert made_again(limit=8)
    assert made_again(square=True)
    for folder in (run, other):
        crafted = results.read_arrays(folder / "adversarial.npz")
        nearer = (crafted["l2_lambda0"] + clean) / 2
        results.write_arrays(folder / "adversarial.npz", **crafted | {"l2_lambda0": nearer})
        assert made_again()
    change_weights(run)
    assert made_again()
    assert not made_again()


def test_stopped_diagnostics_go_on_with_the_black_box_attack_that_was_left_out(attacked, tmp_path, monkeypatch):
    run = shutil.copytree(attacked["resnet18"], tmp_path / "run")
    black_box = [Check("D6", "share", 0.0, "below 0.2", True)]
    monkeypatch.setattr("sdnet.robustness.diagnostics.black_box", lambda *_: black_box)

    def checked(square):
        diagnose(run, None, {"l2": 0.8}, 5, DEFENCE, steps=1, square=square, reference=None, gpus=0)
        return set(results.read(run / "diagnostics.csv", "diagnostics").check)

    with monkeypatch.context() as patch:
        patch.setattr("sdnet.robustness.diagnostics.zero_gradients", stopped)
        with pytest.raises(KeyboardInterrupt):
            checked(square=False)
    assert "D6" in checked(square=True)


# The table


PRESET = """\
description: hand-made
width: 4
seeds: [0]
datasets: {digits: {}}
systems:
  resnet18: {model: resnet18}
  sdnet18: {model: sdnet18}
recipes: {default: {epochs: 3}}
adversarial: {datasets: [digits], linf: 25.5, l2: 0.8}
"""


@pytest.fixture
def folder(attacked, tiny_project):
    """A results folder with the attacked runs."""
    folder = tiny_project(PRESET)
    for model, run in attacked.items():
        copy = folder / f"runs/digits/{model}/seed0"
        copy.mkdir(parents=True)
        (copy / "accuracy.csv").touch()  # it was tested
        for path in run.glob("attack-*.csv"):
            text = path.read_text().replace("digits,sdnet18,", f"digits,{model},")
            (copy / path.name).write_text(text)
    return folder


def test_table_4_says_what_the_result_files_say(folder, attacked):
    table = attack_tables.table4(folder)
    assert set(table.condition) == {"linf 25.5/255", "l2 0.8"}
    assert not table.duplicated(["system", "setting", "condition", "attack"]).any()
    ours = table.set_index(["system", "setting", "condition", "attack"]).ours
    run = attacked["sdnet18"]
    for norm, condition in {"linf": "linf 25.5/255", "l2": "l2 0.8"}.items():
        paper = rows_of(run, "paper", norm=norm).set_index("choice").correct
        for choice in ("tuned", "held-out", "algorithm1"):
            assert ours["sdnet18", choice, condition, "paper"] == pytest.approx(100 * paper[choice] / IMAGES)
        worst = rows_of(run, "adaptive", norm=norm, step="worst").set_index("choice").correct
        assert ours["sdnet18", "held-out", condition, "worst"] == pytest.approx(100 * worst["held-out"] / IMAGES)
        for setting, lmbd in {"fixed": 0.1, "tuned": tuned_lambda(run, norm, RADII[norm])}.items():
            at_both = {"lambda_attack": lmbd, "lmbd": lmbd, "choice": "given"}
            (known,) = rows_of(run, "adaptive", norm=norm, step="b", **at_both).correct
            assert ours["sdnet18", setting, condition, "known"] == pytest.approx(100 * known / IMAGES)
        (end_to_end,) = (
            rows_of(run, "adaptive", norm=norm, step="f", choice="algorithm1").query(f"attack != '{TOGETHER}'").correct
        )
        assert ours["sdnet18", "algorithm1", condition, "known"] == pytest.approx(100 * end_to_end / IMAGES)
        assert "" in table[table.system == "resnet18"].setting.to_numpy()
    assert table.paper.isna().all(), "the paper attacks no digits"
    layout = attack_tables.table4_layout(table)
    assert len(layout) == 2 * (1 + 4)
    assert layout["Attack within"].unique().tolist() == ["L∞ 25.5/255", "L2 0.8"]
    assert len(attack_tables.survival(table)) == 2


def test_an_attack_made_at_another_lambda_stands_nowhere_in_table_4(folder, attacked):
    table = attack_tables.table4(folder)
    made = table[table.system == "sdnet18"].set_index(["condition", "attack", "setting"]).index
    for norm, condition in {"linf": "linf 25.5/255", "l2": "l2 0.8"}.items():
        rows = rows_of(attacked["sdnet18"], "adaptive", norm=norm)
        for name, step in {"restarts": "c", "autoattack": "d", "aware": "e"}.items():
            crafted = {lmbd for lmbd in rows[rows.step == step].lambda_attack if lmbd == lmbd}
            (tuned,) = rows_of(attacked["sdnet18"], "paper", norm=norm, choice="tuned")["lambda"]
            expected = {"fixed": 0.1 in crafted, "tuned": tuned in crafted, "held-out": len(crafted) > 1}
            for setting, there in (expected | {"algorithm1": False}).items():
                assert ((condition, name, setting) in made) == there
    assert table[table.attack.isin(["known", "aware"])].gain.isna().all(), "at 0.1 it is another attack"
    assert table[(table.attack == "worst") & (table.setting == "tuned")].gain.notna().all()


def test_of_several_seeds_table_4_has_the_mean_of_counts_and_gains_in_each_norm(monkeypatch):
    """Of 200 images within L2; within L-inf 20 fewer are robust. The second seed has 10 more."""

    def counts(step, attack, choice, lmbd, correct, clean, gain):
        common = {"dataset": "digits", "system": "sdnet18", "data_source": "scikit-learn digits"}
        common |= {"step": step, "attack": attack, "choice": choice, "lambda": lmbd, "lambda_attack": 0.1, "total": 200}
        return [
            common
            | {"seed": seed, "norm": norm, "eps": eps}
            | {"correct": correct + 10 * seed - fewer, "clean_correct": clean + 4 * seed}
            | {"gain": gain + seed, "gain_low": gain - 2, "gain_high": gain + 3 * seed}
            for seed in (0, 1)
            for norm, eps, fewer in (("l2", 0.8, 0), ("linf", 0.1, 20))
        ]

    choices = [("given", 0.1, 30, 190, 0), ("given", 0.8, 90, 150, 30), ("tuned", 0.8, 90, 150, 30)]
    choices += [("held-out", 0.6, 80, 160, 25)]
    read = {
        "attack-paper": [row for choice in choices for row in counts("a", "PGD-20", *choice)],
        "attack-adaptive": counts("worst", TOGETHER, "held-out", 0.6, 40, 160, 5),
    }
    of_digits = {kind: pd.DataFrame(rows) for kind, rows in read.items()}
    two = {kind: pd.concat([one, one.assign(dataset="cifar10", correct=0)]) for kind, one in of_digits.items()}
    monkeypatch.setattr(attack_tables, "read_runs", lambda folder, target, kind: two[kind])
    table = attack_tables.table4(None)
    assert (table.ours[table.dataset == "cifar10"] == 0).all()
    table = table[table.dataset == "digits"].set_index(["condition", "setting", "attack"])
    for setting, attacked_by, ours, clean, gain in (
        ("fixed", "paper", 17.5, 96, 0.5),
        ("tuned", "paper", 47.5, 76, 30.5),
        ("held-out", "paper", 42.5, 81, 25.5),
        ("held-out", "worst", 22.5, 81, 5.5),
    ):
        row = table.loc["l2 0.8", setting, attacked_by]
        assert (row.ours, row.ours_std, row.n_seeds) == pytest.approx((ours, 12.5**0.5, 2))
        assert (row.images, row.eps) == (200, 0.8)
        assert (row.clean, row.gain, row.gain_low, row.gain_high) == pytest.approx((clean, gain, gain - 2.5, gain + 1))
        assert table.ours["linf 25.5/255", setting, attacked_by] == pytest.approx(ours - 10)
    two["attack-adaptive"]["eps"] *= 2
    with pytest.raises(ValueError, match=r"has attack-paper\.csv within L2 0\.8, and attack-adaptive"):
        attack_tables.table4(None)


def test_what_the_paper_prints_stands_beside_attacks_of_its_radius_alone():
    rows = [
        {
            "dataset": "cifar10",
            "system": "resnet18",
            "setting": "",
            "condition": condition,
            "attack": "paper",
            "ours": 5,
        }
        for condition in ("linf 8/255", "linf 16/255", "l2 0.5", "l2 1")
    ]
    assert attack_tables.beside_paper(rows).set_index("condition").paper.notna().tolist() == [True, False, True, False]
    assert [attack_tables._condition(*one) for one in (("linf", 8 / 255), ("l2", 0.5))] == ["linf 8/255", "l2 0.5"]


def test_autoattack_s_own_warnings_are_told_and_that_there_are_none(monkeypatch):
    rows = pd.DataFrame({"step": ["d", "d", "d", "c"], "attack": ["AutoAttack"] * 3 + ["PGD"], "norm": "l2"})
    rows = rows.assign(system="sdnet18", seed=[0, 1, 0, 0], warnings=["zero gradient", "zero gradient", np.nan, "no"])
    monkeypatch.setattr(attack_checks, "read_runs", lambda *_: rows)
    told = " AutoAttack's own warnings: zero gradient (SDNet-18, L2, 2 seeds)."
    assert attack_checks.autoattack_note(None) == told
    for others, note in ((slice(2, 4), " AutoAttack's own warnings: none."), (slice(3, 4), "")):
        monkeypatch.setattr(attack_checks, "read_runs", lambda *_, rows=rows[others]: rows)
        assert attack_checks.autoattack_note(None) == note


def test_two_attacked_data_sets_stay_apart(folder, attacked, monkeypatch):
    counts = results.read(attacked["resnet18"] / "attack-adaptive.csv", "attack-adaptive")
    other = counts.assign(dataset="cifar10", data_source="official", correct=0)
    checks = pd.DataFrame(
        {
            "dataset": ["digits", "cifar10"],
            "system": "resnet18",
            "lambda": None,
            "norm": "l2",
            "check": "D1",
            "what": "robust accuracy",
            "value": [0.0, 50.0],
            "threshold": 2.0,
            "accepted": [True, False],
        }
    ).astype({"lambda": float})
    layout = attack_checks.diagnostics_layout(checks)
    assert layout["Data set"].tolist() == ["scikit-learn digits", "CIFAR-10"]
    assert layout["ResNet-18"].tolist() == ["0 ok", "50 FAILS"]
    monkeypatch.setattr(attack_checks, "read_runs", lambda *_: pd.concat([counts, other]))
    weaker = attack_checks.weaker_layout(folder).set_index(["Data set", "Norm", "Attack"])["ResNet-18"]
    assert (weaker.loc["CIFAR-10"] == 0).all()
    assert len(weaker) == 2 * len(weaker.loc["CIFAR-10"])


def test_weaker_attacks_stand_beside_the_paper_s_at_the_lambda_of_training(folder, attacked, monkeypatch):
    rows = rows_of(attacked["sdnet18"], "adaptive", choice="given")
    monkeypatch.setattr(attack_checks, "read_runs", lambda *_: rows)
    made = rows[rows.step.isin(["a", "a'"]) & (rows.attack != TOGETHER) & (rows["lambda"] == 0.1)]
    expected = {(attack_tables.NORMS[row.norm], row.attack): 100 * row.correct / IMAGES for row in made.itertuples()}
    found = attack_checks.weaker_layout(folder).set_index(["Norm", "Attack"])["SDNet-18"].to_dict()
    assert found == pytest.approx(expected, abs=0.005)


def test_checks_that_accept_something_are_laid_out_by_number_and_lambda():
    check = {"dataset": "digits", "system": "sdnet18", "norm": "l2", "what": "share", "value": 0.5, "accepted": True}
    rows = [
        check | {"check": name, "threshold": threshold, "lambda": lmbd}
        for name, threshold in {"D10": 1.0, "D2": 1.0, "D3": np.nan}.items()
        for lmbd in (0.1, 0.5)
    ]
    layout = attack_checks.diagnostics_layout(pd.DataFrame(rows))
    assert layout.Check.tolist() == ["D2", "D10"]
    assert layout.columns[-2:].tolist() == ["SDNet-18 at λ = 0.1", "SDNet-18 at λ = 0.5"]


@pytest.mark.parametrize(
    ("transferred", "worst", "verdict"),
    [
        ((30, 25, 35), (0, -1, 1), "holds only against attacks unaware of λ"),
        ((30, 25, 35), (8, 5, 11), "survives attacks that know λ, if smaller"),
        ((30, 25, 35), (3, 2, 4), "holds only against attacks unaware of λ"),
        ((30, 25, 35), (4, 1, 6), "survives attacks that know λ, if smaller"),
        ((30, -2, 35), (8, 5, 11), "does not help reliably"),
    ],
)
def test_what_survives_is_said_in_words(transferred, worst, verdict):
    row = {"dataset": "cifar10", "system": "sdnet18", "condition": "l2 0.5", "data": "CIFAR-10"}
    gains = {"paper": transferred, "worst": worst}
    rows = [
        row
        | {"setting": setting, "attack": attack, "clean": 60.0 if setting == "held-out" else 90.0}
        | {"ours": {"paper": 50.0, "worst": 7.0}[attack]}
        | dict(zip(("gain", "gain_low", "gain_high"), gains[attack], strict=True))
        for setting in ("fixed", "held-out")
        for attack in gains
    ]
    (sentence,) = attack_tables.survival(pd.DataFrame(rows))
    assert verdict in sentence
    points = "{:+.1f} points (95% interval {:+.1f} to {:+.1f})"
    assert f"by {points.format(*transferred)} under the paper's protocol" in sentence
    assert f"by {points.format(*worst)} to 7.0% when each image meets the worst" in sentence
    assert "60.0% instead of 90.0%" in sentence
    others = [pd.DataFrame(rows).assign(clean=95.0, **{column: "mine"}) for column in ("dataset", "system")]
    assert sentence in attack_tables.survival(pd.concat([*others, pd.DataFrame(rows)])), "whatever stands beside it"
    (sentence,) = attack_tables.survival(pd.DataFrame(rows).assign(clean=90.0))
    assert "Clean accuracy" not in sentence, "which it costs nothing"


def test_a_gain_survives_from_where_claim_a5_has_it():
    (a5,) = [claim for claim in load_claims(Path(__file__).parents[1] / "config/claims.yaml") if claim.id == "A5"]
    assert a5.direction[0].bound == ("at_least", attack_tables.SURVIVES)


def test_the_values_of_the_paper_stand_beside_ours():
    rows = [
        {
            "dataset": "cifar10",
            "system": system,
            "setting": setting,
            "condition": "l2 0.5",
            "attack": attack,
            "ours": 50.0,
        }
        for system, setting in [("resnet18", ""), ("sdnet18", "fixed"), ("sdnet18", "held-out"), ("sdnet18", "tuned")]
        for attack in ("paper", "worst")
    ]
    table = attack_tables.beside_paper(rows).set_index(["system", "setting", "attack"])
    assert list(table.paper.xs("paper", level="attack")) == [29.47, 29.95, 62.80, 62.80]
    assert list(table.difference.xs("paper", level="attack")) == pytest.approx([20.53, 20.05, -12.80, -12.80])
    assert table.paper.xs("worst", level="attack").isna().all()


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["attack", "--l2", "1000"], "is it in grey levels?"),
        (["attack", "--lambdas", "0.4,0.8"], "must contain 0.1, that of training"),
        (["attack", "--noise", "shot"], "lines-shot.csv is not there; make it with: python -m sdnet calibrate"),
        (["attack-adaptive", "--l2", "0.4"], "--l2: given 0.4, and "),
        (["diagnose", "--images", "60"], "attack both with as many images"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(attacked, arguments, message, monkeypatch):
    command, *options = arguments
    usual = {"--linf": "25.5", "--l2": "0.8", "--images": "24", "--lambdas": "0.1,0.4,0.8", "--gpus": "0"}
    if command != "attack":
        usual |= {"--steps": "4"}
    if command == "attack-adaptive":
        usual |= {"--autoattack": "", "--attack-lambdas": "0.1", "--restarts": "1"}
    usual |= dict(zip(options[::2], options[1::2], strict=True))
    words = [word for pair in usual.items() for word in pair]
    monkeypatch.setattr(sys, "argv", ["sdnet", command, str(attacked["sdnet18"]), *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert str(ended.value.code).startswith("error: ")
    assert message in ended.value.code
    assert "\n" not in ended.value.code


@pytest.mark.parametrize("option", ["--steps", "--restarts", "--images", "--autoattack-images"])
def test_an_attack_without_steps_or_images_is_wrong_usage(attacked, option, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sdnet", "attack-adaptive", str(attacked["sdnet18"]), option, "0"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"Invalid value for '{option}': 0 is not in the range x>=1" in capsys.readouterr().err
    with pytest.raises(ValueError, match="steps is 0; give at least 1"):
        adaptive_attempts(
            paper_attempt("l2", 0.5, 0.1), tuned=0.1, lambdas=(), steps=0, restarts=1, attacks=(), reference=""
        )


# The paper's claim that stands on real images


def test_resnet_trained_normally_falls_on_cifar_images(tmp_path, monkeypatch):
    """Needs the images: `python -m sdnet data cifar10`."""
    data = Path(os.environ.get("SDNET_DATA_DIR", "data"), "cifar10.npz")
    if not data.exists():
        pytest.skip(f"{data} is not there")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    spec = make_spec(tmp_path / "run", epochs=8, learning_rate=0.1)
    text = spec.read_text().replace('"sdnet18"', '"resnet18"').replace('"digits"', '"cifar10"')
    spec.write_text(text.replace('"train_images": 96', '"train_images": 10000').replace('"width": 4', '"width": 16'))
    monkeypatch.setenv("SDNET_DATA_DIR", str(data.parent))
    train(spec, None, gpus=0)
    attack_as_the_paper(tmp_path / "run", None, {"linf": 8 / 255}, 60, DEFENCE, gpus=0)
    (row,) = rows_of(tmp_path / "run", "paper").itertuples()
    assert row.clean_correct > 0.35 * 60
    assert row.correct <= 0.05 * 60


def test_every_shown_network_is_attacked_where_the_preset_says_so():
    from sdnet.experiments.settings.loading import load_presets

    presets = load_presets(Path(__file__).parents[1] / "config/presets")
    assert catalogue.shows("table4", "cifar10", presets["paper"])
    assert not catalogue.shows("table4", "cifar100", presets["paper"])
    assert catalogue.shows("table1", "cifar100", presets["paper"])
    assert "--linf 8 --l2 0.5" in arguments.attack_options(presets["paper"], "attack")
    assert "--square" in arguments.attack_options(presets["paper"], "diagnose")
    assert "--no-square" in arguments.attack_options(presets["quick"], "diagnose")
