"""The report of a real, small project: what is on it, that it loads nothing, and that it fits a phone."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
from small_project import PROJECT, RESULTS, sdnet

from sdnet.commands.claims import judge
from sdnet.experiments import catalogue, environment, report, results
from sdnet.experiments.claims.claim import load_claims
from sdnet.experiments.columns import COLUMNS
from sdnet.experiments.labels import VERDICTS
from sdnet.experiments.project import typed_folder
from sdnet.experiments.settings.loading import load_preset
from sdnet.files import write_text

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
# What makes a browser load something, in HTML and in CSS.
LOADS = (
    r"""<(?:script|link|img|iframe|source|video)[^>]*?(?:src|href)=["']?(?!data:)[^"' >]+|@import|url\((?!["']?data:)"""
)


@pytest.fixture(scope="module")
def page(built):
    return (built / RESULTS / "report.html").read_text()


def test_the_report_has_the_verdict_first_then_all_tables_and_figures(page):
    parts = ["The verdict", "Tables and figures", "Cost", "Provenance"]
    parts += ["Where the paper's text and its authors' code differ"]
    assert [unescape(part) for part in re.findall(r"<h2[^>]*>(.*?)<", page)] == parts
    for claim in load_claims(PROJECT / "config" / "claims.yaml"):
        assert f'<tr id="{claim.id}">' in page
    assert set(re.findall(r'<b class="[a-z-]+">([a-z ]+)</b>', page)) == set(VERDICTS)
    for name in (*catalogue.TABLES, *catalogue.FIGURES):
        assert report.TITLES[name] in page
    assert page.count("data:image/png;base64") == len(catalogue.FIGURES)
    assert "Not there yet" not in page


def test_every_claim_is_judged_that_the_networks_and_noises_of_the_project_allow(built):
    judged = pd.read_csv(built / RESULTS / "claims.csv")
    lacking = {"P2", "C13", "A2"}  # of CIFAR-100, ImageNet, and a radius on CIFAR-10: nothing stands in
    lacking |= {"P6", "P7", "P8", "P9", "C9", "P10", "P11", "C14"}  # MDEQ, SCN, SDNet-18-All, more iterations
    lacking |= {"C11"}  # another noise
    assert set(judged.claim[judged.verdict == "not run"]) == lacking


def test_the_report_says_at_the_top_that_digits_are_no_photographs(page):
    top = page[: page.index("The verdict")]
    assert "Handwritten digits of 8 by 8 pixels stand in for photographs." in top
    assert "networks of width 4, not 64" in top
    assert "1 of 3 seeds" in top
    assert "noise that is not the official one: generated, cifar severities" in top
    assert "no CIFAR-10, no CIFAR-100, no ImageNet" in top


def test_the_report_says_what_it_cost_and_with_what_it_was_made(page):
    cost = page[page.index("Cost</h2>" if "Cost</h2>" in page else ">Cost") : page.index("Provenance")]
    assert len(re.findall(r"<td>SDNet-18</td>", cost)) == 1
    made = page[page.index("Provenance") :]
    for name in ("commit", "device", "Python", "torch", "images of scikit-learn digits"):
        assert f"<td>{name}</td>" in made


@pytest.mark.parametrize(
    "name", ["report.html", *(f"notebooks/{name}.html" for name in (*catalogue.TABLES, *catalogue.FIGURES))]
)
def test_no_page_loads_anything(built, name):
    page = (built / RESULTS / name).read_text()
    assert re.findall(LOADS, page) == []
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page


@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
def test_the_report_is_no_wider_than_a_phone(page, tmp_path):
    """At the narrowest window of the browser without a screen, 500 pixels: what is wider scrolls in its own box."""
    measure = "<script>document.title = 'width ' + document.documentElement.scrollWidth</script>"
    (tmp_path / "page.html").write_text(page.replace("</body>", f"{measure}</body>"))
    options = ["headless", "no-sandbox", "disable-gpu", "disable-background-networking", "no-first-run", "dump-dom"]
    options += ["window-size=500,900", f"user-data-dir={tmp_path}/profile"]
    browse = [BROWSER, *(f"--{option}" for option in options)]
    shown = subprocess.run([*browse, f"file://{tmp_path}/page.html"], capture_output=True, text=True, timeout=120)
    (width,) = re.findall(r"<title>width (\d+)</title>", shown.stdout)
    assert int(width) <= 500


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A results folder without runs, of a preset without a recipe "default"."""
    shutil.copytree(PROJECT / "config", tmp_path / "config")
    recipes = "recipes: {fast: {epochs: 2}, mine: {epochs: 1}, unused: {epochs: 300}}"
    systems = "systems: {resnet18: {model: resnet18}, sdnet18: {model: sdnet18, recipe: mine}}"
    datasets = "datasets: {cifar10: {recipe: fast}}"
    preset = "\n".join(["description: mine", "extends: paper", "width: 8", systems, datasets, recipes])
    (tmp_path / "config/presets/mine.yaml").write_text(preset)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results/mine"
    folder.mkdir(parents=True)
    results.write(folder / "effects.csv", "effects", [])
    return folder


def test_the_recipes_in_use_say_how_far_below_the_paper_the_epochs_are(folder):
    assert "1 to 2 epochs of training, not 220 as for CIFAR-10" in report.opening(folder)


def test_results_behind_a_link_are_judged(folder, tmp_path):
    (tmp_path / "results").rename(tmp_path / "store")
    (tmp_path / "results").symlink_to("store")
    judge(Path("results/mine"))
    judged = results.read(tmp_path / "store/mine/claims.csv", "claims")
    assert set(judged.verdict) == {"not run"}
    assert "make them with: snakemake --cores all results/mine/" in judged.reason.iloc[0]


