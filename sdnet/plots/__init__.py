"""The paper's figures, drawn from result files."""

from sdnet.plots.attacks import attack_curves, transfer
from sdnet.plots.claims import scoreboard
from sdnet.plots.codes import code_histograms, dictionaries
from sdnet.plots.inversion import operator, reconstructions
from sdnet.plots.layout import save, style
from sdnet.plots.noise import fitted_lines, lambda_curves
from sdnet.plots.stability import stability_curves

__all__ = [
    "attack_curves",
    "code_histograms",
    "dictionaries",
    "fitted_lines",
    "lambda_curves",
    "operator",
    "reconstructions",
    "save",
    "scoreboard",
    "stability_curves",
    "style",
    "transfer",
]
