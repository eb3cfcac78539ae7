"""What the benchmarks share: contestants that take turns, the machine they ran on, and pythae in a process of its own."""
import contextlib
import json
import math
import platform
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from scipy import stats

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def seconds(work, device):
    """Seconds that `work()` takes, until the device has done all of it."""
    started = time.perf_counter()
    work()
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
    return time.perf_counter() - started


def take_turns(contestants, rounds, device):
    """Seconds of every contestant, by name: first those of a round that warms up, then those of `rounds` more.

    The order is reversed from round to round, so that a busy machine slows all alike.
    """
    times = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name in list(contestants)[::(-1) ** turn]:
            times[name].append(seconds(contestants[name], device))
    return times


def interval(*samples):
    """The product of the geometric means of independent samples of ratios, and the ends of its 95 % interval (Welch, 1947).

    The mean alone, three times, where a sample holds a single ratio.
    """
    logs = [np.log(each) for each in samples]
    middle, half = sum(each.mean() for each in logs), 0.0
    if min(map(len, logs)) > 1:
        parts = [each.var(ddof=1) / len(each) for each in logs]
        if sum(parts) > 0:          # the reference against itself has none
            freedom = sum(parts) ** 2 / sum(part ** 2 / (len(each) - 1) for part, each in zip(parts, logs))
            half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    return [round(math.exp(middle + shift), 3) for shift in (0, -half, half)]


def speed_ups(times, reference):
    """How many times as fast as `reference` each contestant is, as `interval` says it; each round is compared with itself."""
    return {name: interval(np.array(times[reference]) / np.array(each)) for name, each in times.items()}


def machine(device):
    """The hardware and the versions that figures belong to."""
    gpu = {"cuda": lambda: torch.cuda.get_device_name(device), "mps": lambda: "Apple MPS"}.get(device.type, lambda: None)
    model, flags = _cpu()
    return dict(cpu=model, flags=flags, threads=torch.get_num_threads(), gpu=gpu(), system=platform.system(),
                python=platform.python_version(), torch=torch.__version__)


def _cpu():
    """Name of the processor, and which of `FLAGS` it has, as far as the system tells."""
    try:
        info = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    except FileNotFoundError:
        return platform.processor() or platform.machine(), []
    said = {name.strip(): value.split() for name, value in info.items()}
    flags = said.get("flags", [])
    return " ".join(said.get("model name", [platform.machine()])), [flag for flag in FLAGS if flag in flags]


def store(result, path):
    """Write a result as JSON, if there is a path."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")


class Pythae:
    """pythae in its own environment and process; each call has it do one piece of work, and returns the figure it answers.

    Parameters
    ----------
    python : str or Path
        The interpreter of an environment that has pythae.
    task : {"train", "nll"}
        One epoch of its trainer, or its `get_nll`: see `pythae_contestant.py`.
    device : torch.device
        Where it works.
    **arrays : ndarray
        What it works on.
    """

    def __init__(self, python, task, device, **arrays):
        self.folder = tempfile.TemporaryDirectory()
        given, self.log = Path(self.folder.name) / "given.npz", Path(self.folder.name) / "log"
        np.savez(given, **arrays)
        script = Path(__file__).with_name("pythae_contestant.py")
        with self.log.open("w") as log:
            self.process = subprocess.Popen([python, script, task, given, device.type, str(torch.get_num_threads())],
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        self.version = self._answer()

    def __call__(self):
        with contextlib.suppress(BrokenPipeError):
            print(file=self.process.stdin, flush=True)
        return float(self._answer())

    def _answer(self):
        answer = self.process.stdout.readline().strip()
        if not answer:
            raise RuntimeError(f"pythae stopped:\n{self.log.read_text()}")
        return answer

    def close(self):
        """End the process and remove its files."""
        self.process.stdin.close()
        self.process.wait()
        self.folder.cleanup()
