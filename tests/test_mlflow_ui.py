"""MLflow's pages in a real browser: a training is found there, with its curves."""

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_tracking import SPEC, history, new_folder

from sdnet.experiments.tracking import Tracker, log_summary

DRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--window-size=1400,1000",
    # Of its own accord it shall ask the network for nothing.
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 60  # seconds for a page to show what it shall
EPOCHS = 7

pytestmark = pytest.mark.skipif(None in (DRIVER, CHROMIUM), reason="needs Chromium and chromedriver")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def wait_for(address: str, server: subprocess.Popen) -> None:
    while True:
        assert server.poll() is None, "the server ended"
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.2)


class Browser:
    """A session of chromedriver, by the commands of the WebDriver standard."""

    def __init__(self, driver: str, profile: Path):
        self._address = f"{driver}/session"
        options = {"binary": CHROMIUM, "args": [*OPTIONS, f"--user-data-dir={profile}"]}
        wanted = {"alwaysMatch": {"goog:chromeOptions": options}}
        self._address += "/" + self._ask("", {"capabilities": wanted})["sessionId"]

    def _ask(self, command: str, body: dict | None = None):
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._address}{command}", content, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)["value"]

    def open(self, address: str, *texts: str) -> str:
        """The HTML of a page once all the texts are on it."""
        self._ask("/url", {"url": address})
        until = time.monotonic() + PATIENCE
        while not all(text in (html := self._ask("/source")) for text in texts):
            assert time.monotonic() < until, f"{[text for text in texts if text not in html]} not on the page: {html}"
            time.sleep(0.2)
        return html

    def picture(self) -> bytes:
        return base64.b64decode(self._ask("/screenshot"))

    def close(self) -> None:
        urllib.request.urlopen(urllib.request.Request(self._address, method="DELETE"), timeout=PATIENCE).close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    port = free_port()
    driver = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}/status", driver)
        browser = Browser(f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("profile"))
        yield browser
        browser.close()
    finally:
        driver.terminate()
        driver.wait()


@contextlib.contextmanager
def mlflow_ui(database: str) -> Iterator[str]:
    """The address of a server as `make ui` starts it."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", database, "--port", str(port)]
    own = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    server = subprocess.Popen(command, env=os.environ | own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/health", server)
        yield address
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The pages of a record of two seeds and a table, and the MLflow run of one seed."""
    place = tmp_path_factory.mktemp("ui")
    database = f"sqlite:///{place}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", database)
        patch.chdir(place)
        for seed in (0, 1):
            folder = new_folder(place, SPEC | {"preset": "seen", "seed": seed})
            tracker = Tracker(folder, {})
            tracker.log_epochs(history(EPOCHS))
            tracker.close()
        (place / "table1.md").write_text("| Network | Top-1 (%) |")
        log_summary("seen", {"digits/sdnet18": {"noise/shot_as_trained": [0.5, 0.75]}}, [place / "table1.md"])
        run = json.loads((folder / "mlflow.json").read_text())["run_id"]
        with mlflow_ui(database) as address:
            yield f"{address}/#/experiments", run


def test_the_networks_of_a_preset_are_listed_with_their_seeds_folded(server, browser, tmp_path):
    experiments, _ = server
    page = browser.open(
        f"{experiments}/1/runs?workflowType=machine_learning", "sdnet seen", "digits/sdnet18", "tables and figures"
    )
    (tmp_path / "runs.png").write_bytes(browser.picture())
    assert "digits/sdnet18/seed" not in page


def test_means_over_seeds_are_charts_of_the_networks(server, browser, tmp_path):
    experiments, _ = server
    charts = f"{experiments}/1/runs?workflowType=machine_learning&compareRunsMode=CHART"
    browser.open(charts, "digits/sdnet18", "noise/shot_as_trained", "0.63")
    (tmp_path / "means.png").write_bytes(browser.picture())


def test_a_training_is_shown_with_its_curves(server, browser, tmp_path):
    experiments, run = server
    page = browser.open(
        f"{experiments}/1/runs/{run}/model-metrics",
        *("digits/sdnet18/seed1", "learning_rate", "test_accuracy", "test_loss", "train_accuracy", "train_loss"),
        'class="point"',
    )
    (tmp_path / "curves.png").write_bytes(browser.picture())
    drawn = [group.count('class="point"') for group in re.findall('<g class="points">(.*?)</g>', page)]
    assert set(drawn) - {0} == {EPOCHS}, "a point for each epoch, wherever there are points"
