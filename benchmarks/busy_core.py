"""An epoch of S0's network beside one busy process: threads that spin while they wait, threads that sleep, and one thread alone.

PyTorch's threads meet after every operation. By default those that have finished spin for a while, which is quick where each has a core
to itself. Where another program takes one core, all wait for the thread that has to share it, and burn what is left. Each contestant is
a process of its own, with `OMP_WAIT_POLICY` and the number of threads in its environment; an epoch that warms up does not count.

    python benchmarks/busy_core.py --out benchmarks/results/busy_core.json
"""
import argparse
import os
import subprocess
import sys
from pathlib import Path

import torch
from measuring import machine, speed_ups, store
from training import part_of

from vae_tutorial.data import load_data
from vae_tutorial.training import fit
from vae_tutorial.vae import VAE

CORES = len(os.sched_getaffinity(0))
WAITING = {"PyTorch's default": dict(OMP_NUM_THREADS=str(CORES)),
           "OMP_WAIT_POLICY=passive": dict(OMP_NUM_THREADS=str(CORES), OMP_WAIT_POLICY="passive"),
           "one thread": dict(OMP_NUM_THREADS="1")}


def epoch(images):
    """Seconds of an epoch, after one that warms up."""
    return fit(VAE(), part_of(load_data("mnist"), images), 2, precision="fp32", progress=False)[-1].seconds


def timed(waiting, images):
    """The same in a new process."""
    answer = subprocess.run([sys.executable, __file__, "--epoch", "--images", str(images)], check=True, stdout=subprocess.PIPE, text=True,
                            env=os.environ | waiting)
    return float(answer.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epoch", action="store_true", help="be one contestant, in this process")
    parser.add_argument("--images", type=int, default=25_600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.epoch:
        print(epoch(args.images))
        return
    times = {f"{name}, {beside}": [] for name in WAITING for beside in ("alone", "beside a busy process")}
    for number in range(args.rounds):
        for contestant in list(times)[::(-1) ** number]:
            name, beside = contestant.split(", ")
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if beside != "alone" else None
            times[contestant].append(round(timed(WAITING[name], args.images), 2))
            if busy:
                busy.kill()
                busy.wait()
    slower = {name: speed_ups(times, f"{name}, beside a busy process")[f"{name}, alone"] for name in WAITING}
    for name, each in times.items():
        print(f"{name:48s}{each}")
    print(slower)
    store(dict(machine=machine(torch.device("cpu")), images=args.images, seconds=times, times_as_long_beside_a_busy_process=slower), args.out)


if __name__ == "__main__":
    main()
