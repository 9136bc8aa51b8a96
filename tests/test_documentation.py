"""What the documentation says is so: its commands and programs run, and the tests that it names exist."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from small_project import sdnet

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text()
RUN = "results/quick/runs/digits/sdnet18/seed0"
# Run by tests of their own, on archives and checkpoints that those make, or on several machines.
ELSEWHERE = ("python -m sdnet data", "python -m sdnet import-released", "results/released")
# Behind what is typed, which they win over: the longest command, on fewer images.
FEWER = {"attack-adaptive": ["--images", "4", "--steps", "2", "--attack-lambdas", "0.5"]}
FAULTS = (PROJECT / "docs/faults.md").read_text()


@pytest.mark.parametrize("file", sorted(set(re.findall(r"test_\w+\.py", FAULTS))))
def test_the_tests_that_faults_md_names_exist(file):
    passages = re.findall(rf"{re.escape(file)}:\s+([^;|)]+)", FAULTS)
    named = {name for passage in passages for name in re.findall(r"`(test_\w+)`", passage)}
    assert named
    assert named <= set(re.findall(r"^def (test_\w+)", (PROJECT / "tests" / file).read_text(), re.MULTILINE))


def readme_commands() -> list[str]:
    """What is typed by hand: every indented line of `python -m sdnet`, and the copy that they work on."""
    lines = [line.split("#")[0].strip() for line in re.findall(r"^    (.*)$", README, re.MULTILINE)]
    typed = [line for line in lines if line.startswith(("python -m sdnet ", "cp "))]
    return [line for line in typed if not any(part in line for part in ELSEWHERE)]


def test_the_commands_in_the_readme_run_one_after_the_other(project, tracking_uri):
    commands = readme_commands()
    assert len(commands) >= 10
    for line in commands:
        program, *words = shlex.split(line.replace(".../spec.json", f"{RUN}/spec.json"))
        if program == "cp":
            subprocess.run([program, *words], cwd=project, check=True)
            continue
        assert words[:2] == ["-m", "sdnet"]
        sdnet(project, {"MLFLOW_TRACKING_URI": tracking_uri}, *words[2:], *FEWER.get(words[2], []))


def test_the_programs_in_the_readme_run_one_after_the_other(project, monkeypatch):
    monkeypatch.chdir(project)
    names = {}
    programs = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(programs) == 4
    for program in programs:
        exec(program, names)
    assert not names["trained"].training
    assert names["residuals"][0].shape == (64,)
    assert names["classes"].shape == (100,)
    assert names["reconstruction"].shape == (64, 3, 32, 32)


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(str(p.relative_to(PROJECT)) for p in PROJECT.glob("docs/**/*.md"))]
)
def test_every_link_leads_to_a_file_and_a_heading_of_it(page):
    path = PROJECT / page
    links = [link for link in re.findall(r"\]\(([^)\s]+)", path.read_text()) if "://" not in link]
    lost = []
    for link in links:
        name, _, anchor = link.partition("#")
        aim = path.parent / name if name else path
        if not aim.exists() or (anchor and anchor not in headings(aim)):
            lost.append(link)
    assert lost == []


def headings(page):
    """The anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_the_citation_has_what_the_format_asks_for():
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert f'version = "{citation["version"]}"' in (PROJECT / "pyproject.toml").read_text()
