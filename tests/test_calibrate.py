"""`python -m sdnet calibrate` on a run: Algorithm 1 is paired with a sweep of the same images, noise and weights."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_run import make_spec

from sdnet.commands.calibrate import calibrate
from sdnet.commands.sweep import sweep
from sdnet.commands.swept import sweep_rows
from sdnet.commands.train import train
from sdnet.data.corruptions import CALIBRATION_LEVELS
from sdnet.experiments import results
from sdnet.robustness.calibration import bootstrap_lambdas
from sdnet.robustness.peaks import find_peaks
from sdnet.robustness.statistics import adaptive_difference, mcnemar_p_value, paired_difference
from sdnet.robustness.sweep import Sweep, evaluate_at
from sdnet.runs.network import load_model
from sdnet.runs.noisy import Noise, open_split
from sdnet.runs.spec import read_spec

NOISE = Noise("gaussian", "cifar", seed=0, official=None)
LAMBDAS = [0.1, 0.4]
IMAGES = 20


def calibrated(run, noise=NOISE, limit=IMAGES):
    options = {"levels": "interleaved", "images": IMAGES, "limit": limit, "variants": ["paper"]}
    calibrate(run, None, noise, LAMBDAS, **options, gpus=0)
    return results.read(run / "adaptive-gaussian.csv", "adaptive")


@pytest.fixture
def swept(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    run = make_spec(tmp_path / "run", epochs=1).parent
    train(run / "spec.json", None, 0)
    sweep(run, None, NOISE, LAMBDAS, IMAGES, gpus=0)
    return run


def test_algorithm_1_refuses_a_sweep_of_other_images_noise_or_weights(swept, monkeypatch):
    refused = pytest.raises(ValueError, match=r"sweep-gaussian\.npz is of other weights, images or noise .*sweep again")
    with refused:
        calibrated(swept, limit=IMAGES + 10)
    for other in (replace(NOISE, scale="imagenet"), replace(NOISE, seed=1)):
        with refused:
            calibrated(swept, other)
    with monkeypatch.context() as patch:
        patch.setattr("sdnet.runs.noisy.ArraySplit.contents", lambda images, noise: "of another folder")
        with refused:
            calibrated(swept)
    assert set(calibrated(swept).total) == {IMAGES, 5 * IMAGES}
    weights = torch.load(swept / "model.pt", weights_only=True)
    torch.save({name: 2 * value for name, value in weights.items()}, swept / "model.pt")
    with refused:
        calibrated(swept)


@pytest.mark.parametrize("gone", [False, True])
def test_of_weights_that_were_replaced_meanwhile_nothing_is_written(swept, monkeypatch, gone):
    """As where a job outlives its workflow, whose successor trains by other settings."""
    before = (swept / "sweep-gaussian.csv").read_bytes()

    def replaced(*arguments, **options):
        (swept / "model.pt").unlink(missing_ok=True)
        if not gone:
            (swept / "model.pt").write_bytes(b"of another training")
        return evaluate_at(*arguments, **options)

    monkeypatch.setattr("sdnet.commands.sweep.evaluate_at", replaced)
    with pytest.raises(ValueError, match=r"model\.pt was replaced meanwhile, as by a training; nothing was written"):
        sweep(swept, None, NOISE, [0.1, 0.9], IMAGES, gpus=0)
    assert (swept / "sweep-gaussian.csv").read_bytes() == before


def test_algorithm_1_refuses_a_sweep_of_other_lambdas(swept):
    """Its interval is interpolated between those that were swept."""
    with pytest.raises(
        ValueError, match=r"sweep-gaussian\.npz is of the lambdas 0\.1, 0\.4, and --lambdas are 0\.1, 0\.9;"
    ):
        files_of(swept, IMAGES, ["paper"], [0.1, 0.9])


def test_a_sweep_without_the_lambda_of_training_is_refused(swept):
    before = (swept / "sweep-gaussian.csv").read_bytes()
    with pytest.raises(ValueError, match=r"^--lambdas: given 0.2,0.4; must contain 0.1, that of training$"):
        sweep(swept, None, NOISE, [0.2, 0.4], IMAGES, gpus=0)
    assert (swept / "sweep-gaussian.csv").read_bytes() == before


def test_a_damaged_sweep_is_named(swept):
    (swept / "sweep-gaussian.npz").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"sweep-gaussian\.npz is damaged"):
        calibrated(swept)


class Counted:
    """`evaluate_at`, which dies at one of its calls."""

    def __init__(self, dies_at=None):
        self.calls, self.dies_at = 0, dies_at

    def __call__(self, *arguments, **options):
        self.calls += 1
        if self.calls == self.dies_at:
            raise KeyboardInterrupt
        return evaluate_at(*arguments, **options)


# Algorithm 1 tests clean images first, then each level: the released code's fit with one call for each lambda.
LEVELS = len(CALIBRATION_LEVELS["interleaved"]["gaussian"])


@pytest.mark.parametrize(
    ("job", "done", "anew"), [("sweep", 3, 0), ("calibrate", 1 + 3, 1), ("calibrate", 1 + LEVELS + 2 * 2, 1)]
)
def test_a_killed_job_does_nothing_twice_and_ends_in_the_same_results(swept, monkeypatch, job, done, anew):
    def start(dies_at=None):
        counted = Counted(dies_at)
        monkeypatch.setattr(f"sdnet.commands.{job}.evaluate_at", counted)
        if job == "sweep":
            sweep(swept, None, NOISE, LAMBDAS, IMAGES, gpus=0)
        else:
            files_of(swept, IMAGES, ["paper", "released"], LAMBDAS)
        return counted.calls

    def made():
        return {path.name: path.read_bytes() for path in swept.glob("*gaussian*")}

    whole = start()
    expected = made()
    with pytest.raises(KeyboardInterrupt):
        start(dies_at=done + 1)
    assert list(swept.glob("parts/*/*.npz"))
    assert start() == whole - done + anew
    assert made() == expected
    assert not (swept / "parts").exists()


def test_parts_of_other_weights_images_or_lambdas_are_not_taken(swept, monkeypatch):
    monkeypatch.setattr("sdnet.commands.sweep.evaluate_at", Counted(dies_at=5))
    with pytest.raises(KeyboardInterrupt):
        sweep(swept, None, NOISE, LAMBDAS, IMAGES, gpus=0)
    others = [(NOISE, [0.1, 0.5], IMAGES), (NOISE, LAMBDAS, 10), (replace(NOISE, seed=1), LAMBDAS, IMAGES)]
    for other in (*others, (replace(NOISE, name="shot"), LAMBDAS, IMAGES)):
        monkeypatch.setattr("sdnet.commands.sweep.evaluate_at", counted := Counted())
        sweep(swept, None, *other, gpus=0)
        assert counted.calls == 5
    assert len(list(swept.glob("parts/*/*.npz"))) == 4, "those that were there wait for their own sweep"


@pytest.mark.parametrize("change", ["weights", "lambdas"])
def test_parts_of_a_calibration_of_other_weights_or_lambdas_are_not_taken(swept, monkeypatch, change):
    monkeypatch.setattr("sdnet.commands.calibrate.evaluate_at", Counted(dies_at=5))
    with pytest.raises(KeyboardInterrupt):
        calibrated(swept)
    lambdas = [0.1, 0.5] if change == "lambdas" else LAMBDAS
    if change == "weights":
        weights = torch.load(swept / "model.pt", weights_only=True)
        torch.save({name: 2 * value for name, value in weights.items()}, swept / "model.pt")
    sweep(swept, None, NOISE, lambdas, IMAGES, gpus=0)
    monkeypatch.setattr("sdnet.commands.calibrate.evaluate_at", counted := Counted())
    files_of(swept, IMAGES, ["paper"], lambdas)
    assert counted.calls == 1 + LEVELS + 6, "clean images, each level, and six test sets at their lambda"


def files_of(run, images, variants, lambdas):
    calibrate(run, None, NOISE, lambdas, levels="interleaved", images=images, limit=images, variants=variants, gpus=0)
    spec = read_spec(run / "spec.json")
    model = load_model(run, spec, 10, torch.device("cpu"))
    return model, *(open_split(spec, None, part, images) for part in ("train", "test"))


def test_what_is_written_recounts(tmp_path, monkeypatch):
    """The line is fitted on training images; test images are classified at its lambda and at that of training."""
    monkeypatch.setitem(sys.modules, "mlflow", None)
    path, lambda0 = make_spec(tmp_path / "run", epochs=5, learning_rate=0.1), 0.4
    changed = path.read_text().replace('"train_images": 96', '"train_images": 480')
    path.write_text(changed.replace('"options": {}', f'"options": {{"lmbd": {lambda0}}}'))
    train(path, None, 0)
    run, lambdas = path.parent, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8]
    sweep(run, None, NOISE, lambdas, 60, gpus=0)
    model, training, test = files_of(run, 60, ["paper", "squared", "parabola"], lambdas)
    levels = enumerate(CALIBRATION_LEVELS["interleaved"]["gaussian"])
    points = [evaluate_at(model, training.at_level(NOISE, k, level), lambdas, lambda0) for k, level in levels]
    correct = np.array([one.correct for one in points])
    best = np.array([lambdas[one.sum(axis=1).argmax()] for one in correct])
    assert len(set(best)) > 1, "or any line would do"
    peaks, expected = results.read(run / "peaks-gaussian.csv", "peaks"), find_peaks(correct, lambdas)
    assert peaks["lambda"][peaks.variant == "parabola"].tolist() == pytest.approx([one.parabola for one in expected])
    spreads = peaks.lambda_std[peaks.variant == "parabola"].tolist()
    assert spreads == pytest.approx([one.parabola_std for one in expected])
    peaks = peaks[peaks.variant == "paper"]
    assert peaks["lambda"].tolist() == best.tolist()
    assert peaks.lambda_std.tolist() == pytest.approx([one.argmax_std for one in expected])
    plateaus = [[min(one.plateau), max(one.plateau)] for one in expected]
    assert peaks[["plateau_low", "plateau_high"]].to_numpy().tolist() == plateaus
    assert any(low < high for low, high in plateaus)
    assert peaks.at_grid_end.tolist() == [lmbd in (0.1, 0.8) for lmbd in best]
    tables, lines = (results.read(run / f"{kind}-gaussian.csv", kind) for kind in ("adaptive", "lines"))
    swept = results.read_arrays(run / "sweep-gaussian.npz")
    smoothed = [one.parabola for one in expected]
    assert smoothed != best.tolist()
    for variant, power, at in (("paper", 1, best), ("squared", 2, best), ("parabola", 1, smoothed)):
        residuals = np.array([(one.residuals**power).mean(axis=0) for one in points])
        line = np.polyfit(residuals.mean(axis=1), at, 1)
        found = lines.set_index("variant").loc[variant, ["slope", "intercept"]].tolist()
        assert found == pytest.approx(list(line), rel=1e-4)  # residuals in float32, from other batches
        table, fates = tables[tables.variant == variant].set_index("severity"), []
        for severity in range(6):
            row = table.loc[str(severity)]
            batches = [*(test.at_severity(NOISE, severity) if severity else test.clean())]
            residuals_there = evaluate_at(model, batches, [lambda0], lambda0).residuals
            assert row.residual == pytest.approx((residuals_there**power).mean(), rel=1e-4)
            on_the_line = np.polyval(line, row.residual)
            assert row["lambda"] == pytest.approx(np.clip(on_the_line, 0.1, 0.8), rel=1e-4)
            assert row.clamped == (not 0.1 <= on_the_line <= 0.8)
            fitted_to = residuals.mean(axis=1)
            assert row.extrapolated == (not fitted_to.min() <= row.residual <= fitted_to.max())
            estimator = "parabola" if variant == "parabola" else "argmax"
            draws = bootstrap_lambdas(correct, residuals, lambdas, [row.residual], estimator=estimator)
            ends = np.quantile(draws, [0.025, 0.975])
            assert [row.lambda_low, row.lambda_high] == pytest.approx(list(ends), rel=1e-4)
            chosen, fixed = (evaluate_at(model, batches, [lmbd]).correct[0] for lmbd in (row["lambda"], lambda0))
            assert (row.correct, row.fixed_correct, row.total) == (chosen.sum(), fixed.sum(), 60)
            assert row.p_value == pytest.approx(mcnemar_p_value(chosen, fixed))
            gains = [paired_difference(chosen, fixed, seed=0)]
            if severity:  # the interval covers the choice of the calibration images, too
                cell = swept["correct"][severity - 1 : severity]
                gains.append(adaptive_difference(cell, lambdas, [row["lambda"]], draws, fixed[None]))
            ends = [gains[0].estimate, min(one.low for one in gains), max(one.high for one in gains)]
            assert [row.gain, row.gain_low, row.gain_high] == pytest.approx([100 * end for end in ends], abs=0.01)
            fates.append((chosen, fixed))
        mean, gain = table.loc["mean"], paired_difference(*np.array(fates[1:]).swapaxes(0, 1), seed=0)
        assert (mean.gain, mean.total) == (pytest.approx(100 * gain.estimate), 300)
        assert mean.gain_low <= 100 * gain.low + 1e-9, "it covers the choice of the calibration images, too"
        assert 100 * gain.high - 1e-9 <= mean.gain_high


def test_the_released_fit_is_on_test_images_and_the_running_mean_of_their_squared_residuals(swept, monkeypatch):
    monkeypatch.setattr("sdnet.runs.noisy.EVALUATION_BATCH", 10)  # in two batches
    model, _, test = files_of(swept, IMAGES, ["paper", "released"], LAMBDAS)
    seen, expected = [], []
    for position, level in enumerate(CALIBRATION_LEVELS["released"]["gaussian"][1:]):  # no clean images
        batches = [*test.at_level(NOISE, position, level)]
        found = [evaluate_at(model, batches, [lmbd], lmbd) for lmbd in LAMBDAS]
        best = np.argmax([one.correct.sum() for one in found])
        squares = [(one.residuals**2).mean() for one in found]
        expected.append(np.mean(seen + squares[: best + 1]))
        seen += squares
    peaks = results.read(swept / "peaks-gaussian.csv", "peaks")
    assert peaks[peaks.variant == "released"].residual.tolist() == pytest.approx(expected)
    lines = results.read(swept / "lines-gaussian.csv", "lines").set_index("variant")
    assert lines.definition.to_dict() == {"paper": "norm", "released": "squared"}


def test_the_released_fit_tries_no_lambda_above_1_4(swept, monkeypatch):
    """As the authors' code; whatever the preset tries."""
    lambdas, tried = [0.1, 1.4, 1.5], set()
    sweep(swept, None, NOISE, lambdas, IMAGES, gpus=0)

    def watched(model, batches, values, *arguments, **options):
        tried.add(tuple(values))
        return evaluate_at(model, batches, values, *arguments, **options)

    monkeypatch.setattr("sdnet.commands.calibrate.evaluate_at", watched)
    files_of(swept, IMAGES, ["paper", "released"], lambdas)
    assert {(0.1,), (1.4,), (0.1, 1.4, 1.5)} <= tried
    assert (1.5,) not in tried


def test_residuals_are_squared_before_they_are_averaged():
    (row,) = sweep_rows(Sweep(np.array([0.1]), np.array([[True, False]]), np.array([[1.0, 3.0]])))
    assert (row["residual_norm"], row["residual_squared"], row["correct"], row["total"]) == (2, 5, 1, 2)
