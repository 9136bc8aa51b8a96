"""The command line: `python -m sdnet --help`. Each command imports what it needs when it runs."""

import logging
import sys
from pathlib import Path

import click

PathType = click.Path(path_type=Path)
ExistingFile = click.Path(path_type=Path, exists=True, dir_okay=False)
ExistingFolder = click.Path(path_type=Path, exists=True, file_okay=False)

data_option = click.option(
    "--data",
    "data_path",
    type=PathType,
    help="The .npz of CIFAR, or the folder of ImageNet or your own images.  [default: as config/config.yaml says]",
)
gpus_option = click.option("--gpus", default=1, show_default=True, help="GPUs to hold; 0 for the CPU.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show where an error came from.")
def cli(debug: bool) -> None:
    """SDNet (NeurIPS 2022), replicated. Snakemake calls these commands; each can be called by hand."""


@cli.command()
@click.argument("name", type=click.Choice(["cifar10", "cifar100"]))
@click.option("--url", "urls", multiple=True, help="Address of the archive; repeatable, tried in order.")
@click.option("--checksum", help="Of the archive: md5:... or sha256:...")
@click.option("--out", type=PathType, help="The .npz to write.  [default: data/<name>.npz]")
def data(name: str, urls: tuple[str, ...], checksum: str | None, out: Path | None) -> None:
    """Download a data set, check it, and pack it for loading; config/config.yaml says from where."""
    from sdnet.commands.data import data

    if not (urls and checksum):
        from sdnet.experiments.settings import load_site, read_yaml

        download = load_site(read_yaml(Path("config/config.yaml"))).downloads[name]
        urls, checksum = urls or tuple(download.urls), checksum or download.checksum
    data(name, urls, checksum, out or Path(f"data/{name}.npz"))


@cli.command()
@click.argument("spec", type=ExistingFile)
@data_option
@gpus_option
def train(spec: Path, data_path: Path | None, gpus: int) -> None:
    """Train the run that SPEC, a spec.json, describes, into its folder; goes on from its last checkpoint."""
    from sdnet.commands.train import train

    train(spec, data_path, gpus)


@cli.command()
@click.argument("run", type=ExistingFolder)
@data_option
@gpus_option
def evaluate(run: Path, data_path: Path | None, gpus: int) -> None:
    """Test the trained network in the folder RUN: accuracy, histogram of its codes, its dictionary."""
    from sdnet.commands.evaluate import evaluate

    evaluate(run, data_path, gpus)


@cli.command()
@click.argument("specs", type=ExistingFile, nargs=-1, required=True)
@click.option("--out", type=PathType, required=True, help="The CSV file to write.")
@click.option("--batch-size", type=click.IntRange(1), help="Images a step.  [default: that of each run]")
@gpus_option
def benchmark(specs: tuple[Path, ...], out: Path, batch_size: int | None, gpus: int) -> None:
    """Measure speed and memory of the networks of SPECS, several spec.json, against resnet18 among them."""
    from sdnet.commands.benchmark import benchmark

    benchmark(specs, out, batch_size, gpus)


@cli.command()
@click.argument("source", type=ExistingFile)
@click.option("--results", "folder", required=True, help="The notebook's parameter `results`, a results folder.")
@click.option("--out", type=PathType, required=True, help="Folder of the executed copy and its HTML page.")
def notebook(source: Path, folder: str, out: Path) -> None:
    """Execute the notebook SOURCE, which writes its table or figure into the results folder."""
    from sdnet.commands.notebook import notebook

    notebook(source, {"results": folder}, out / source.name, out / f"{source.stem}.html")


def main() -> None:
    """Run a command; an error is one sentence, unless --debug asks for its origin."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit("interrupted; the same command goes on from the last checkpoint")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (ValueError, OSError, ArithmeticError) as error:
        if "--debug" in sys.argv:
            raise
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
