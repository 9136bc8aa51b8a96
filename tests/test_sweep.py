"""A sweep over lambda measures what it says, leaves the network alone, and Algorithm 1 runs on top of it."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from small_network import small_network, trained_on
from torch import nn

from sdnet.csc import CSCConv2d, use_lambda
from sdnet.data.corruptions import corrupt_level
from sdnet.robustness.inference import calibrate, predict
from sdnet.robustness.sweep import evaluate_at

LAMBDAS = [0.1, 0.3, 0.6, 1.0]


@pytest.fixture(scope="module")
def trained(digits):
    return trained_on(digits, small_network())


def batches_of(images, labels, *sizes):
    ends = np.cumsum(sizes)
    return [(images[e - s : e], labels[e - s : e]) for s, e in zip(sizes, ends, strict=True)]


class Watched(nn.Module):
    """Passes its input on and remembers it."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(x.clone())
        return x


def test_correctness_is_that_of_plain_evaluation_at_each_lambda(trained, digits):
    images, labels = digits[0][1200:1300], digits[1][1200:1300]
    sweep = evaluate_at(trained, batches_of(images, labels, 30, 70), LAMBDAS)
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255.0
    for row, lmbd in zip(sweep.correct, LAMBDAS, strict=True):
        with torch.no_grad(), use_lambda(trained, lmbd):
            assert np.array_equal(row, trained(x).argmax(1).numpy() == labels)
    assert not np.array_equal(sweep.correct[0], sweep.correct[-1])


def test_a_sweep_leaves_the_network_as_it_was(digits):
    model = small_network().train()
    model[1].eval()  # a frozen batch norm in a network in training mode
    model[0].lmbd = 0.25
    before = copy.deepcopy(model.state_dict())
    evaluate_at(model, batches_of(*digits, 50), LAMBDAS)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[0].lmbd == 0.25
    assert [module.training for module in model] == [True, False, True, True, True, True]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_all_lambdas_see_the_same_images_and_each_batch_is_asked_for_once(digits):
    asked = []

    def noisy_batches():
        for number, (images, labels) in enumerate(batches_of(*digits, 20, 30)):
            asked.append(number)
            yield np.random.default_rng().integers(0, 256, images.shape, np.uint8), labels

    watched = Watched()
    evaluate_at(nn.Sequential(watched, small_network()), noisy_batches(), LAMBDAS)
    assert asked == [0, 1]
    first, second = watched.seen[: len(LAMBDAS)], watched.seen[len(LAMBDAS) :]
    assert len(first) == len(second) == len(LAMBDAS)
    assert all(torch.equal(x, first[0]) for x in first)
    assert all(torch.equal(x, second[0]) for x in second)


def test_a_layer_that_explains_nothing_leaves_the_image_as_its_residual(digits):
    model = small_network()
    with torch.no_grad():
        model[0].weight.zero_()
    images, labels = digits[0][:10], digits[1][:10]
    sweep = evaluate_at(model, [(images, labels)], LAMBDAS)
    expected = np.linalg.norm(images.reshape(10, -1) / 255.0, axis=1)
    np.testing.assert_allclose(sweep.residuals, expected[None], rtol=1e-5)  # float32


def test_residuals_belong_to_images_whatever_the_batches_the_calls_before_and_the_lambda_set(trained, digits):
    once = evaluate_at(trained, batches_of(*digits, 60), LAMBDAS)
    again = evaluate_at(trained, batches_of(*digits, 60), LAMBDAS)
    assert np.array_equal(once.residuals, again.residuals)
    with use_lambda(trained, 0.9):
        elsewhere = evaluate_at(trained, batches_of(*digits, 7, 53), [0.5, 1.0], lambda0=0.1)
    np.testing.assert_allclose(elsewhere.residuals, once.residuals, rtol=1e-5)  # float32, other batch shapes
    at_half = evaluate_at(trained, batches_of(*digits, 60), LAMBDAS, lambda0=0.5)
    assert np.all(at_half.residuals > once.residuals)
    with use_lambda(trained, 0.5):
        at_its_own = evaluate_at(trained, batches_of(*digits, 60), LAMBDAS)
    assert np.array_equal(at_its_own.residuals, at_half.residuals)


