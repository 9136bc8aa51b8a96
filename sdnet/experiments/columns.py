"""The columns of every result file: tidy CSV, one observation a row, counts in place of percentages."""

from sdnet.experiments.labels import VERDICTS

TOGETHER = "all of these together"  # the attack of a row that counts each image at its worst

_RUN = {
    "dataset": "data set",
    "system": "network, as named in the preset",
    "seed": "seed of initialisation and augmentation",
}

_NOISY = _RUN | {
    "data_source": "official, or what the clean images are instead",
    "noise": "its kind, such as gaussian",
    "noise_source": "official, or a local CIFAR-10-C or ImageNet-C, or how it was generated",
}
_RESIDUALS = {
    "residual_norm": "||x - A(z)||_2 at the lambda of training, mean over images and CSC layers",
    "residual_squared": "the same, of the square",
}
_ATTACK = _RUN | {
    "data_source": "official, or what the images are instead",
    "norm": "linf or l2",
    "eps": "largest distance from the clean image, in pixels of [0, 1]",
    "step": "of the ladder of attacks, a to f, see sdnet/robustness/ladder.py; worst: all steps",
    "attack": "what it does, in words; or all attacks of the step together, each image at its worst",
    "lambda_attack": "sparsity weight while crafting; empty for a network without one and for several attacks",
    "choice": "how lambda was chosen. given: in advance. tuned: the best on these very images; of several attacks, "
    "among the lambdas that images were crafted at. held-out: for each half of the images, the best on the other half. "
    "algorithm1: by Algorithm 1, for each batch of attacked images",
    "lambda": "at which images are classified; the mean where there are several; empty for a network without one",
    "clean_correct": "these images classified correctly without an attack",
    "correct": "of those, still classified correctly when attacked; of worst, whatever the attack",
    "total": "images",
    "gain": "robust accuracy minus that at the lambda of training, in percentage points; empty at that lambda itself",
    "gain_low": "lower end of its 95% interval: paired, over images",
    "gain_high": "upper end",
    "warnings": "AutoAttack's own, that its result may be unreliable",
}

