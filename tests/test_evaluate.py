"""What is measured of a trained network recounts: accuracy, codes and dictionary."""

import re
import shutil

import pytest
import torch
from small_run import history, make_spec, start, weights

from sdnet.commands.evaluate import CodeHistogram, evaluate
from sdnet.commands.train import train
from sdnet.csc import CSCConv2d
from sdnet.experiments import results
from sdnet.runs.images import open_data
from sdnet.runs.network import load_model
from sdnet.runs.spec import read_spec

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("untracked")


@pytest.fixture(scope="module")
def network(trained):
    return load_model(trained, read_spec(trained / "spec.json"), 10, CPU)


@pytest.fixture(scope="module")
def codes(trained, network):
    """The codes of all test images at the first layer, from the model's own parts."""
    test = open_data(read_spec(trained / "spec.json"), None, CPU).test
    with torch.no_grad():
        return torch.cat([network.network.conv1(network.normalize(x)) for x, _ in test.epoch(0)])


def test_the_accuracy_recounts(trained, network):
    test = open_data(read_spec(trained / "spec.json"), None, CPU).test
    with torch.no_grad():
        correct = sum(int((network(x).argmax(1) == y).sum()) for x, y in test.epoch(0))
    accuracy = results.read(trained / "accuracy.csv", "accuracy").set_index("checkpoint")
    assert accuracy.loc["last", ["epoch", "correct", "total"]].tolist() == [3, correct, 60]
    rows = history(trained)
    best = rows.test_correct.argmax() + 1
    counted = correct if best == 3 else rows.test_correct.max()  # the last epoch's not once in each precision
    assert accuracy.loc["best_on_test", ["epoch", "correct"]].tolist() == [best, counted]
    assert set(accuracy.parameters) == {sum(p.numel() for p in network.parameters())}
    assert set(accuracy.train_images) == {96}


def test_the_best_epoch_on_the_test_images_is_the_history_s(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    rows = results.read(folder / "history.csv", "history")
    rows.loc[rows.epoch == 2, "test_correct"] = 60  # all of them
    results.write(folder / "history.csv", "history", rows.to_dict("records"))
    evaluate(folder, None, 0)
    accuracy = results.read(folder / "accuracy.csv", "accuracy").set_index("checkpoint")
    assert accuracy.loc["best_on_test", ["epoch", "correct", "total"]].tolist() == [2, 60, 60]
    unchanged = results.read(trained / "accuracy.csv", "accuracy").set_index("checkpoint")
    assert accuracy.loc["last"].equals(unchanged.loc["last"])


def test_the_share_of_zeros_and_every_bin_recount(trained, codes):
    bins = results.read(trained / "codes.csv", "codes")
    assert set(bins.layer) == {"network.conv1"}
    assert set(bins["lambda"]) == {0.1}
    assert bins["count"].sum() == codes.numel(), "each entry is in one bin"
    exact = bins.bin_low == bins.bin_high
    zeros = int((codes == 0).sum())
    assert bins[exact]["count"].tolist() == [zeros]
    assert 0 < zeros < codes.numel(), "the codes must be sparse, and not all zero"
    nonzero = codes[codes != 0]
    for row in bins[~exact].itertuples():
        # The edges are float32 numbers, printed with all their digits.
        low, high = (torch.tensor(edge, dtype=torch.float32) for edge in (row.bin_low, row.bin_high))
        assert row.count == int(((nonzero >= low) & (nonzero < high)).sum())
    assert (bins[~exact]["count"] > 0).sum() > 20, "the bins must resolve the distribution"


def test_an_entry_on_an_edge_is_in_the_upper_bin_and_one_beyond_the_first_batch_in_an_open_bin():
    histogram, layer = CodeHistogram(), CSCConv2d(1, 2, 3)
    histogram.count(layer, torch.tensor([-1.0, 0.0, 0.5]))  # sets the edges, from -1.1 to 1.1
    edges = histogram.edges.clone()
    before = [row["count"] for row in histogram.rows()]
    histogram.count(layer, torch.cat([edges, torch.tensor([-9.0, 9.0, 0.0])]))
    after = [row["count"] for row in histogram.rows()]
    added = [b - a for a, b in zip(before, after, strict=True)]
    assert added == [1, 1] + [1] * (len(edges) - 1) + [2], "zeros, below, each bin by its lower edge, above"


@pytest.mark.parametrize(("nonnegative", "lowest"), [(False, -1.1), (True, 0)])
def test_bins_reach_below_zero_only_for_codes_of_both_signs(nonnegative, lowest):
    histogram = CodeHistogram()
    histogram.count(CSCConv2d(1, 2, 3, nonnegative=nonnegative), torch.tensor([0.0, 0.5, 1.0]))
    assert histogram.edges[[0, -1]].tolist() == pytest.approx([lowest, 1.1])


def test_the_share_of_zeros_of_figure_6_is_that_of_the_codes(trained, codes):
    from sdnet.experiments.tables.codes import zero_shares

    shares = zero_shares(results.read(trained / "codes.csv", "codes"))
    assert shares.zero_percent.tolist() == pytest.approx([100 * float((codes == 0).double().mean())])


def test_the_dictionary_is_the_layer_s_weight(trained):
    weight = weights(trained)["network.conv1.weight"]
    entries = results.read(trained / "dictionary.csv", "dictionary")
    places = entries[["atom", "channel", "row", "column"]].to_numpy().T
    assert len(entries) == weight.numel()
    assert torch.equal(weight[tuple(torch.tensor(places))], torch.tensor(entries.value.to_numpy(dtype="float32")))
    norms = entries.groupby("atom").value.apply(lambda values: (values**2).sum() ** 0.5)
    assert norms.to_numpy() == pytest.approx(1, abs=1e-6)  # float32


def test_testing_again_gives_the_same_files_without_the_packages_it_does_not_need(trained, bare):
    files = {name: trained / name for name in ("accuracy.csv", "codes.csv", "dictionary.csv")}
    before = {name: path.read_bytes() for name, path in files.items()}
    process = start(bare, "evaluate", trained, "--gpus", 0)
    output, messages = process.communicate()
    assert process.returncode == 0, messages
    assert {name: path.read_bytes() for name, path in files.items()} == before
    assert re.fullmatch(r"digits/sdnet18/seed0: \d+ of 60 correct\n", output)


def test_a_network_without_a_csc_layer_has_no_codes_and_no_dictionary(tmp_path):
    spec = make_spec(tmp_path / "run", epochs=1)
    spec.write_text(spec.read_text().replace("sdnet18", "resnet18"))
    train(spec, None, 0)
    evaluate(spec.parent, None, 0)
    assert results.read(spec.parent / "codes.csv", "codes").empty
    assert results.read(spec.parent / "dictionary.csv", "dictionary").empty
    assert len(results.read(spec.parent / "accuracy.csv", "accuracy")) == 2


def test_an_untrained_run_names_the_command_that_trains_it(tmp_path, error_of):
    folder = make_spec(tmp_path / "run").parent
    assert error_of("evaluate", folder).endswith(f"train the run with: python -m sdnet train {folder}/spec.json")
