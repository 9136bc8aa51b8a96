"""`python -m sdnet benchmark-growth`: a table and a picture of costs."""

from PIL import Image

from sdnet.__main__ import cli
from sdnet.commands import benchmark_growth


def test_costs_are_measured_and_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark_growth, "BASE", {"batch size": 4, "width": 4, "image size": 16, "iterations": 2})
    monkeypatch.setattr(benchmark_growth, "GROWTH", {"batch size": (2, 4), "iterations": (1, 2)})
    monkeypatch.setattr(benchmark_growth, "LAMBDA_COUNTS", (1, 2))
    cli.main(["benchmark-growth", "--gpus", "0", "--out", str(tmp_path / "growth.png")], standalone_mode=False)
    table = capsys.readouterr().out
    columns, _, *lines = table.splitlines()
    assert columns.split() == ["system", "resnet18", "sdnet18", "sdnet18-all"]
    values, *costs = zip(*(line.split()[-4:] for line in lines), strict=True)
    assert values == ("2", "4", "1", "2", "1", "2")
    assert costs[0][2:] == ("NaN",) * 4, "ResNet-18 has neither iterations nor lambdas"
    assert all(float(cost) > 0 for cost in (*costs[0][:2], *costs[1], *costs[2]))
    with Image.open(tmp_path / "growth.png") as picture:
        assert picture.width > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["growth.png"]
