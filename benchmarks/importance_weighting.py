"""What importance weighting costs: seconds and peak memory of `evaluate` with 5,000 draws for each of 10,000 images.

Before it, on fewer images, the two ways one would write by hand, to say what the streaming saves: a forward pass for every draw, and all
draws of a batch at once.

    python benchmarks/importance_weighting.py --out benchmarks/results/importance_weighting.json

A quarter of an hour on one free CPU core, less on a GPU; `--images 500` takes a twentieth of that.
On a CPU the memory is that of the whole process, Python and the
libraries included.
"""
import argparse
import json
import math
import resource
import sys
from functools import partial
from pathlib import Path

import torch
from measuring import machine, seconds, store

from vae_tutorial.data import Split, intensities, load_data
from vae_tutorial.devices import best_device
from vae_tutorial.evaluation import evaluate, log_weights
from vae_tutorial.saving import load_pretrained
from vae_tutorial.vae import evaluating, reconstruction_loss


def log_weight(out, x):
    """Log weight of one draw an image, from a forward pass."""
    ratio = 0.5 * ((out.z - out.mu).square() / out.logvar.exp() + out.logvar - out.z.square()).sum(1)
    return ratio - reconstruction_loss(out.logits, x)


def draw_by_draw(model, images, n_samples):
    """A forward pass over the batch for every draw, as most scripts have it."""
    x = intensities(images).to(next(model.parameters()).device)
    with evaluating(model):
        return torch.stack([log_weight(model(x), x) for _ in range(n_samples)], 1)


def all_at_once(model, images, n_samples):
    """Every image repeated `n_samples` times, ten images in a batch."""
    parts = []
    with evaluating(model):
        for part in images.split(10):
            x = intensities(part).to(next(model.parameters()).device).repeat_interleave(n_samples, 0)
            parts.append(log_weight(model(x), x).view(len(part), n_samples))
    return torch.cat(parts)


def peak_mib(device):
    """Most memory held so far: on the GPU where the model is on one, else by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def compare(model, images, n_samples, rounds):
    """Microseconds a draw of each contestant, the best of some rounds in turn."""
    contestants = {"one draw after the other": draw_by_draw, "all draws of ten images at once": all_at_once,
                   "log_weights": lambda *args: log_weights(*args, progress=False)}
    times = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, work in contestants.items():
            times[name].append(seconds(partial(work, model, images, n_samples), next(model.parameters()).device))
    return {name: round(1e6 * min(each) / len(images) / n_samples, 2) for name, each in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device = best_device()
    model, test = load_pretrained("mnist-mlp-20d").to(device), load_data("mnist").test
    test = Split(test.images[:args.images], test.labels[:args.images])

    # the long run first: the peak of a process never falls again
    evaluation = []
    took = seconds(lambda: evaluation.append(evaluate(model, test, n_samples=args.draws)), device)
    peak, [evaluation] = peak_mib(device), evaluation
    print(evaluation)
    assert evaluation.nll <= evaluation.loss and math.isfinite(evaluation.nll)
    if args.images == 10_000 and args.draws == 5_000:
        assert peak < 2_000, f"{peak:.0f} MiB, must be below 2,000"

    result = dict(images=len(test), draws=args.draws, seconds=round(took, 1), peak_mib=round(peak), loss=round(evaluation.loss, 3),
                  nll=round(evaluation.nll, 3), nll_error=round(evaluation.errors["nll"], 3),
                  median_effective_draws=round(evaluation.per_image["ess"].median().item(), 1),
                  microseconds_per_draw=compare(model, test.images[:200], 64, args.rounds),
                  machine=machine(device))
    print(json.dumps(result, indent=1))
    store(result, args.out)


if __name__ == "__main__":
    main()
