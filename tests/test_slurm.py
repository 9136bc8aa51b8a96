"""The profile for Slurm, on a real Slurm. Where there is none: profiles/slurm/one-node.sh start."""

import re
import shutil
import subprocess
import sys

import pytest
from small_project import TINY_PRESET, copy_project

from sdnet.experiments import catalogue

ON_A_GPU = {
    "train",
    "evaluate",
    "invert",
    "sweep",
    "calibrate",
    "stability",
    "attack",
    "attack_adaptive",
    "diagnose",
    "benchmark",
}

LEASE = """
import os, sys, time
from sdnet.experiments.devices import lease
assigned = os.environ["CUDA_VISIBLE_DEVICES"]
with lease(int(sys.argv[1])) as held:
    print(assigned, ",".join(map(str, held)), flush=True)
    time.sleep(3)
"""


@pytest.fixture(scope="module", autouse=True)
def slurm():
    if not shutil.which("sinfo"):
        pytest.skip("Slurm is not installed")
    answer = subprocess.run(["sinfo", "--noheader", "--format=%G"], capture_output=True, text=True)
    if answer.returncode:
        pytest.skip(f"no Slurm answers: {answer.stderr.strip()}")
    if "gpu:" not in answer.stdout:
        pytest.skip("this Slurm has no GPUs")


def jobs(name: str) -> list[tuple[str, str]]:
    """The rule of each job of a workflow, and what Slurm says of the job."""
    shown = subprocess.run(["scontrol", "show", "jobs", "--oneliner"], capture_output=True, text=True, check=True)
    own = [line for line in shown.stdout.splitlines() if f"JobName={name} " in line]
    return [(re.search(r"Comment=rule_(\w+?)_wildcards", line)[1], line) for line in own]


def test_jobs_side_by_side_lease_the_devices_that_slurm_assigned_them():
    def start(count):
        command = ["srun", "--quiet", f"--gpus={count}", sys.executable, "-c", LEASE, str(count)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    one, another = (process.communicate()[0].split() for process in [start(1), start(1)])
    assert one[0] == one[1]
    assert another[0] == another[1]
    assert one != another
    assert start(2).communicate()[0].split() == ["0,1", "0,1"]


def test_the_profile_builds_a_preset_and_asks_for_gpus(tmp_path):
    project = copy_project(tmp_path)
    (project / "config/presets/quick.yaml").write_text(TINY_PRESET)
    quicker = ["--slurm-init-seconds-before-status-checks=3", "--seconds-between-status-checks=3", "--latency-wait=10"]
    profile = ["--workflow-profile", "profiles/slurm", "--slurm-jobname-prefix", "sdnet-test"]
    command = [sys.executable, "-m", "snakemake", *profile, *quicker, "quick"]
    done = subprocess.run(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    for target in [*(f"{name}.csv" for name in catalogue.TABLES), *(f"{name}.pdf" for name in catalogue.FIGURES)]:
        assert (project / "results/quick" / target).exists()
    (name,) = set(re.findall(r"SLURM run ID: (\S+)", done.stdout))
    submitted = jobs(name)
    rules = {rule for rule, _ in submitted}
    assert {*ON_A_GPU, *catalogue.TABLES, *catalogue.FIGURES} <= rules
    assert "spec" not in rules, "too small to be submitted"
    for rule, job in submitted:
        assert "JobState=COMPLETED" in job
        assert ("TresPerJob=gres:gpu:1" in job) == (rule in ON_A_GPU)