COLUMNS: dict[str, dict[str, str]] = {
    # results/runs/<run>/history.csv
    "history": {
        "epoch": "epochs done",
        "learning_rate": "at the start of the epoch",
        "train_loss": "mean cross-entropy of the augmented training images, in nats, while training",
        "train_correct": "augmented training images classified correctly, while training",
        "train_total": "training images seen",
        "test_loss": "mean cross-entropy of the test images after the epoch, in nats",
        "test_correct": "test images classified correctly after the epoch",
        "test_total": "test images",
        "train_seconds": "wall-clock time of the epoch without evaluation",
        "peak_memory_bytes": "largest memory allocated on the GPU so far; empty on a CPU",
    },
    # results/runs/<run>/accuracy.csv
    "accuracy": _RUN
    | {
        "data_source": "official, or what the images are instead",
        "train_images": "number of training images",
        "width": "channels of the first stage; 64 in the paper",
        "epochs": "passes over the training images; 0 for imported weights",
        "parameters": "trainable parameters",
        "checkpoint": "last: after the last epoch, in float32; best_on_test: the epoch that the test set itself "
        "picked; where that is not the last epoch, counted while training, in its precision",
        "epoch": "epoch of the checkpoint",
        "correct": "test images classified correctly",
        "total": "test images",
    },
    # results/runs/<run>/codes.csv
    "codes": _RUN
    | {
        "layer": "name of the CSC layer",
        "lambda": "its sparsity weight",
        "bin_low": "lower edge; equal to bin_high for the exact zeros, which no other bin counts",
        "bin_high": "upper edge, exclusive",
        "count": "code entries in the bin, over all test images",
    },
    # results/runs/<run>/dictionary.csv
    "dictionary": _RUN
    | {
        "layer": "name of the first CSC layer",
        "atom": "number of the atom, c",
        "channel": "image channel, m",
        "row": "from the top",
        "column": "from the left",
        "value": "entry of the unit-norm atom",
    },
    # results/runs/<run>/sweep-<noise>.csv
    "sweep": _NOISY
    | {
        "severity": "1 (weakest) to 5; the paper's level is one less",
        "lambda": "sparsity weight of all CSC layers; empty for a network without one",
        "lambda0": "lambda of training; empty for a network without one",
        "correct": "noisy test images classified correctly",
        "total": "noisy test images",
        **_RESIDUALS,
    },
    # results/runs/<run>/renormalised-<noise>.csv
    "renormalised": _NOISY
    | {
        "severity": "1 (weakest) to 5; the paper's level is one less",
        "choice": "of lambda. trained: as in training, or a network without one. algorithm1: by Algorithm 1 as printed",
        "lambda": "sparsity weight of all CSC layers; empty for a network without one",
        "correct": "noisy test images classified correctly, with the batch norms' statistics of these images",
        "total": "noisy test images",
    },
    # results/runs/<run>/stability.csv
    "stability": _NOISY
    | {
        "severity": "1 (weakest) to 5; the paper's level is one less",
        "lambda": "sparsity weight of all CSC layers; empty for a network without one",
        "lambda0": "lambda of training; empty for a network without one",
        "n_iter": "FISTA iterations of the first layer; empty without a CSC layer, and of atoms",
        "n_iter0": "those of training",
        "images": "test images",
        "place": "layer: what the first layer makes of an image. behind: what reaches the next one, behind batch norm "
        "and, where there is one, ReLU. atoms: the convolution of the image with the atoms of the first layer, A*(x)",
        "noise_to_signal": "mean squared change of it by the noise, over its variance between clean images",
        "zeros": "share of its entries that are exactly zero, of clean images",
        "new": "share of its non-zero entries, of noisy images, that are zero of the clean ones",
        "image_noise_to_signal": "noise_to_signal of the images themselves",
    },
    # results/runs/<run>/calibration-<noise>.csv
    "calibration": _RUN
    | {
        "noise": "its kind, such as gaussian",
        "level": "the noise's parameter, in the set C of Algorithm 1; empty for clean images",
        "images": "training images that were used",
        "lambda": "sparsity weight of all CSC layers",
        "correct": "noisy training images classified correctly",
        "total": "noisy training images",
        **_RESIDUALS,
    },
    # results/runs/<run>/peaks-<noise>.csv
    "peaks": _RUN
    | {
        "noise": "its kind, such as gaussian",
        "variant": "how Algorithm 1 was read; paper: as printed",
        "level": "the noise's parameter; empty for clean images",
        "residual": "r_c, in units of the normalised image, or its square",
        "lambda": "lambda_c, of the highest accuracy",
        "lambda_std": "its standard deviation over bootstrap samples of the images",
        "plateau_low": "smallest lambda whose accuracy is within one standard error of the highest",
        "plateau_high": "largest such lambda",
        "at_grid_end": "whether the highest accuracy is at the smallest or the largest lambda tried",
    },
    # results/runs/<run>/lines-<noise>.csv
    "lines": _RUN
    | {
        "noise": "its kind, such as gaussian",
        "variant": "how Algorithm 1 was read; paper: as printed",
        "slope": "of lambda(r)",
        "intercept": "of lambda(r)",
        "r_squared": "of the fit",
        "lambda_min": "smallest lambda that was tried; predictions are clamped to it",
        "lambda_max": "largest lambda that was tried",
        "residual_min": "smallest r_c; below it lambda(r) is extrapolated",
        "residual_max": "largest r_c",
        "lambda0": "lambda of training, at which residuals are measured",
        "definition": "norm: mean l2 norm of the residual; squared: of its square",
    },
    # results/runs/<run>/adaptive-<noise>.csv
    "adaptive": _NOISY
    | {
        "variant": "how Algorithm 1 was read; paper: as printed",
        "severity": "1 to 5; 0 for clean images; mean: over 1 to 5",
        "residual": "r_test at lambda_0",
        "lambda": "lambda(r_test), used for prediction",
        "lambda_low": "lower end of its 95% interval over the calibration images",
        "lambda_high": "upper end",
        "clamped": "whether the line left the range of lambdas that were tried",
        "extrapolated": "whether r_test lies outside the residuals that the line was fitted to",
        "correct": "test images classified correctly at lambda(r_test)",
        "fixed_correct": "the same at lambda_0",
        "total": "test images",
        "gain": "accuracy at lambda(r_test) minus that at lambda_0, in percentage points",
        "gain_low": "lower end of its 95% interval, paired, over test and, from severity 1 on, calibration images",
        "gain_high": "upper end",
        "p_value": "exact two-sided p of McNemar's test",
    },
    # results/runs/<run>/inversion.csv
    "inversion": _RUN
    | {
        "data_source": "official, or what the images are instead",
        "depth": "number of the CSC layer, from 1",
        "layer": "its name",
        "image": "index of the test image",
        "psnr_db": "peak signal-to-noise ratio of the image reconstructed from its code, clipped to [0, 1], in dB",
        "contrast": "how far the reconstruction is from the mean over all images (l2 norm), over the same of the image",
        "correlation": "between these two differences: 1 where nothing but contrast is lost",
    },
    # results/runs/<run>/attack-paper.csv, attack-adaptive.csv
    "attack-paper": _ATTACK,
    "attack-adaptive": _ATTACK,
    # results/runs/<run>/diagnostics.csv
    "diagnostics": _RUN
    | {
        "norm": "linf or l2",
        "lambda": "sparsity weight of the attacked network; empty for a network without one",
        "images": "how many were attacked",
        "check": "D1 to D11, see sdnet/robustness/diagnostics.py",
        "what": "what was measured; percentage points of accuracy unless it says otherwise",
        "value": "the measurement",
        "threshold": "what is accepted; empty where it is only reported",
        "accepted": "whether it is; empty where it is only reported",
    },
    # results/benchmark/<dataset>.csv
    "benchmark": {
        "dataset": "data set whose image size was used",
        "system": "network, as named in the preset",
        "width": "channels of the first stage; 64 in the paper",
        "device": "what it ran on",
        "precision": "bfloat16 (autocast) or float32",
        "batch_size": "images a step",
        "threads": "CPU threads",
        "train_images_per_second": "whole training steps: forward, backward, update, projection",
        "inference_images_per_second": "forward passes in evaluation mode",
        "saved_bytes": "what one training step keeps for its backward pass, counted tensor by tensor",
        "peak_memory_bytes": "largest memory allocated on the GPU in a training step; empty on a CPU",
        "train_rate_ratio": "training rate over that of resnet18 in the same run, geometric mean over turns; on a CPU "
        "by processor time",
        "train_rate_ratio_low": "lower end of its 95% interval over the turns",
        "train_rate_ratio_high": "upper end",
        "saved_bytes_ratio": "saved_bytes over that of resnet18 in the same run",
    },
    # results/effects.csv
    "effects": {
        "dataset": "data set",
        "quantity": "accuracy and robust (under attack): percentage points of a difference, percent where `over` is "
        "empty. speed, memory, parameters: ratio. zeros: percent of the code's entries. new: percent of a "
        "noisy image's non-zero entries, those that are zero of the clean one. lambda: of a difference, its "
        "size. kendall, spearman: rank correlations. inversions: severities whose lambda is surely below that of a "
        "weaker one. r_squared. correlation: of an image with its reconstruction",
        "subject": "of what: a network, and how its lambda is chosen",
        "over": "what it is compared with; empty for what was measured itself",
        "condition": "clean, a noise, or the norm of an attack; empty for what has none",
        "level": "severity of the noise, 0 for clean images, or mean; depth of a layer; paper or worst, of attacks",
        "estimate": "mean over seeds",
        "low": "lower end of its 95% interval: over images, and over seeds if there are several; empty where not known",
        "high": "upper end",
        "n_seeds": "number of seeds",
        "paper": "the same of the paper's numbers; empty where it prints none",
        "data": "the images, in words",
        "official": "whether they are the official ones of the data set",
        "scale": "width, epochs and training images",
        "full_scale": "whether that is enough to judge the size of an effect",
        "unequal": "why networks make no fair comparison, such as how long each was trained; else empty",
        "measure": "how it was measured",
    },
    # results/claims.csv
    "claims": {
        "claim": "its id in config/claims.yaml",
        "topic": "what it is about",
        "statement": "the claim",
        "place": "where the paper makes it",
        "reading": "of the CSC layer. text: the paper's; released: that of the authors' code",
        "verdict": "; ".join(f"{name}: {meaning}" for name, meaning in VERDICTS.items()),
        "quantity": "what the effect is, with its unit",
        "effect": "mean over all that the first test of the claim looks at",
        "low": "lower end of its 95% interval; empty where none is known",
        "high": "upper end",
        "paper": "the same of the paper's numbers; empty where it prints none",
        "n_seeds": "number of seeds, of the effect with the fewest",
        "data": "the images that it was judged on, in words",
        "implied": "whether the paper does not say it itself: it follows from what it says, or is the next question",
        "stand_in": "whether the paper claims it of other images",
        "without": "networks that it is about and the preset does not have",
        "scale": "width, epochs and training images",
        "reason": "how the verdict came about, or what is missing",
    },
}

# Columns of words that may be empty, or be numbers by their looks.
TEXT = {
    "effects": ("over", "condition", "level", "unequal", "measure"),
    "claims": ("reading", "paper", "without", "scale", "reason"),
}
MAY_BE_EMPTY = ("history", "codes", "dictionary", "effects")  # imported weights, no CSC layer, nothing to compare
EXTRA = {"history": "solver_"}  # columns of this prefix are allowed too: what a network's inner solver reports
