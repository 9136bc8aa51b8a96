"""Lets `snakemake --cores 8 --resources gpu=4 all` mean what it says.

Snakemake's options --resources and --config take every word behind them, so that a target there is read as a resource
and refused. Snakemake imports every package of this name before it parses its arguments; this one moves such targets
behind a "--". As a logger it does nothing. Remove it when Snakemake's parser no longer needs it.
"""

import os
import sys

from snakemake_interface_logger_plugins.base import LogHandlerBase

GREEDY = ("--resources", "--res", "--config", "-C")


def targets_last(arguments: list[str]) -> list[str]:
    """The arguments, with the words that a greedy option would swallow moved to the end; NAME=VALUE stays with it."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options, targets, greedy = [], arguments[cut + 1 :], False
    for argument in arguments[:cut]:
        if argument.startswith("-"):
            greedy = argument in GREEDY
        swallowed = greedy and "=" not in argument and not argument.startswith("-")
        (targets if swallowed else options).append(argument)
    return [*options, "--", *targets] if targets else options


if os.path.basename(sys.argv[0]) == "snakemake":
    sys.argv[1:] = targets_last(sys.argv[1:])


class LogHandler(LogHandlerBase):
    """What makes the package a plugin; it is never selected."""

    writes_to_stream = writes_to_file = needs_rulegraph = False
    has_filter = has_formatter = True

    def __post_init__(self) -> None:
        """Nothing to set up."""

    def emit(self, record) -> None:
        """Nothing to log."""