def test_bytes_and_unit_floats_are_the_same_images(trained, digits):
    images, labels = digits[0][:40], digits[1][:40]
    floats = torch.from_numpy(images).permute(0, 3, 1, 2) / 255.0
    from_bytes = evaluate_at(trained, [(images, labels)], LAMBDAS)
    from_floats = evaluate_at(trained, [(floats, torch.from_numpy(labels))], LAMBDAS)
    assert np.array_equal(from_bytes.correct, from_floats.correct)
    np.testing.assert_allclose(from_bytes.residuals, from_floats.residuals, rtol=1e-5)  # other memory layout


@pytest.mark.filterwarnings("error")
def test_images_mapped_read_only_from_a_file_are_read_without_a_warning(trained, digits, tmp_path):
    np.save(tmp_path / "images.npy", digits[0][:40])
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    from_file = evaluate_at(trained, [(images, digits[1][:40])], LAMBDAS)
    assert np.array_equal(from_file.correct, evaluate_at(trained, batches_of(*digits, 40), LAMBDAS).correct)


def test_a_network_without_csc_layers_is_evaluated_once(digits):
    watched = Watched()
    model = nn.Sequential(watched, nn.Flatten(), nn.Linear(64, 10))
    sweep = evaluate_at(model, batches_of(*digits, 20, 30), LAMBDAS)
    assert len(watched.seen) == 2
    assert np.isnan(sweep.lambdas).tolist() == [True]
    assert sweep.correct.shape == (1, 50)
    assert sweep.residuals.shape == (0, 50)


def test_every_csc_layer_has_a_row_of_residuals(digits):
    model = nn.Sequential(CSCConv2d(1, 4, 3, padding=1), small_network(in_channels=4))
    sweep = evaluate_at(model, batches_of(*digits, 20), LAMBDAS)
    assert sweep.residuals.shape == (2, 20)
    assert not np.allclose(*sweep.residuals)


def test_what_cannot_be_swept_is_refused_in_one_sentence(trained, digits):
    with pytest.raises(ValueError, match="there is no batch"):
        evaluate_at(trained, [], LAMBDAS)
    with pytest.raises(ValueError, match=r"\[0\.3, 0\.1\]; give at least one, none negative, ascending"):
        evaluate_at(trained, batches_of(*digits, 10), [0.3, 0.1])
    x, y = digits
    for labels in (y[:1], y[:10, None], y[0]):
        with pytest.raises(
            ValueError, match=r"10 images have labels of shape \(.*\); give each image the number of its cl"
        ):
            evaluate_at(trained, [(x[:10], labels)], LAMBDAS)
    for labels, found in ((y[:10] + 100, r"10\d to 10\d"), (y[:10] - 20, r"-20 to -1\d")):
        with pytest.raises(ValueError, match=rf"labels reach from {found}; the network's 10 classes are numb"):
            evaluate_at(trained, [(x[:10], labels)], LAMBDAS)
    with pytest.raises(ValueError, match="evaluate_at: each of the batches must be a pair, images and labels"):
        evaluate_at(trained, (x, y), LAMBDAS)
    twice = nn.Sequential(square := CSCConv2d(1, 1, 3, padding=1), square, nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(ValueError, match="Sequential runs a CSC layer more than once, or none at all"):
        evaluate_at(twice, batches_of(*digits, 10), LAMBDAS)
    with pytest.raises(ValueError, match=r"uint8, \(10, 1, 8, 8\); give \(N, H, W, channels\), or images / 255"):
        evaluate_at(trained, [(x[:10].transpose(0, 3, 1, 2), y[:10])], LAMBDAS)


class WithTrainingHead(nn.Module):
    """As networks with an auxiliary classifier: it has a CSC layer that does not run in evaluation."""

    def __init__(self, network):
        super().__init__()
        self.network, self.head = network, nn.Sequential(CSCConv2d(1, 4, 3), nn.Flatten(), nn.LazyLinear(10))

    def forward(self, x):
        return (self.network(x), self.head(x)) if self.training else self.network(x)


def test_a_head_for_training_alone_stands_in_the_way_of_no_sweep(trained, digits):
    expected, sweep = (evaluate_at(m, batches_of(*digits, 20), LAMBDAS) for m in (trained, WithTrainingHead(trained)))
    assert np.array_equal(sweep.residuals, expected.residuals)
    assert np.array_equal(sweep.correct, expected.correct)


def test_the_lambda_of_training_is_asked_for_where_layers_have_different_ones(digits):
    layers = CSCConv2d(1, 4, 3, lmbd=0.1), CSCConv2d(4, 1, 3, lmbd=0.3)
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 10)).eval()
    batches = batches_of(*digits, 10)
    for call in evaluate_at, lambda *args: calibrate(model, batches, lambda x, _: x, [0, 1], LAMBDAS):
        with pytest.raises(ValueError, match=r"layers of lambda 0\.1 and 0\.3; give lambda0, the one for all at which"):
            call(model, batches, LAMBDAS)
    assert evaluate_at(model, batches, LAMBDAS, lambda0=0.2).residuals.shape == (2, 10)


