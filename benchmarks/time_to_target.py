"""Time to a good model on S0's protocol, whose published run ended at 102.64: a constant learning rate against one cycle.

The time to the target is the number of epochs, which no busy machine can change, times the seconds of an epoch, which are measured
in turns. So the trainings may run whenever there is time, and only the turns need a quiet machine.

`--tune` searches. Each kind of recipe gets the same budget: six settings, trained once each, on a split of the data that the race does
not see; the one with the fewest epochs to the target is the best.

`--epochs` then trains the best setting of each kind with every seed on S0's own split, validated after every epoch, until the
validation loss is below the target; all by `fit`, for the usual loop needs the same epochs. `--seconds` times epochs of the usual
loop and of `fit`, validation included, in rounds. All three go into one file.

    python benchmarks/time_to_target.py --tune --epochs --seconds --out benchmarks/results/time_to_target.json
"""
import argparse
import functools
import json
from pathlib import Path

import numpy as np
import torch
from measuring import interval, machine, store, take_turns
from training import STEPS, loop

from vae_tutorial.data import load_data
from vae_tutorial.devices import best_device
from vae_tutorial.parallel import StopTraining
from vae_tutorial.training import fit, validate
from vae_tutorial.vae import VAE

TARGET, TUNING_SPLIT, S0_SPLIT = 102.64, 7, 42
KINDS = "constant", "one-cycle"
GRIDS = {"constant": [dict(lr=lr, batch_size=size, epochs=60) for lr in (5e-4, 1e-3, 2e-3) for size in (128, 256)],
         "one-cycle": [dict(lr=lr, batch_size=256, epochs=epochs) for lr in (8e-3, 1.6e-2) for epochs in (15, 18, 21)]}


def to_target(data, kind, seed, epochs, **recipe):
    """Train until the validation loss is below the target: the epochs, the loss, and whether it was reached."""
    def done(model, history):
        if history[-1].loss < TARGET:
            raise StopTraining("the target is reached")

    torch.manual_seed(seed)
    history = fit(VAE(), data, epochs, lr_schedule=kind, seed=seed, callbacks=[done], progress=False, **recipe)
    row = dict(kind=kind, seed=seed, **recipe, length=epochs, epochs=len(history), loss=round(history[-1].loss, 3))
    print(row, flush=True)
    return row | dict(reached=row["loss"] < TARGET)


def tune(known):
    """A row for each setting that is not known yet."""
    data = load_data("mnist", split="pooled", seed=TUNING_SPLIT)
    there = {(row["kind"], row["lr"], row["batch_size"], row["length"]) for row in known}
    for kind, recipe in [(kind, recipe) for kind, grid in GRIDS.items() for recipe in grid]:
        if (kind, recipe["lr"], recipe["batch_size"], recipe["epochs"]) not in there:
            yield to_target(data, kind, seed=0, **recipe)


def best_settings(rows):
    """The setting of each kind that reaches the target in the fewest epochs."""
    best = {}
    for kind in KINDS:
        found = min((row for row in rows if row["kind"] == kind), key=lambda row: (not row["reached"], row["epochs"]))
        best[kind] = dict(lr=found["lr"], batch_size=found["batch_size"], epochs=found["length"])
    return best


def seconds(data, best, rounds):
    """Seconds of an epoch, validation included, of the usual loop and of `fit` with either recipe: a list of rounds each."""
    def usual():
        model = VAE()
        loop(lambda: model, data.train.images, 1, best_device(), **STEPS["usual loop"])()
        validate(model, data.val.images)

    def fitted(kind):
        fit(VAE(), data, 1, lr_schedule=kind, lr=best[kind]["lr"], batch_size=best[kind]["batch_size"], progress=False)

    found = {"usual loop": usual} | {f"fit, {kind}": functools.partial(fitted, kind) for kind in KINDS}
    return {name: [round(s, 3) for s in each[1:]] for name, each in take_turns(found, rounds, best_device()).items()}


def times_as_long(runs, turns):
    """How many times as long the usual loop takes to the target, and what the loop and the recipe have in it."""
    epochs = {kind: np.array([run["epochs"] for run in sorted(runs, key=lambda run: run["seed"]) if run["kind"] == kind]) for kind in KINDS}
    turns = {name: np.array(each) for name, each in turns.items()}
    return {"the loop: usual loop / fit, constant rate": interval(turns["usual loop"] / turns["fit, constant"]),
            "the recipe: constant rate / one cycle, in epochs": interval(epochs["constant"] / epochs["one-cycle"]),
            "the recipe: constant rate / one cycle, in seconds":
                interval(epochs["constant"] / epochs["one-cycle"], turns["fit, constant"] / turns["fit, one-cycle"]),
            "both: usual loop, constant rate / fit, one cycle":
                interval(epochs["constant"] / epochs["one-cycle"], turns["usual loop"] / turns["fit, one-cycle"])}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true", help="search, going on where an earlier search was stopped")
    parser.add_argument("--epochs", action="store_true", help="count the epochs to the target")
    parser.add_argument("--seconds", action="store_true", help="time an epoch")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44, 45, 46])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    result = dict(target=TARGET, tuning=[], runs=[]) | (json.loads(args.out.read_text()) if args.out.exists() else {})
    if args.tune:
        for row in tune(result["tuning"]):
            result["tuning"].append(row)
            store(result, args.out)
    result["recipes"] = best = best_settings(result["tuning"])
    data = load_data("mnist", split="pooled", seed=S0_SPLIT)
    if args.epochs:
        there = {(run["kind"], run["seed"]) for run in result["runs"]}
        for seed, kind in [(seed, kind) for seed in args.seeds for kind in KINDS if (kind, seed) not in there]:
            result["runs"].append(to_target(data, kind, seed, **best[kind]))
            store(result, args.out)
    if args.seconds:
        result |= dict(machine=machine(best_device()), seconds_of_an_epoch=seconds(data, best, args.rounds))
        result["times_as_long"] = times_as_long(result["runs"], result["seconds_of_an_epoch"])
        print(result["times_as_long"])
        store(result, args.out)


if __name__ == "__main__":
    main()
