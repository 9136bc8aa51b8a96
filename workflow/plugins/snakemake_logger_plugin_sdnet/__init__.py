"""Lets `snakemake --cores 8 --resources gpu=4 all` mean what it says.

Snakemake's options --resources, --config, --configfile and a few more take every word behind them, so that a target
there is read as one more resource, setting or file, and refused. Snakemake imports every package of this name before it
parses its arguments; this one moves such targets behind a "--", and names a configuration file that is not there, which
Snakemake answers with a traceback. As a logger it does nothing. Remove it when Snakemake's parser no longer needs it.
"""

import os
import re
import sys

from snakemake_interface_logger_plugins.base import LogHandlerBase

SETTING, FILE = re.compile("="), re.compile(r"\.(yaml|yml|json)$")
TRIGGER = re.compile("^(code|input|mtime|params|software-env)$")
DEPLOYMENT = re.compile("^(apptainer|conda|env-modules)$")
SILENCED = re.compile("^(all|host|progress|reason|rules)$")
# The greedy options, each with what tells its own words from targets.
GREEDY = {
    "--resources": SETTING,
    "--res": SETTING,
    "--config": SETTING,
    "-C": SETTING,
    "--set-threads": SETTING,
    "--set-resources": SETTING,
    "--default-resources": SETTING,
    "--configfile": FILE,
    "--configfiles": FILE,
    "--rerun-triggers": TRIGGER,
    "--software-deployment-method": DEPLOYMENT,
    "--sdm": DEPLOYMENT,
    "--quiet": SILENCED,
    "-q": SILENCED,
}


def targets_last(arguments: list[str]) -> list[str]:
    """The arguments, with the words that a greedy option would swallow moved to the end; its own stay with it."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options, targets, own = [], arguments[cut + 1 :], None
    for argument in arguments[:cut]:
        if argument.startswith("-"):
            own = GREEDY.get(argument)
        swallowed = own and not own.search(argument) and not argument.startswith("-")
        (targets if swallowed else options).append(argument)
    return [*options, "--", *targets] if targets else options


def missing_file(arguments: list[str]) -> str | None:
    """The first configuration file that is not there."""
    option = ""
    for argument in arguments:
        if argument.startswith("-"):
            option = argument
        elif GREEDY.get(option) is FILE and not os.path.exists(argument):
            return argument
    return None


if os.path.basename(sys.argv[0]) == "snakemake":
    sys.argv[1:] = targets_last(sys.argv[1:])
    if missing := missing_file(sys.argv[1:]):
        sys.exit(f"--configfile: there is no file {missing}")


class LogHandler(LogHandlerBase):
    """What makes the package a plugin; it is never selected."""

    writes_to_stream = writes_to_file = needs_rulegraph = False
    has_filter = has_formatter = True

    def __post_init__(self) -> None:
        """Nothing to set up."""

    def emit(self, record) -> None:
        """Nothing to log."""