def test_a_project_behind_a_link_has_the_same_results_folders(folder, tmp_path, monkeypatch):
    link = tmp_path.with_name(f"link-to-{tmp_path.name}")
    link.symlink_to(tmp_path)
    monkeypatch.chdir(link)
    assert typed_folder(link / "results/mine") == typed_folder(Path("results/mine")) == (folder, "results/mine")


def test_a_number_of_images_is_said_where_it_is_not_all(folder):
    paper = load_preset("paper", PROJECT / "config/presets")
    said = {
        fitted: [line for line in report._reduced(preset, paper) if line.startswith("Algorithm 1")]
        for fitted in (2000, 50_000)
        for preset in [
            paper.model_copy(update={"robustness": paper.robustness.model_copy(update={"calibration_images": fitted})})
        ]
    }
    assert said[2000][0] == "Algorithm 1 fitted on 2,000 training images of CIFAR-10, not all"
    assert said[50_000] == ["Algorithm 1 fitted on 50,000 training images of ImageNet, not all"]


def test_each_outcome_of_a_claim_is_on_the_page_also_where_the_preset_lacks_its_networks(folder):
    rows = [
        {"claim": "P9", "reading": "text", "data": "CIFAR-10", "verdict": "replicated"},
        {"claim": "P9", "reading": "", "data": "ImageNet", "verdict": "not run"},
        {"claim": "A1", "reading": "", "data": "CIFAR-10", "verdict": "direction"},
    ]
    about = dict.fromkeys(("topic", "statement", "place", "quantity", "without", "reason", "paper", "scale"), "such")
    numbers = {"effect": 1.0, "low": 0.5, "high": 1.5, "n_seeds": 1, "implied": False, "stand_in": False}
    results.write(folder / "claims.csv", "claims", [about | numbers | row for row in rows])
    page = report.verdicts(folder)
    for row in rows:
        assert len(re.findall(rf">{row['verdict']}</b>.*?<summary>{row['data']}</summary>", page)) == 1, row
    assert page.count("colspan=2") == 1, "an attack on ResNet-18 is of no reading"


def test_the_differences_link_to_nothing_that_is_not_beside_the_report():
    text = report.differences()
    assert "](" not in text
    named = re.findall(r"\(`(docs/.+?)`\)", text)
    assert named
    assert all((PROJECT / document).exists() for document in named)


@pytest.fixture
def trained_on_two_machines(folder):
    """Two runs of 4 epochs of an hour each, on a GPU; the first two epochs of one were trained by 3 CPU processes."""
    gpu, cpu = (
        environment.describe(device) | {"packages": {"torch": version}}
        for device, version in (("GPU", "2.1"), ("3 x CPU, 1 thread", "2.0"))
    )
    epoch = dict.fromkeys(COLUMNS["history"], 1) | {"train_seconds": 3600}
    spec = {"system": "sdnet18", "training": {"epochs": 4}, "dataset": {"name": "cifar10", "checksum": None}}
    for seed, about in enumerate([gpu, gpu | {"earlier": [cpu | {"epochs": [1, 2]}]}]):
        run = folder / f"runs/cifar10/sdnet18/seed{seed}"
        results.write(run / "history.csv", "history", [epoch | {"epoch": k} for k in (1, 2, 3, 4)])
        write_text(run / "spec.json", json.dumps(spec))
        write_text(run / "environment.json", json.dumps(about))
    return folder


def test_each_epoch_s_hours_count_where_it_was_trained(trained_on_two_machines):
    rows = report.cost(trained_on_two_machines)[["Device", "Runs", "Device hours"]].to_numpy().tolist()
    assert rows == [["GPU", 2, 6], ["3 x CPU, 1 thread", 1, 6], ["", 2, 12]]


def test_the_provenance_has_the_environments_of_earlier_epochs(trained_on_two_machines):
    found = report.provenance(trained_on_two_machines).set_index(["What", "Value"]).Runs
    assert found["device"].to_dict() == {"GPU": 2, "3 x CPU, 1 thread": 1}
    assert found["torch"].to_dict() == {"2.0": 1, "2.1": 2}
    assert found["trained"].sum() == 2


@pytest.mark.parametrize("noise", ["local CIFAR-10-C", "generated, cifar severities", "official"])
def test_noise_that_is_not_the_official_one_is_named_at_the_top(folder, noise):
    columns = COLUMNS["effects"]
    results.write(folder / "effects.csv", "effects", [dict.fromkeys(columns, 0) | {"measure": noise}])
    assert (f"noise that is not the official one: {noise}" in report.opening(folder)) == (noise != "official")


def test_an_incomplete_folder_is_reported_with_what_makes_the_rest(project, snakemake, error_of, monkeypatch):
    for path in (project / RESULTS).glob("table5.*"):
        path.unlink()
    sdnet(project, snakemake.environment, "report", str(RESULTS))
    page = (project / RESULTS / "report.html").read_text()
    assert "<code>snakemake --cores all results/quick/table5.csv</code>" in page
    (project / RESULTS / "claims.csv").unlink()
    monkeypatch.chdir(project)
    message = error_of("report", project / RESULTS)
    assert f"make it with: python -m sdnet claims {project / RESULTS};" in message


def test_snakemake_s_own_report_has_every_caption(project, snakemake):
    snakemake.succeed(project, "quick", "--report", "own.html")
    page = (project / "own.html").read_text()
    for name in (*catalogue.TABLES, *catalogue.FIGURES, "report", "workflow"):
        caption = (PROJECT / "workflow" / "report" / f"{name}.rst").read_text()
        assert json.dumps(caption.split("\n")[0].strip("*")[:40])[1:-1] in page, name
    for category in ("Verdict", "Tables", "Figures"):
        assert f'"{category}"' in page