def test_a_network_in_bfloat16_is_swept_with_residuals_in_float32(digits):
    model = small_network().bfloat16()
    sweep = evaluate_at(model, batches_of(*digits, 10, 10), LAMBDAS)
    assert sweep.residuals.dtype == np.float32
    assert sweep.residuals == pytest.approx(
        evaluate_at(model.float(), batches_of(*digits, 20), LAMBDAS).residuals, rel=0.05
    )


def test_a_larger_lambda_gives_a_sparser_code_and_in_the_end_no_information(trained, digits):
    images, labels = digits[0][1200:], digits[1][1200:]
    x = torch.from_numpy(images).permute(0, 3, 1, 2) / 255.0
    zeros = []
    for lmbd in (0.1, 0.5, 1.0, 5.0):
        with torch.no_grad(), use_lambda(trained, lmbd):
            zeros.append((trained[0](x) == 0).float().mean().item())
    assert np.all(np.diff(zeros) > 0)
    sweep = evaluate_at(trained, [(images, labels)], [0.1, 5.0])
    assert sweep.correct[0].mean() > 0.85
    assert sweep.correct[1].mean() < 0.2


def test_the_squared_residual_of_photographs_is_linear_in_the_power_of_the_noise():
    """As Table 2 implies: R^2 > .99 in sigma^2, up to sigma = 0.10, and clearly less in sigma."""
    photograph = load_sample_image("china.jpg")
    patches = np.stack([photograph[r : r + 32, c : c + 32] for r in range(0, 320, 40) for c in range(0, 320, 40)])
    sigma = np.array([0, 0.02, 0.04, 0.06, 0.08, 0.10])
    normalize = nn.BatchNorm2d(3, affine=False)  # of standard deviation 1/4, about that of CIFAR-10
    normalize.running_mean.fill_(0.5)
    normalize.running_var.fill_(1 / 16)
    model = nn.Sequential(normalize, small_network(in_channels=3, atoms=32))
    labels = np.zeros(len(patches), dtype=int)
    squared = [
        np.square(
            evaluate_at(model, [(corrupt_level(patches, "gaussian", s, seed=0, slot=100), labels)], [0.1]).residuals
        ).mean()
        for s in sigma
    ]
    assert np.corrcoef(sigma**2, squared)[0, 1] ** 2 > 0.99
    assert np.corrcoef(sigma, squared)[0, 1] ** 2 < 0.96


class AtomDetector(nn.Module):
    """Says which atom an image consists of, by the sum of its code channels: noise adds to all of them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.csc = CSCConv2d(1, 4, 3, padding=1, nonnegative=True)

    def forward(self, x):
        return self.csc(x).sum(dim=(2, 3))


def atom_images(detector, n, seed):
    """Images (n, 1, 8, 8) with one atom each, somewhere, and which it is."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (n,), generator=generator)
    row, column = torch.randint(1, 7, (2, n), generator=generator)
    codes = torch.zeros(n, 4, 8, 8)
    codes[torch.arange(n), labels, row, column] = 2
    with torch.no_grad():
        return detector.csc.reconstruct(codes, (8, 8)), labels


