"""The command line: help, wrong usage, and errors in one sentence."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from small_run import edited, make_spec, start

from sdnet.__main__ import cli, main
from sdnet.commands import options

pytestmark = pytest.mark.usefixtures("untracked")


def test_a_benchmark_without_its_reference_is_refused(tmp_path, error_of):
    spec = make_spec(tmp_path / "run")
    message = error_of("benchmark", spec, "--out", tmp_path / "benchmark.csv")
    assert message == "benchmark: sdnet18 given; resnet18 must be among them, the ratios need it"


def test_a_benchmark_of_networks_of_unlike_width_is_refused(tmp_path, error_of):
    reference = edited(make_spec(tmp_path / "one"), model__name="resnet18", system="resnet18", model__width=8)
    message = error_of("benchmark", reference, make_spec(tmp_path / "two"), "--out", tmp_path / "benchmark.csv")
    assert message == "benchmark: given runs of width 8, 4; networks are compared at one"


@pytest.fixture
def notebook(tmp_path):
    """Writes a notebook of a parameters cell and one more."""
    import nbformat  # here, since it takes seconds

    def notebook(parameters, code):
        cells = [nbformat.v4.new_code_cell(parameters), nbformat.v4.new_code_cell(code)]
        cells[0].metadata["tags"] = ["parameters"]
        metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        path = tmp_path / "figure9.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
        return path

    return notebook


def test_a_notebook_with_other_parameters_is_refused(tmp_path, notebook, error_of):
    source = notebook("folder = 1\nwidth = 2", "")
    message = error_of("notebook", source, "--results", "results/quick", "--out", tmp_path / "out")
    assert message == f"{source}: unknown parameters results; it declares folder, width"
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_notebook_is_named(tmp_path, error_of):
    (tmp_path / "page.md").write_text("# A page")
    message = error_of("notebook", tmp_path / "page.md", "--results", "results/quick", "--out", tmp_path / "out")
    assert message.startswith(f"{tmp_path}/page.md is no notebook (")
    for content in ("{}", "[]"):
        (tmp_path / "page.ipynb").write_text(content)
        message = error_of("notebook", tmp_path / "page.ipynb", "--results", "results/quick", "--out", tmp_path / "out")
        assert message.startswith(f"{tmp_path}/page.ipynb is no notebook (")


def test_a_failing_notebook_is_kept_up_to_the_cell_that_failed(tmp_path, notebook, error_of, monkeypatch):
    source = notebook('results = "default"', "print(results)\n1 / 0")
    with tempfile.TemporaryDirectory() as sockets:  # a short path, as sockets need
        monkeypatch.setattr("tempfile.tempdir", sockets)
        message = error_of("notebook", source, "--results", "given", "--out", tmp_path / "out")
        assert not list(Path(sockets).glob("sdnet-*")), "nothing is left of them"
    executed = tmp_path / "out" / "figure9.ipynb"
    assert re.fullmatch(rf"{source} failed in cell \[\d\]: ZeroDivisionError: .*; executed copy: {executed}", message)
    assert "given" in executed.read_text(), "with the parameter it was given"
    assert not (tmp_path / "out" / "figure9.html").exists()


@pytest.mark.parametrize("command", [[], *([name] for name in cli.commands)])
def test_every_command_explains_itself(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sdnet", *command, "--help"])
    main()
    text = capsys.readouterr().out
    usage, sentence = text.split("\n\n")[:2]
    assert usage.startswith("Usage: ")
    assert len(sentence.split()) > 3, "what it does"


def test_the_list_of_commands_cuts_no_sentence_short():
    assert "..." not in CliRunner().invoke(cli, ["--help"], terminal_width=78).output.partition("Commands:")[2]


def test_every_option_of_every_command_explains_itself():
    options = [(name, one) for name, command in cli.commands.items() for one in command.params]
    assert [(name, one.opts) for name, one in options if isinstance(one, click.Option) and not one.help] == []


def test_the_command_line_offers_what_there_is():
    """Its own lists, which are there before torch is loaded."""
    from sdnet.commands.calibrate import VARIANTS
    from sdnet.data.corruptions import CALIBRATION_LEVELS, NOISES, STRENGTHS
    from sdnet.robustness.autoattack import STANDARD

    assert (*VARIANTS, "released") == options.VARIANTS
    assert options.AUTOATTACK == STANDARD
    choices = {"NoiseName": NOISES, "ScaleName": STRENGTHS, "LevelsName": CALIBRATION_LEVELS}
    for name, known in choices.items():
        assert tuple(getattr(options, name).choices) == tuple(known)


@pytest.mark.parametrize("command", ["calibrate", "attack-adaptive"])
def test_the_help_says_which_variants_and_attacks_there_are(command):
    text = re.sub(r"\s", "", CliRunner().invoke(cli, [command, "--help"]).output)  # its lines break at hyphens, too
    listed = {"calibrate": options.VARIANTS, "attack-adaptive": options.AUTOATTACK}
    assert all(name in text for name in listed[command])


@pytest.mark.parametrize(
    "arguments",
    [
        ["trian"],
        ["train"],
        ["train", "nowhere/spec.json"],
        ["train", "--epochs", "3"],
        ["data", "mnist"],
        ["--verbose"],
    ],
)
def test_wrong_usage_ends_with_code_2_and_says_what_is_wrong(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sdnet", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert re.search(r"^Error: .+", capsys.readouterr().err, re.MULTILINE)


def test_an_error_is_one_line_of_a_real_process_and_with_debug_keeps_its_traceback(tmp_path, bare, monkeypatch):
    process = start(bare, "evaluate", tmp_path)
    _, message = process.communicate()
    assert process.returncode == 1
    assert re.fullmatch(r"error: .+spec\.json is not there; .+\n", message)
    monkeypatch.setattr(sys, "argv", ["sdnet", "--debug", "evaluate", str(tmp_path)])
    with pytest.raises(FileNotFoundError, match="is not there"):
        main()


def test_help_answers_without_loading_torch(bare):
    code = (
        "import sys; from sdnet.__main__ import main; sys.argv[1:] = ['--help']; main(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("False")


@pytest.mark.parametrize("given", ["squared", "paper,foo", "paper,", ""])
def test_variants_that_are_unknown_or_lack_the_paper_s_are_refused(given):
    with pytest.raises(click.BadParameter) as error:
        options.Names(("paper", "squared"), needed="paper").convert(given, None, None)
    assert error.value.message == (
        f"given {given!r}; must be some of paper, squared, with commas between, paper among them"
    )


def test_names_may_have_blanks_around_their_commas_and_be_none():
    names = options.Names(options.AUTOATTACK)
    assert names.convert("square , apgd-ce", None, None) == ["square", "apgd-ce"]
    assert names.convert("", None, None) == []


def test_only_a_preset_s_results_folder_is_judged_and_reported(tmp_path, error_of):
    for command in ("claims", "report"):
        assert error_of(command, tmp_path).startswith(
            f"{tmp_path} is no preset's results folder; choose one of results"
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["attack-adaptive", "--attack-lambdas", "0.1;0.5"],
            "'--attack-lambdas': given '0.1;0.5'; must be numbers",
        ),
        (
            ["calibrate", "--variants", "squared"],
            "'--variants': given 'squared'; must be some of paper, squared, parabo",
        ),
        (["attack-adaptive", "--autoattack", "apgd"], "'--autoattack': given 'apgd'; must be some of apgd-ce, apgd-t"),
        (["benchmark", "--out", "."], "'--out': File '.' is a directory."),
        (["compare", "--picture", "claims.pdf"], "'--picture': given 'claims.pdf'; must end in .png"),
        (["attack", "--linf", "-8"], "'--linf': -8.0 is not in the range 0<x<=255"),
        (["attack", "--noise", "fog"], "'--noise': 'fog' is not one of 'gaussian', 'shot'"),
        (["evaluate", "--gpus", "-1"], "'--gpus': -1 is not in the range x>=0"),
    ],
)
def test_a_wrong_option_is_named_with_what_it_may_be(tmp_path, arguments, message):
    command, *options = arguments
    done = CliRunner().invoke(cli, [command, str(tmp_path), *options])
    assert (done.exit_code, message in done.output) == (2, True), done.output


def test_a_folder_without_runs_is_not_tracked(tmp_path, error_of):
    assert (
        error_of("track", tmp_path) == f"{tmp_path} holds no trained run; give a results folder, such as results/quick"
    )
