"""What `fit` costs beyond the arithmetic: its images/s against the barest loop one would write by hand.

Both train the S0 network (784-400-20, Adam, batches of 128, float32) over the same tensors, in one process, in turns whose order
alternates, so that a busy machine slows both alike. `fit` is timed whole, with set-up, validation after every epoch, history and best
weights; and once more with a validation set of a single image, which leaves the cost of the loop itself.

    python benchmarks/fit_overhead.py --rounds 11 --out benchmarks/results/fit_overhead.json
"""
import argparse
import json
import platform
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from vae_tutorial.data import Split, load_data
from vae_tutorial.training import best_device, fit
from vae_tutorial.vae import VAE


def bare_loop(images, epochs, device):
    """Six lines and nothing else: no validation, no record, no guard."""
    model = VAE().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=device.type != "mps")
    for _ in range(epochs):
        for index in torch.randperm(len(images), device=device).split(128):
            x = images[index].float() / 255
            mu, logvar = model.encoder(x).chunk(2, dim=1)
            logits = model.decoder(mu + torch.randn_like(mu) * (logvar / 2).exp())
            bce = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
            loss = (bce + 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum()) / len(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def seconds(work, device):
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(data, epochs, rounds, device):
    """Images per second of every contestant, round by round."""
    images = data.train.images.to(device)
    unvalidated = replace(data, val=Split(data.val.images[:1], data.val.labels[:1]))

    def ours(data):
        fit(VAE(), data, epochs, device=device, precision="fp32", progress=False)

    contestants = {"bare loop": lambda: bare_loop(images, epochs, device), "fit": lambda: ours(data),
                   "fit without validation": lambda: ours(unvalidated)}
    for work in contestants.values():          # the first pass over memory and libraries counts for nobody
        work()
    rates = {name: [] for name in contestants}
    for turn in range(rounds):
        for name in sorted(contestants, reverse=turn % 2):
            rates[name].append(epochs * len(images) / seconds(contestants[name], device))
    return rates


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device = best_device()
    rates = measure(load_data("mnist"), args.epochs, args.rounds, device)
    ratios = {name: [mine / bare for mine, bare in zip(rates[name], rates["bare loop"])] for name in rates}
    result = dict(images_per_second={name: [round(rate) for rate in each] for name, each in rates.items()},
                  median_ratio_to_bare_loop={name: round(statistics.median(each), 3) for name, each in ratios.items()},
                  ratio_of_fastest_rounds={name: round(max(each) / max(rates["bare loop"]), 3) for name, each in rates.items()},
                  hardware=f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu"
                  else torch.cuda.get_device_name() if device.type == "cuda" else "MPS",
                  python=platform.python_version(), torch=torch.__version__)
    print(json.dumps(result, indent=2))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