def add_noise(x, std, seed=0):
    return x + std * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def detector():
    return AtomDetector().eval()


@pytest.fixture(scope="module")
def calibration(detector):
    x, y = atom_images(detector, 800, seed=1)
    batches = zip(x.split(300), y.split(300), strict=True)  # an iterator will do: it is read once
    grid = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2]
    return calibrate(detector, batches, add_noise, levels=[0, 0.05, 0.1, 0.2, 0.3], lambdas=grid)


def test_noisier_images_ask_for_a_larger_lambda_and_gain_by_it(detector, calibration):
    clean, y = atom_images(detector, 400, seed=2)
    chosen = []
    for std, least_gain in ((0.08, 0.1), (0.25, 0.3)):
        x = add_noise(clean, std, seed=2)
        prediction = predict(detector, x, calibration)
        with torch.no_grad():
            fixed = (detector(x).argmax(1) == y).float().mean()
        assert (prediction.classes == y).float().mean() > fixed + least_gain
        chosen.append(prediction.estimates[0].lmbd)
    assert 0.1 < chosen[0] < chosen[1] < 1.2
    assert calibration.r_squared > 0.8


def test_noise_that_is_added_in_place_is_added_to_a_copy(detector):
    x, y = atom_images(detector, 60, seed=1)

    def add_in_place(images, std):
        noisy = add_noise(images, std)
        return images.copy_(noisy)

    clean, options = x.clone(), {"levels": [0, 0.1, 0.2], "lambdas": [0.1, 0.4, 0.8]}
    in_place = calibrate(detector, [(x, y)], add_in_place, **options)
    assert torch.equal(x, clean)
    assert in_place == calibrate(detector, [(x, y)], add_noise, **options)


def test_a_data_set_is_predicted_at_the_lambda_of_the_mean_residual_of_its_images(detector, calibration):
    """The mean over images, not over batches; and not at the residual of another lambda."""
    x, y = atom_images(detector, 90, seed=2)
    x = torch.cat([x[:10], add_noise(x[10:], 0.2, seed=2)])
    prediction = predict(detector, [x[:10], x[10:]], calibration)
    (estimate,) = prediction.estimates
    residuals = evaluate_at(detector, [(x, y)], [0.1]).residuals
    assert estimate.residual == pytest.approx(residuals.mean(), rel=1e-6)
    assert estimate == calibration.lambda_for(estimate.residual)
    with torch.no_grad(), use_lambda(detector, estimate.lmbd):
        torch.testing.assert_close(prediction.logits, detector(x))


def test_a_line_of_squared_residuals_is_read_at_the_mean_squared_residual(detector, calibration):
    x, y = atom_images(detector, 90, seed=2)
    x = add_noise(x, 0.2, seed=2)
    prediction = predict(detector, x, replace(calibration, definition="squared"))
    residuals = evaluate_at(detector, [(x, y)], [0.1]).residuals
    assert prediction.estimates[0].residual == pytest.approx((residuals**2).mean(), rel=1e-6)


def test_each_batch_can_have_its_own_lambda(detector, calibration):
    x, y = atom_images(detector, 100, seed=2)
    mixed = [(add_noise(x[:50], 0.05), y[:50]), (add_noise(x[50:], 0.25), y[50:])]
    prediction = predict(detector, iter(mixed), calibration, mode="batch")
    apart = [predict(detector, images, calibration) for images, _ in mixed]
    assert prediction.estimates == (apart[0].estimates[0], apart[1].estimates[0])
    assert prediction.estimates[0].lmbd < prediction.estimates[1].lmbd
    assert torch.equal(prediction.logits, torch.cat([p.logits for p in apart]))


