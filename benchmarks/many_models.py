"""Eight models that differ in their seed: trained as one batched model against one by one.

All train on the same images, in turns whose order is reversed from round to round: `sweep` with `at_once` and without, each in a
new folder every time, and `fit` in a loop without checkpoints, which is what the batched training saves apart from the batching.
At the end their losses must agree.

    python benchmarks/many_models.py --out benchmarks/results/many_models.json
"""
import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from measuring import machine, speed_ups, store, take_turns

from vae_tutorial.data import Split, load_data
from vae_tutorial.devices import best_device, has_native_bf16
from vae_tutorial.grid import sweep
from vae_tutorial.training import fit
from vae_tutorial.vae import VAE

NETWORKS = {"784-64-2": dict(hidden_dims=(64,), latent_dim=2), "784-400-20": dict(hidden_dims=(400,), latent_dim=20)}
BATCHED, ONE_BY_ONE, WITHOUT_FILES = "sweep, all at once", "sweep, one by one", "fit, one by one, no files"


def losses_of_sweep(data, network, settings, models, at_once):
    with tempfile.TemporaryDirectory() as folder:
        grid = {"seed": list(range(models))}
        return sweep(data, grid, folder=folder, at_once=at_once, progress=False, **network, **settings).loss.tolist()


def losses_of_fits(data, network, settings, models):
    losses = []
    for seed in range(models):
        torch.manual_seed(seed)
        losses.append(fit(VAE(**network), data, seed=seed, progress=False, **settings).best.loss)
    return losses


def compete(data, network, settings, args):
    answers = {}
    contestants = {
        BATCHED: lambda: answers.update({BATCHED: losses_of_sweep(data, network, settings, args.models, args.models)}),
        ONE_BY_ONE: lambda: answers.update({ONE_BY_ONE: losses_of_sweep(data, network, settings, args.models, 1)}),
        WITHOUT_FILES: lambda: answers.update({WITHOUT_FILES: losses_of_fits(data, network, settings, args.models)})}
    times = {name: each[1:] for name, each in take_turns(contestants, args.rounds, args.device).items()}
    assert answers[WITHOUT_FILES] == answers[ONE_BY_ONE]
    apart = max(abs(a - b) for a, b in zip(answers[BATCHED], answers[ONE_BY_ONE]))
    assert apart < (0.05 if settings["precision"] == "fp32" else 2), f"{apart} nats apart"
    images = args.models * len(data.train) * args.epochs
    return dict(images_per_second={name: [round(images / s) for s in each] for name, each in times.items()},
                times_as_fast_as_one_by_one=speed_ups(times, ONE_BY_ONE), largest_difference_in_loss=apart)


def show(name, result):
    print(f"\n{name}\n{'':28s}images/s  × one by one")
    for contestant, each in result["images_per_second"].items():
        print(f"{contestant:28s}{median(each):8,.0f}  {{:.2f}} ({{:.2f}} to {{:.2f}})".format(*result["times_as_fast_as_one_by_one"][contestant]))
    print(f"The losses are at most {result['largest_difference_in_loss']:.1e} nats apart.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--images", type=int, default=4_000)
    parser.add_argument("--epochs", type=int, default=2, help="in a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", type=torch.device, default=best_device())
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    whole = load_data("mnist")
    part = lambda split, n: Split(split.images[:n], split.labels[:n])
    data = replace(whole, train=part(whole.train, args.images), val=part(whole.val, 1_000))
    precisions = [name for name in args.precision if name == "fp32" or has_native_bf16(args.device)]
    result = dict(machine=machine(args.device), models=args.models, images=len(data.train), epochs=args.epochs,
                  rounds=args.rounds, no_native_bf16_here=precisions != args.precision, networks={})
    print(f"{args.models} models, {len(data.train):,} images, {args.epochs} epochs, {args.rounds} rounds; {result['machine']}")
    for name, network in NETWORKS.items():
        for precision in precisions:
            settings = dict(epochs=args.epochs, precision=precision, device=str(args.device))
            result["networks"][f"{name}, {precision}"] = compete(data, network, settings, args)
            show(f"{name}, {precision}", result["networks"][f"{name}, {precision}"])
    store(result, args.out)


if __name__ == "__main__":
    main()
