"""Processes of their own, to be killed or to run out of what they need."""
import multiprocessing
import os
from pathlib import Path

from conftest import HANG

MB = 2**20
# The server imports everything once, so that a process to be killed starts in milliseconds.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["hypothesis", "pytest", "PIL.Image", "xdist.scheduler", "vae_tutorial.conv", "vae_tutorial.evaluation", "vae_tutorial.grid"])


def in_process(work, *args):
    """Run a function in a process of its own and return how that ended; what hangs is killed."""
    process = PROCESSES.Process(target=work, args=args)
    process.start()
    process.join(HANG)
    process.kill()
    process.join()
    return process.exitcode


def used_memory():
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
