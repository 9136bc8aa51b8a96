"""The plugin that moves targets out of the reach of Snakemake's greedy options, against Snakemake's own parser."""

import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snakemake.cli import get_argument_parser
from snakemake_logger_plugin_sdnet import GREEDY, missing_file, targets_last

TARGETS = ("all", "quick", "results/table1.csv", "results/small/figure6.pdf")
# Options that take no word, or a fixed number of words.
PLAIN_OPTIONS = (["-n"], ["--dry-run"], ["-p"], ["--cores", "8"], ["-j4"], ["--lint"], ["--retries", "2"])
# What the greedy options are given, by what the parser makes of it.
GREEDY_VALUES = {
    "--resources": "gpu=4",
    "--res": "mem_mb=100",
    "--config": "data_dir=elsewhere",
    "-C": "flag=true",
    "--set-threads": "train=2",
    "--set-resources": "train:gpu=0",
    "--default-resources": "mem_mb=100",
    "--configfile": "mine.yaml",
    "--configfiles": "mine.json",
    "--rerun-triggers": "mtime",
    "--software-deployment-method": "conda",
    "--sdm": "apptainer",
    "--quiet": "rules",
    "-q": "all",
}

untimed = settings(deadline=None)  # other work on the machine is no failure


@pytest.fixture(scope="module")
def parsed():
    """What Snakemake's parser makes of some arguments."""
    parser = get_argument_parser()

    def parse(arguments):
        options = parser.parse_args(arguments)
        return {
            "targets": list(options.targets),
            "resources": {name: resource.value for name, resource in options.resources.items()},
            "config": options.config,
            "config files": options.configfile,
            "dry run": options.dryrun,
            "cores": options.cores,
            "deployment": options.software_deployment_method,
            "quiet": options.quiet,
        }

    return parse


@pytest.mark.parametrize(
    ("typed", "passed_on"),
    [
        ("--cores 8 --resources gpu=4 all", "--cores 8 --resources gpu=4 -- all"),
        ("--cores 8 --resources gpu=4 all -n", "--cores 8 --resources gpu=4 -n -- all"),
        ("-n --cores 8 --resources gpu=4 all", "-n --cores 8 --resources gpu=4 -- all"),
        ("--resources gpu=4 all --cores 8", "--resources gpu=4 --cores 8 -- all"),
        ("--resources mem_mb=100 gpu=2 quick -n", "--resources mem_mb=100 gpu=2 -n -- quick"),
        ("--resources gpu=4 all quick", "--resources gpu=4 -- all quick"),
        ("--res gpu=1 results/table1.csv", "--res gpu=1 -- results/table1.csv"),
        ("--set-threads train=2 quick", "--set-threads train=2 -- quick"),
        ("--set-resources train:gpu=0 quick", "--set-resources train:gpu=0 -- quick"),
        ("--default-resources mem_mb=100 quick -n", "--default-resources mem_mb=100 -n -- quick"),
        ("--config a=b quick -n", "--config a=b -n -- quick"),
        ("-C a=b quick --resources gpu=2 all", "-C a=b --resources gpu=2 -- quick all"),
        ("--resources gpu=1 all -- quick", "--resources gpu=1 -- quick all"),
        ("--sdm conda quick -n", "--sdm conda -n -- quick"),
        ("-n --quiet quick", "-n --quiet -- quick"),
        ("-n --configfile mine.yaml quick", "-n --configfile mine.yaml -- quick"),
        ("--configfiles a.yml b.json results/table1.csv -n", "--configfiles a.yml b.json -n -- results/table1.csv"),
    ],
)
def test_targets_behind_a_greedy_option_are_moved_to_the_end(typed, passed_on):
    assert targets_last(typed.split()) == passed_on.split()


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "-n",
        "all",
        "all --resources gpu=4",
        "all --resources gpu=4 -n",
        "--resources gpu=4 -- all",
        "--resources gpu=1 -- quick -n",  # behind "--" even -n is a target, and is left one
        "--resources gpu=4 --cores 8 all",
        "--resources=gpu=4 all",
        "--config a=b",
        "--cores 2 quick",
        "--configfile mine.yaml -n",
        "--forcerun train --resources gpu=1",
        "--until train all",
        "--quiet rules -- all",
    ],
)
def test_what_already_means_what_it_says_is_unchanged(typed):
    assert targets_last(typed.split()) == typed.split()


@given(st.lists(st.text().filter(lambda word: word not in (*GREEDY, "--"))))
@untimed
def test_without_a_greedy_option_nothing_changes(arguments):
    assert targets_last(arguments) == arguments


@given(
    st.lists(st.sampled_from([*GREEDY, "-n", "--cores", "8", "gpu=4", "all", "a b", ""])),
    st.lists(st.sampled_from(["all", "-n", "gpu=4", "--resources"])),
)
@untimed
def test_no_word_is_lost_and_once_is_enough(words, behind):
    arguments = [*words, "--", *behind] if behind else words
    moved = targets_last(arguments)
    assert sorted(word for word in moved if word != "--") == sorted([*words, *behind])
    assert targets_last(moved) == moved


@given(data=st.data())
@untimed
def test_the_parser_reads_what_was_meant(parsed, data):
    """Targets right behind a greedy option give what the same targets give when they stand first."""
    option = data.draw(st.sampled_from([*GREEDY]))
    values = [GREEDY_VALUES[option]]
    others = [target for target in TARGETS if not GREEDY[option].search(target)]  # `--quiet all` silences
    targets = data.draw(st.lists(st.sampled_from(others), min_size=1, max_size=3, unique=True))
    before, behind = (
        [word for words in data.draw(st.lists(st.sampled_from(PLAIN_OPTIONS), max_size=3)) for word in words]
        for _ in range(2)
    )
    typed = [*before, option, *values, *targets, *behind]
    assert parsed(targets_last(typed)) == parsed([*targets, *before, option, *values, *behind])


def test_a_configuration_file_that_is_not_there_is_found(tmp_path):
    (tmp_path / "mine.yaml").touch()
    there, gone = str(tmp_path / "mine.yaml"), str(tmp_path / "myne.yaml")
    assert missing_file(["-n", "--configfile", there, gone, "--", "quick"]) == gone
    assert missing_file(["--configfile", there, "-n", gone, "--", gone]) is None


def test_the_parser_still_needs_the_plugin(parsed, capsys):
    """When this fails, Snakemake reads the README's command by itself: remove the plugin."""
    with pytest.raises((ValueError, SystemExit)):
        parsed(shlex.split("--cores 8 --resources gpu=4 all"))
