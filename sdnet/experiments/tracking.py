"""MLflow: a record of the runs, never a condition of them. The files in a run's folder are the truth."""

import contextlib
import functools
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from sdnet.experiments.places import results_of, run_name
from sdnet.experiments.settings.files import project, site_setting
from sdnet.files import write_text

if TYPE_CHECKING:
    from mlflow import MlflowClient

MARKER = "mlflow.json"  # in a run's folder: which MLflow run it is, and which at other addresses
NOTE = (
    "Curves are those of seeds, at the end of the chart view: click a network's `+` and, as that view shows but ten "
    "runs, the eye of others. "
    "Networks have their seeds nested in them, and their means; tables and figures are in a run of their own. "
    "`noise/` is accuracy under a noise, mean over its severities, and `attack/` robust accuracy by the paper's "
    "protocol and at the worst of all attacks: as trained, or at the λ of Algorithm 1 or tuned on other images."
)
BY_HAND, BY_HAND_NOTE = "sdnet by hand", "Runs outside of the results folders, each named by the end of its path."
PARENT = "mlflow.parentRunId"  # the tag by which MLflow nests a run in another

# A server that is down would hold a call for 247 s by MLflow's own defaults.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}.items():
    os.environ.setdefault(_name, _value)


def _best_effort(method: Callable) -> Callable:
    """A failure costs one warning; from then on the tracker does nothing."""

    @functools.wraps(method)
    def attempt(self, *args) -> None:
        if self._off:
            return
        try:
            method(self, *args)
        except Exception as error:  # whatever MLflow, its server or its database may raise
            self._off = True
            _warn(error)

    return attempt


def _warn(error: Exception) -> None:
    reason = " ".join(str(error).split())[:600]
    print(f"warning: MLflow tracking is off for this job: {type(error).__name__}: {reason}", file=sys.stderr)


class Tracker:
    """One MLflow run for one run folder, found again when the run goes on or its results come later.

    A folder outside of the results folders, such as a copy, has a run of its own in an experiment apart.

    Args:
        folder: the run's folder; its spec.json gives parameters and tags.
        tags: more tags, e.g. commit and device.
        from_start: whether training begins at its first epoch: if epochs of an earlier one are recorded, this is
            another run.
    """

    def __init__(self, folder: Path, tags: dict[str, str], from_start: bool = False):
        self._folder, self._off = folder, False
        self._open(tags, from_start)

    @_best_effort
    def log_epochs(self, history: list[dict]) -> None:
        """Log the epochs of a history that MLflow does not have yet."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        epochs = [
            [
                Metric(name, float(value), now, row["epoch"])
                for name, value in _metrics(row).items()
                if value is not None
            ]
            for row in history
            if row["epoch"] > self._last_epoch
        ]
        at_once = 1000 // max(map(len, epochs), default=1)  # MLflow takes no more in a batch; an epoch is in one
        for start in range(0, len(epochs), at_once):
            metrics = list(itertools.chain(*epochs[start : start + at_once]))
            self._client.log_batch(self._id, metrics=metrics)
        self._last_epoch = max(self._last_epoch, len(history))

    @_best_effort
    def log_results(self, metrics: dict[str, float], files: list[Path]) -> None:
        """Log final numbers and attach files."""
        _log_numbers(self._client, self._id, metrics)
        for file in files:
            self._client.log_artifact(self._id, str(file))

    @property
    def active(self) -> bool:
        """Whether MLflow has taken everything so far."""
        return not self._off

    @_best_effort
    def close(self, status: str = "FINISHED") -> None:
        """Say how the run ended: FINISHED or FAILED."""
        self._client.set_terminated(self._id, status)

    @_best_effort
    def _open(self, tags: dict[str, str], from_start: bool) -> None:
        spec = json.loads((self._folder / "spec.json").read_text())
        group = {"dataset": spec["dataset"]["name"], "system": spec["system"], "preset": spec["preset"]}
        regular, folder = in_results(self._folder, spec), self._folder.resolve()
        with _connection(spec["preset"] if regular else None) as (client, experiment):
            if regular:
                place = {PARENT: _named_run(client, experiment, f"{group['dataset']}/{group['system']}", group)}
            else:
                place = {"folder": str(folder)}
        tags = tags | group | {"model": spec["model"]["name"], "seed": str(spec["seed"])} | place
        marker = {"spec": spec} | ({} if regular else place)  # elsewhere a copy of the folder is another run
        before, of = self._marked()
        listed = ", ".join(f"'{run_id}'" for run_id in before)
        found = client.search_runs([experiment], f"attributes.run_id IN ({listed})") if before else []
        self._id, self._last_epoch = found[0].info.run_id if found and of == marker else None, 0
        if self._id:
            known = client.get_metric_history(self._id, "test_accuracy")
            self._last_epoch = max((metric.step for metric in known), default=0)
            # Another job, on a server, may have removed the run that it was nested in.
            for name, value in place.items():
                client.set_tag(self._id, name, value)
        if not self._id or (from_start and self._last_epoch):
            if found and found[0].info.status == "RUNNING" and of.get("folder") == marker.get("folder"):
                client.set_terminated(found[0].info.run_id, "KILLED")  # nothing goes on with it
            name = "/".join(folder.parts[-3:])
            marker["elsewhere"] = before if of == marker and not from_start else []
            self._id, self._last_epoch = self._create(client, experiment, name, marker, tags), 0
        client.update_run(self._id, status="RUNNING")
        self._client = client

    def _marked(self) -> tuple[list[str], dict]:
        """The runs that were recorded for this folder, one at each MLflow, the last one first; and what of."""
        try:
            known = dict(json.loads((self._folder / MARKER).read_text()))
            return [known.pop("run_id"), *known.pop("elsewhere", [])], known
        except (FileNotFoundError, ValueError, TypeError, KeyError):  # or damaged: whose run it was is not known
            return [], {}

    def _create(self, client, experiment: str, name: str, marker: dict, tags: dict[str, str]) -> str:
        from mlflow.entities import Param

        run_id = client.create_run(experiment, run_name=name, tags=tags).info.run_id
        parameters = [Param(key, str(value)) for key, value in _flat(marker["spec"]).items()]
        client.log_batch(run_id, params=parameters)
        write_text(self._folder / MARKER, json.dumps({"run_id": run_id} | marker))
        return run_id


def in_results(folder: Path, spec: dict) -> bool:
    """Whether a run's folder is where the workflow puts it."""
    name = run_name(spec["dataset"]["name"], spec["system"], spec["seed"])
    place = project() / results_of(spec["preset"]) / "runs" / name
    return place.exists() and place.samefile(folder)


