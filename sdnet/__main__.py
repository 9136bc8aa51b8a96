"""The command line: `python -m sdnet --help`. Each command imports what it needs when it runs."""

import logging
import signal
import sys
from pathlib import Path

import click

from sdnet.commands.errors import sentence
from sdnet.commands.options import (
    ATTACKED_AT,
    AUTOATTACK,
    VARIANTS,
    AtLeast1,
    DownloadedName,
    ExistingFile,
    ExistingFolder,
    ExistingSpec,
    LevelsName,
    Names,
    Numbers,
    OutFile,
    OutPicture,
    PathType,
    adaptive_options,
    attack_options,
    data_option,
    gpus_option,
    lambdas_option,
    noise_options,
)


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
@click.argument("name", type=DownloadedName)
@click.option("--url", "urls", multiple=True, help="Address of the archive; repeatable, tried in order.")
@click.option("--checksum", help="Of the archive: md5:... or sha256:...")
@click.option("--out", type=PathType, help="The .npz or, of noisy images, the folder to write.  [default: in data_dir]")
def data(name: str, urls: tuple[str, ...], checksum: str | None, out: Path | None) -> None:
    """Download, check and pack a data set. From where, and to where: see config/config.yaml."""
    from sdnet.commands.data import data

    data(name, urls, checksum, out)


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


@cli.command()
@click.argument("run", type=ExistingFolder)
@data_option
@lambdas_option
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
def renormalise(run, data_path, noise, scale, noise_seed, official, images, gpus) -> None:
    """Accuracy with batch norms of the noisy images. RUN: its folder. With a lambda, it has been calibrated."""
    from sdnet.commands.renormalise import renormalise
    from sdnet.runs.noisy import Noise

    renormalise(run, data_path, Noise(noise, scale, noise_seed, official), images, gpus)


@cli.command()
@click.argument("run", type=ExistingFolder)
@data_option
@lambdas_option
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
@lambdas_option
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
    type=Names(VARIANTS, needed="paper"),  # which the attacks take
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
        variants=variants,
        gpus=gpus,
    )


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
    type=Names(AUTOATTACK),
    default=",".join(AUTOATTACK),
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

    effort = Effort(attack_lambdas, steps, restarts, autoattack, autoattack_images)
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
    from sdnet.commands.benchmark_loop import compare

    compare(spec, data_path, seeds)


@cli.command()
@click.option("--out", type=OutPicture, required=True, help="The picture to write, a .png.")
@gpus_option
def benchmark_growth(out: Path, gpus: int) -> None:
    """Measure what a training step and a sweep cost. Of growing batches, images, networks and iterations."""
    from sdnet.commands.benchmark_growth import growth

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
        sys.exit("interrupted; the same command goes on from what is kept")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (ValueError, OSError, ArithmeticError, ModuleNotFoundError, RuntimeError) as error:
        if "--debug" in sys.argv or not (said := sentence(error)):
            raise
        sys.exit(f"error: {said}")


if __name__ == "__main__":
    main()
