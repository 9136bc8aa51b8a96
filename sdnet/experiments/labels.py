"""What data sets, networks, tables and figures are called."""

DATASETS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "imagenet": "ImageNet",
    "digits": "scikit-learn digits",
    "folder": "image folder",
}
SYSTEMS = {
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "mdeq": "MDEQ",
    "scn": "SCN",
    "scn18": "SCN-18",
    "sdnet18": "SDNet-18",
    "sdnet34": "SDNet-34",
    "sdnet18-iter4": "SDNet-18, 4 iterations",
    "sdnet18-iter8": "SDNet-18, 8 iterations",
    "sdnet18-all": "SDNet-18-All",
    "sdnet34-all": "SDNet-34-All",
    "sdnet18-all-nonnegative": "SDNet-18-All, released reading",
    "sdnet18-all-plain": "SDNet-18-All without shortcuts",
    "sdnet18-nonnegative": "SDNet-18, released reading",
}
# Of tables and figures; before a colon, what they are called for short.
TITLES = {
    "table1": "Table 1: accuracy, size, memory and speed",
    "table2": "Table 2: Gaussian noise by severity",
    "table3": "Table 3: four noises",
    "table4": "Table 4: attacks",
    "table5": "Table 5: FISTA iterations",
    "table6": "Table 6: CSC layers throughout",
    "readings": "The two readings of the layer",
    "control": "A control for Algorithm 1: batch norms re-estimated on the noisy images",
    "figure1": "Figure 1: a code and its atoms add up to an image",
    "figure2": "Figure 2: accuracy against λ under noise",
    "figure3": "Figure 3: the best λ against the residual",
    "figure4": "Figure 4: images back from the codes of each layer",
    "figure5": "Figure 5: the learned dictionary",
    "figure6": "Figure 6: how sparse the codes are",
    "figure_attacks": "Accuracy against λ under attack",
    "figure_transfer": "Accuracy by the λ of the attacker and that of the prediction",
    "figure_stability": "How far noise moves the first layer's output",
}
VERDICTS = {  # what came of a claim, and what that means
    "replicated": "holds, and by about as much as in the paper, or more",
    "direction": "holds; by how much is another matter, or cannot be judged at this scale or by one seed",
    "against": "does not hold in these runs, which are too few, too short or too narrow to contradict it",
    "contradicted": "does not hold, beyond the uncertainty of images and seeds, at the scale of these runs",
    "undecided": "neither is certain, or no fair comparison",
    "not run": "results are missing",
}
NORMS = {"linf": "L∞", "l2": "L2"}
KEPT = "kept for the backward pass"  # memory, in place of the peak of a GPU's


def dataset_label(name: str, source: str = "official") -> str:
    """The data set's name, with what its images are instead where they are not the official ones."""
    title = DATASETS[name]
    return title if source == "official" or name == "digits" else f"{title} ({source})"


def system_label(name: str) -> str:
    """The network's name as the paper prints it; a variant that the paper lacks, as its preset names it."""
    return SYSTEMS.get(name, name)


def radius_label(norm: str, eps: float) -> str:
    """A radius as it is printed: in grey levels of 255 in the L-inf norm, for pixels of [0, 1] in the L2 norm."""
    return f"{NORMS[norm]} {f'{255 * eps:g}/255' if norm == 'linf' else f'{eps:g}'}"


def scale_label(width: int, epochs: int, train_images: int) -> str:
    """At what scale a number was made, so that a small run is never taken for the paper's."""
    if epochs == 0:
        return f"width {width}, the authors' released weights"
    return f"width {width}, {epochs} {'epoch' if epochs == 1 else 'epochs'}, {train_images:,} training images"


def duration(seconds: float) -> str:
    """A length of time as a person says it: 40 s, 12 min, 3.5 h, 2.1 days."""
    for limit, unit, length, digits in ((100, "s", 1, 0), (6000, "min", 60, 0), (172800, "h", 3600, 1)):
        if seconds < limit:
            return f"{seconds / length:.{digits}f} {unit}"
    return f"{seconds / 86400:,.1f} days"