def test_algorithm_1_refuses_what_it_cannot_do(detector, calibration):
    x, y = atom_images(detector, 20, seed=2)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(ValueError, match="Sequential has no CSC layer, so there is no lambda and no residual"):
        calibrate(plain, [(x, y)], add_noise, [0, 0.1], LAMBDAS)
    with pytest.raises(ValueError, match="predict: Sequential has no CSC layer"):
        predict(plain, x, calibration)
    x[7, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="the residual of image 7 is not finite; are its pixels in"):
        predict(detector, [x[:5], x[5:]], calibration)
    x[7, 0, 0, 0] = 0
    with pytest.raises(ValueError, match="there is no image"):
        calibrate(detector, [], add_noise, [0, 0.1], LAMBDAS)
    with pytest.raises(ValueError, match="there is no batch of images"):
        predict(detector, [], calibration)
    with pytest.raises(ValueError, match=r"an iterator can be read only once; give a list, a DataLoader that does"):
        predict(detector, iter([x]), calibration)
    with pytest.raises(ValueError, match="mode 'image' is unknown; choose 'dataset' or 'batch'"):
        predict(detector, x, calibration, mode="image")


def test_a_line_remembers_the_lambda_at_which_its_residuals_were_measured(detector):
    x, y = atom_images(detector, 60, seed=1)
    fitted = calibrate(detector, [(x, y)], add_noise, levels=[0, 0.2], lambdas=[0.2, 0.4], lambda0=0.2)
    residuals = [evaluate_at(detector, [(add_noise(x, std), y)], [0.2], 0.2).residuals.mean() for std in (0, 0.2)]
    assert fitted.lambda0 == 0.2
    assert [fitted.residual_min, fitted.residual_max] == pytest.approx(sorted(residuals))


def test_residuals_are_measured_at_the_lambda_of_the_network_where_none_is_given(detector):
    x, y = atom_images(detector, 60, seed=1)
    detector = copy.deepcopy(detector)
    detector.csc.lmbd = 0.3
    options = {"levels": [0, 0.2], "lambdas": [0.2, 0.4]}
    fitted = calibrate(detector, [(x, y)], add_noise, **options)
    given = calibrate(detector, [(x, y)], add_noise, **options, lambda0=0.3)
    assert (fitted.lambda0, fitted.residual_min, fitted.residual_max) == (0.3, given.residual_min, given.residual_max)
    assert fitted.residual_max != calibrate(detector, [(x, y)], add_noise, **options, lambda0=0.1).residual_max


def test_robust_inference_without_images_or_levels_is_refused_in_a_sentence(detector):
    x, y = atom_images(detector, 20, seed=1)
    lambdas = [0.1, 0.2]
    with pytest.raises(ValueError, match="given 1 noise levels; a line takes at least 2"):
        calibrate(detector, [(x, y)], add_noise, levels=[0.1], lambdas=lambdas)
    for empty in ([], [(x[:0], y[:0])]):
        with pytest.raises(ValueError, match="there is no image; give batches of images and labels"):
            calibrate(detector, empty, add_noise, levels=[0, 0.2], lambdas=lambdas)
    with pytest.raises(ValueError, match="the residual of an image is not finite"):
        calibrate(detector, [(x, y)], lambda images, level: images * float("nan"), levels=[0, 0.2], lambdas=lambdas)
    with pytest.raises(ValueError, match="images are NoneType; give a tensor or an array"):
        calibrate(detector, [(x, y)], lambda images, std: None, levels=[0, 0.2], lambdas=lambdas)
    for wrong in ((x, y), [x], [(x, y, y)]):
        with pytest.raises(ValueError, match="each of the batches must be a pair, images and labels"):
            calibrate(detector, wrong, add_noise, levels=[0, 0.2], lambdas=lambdas)
    with pytest.raises(ValueError, match=r"pixels reach \d+; give floats in \[0, 1\], or uint8"):
        calibrate(detector, [(255 * x, y)], lambda x, std: (x + std).clamp(0, 1), levels=[0, 0.2], lambdas=lambdas)
    line = calibrate(detector, [(x, y)], add_noise, levels=[0, 0.2], lambdas=lambdas)
    with pytest.raises(ValueError, match=r"calibration is 0\.5; give what `calibrate` returns"):
        predict(detector, x, 0.5)
    with pytest.raises(ValueError, match="images are dict; give a tensor or an array"):
        predict(detector, [{"image": x}], line)
    for mode, batches in (("batch", []), ("dataset", []), ("dataset", x[:0]), ("batch", x[:0])):
        with pytest.raises(ValueError, match="there is no batch of images"):
            predict(detector, batches, line, mode=mode)
