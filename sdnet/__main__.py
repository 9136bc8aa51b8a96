"""The command line: `python -m sdnet --help`. Each command imports what it needs when it runs."""

import errno
import logging
import signal
import sys
from pathlib import Path

import click

PathType = click.Path(path_type=Path)
OutFile = click.Path(path_type=Path, dir_okay=False)
ExistingFile = click.Path(path_type=Path, exists=True, dir_okay=False)
AtLeast1 = click.IntRange(1)
ExistingFolder = click.Path(path_type=Path, exists=True, file_okay=False)
NoiseName = click.Choice(["gaussian", "shot", "speckle", "impulse"])
GreyLevels = click.FloatRange(0, 255, min_open=True)
Positive = click.FloatRange(0, min_open=True)
ScaleName = click.Choice(["cifar", "imagenet"])
LevelsName = click.Choice(["interleaved", "released"])
VARIANTS = ("paper", "squared", "parabola", "released")
AUTOATTACK = "apgd-ce,apgd-t,fab-t,square"
ATTACKED_AT = "0.1,0.3,0.5,0.7,0.9,1.1,1.3,1.5"

# What to do about a place that cannot be written to.
PLACES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some of your quota there",
    errno.EROFS: "make it writable",
    errno.EACCES: "allow yourself to use it",
}

# What to do about errors of PyTorch, by a part of what it says.
REMEDIES = {
    "out of memory": "the GPU's memory is too small: lower the recipe's batch_size or the width",
    "can't allocate memory": "the memory is too small: lower the recipe's batch_size or the width",
    "deterministic implementation": "a step has no deterministic form here: set the recipe's deterministic to false",
}

data_option = click.option(
    "--data",
    "data_path",
    type=PathType,
    help="The .npz of CIFAR, or the folder of ImageNet or your own images.  [default: as config/config.yaml says]",
)
gpus_option = click.option(
    "--gpus", type=click.IntRange(0), default=1, show_default=True, help="GPUs to hold; 0 for the CPU."
)


