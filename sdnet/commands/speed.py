"""How fast this machine trains, tests and attacks a network: a measurement of a second or so for each.

On a CPU by processor time: what the machine would do if nothing else ran on it.
"""

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sdnet.commands.contender import Contender, rates, warm_up
from sdnet.commands.work import Speed
from sdnet.experiments.devices import lease
from sdnet.runs.device import choose_device, cores, device_name

SECONDS = 0.3  # of each kind of step, at least one
CPU_CHANNELS = 2048  # images of a batch times width: a whole batch of a wide network would take a CPU minutes
SMALL = 4  # jobs that a CPU works on at once, if it has as many cores: workflow/rules/devices.smk


@contextmanager
def leased_machine(gpus: int) -> Iterator["Machine"]:
    """A machine of so many GPUs side by side, 0 for the CPU; one of them is held and measured inside `with`."""
    with lease(min(gpus, 1), alone=True) as leased:
        yield Machine(choose_device(leased), gpus)


class Machine:
    """The devices that jobs will have, see `leased_machine`.

    Attributes:
        name: of what was measured.
        unit: what works on one job.
        at_once: how many jobs it works on side by side.
        start: seconds that a job takes before it begins, measured: imports, above all.
    """

    def __init__(self, device: torch.device, gpus: int):
        self._device = device
        if device.type == "cuda":
            self.unit, self.at_once = "GPU", gpus
        else:
            self.unit, self.at_once = "job", min(SMALL, cores())
            torch.set_num_threads(max(1, cores() // SMALL))
        self.name = device_name(device)
        self.start = _processor_seconds([sys.executable, "-c", "import sdnet.commands.calibrate"])

    def speed(self, spec: dict, gpus: int) -> Speed:
        """Images per second of a run's network; `gpus` share a batch of it, and have the speed of one each."""
        batch_size = spec["training"]["batch_size"] // gpus
        if self._device.type == "cpu":
            batch_size = min(batch_size, max(1, CPU_CHANNELS // spec["model"]["width"]))
        contender = Contender(spec, batch_size, self._device)
        trained = self._rate(contender.train_step, contender)
        contender.precision = "float32"  # as noise and attacks are
        passed, differentiated = (
            self._rate(step, contender) for step in (contender.inference_step, contender.gradient_step)
        )
        return Speed(trained, passed, differentiated)

    def _rate(self, step, contender: Contender) -> float:
        warm_up(step, contender)
        by_clock, by_processor = rates(step, contender, SECONDS)
        return by_clock if self._device.type == "cuda" else by_processor * torch.get_num_threads()


def _processor_seconds(command: list[str]) -> float:
    """How long a program has a processor."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
