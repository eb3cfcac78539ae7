"""Seconds to a good model: the usual loop for its 50 epochs against the one-cycle recipe of chapter 10, on S0's protocol.

Each contestant is a process of its own, timed from its start to its end, so that imports, loading and validation count. The validation loss is
that of one draw an image, at β = 1, with the same draws for both; the published run of S0 ended at 102.64.

    python benchmarks/time_to_target.py --out benchmarks/results/time_to_target.json
"""
import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
from measuring import machine, store
from training import STEPS, loop

from vae_tutorial.data import load_data
from vae_tutorial.devices import best_device
from vae_tutorial.training import fit, validate
from vae_tutorial.vae import VAE

TARGET = 102.64
RECIPE = dict(epochs=15, batch_size=256, lr=1.2e-2, lr_schedule="one-cycle")


def usual(data, seed, epochs=50):
    """The loop that most tutorials write, for the published number of epochs; its model is validated at the end alone."""
    torch.manual_seed(seed)
    model = VAE()
    loop(lambda: model, data.train.images, epochs, best_device(), **STEPS["usual loop"])()
    return sum(validate(model, data.val.images)), epochs


def recipe(data, seed):
    """`fit` with the recipe, validated after every epoch."""
    torch.manual_seed(seed)
    history = fit(VAE(), data, **RECIPE, seed=seed, progress=False)
    return history.best.loss, len(history)


CONTESTANTS = {"usual loop": usual, "one-cycle recipe": recipe}


def timed(name, seed):
    """Wall-clock seconds, validation loss and epochs of a contestant in a new process."""
    started = time.perf_counter()
    answer = subprocess.run([sys.executable, __file__, "--contestant", name, "--seeds", str(seed)], check=True, stdout=subprocess.PIPE, text=True)
    return dict(contestant=name, seed=seed, seconds=round(time.perf_counter() - started, 1)) | json.loads(answer.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43], help="one round each, the order turned around every time")
    parser.add_argument("--contestant", choices=CONTESTANTS, help="be this contestant, in this process")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.contestant:
        loss, epochs = CONTESTANTS[args.contestant](load_data("mnist", split="pooled"), args.seeds[0])
        print(json.dumps(dict(loss=round(loss, 3), epochs=epochs)))
        return
    rows = []
    for number, seed in enumerate(args.seeds):
        for name in list(CONTESTANTS)[::(-1) ** number]:
            rows.append(timed(name, seed))
            print(rows[-1], flush=True)
    took = {(row["contestant"], row["seed"]): row["seconds"] for row in rows}
    sooner = median(took["usual loop", seed] / took["one-cycle recipe", seed] for seed in args.seeds)
    print(f"the recipe is there {sooner:.2f} times sooner (target {TARGET})")
    store(dict(machine=machine(best_device()), target=TARGET, recipe=RECIPE, runs=rows, times_sooner=round(sooner, 2)), args.out)


if __name__ == "__main__":
    main()