class Numbers(click.ParamType):
    """A list of numbers with commas between."""

    name = "numbers"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        """The numbers; click names the option if they are none."""
        try:
            return [float(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"given {value!r}; must be numbers with commas between, such as 0.1,0.5,1", param, ctx)


class PictureFile(click.Path):
    """A .png to write."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path; click names the option if it is of another format."""
        path = super().convert(value, param, ctx)
        if path.suffix != ".png":
            self.fail(f"given {value!r}; must end in .png", param, ctx)
        return path


class SpecFile(click.Path):
    """A run's spec.json, or its folder."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The spec.json, which need not be there in a folder."""
        path = super().convert(value, param, ctx)
        return path / "spec.json" if path.is_dir() else path


OutPicture = PictureFile(path_type=Path, dir_okay=False)
ExistingSpec = SpecFile(path_type=Path, exists=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show where an error came from.")
def cli(debug: bool) -> None:
    """SDNet (NeurIPS 2022), replicated. Snakemake calls these commands; each can be called by hand."""


@cli.command()
@click.option("--preset", default="paper", show_default=True, help="Of config/presets/.")
@click.option("--configfile", "site_file", type=ExistingFile, help="Your own values, as given to Snakemake.")
@click.option("--measure", is_flag=True, help="Estimate the hours too, from a short measurement of each network.")
@click.option("--gpus", type=click.IntRange(0), default=1, show_default=True, help="How many; 0 for the CPU.")
def plan(preset: str, site_file: Path | None, measure: bool, gpus: int) -> None:
    """What a preset will run: runs, jobs, images, disk. With --measure, hours on this machine, too."""
    from sdnet.commands.plan import show

    show(preset, site_file, measure, gpus)


@cli.command()
@click.argument("folders", type=ExistingFolder, nargs=-1)
@click.option("--every", type=click.FloatRange(min=0.1), help="Again after so many seconds, until all are trained.")
def status(folders: tuple[Path, ...], every: float | None) -> None:
    """How far each run is: state, epoch, accuracy, time left. FOLDERS: of results; by default all."""
    from sdnet.commands.status import show

    show(folders, every)


@cli.command()
@click.argument("name", type=click.Choice(["cifar10", "cifar100", "cifar10-c", "cifar100-c"]))
@click.option("--url", "urls", multiple=True, help="Address of the archive; repeatable, tried in order.")
@click.option("--checksum", help="Of the archive: md5:... or sha256:...")
@click.option("--out", type=PathType, help="The .npz or, of noisy images, the folder to write.  [default: in data_dir]")
def data(name: str, urls: tuple[str, ...], checksum: str | None, out: Path | None) -> None:
    """Download, check and pack a data set. From where, and to where: see config/config.yaml."""
    from sdnet.commands.data import data
    from sdnet.experiments.settings_files import SITE_FILE, data_dir

    if not (urls and checksum):
        from sdnet.experiments.settings import load_site, read_yaml

        download = load_site(read_yaml(SITE_FILE)).downloads[name]
        urls, checksum = urls or tuple(download.urls), checksum or download.checksum
    file = name if name.endswith("-c") else f"{name}.npz"
    data(name, urls, checksum, out or data_dir() / file)


@cli.command()
@click.argument("spec", type=ExistingSpec)
@data_option
@gpus_option
@click.option("--processes", type=click.IntRange(1), help="With --gpus 0: how many share the training.  [default: 1]")
def train(spec: Path, data_path: Path | None, gpus: int, processes: int | None) -> None:
    """Train a network, or go on from its last checkpoint. SPEC: a run's spec.json, or its folder."""
    from sdnet.commands.train import train

    train(spec, data_path, gpus, processes)


@cli.command("import-released")
@click.argument("checkpoint", type=ExistingFile)
def import_released(checkpoint: Path) -> None:
    """Make a run of weights that the authors released. All but training then works on it."""
    from sdnet.commands.import_released import import_released

    import_released(checkpoint)


@cli.command()
@click.argument("run", type=ExistingFolder)
@data_option
@gpus_option
def evaluate(run: Path, data_path: Path | None, gpus: int) -> None:
    """Test a trained network: accuracy, codes, dictionary. RUN: its folder."""
    from sdnet.commands.evaluate import evaluate

    evaluate(run, data_path, gpus)


def noise_options(command):
    """The options that say which noise is meant, and at which lambdas."""
    options = [
        click.option("--noise", required=True, type=NoiseName, help="Which type of noise."),
        click.option(
            "--lambdas", required=True, type=Numbers(), help="Sparsity weights to try, ascending, with commas between."
        ),
        click.option(
            "--scale", type=ScaleName, default="cifar", show_default=True, help="Whose severities generated noise has."
        ),
        click.option("--noise-seed", type=click.IntRange(0), default=0, show_default=True, help="Of generated noise."),
        click.option("--official", type=ExistingFolder, help="Folder of CIFAR-10-C or ImageNet-C; else generated."),
        click.option("--images", type=AtLeast1, help="Test images, class-balanced.  [default: all]"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def checked_variants(text: str) -> list[str]:
    """The variants of Algorithm 1 in a list with commas between."""
    given = [part.strip() for part in text.split(",")]
    if "paper" not in given or not set(given) <= set(VARIANTS):
        raise ValueError(
            f"--variants: given {text!r}; must be paper, which the attacks take, and any of {', '.join(VARIANTS[1:])}, "
            "with commas between"
        )
    return given


@cli.command()
@click.argument("run", type=ExistingFolder)
@data_option
@noise_options
@gpus_option
def sweep(run, data_path, noise, lambdas, scale, noise_seed, official, images, gpus) -> None:
    """Accuracy against lambda, under one noise (Figure 2). RUN: the folder of a trained network."""
    from sdnet.commands.sweep import sweep
    from sdnet.runs.noisy import Noise

    sweep(run, data_path, Noise(noise, scale, noise_seed, official), lambdas, images, gpus)


@cli.command()
@click.argument("run", type=ExistingFolder)
@data_option
@noise_options
@gpus_option
def stability(run, data_path, noise, lambdas, scale, noise_seed, official, images, gpus) -> None:
    """How far noise moves what the first layer puts out. RUN: the folder of a trained network."""
    from sdnet.commands.stability import stability
    from sdnet.runs.noisy import Noise

    stability(run, data_path, Noise(noise, scale, noise_seed, official), lambdas, images, gpus)


@cli.command()
@click.argument("run", type=ExistingFolder)
@data_option
@noise_options
@click.option(
    "--levels",
    type=LevelsName,
    default="interleaved",
    show_default=True,
    help="The set C of Algorithm 1: ours for CIFAR-10-C, or the released code's.",
)
@click.option("--calibration-images", type=AtLeast1, default=2000, show_default=True, help="Training images to fit on.")
@click.option(
    "--variants",
    default="paper",
    show_default=True,
    help=f"Variants of Algorithm 1, with commas between: paper, and any of {', '.join(VARIANTS[1:])}.",
)
@gpus_option
def calibrate(
    run, data_path, noise, lambdas, scale, noise_seed, official, images, levels, calibration_images, variants, gpus
) -> None:
    """Algorithm 1: fit lambda(r), and test with it. RUN: the folder of a network that has been swept."""
    from sdnet.commands.calibrate import calibrate
    from sdnet.runs.noisy import Noise

    calibrate(
        run,
        data_path,
        Noise(noise, scale, noise_seed, official),
        lambdas,
        levels=levels,
        images=calibration_images,
        limit=images,
        variants=checked_variants(variants),
        gpus=gpus,
    )


def attack_options(command):
    """The options that every attack has."""
    options = [
        click.option("--lambdas", default=ATTACKED_AT, show_default=True, type=Numbers(), help="To predict at."),
        click.option("--linf", default=8.0, show_default=True, type=GreyLevels, help="L-inf radius, in grey levels."),
        click.option("--l2", default=0.5, show_default=True, type=Positive, help="L2 radius, in pixels of 0 to 1."),
        click.option(
            "--noise",
            default="gaussian",
            show_default=True,
            type=NoiseName,
            help="Whose fitted line Algorithm 1 takes.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def adaptive_options(command):
    """The further options of attackers who know the defence."""
    options = [
        click.option("--images", type=AtLeast1, default=1000, show_default=True, help="Test images, class-balanced."),
        click.option("--steps", type=AtLeast1, default=50, show_default=True, help="Of gradient descent."),
        click.option("--reference", type=ExistingFolder, help="An attacked ResNet-18, whose images are tried here."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def radii(linf: float, l2: float) -> dict[str, float]:
    """The radius in each norm, in pixels of [0, 1]."""
    return {"linf": linf / 255, "l2": l2}


@cli.command()
@click.argument("run", type=ExistingFolder)
@data_option
@attack_options
@click.option("--images", type=AtLeast1, help="Test images, class-balanced.  [default: all]")
@gpus_option
def attack(run, data_path, lambdas, linf, l2, noise, images, gpus) -> None:
    """Attack a network by the paper's protocol (Table 4). RUN: its folder; it has been calibrated."""
    from sdnet.commands.attack import attack_as_the_paper
    from sdnet.commands.target import Defence

    attack_as_the_paper(run, data_path, radii(linf, l2), images, Defence(lambdas, noise), gpus)


@cli.command()
@click.argument("run", type=ExistingFolder)
@data_option
@attack_options
@adaptive_options
@click.option("--attack-lambdas", default=ATTACKED_AT, show_default=True, type=Numbers(), help="To craft at.")
@click.option("--restarts", type=AtLeast1, default=5, show_default=True, help="Of the strongest descent.")
@click.option(
    "--autoattack",
    default=AUTOATTACK,
    show_default=True,
    help="Its attacks, any of the default's with commas between; '' for none.",
)
@click.option(
    "--autoattack-images", type=AtLeast1, default=1000, show_default=True, help="How many of the images it gets."
)
@gpus_option
def attack_adaptive(
    run,
    data_path,
    lambdas,
    linf,
    l2,
    noise,
    images,
    steps,
    reference,
    attack_lambdas,
    restarts,
    autoattack,
    autoattack_images,
    gpus,
) -> None:
    """Attack a network, knowing its defence (Table 4). RUN: its folder; it has been attacked as in the paper."""
    from sdnet.commands.attack import Effort, attack_adaptively
    from sdnet.commands.target import Defence

    attacks = [name for name in autoattack.split(",") if name]
    effort = Effort(attack_lambdas, steps, restarts, attacks, autoattack_images)
    defence = Defence(lambdas, noise)
    attack_adaptively(run, data_path, radii(linf, l2), images, defence, effort, reference, gpus)


@cli.command()
@click.argument("run", type=ExistingFolder)
@data_option
@attack_options
@adaptive_options
@click.option("--square/--no-square", default=True, show_default=True, help="Try a black-box attack, which is slow.")
@gpus_option
def diagnose(run, data_path, lambdas, linf, l2, noise, images, steps, reference, square, gpus) -> None:
    """Check whether the attacks on a network are good ones. RUN: its folder; it has been attacked adaptively."""
    from sdnet.commands.diagnose import diagnose
    from sdnet.commands.target import Defence

    defence = Defence(lambdas, noise)
    diagnose(run, data_path, radii(linf, l2), images, defence, steps, square, reference, gpus)


@cli.command()
@click.argument("run", type=ExistingFolder)
@data_option
@click.option("--images", type=click.IntRange(2), default=100, show_default=True, help="Test images to reconstruct.")
@gpus_option
def invert(run: Path, data_path: Path | None, images: int, gpus: int) -> None:
    """Reconstruct images from their codes (Figures 1 and 4). RUN: the folder of a trained network."""
    from sdnet.commands.invert import invert

    invert(run, data_path, images, gpus)


@cli.command()
@click.argument("specs", type=ExistingSpec, nargs=-1, required=True)
@click.option("--out", type=OutFile, required=True, help="The CSV file to write.")
@click.option("--batch-size", type=AtLeast1, help="Images a step.  [default: that of each run]")
@gpus_option
def benchmark(specs: tuple[Path, ...], out: Path, batch_size: int | None, gpus: int) -> None:
    """Measure speed and memory of networks in training. SPECS: spec.json or folders of runs, resnet18 among them."""
    from sdnet.commands.benchmark import benchmark

    benchmark(specs, out, batch_size, gpus)


@cli.command()
@click.argument("spec", type=ExistingSpec)
@data_option
@click.option("--seeds", type=AtLeast1, default=3, show_default=True, help="How many trainings in each loop.")
def benchmark_loop(spec: Path, data_path: Path | None, seeds: int) -> None:
    """Our training loop against a plain one, on the CPU. SPEC: a run's spec.json, or its folder."""
    from sdnet.commands.loops import compare

    compare(spec, data_path, seeds)


@cli.command()
@click.option("--out", type=OutPicture, required=True, help="The picture to write, a .png.")
@gpus_option
def benchmark_growth(out: Path, gpus: int) -> None:
    """Measure what a training step and a sweep cost. Of growing batches, images, networks and iterations."""
    from sdnet.commands.growth import growth

    growth(out, gpus)


@cli.command()
@click.argument("source", type=ExistingFile)
@click.option("--results", "folder", required=True, help="The notebook's parameter `results`, a results folder.")
@click.option("--out", type=PathType, required=True, help="Folder of the executed copy and its HTML page.")
def notebook(source: Path, folder: str, out: Path) -> None:
    """Execute a notebook, which writes its table or figure. SOURCE: one of notebooks/."""
    from sdnet.commands.notebook import notebook

    notebook(source, {"results": folder}, out / source.name, out / f"{source.stem}.html")


@cli.command()
@click.argument("folder", type=ExistingFolder)
def claims(folder: Path) -> None:
    """Judge the paper's claims by a results folder. It need not be complete."""
    from sdnet.commands.claims import judge

    judge(folder)


@cli.command()
@click.argument("folders", type=ExistingFolder, nargs=-1, required=True)
@click.option("--picture", type=OutPicture, help="Draw them, too: the picture to write, a .png.")
def compare(folders: tuple[Path, ...], picture: Path | None) -> None:
    """Print the verdicts of results folders side by side. In Markdown."""
    from sdnet.commands.compare import draw, read_verdicts, side_by_side

    judged = read_verdicts(list(folders))
    if picture:
        draw(judged, picture)
    print(side_by_side(judged))


@cli.command()
@click.argument("folder", type=ExistingFolder)
def report(folder: Path) -> None:
    """Write the report of a results folder, as one page. FOLDER: its claims have been judged."""
    from sdnet.commands.report import report

    report(folder)


@cli.command()
@click.argument("folder", type=ExistingFolder)
def track(folder: Path) -> None:
    """Bring MLflow up to date with a results folder. It gets the epochs that it missed, and every result file."""
    from sdnet.commands.track import track

    track(folder)


def main() -> None:
    """Run a command; an error is one sentence, unless --debug asks for its origin."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Slurm ends a job at its time limit: like Ctrl-C
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit("interrupted; the same command goes on from the last checkpoint")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (ValueError, OSError, ArithmeticError, ModuleNotFoundError, RuntimeError) as error:
        if "--debug" in sys.argv or not (sentence := _sentence(error)):
            raise
        sys.exit(f"error: {sentence}")


def _sentence(error: Exception) -> str | None:
    """What went wrong and what to do; None for an error that is the program's own."""
    if isinstance(error, OSError) and error.errno in PLACES:
        remedy = f"{PLACES[error.errno]}, then the same command goes on; what was there before is untouched"
        return f"{error.filename}: {error.strerror.lower()}: {remedy}"
    if not isinstance(error, RuntimeError):
        return str(error)
    reason = " ".join(str(error).split())
    return next((f"{remedy} ({reason})" for sign, remedy in REMEDIES.items() if sign in reason), None)


if __name__ == "__main__":
    main()