def log_summary(preset: str, numbers: dict[str, dict[str, list[float]]], files: list[Path]) -> None:
    """Log what is known of a preset as a whole.

    Args:
        preset: its name.
        numbers: those of each seed, by <data set>/<network> and metric; the run that the seeds are nested in gets
            their means, and the standard deviation of the accuracy.
        files: tables and figures, attached to a run of their own.

    Raises:
        OSError: if MLflow did not take all of it.
    """
    try:
        with _connection(preset) as (client, experiment):
            for name, metrics in numbers.items():
                means = {metric: statistics.mean(values) for metric, values in metrics.items()}
                if len(accuracies := metrics.get("accuracy", [])) > 1:
                    means["accuracy_std"] = statistics.stdev(accuracies)
                _log_numbers(client, _named_run(client, experiment, name, {"preset": preset}), means)
            run_id = _named_run(client, experiment, "tables and figures", {"preset": preset})
            for file in files:
                client.log_artifact(run_id, str(file))
    except Exception as error:  # of MLflow and its server: of any kind
        _warn(error)
        raise OSError(
            f"MLflow did not take the tables and figures of {preset}: once that is mended, the same command goes on"
        ) from error


def _log_numbers(client: "MlflowClient", run_id: str, numbers: dict[str, float]) -> None:
    """Log those that MLflow does not have, since it keeps what is logged again as another point."""
    known = client.get_run(run_id).data.metrics
    for name, value in numbers.items():
        if known.get(name) != value:
            client.log_metric(run_id, name, value)


def address() -> str:
    """Where MLflow's record is: a server, or a database, whose path is named from the project's folder."""
    if given := os.environ.get("MLFLOW_TRACKING_URI"):
        return given
    scheme, slashes, path = site_setting("mlflow_uri").partition("sqlite:///")
    return f"{scheme}{slashes}{project() / path}" if slashes else scheme


@contextlib.contextmanager
def _connection(preset: str | None) -> Iterator[tuple["MlflowClient", str]]:
    """A client, and the experiment of a preset or, for None, of runs by hand.

    One process at a time if the record is a SQLite file: two clients that find none both create it, and one fails.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    uri = address()
    database = Path(uri.removeprefix("sqlite:///"))
    with FileLock(f"{database}.lock", timeout=120) if uri.startswith("sqlite:") else contextlib.nullcontext():
        client, (name, note) = MlflowClient(uri), (f"sdnet {preset}", NOTE) if preset else (BY_HAND, BY_HAND_NOTE)
        if not (experiment := client.get_experiment_by_name(name)):
            with contextlib.suppress(MlflowException):  # another job was faster, on a server
                client.create_experiment(name, tags={"mlflow.note.content": note})
            experiment = client.get_experiment_by_name(name)
        if experiment.lifecycle_stage == "deleted":  # on MLflow's page; its name stays taken
            client.restore_experiment(experiment.experiment_id)
        yield client, experiment.experiment_id


def _named_run(client: "MlflowClient", experiment: str, name: str, tags: dict[str, str]) -> str:
    """The one run of this name, made if there is none. It stands for no process, and so counts as finished."""

    def found() -> list[str]:
        runs = client.search_runs([experiment], f"attributes.run_name = '{name}'")
        return [run.info.run_id for run in sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))]

    if not found():
        client.set_terminated(client.create_run(experiment, run_name=name, tags=tags).info.run_id)
    first, *others = found()
    for other in others:  # made at the same time, on a server
        client.delete_run(other)
    return first


def _metrics(row: dict) -> dict[str, float | None]:
    shares = {f"{split}_accuracy": row[f"{split}_correct"] / row[f"{split}_total"] for split in ("train", "test")}
    rate = {"train_images_per_second": row["train_total"] / row["train_seconds"]}
    counts = {"epoch", "train_correct", "train_total", "test_correct", "test_total", "train_seconds"}
    return shares | rate | {name: value for name, value in row.items() if name not in counts}


def _flat(values: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
