"""Importance-weighted NLL with a thousand draws an image: `evaluate` against pythae's `get_nll` and against the barest code.

All measure the shipped model mnist-mlp-20d on the same test images, in turns whose order is reversed from round to round. `evaluate`
gives its other figures and all errors as well. pythae runs in a process of its own, with the same weights and threads, and under
`no_grad`, which it leaves to its caller. At the end their figures must agree within the error of the draws.

    python benchmarks/nll.py --pythae _build/pythae/bin/python --out benchmarks/results/nll.json
"""
import argparse
import math
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from measuring import Pythae, machine, speed_ups, store, take_turns
from torch import nn

from vae_tutorial.data import intensities, load_data
from vae_tutorial.devices import best_device
from vae_tutorial.evaluation import evaluate
from vae_tutorial.saving import load_pretrained
from vae_tutorial.vae import evaluating

FLOOR, PRODUCTS = "draw, decode, sum", "matrix products alone"


def bare_nll(model, images, n_samples):
    """NLL of every image, with nothing but what the definition asks for: one image at a time, all its draws at once."""
    found = []
    with evaluating(model):
        for x in intensities(images):
            mu, logvar = model.encoder(x[None]).chunk(2, dim=1)
            eps = torch.randn(n_samples, mu.shape[1], device=x.device)
            z = mu + (logvar / 2).exp() * eps
            bce = F.binary_cross_entropy_with_logits(model.decoder(z), x.expand(n_samples, *x.shape), reduction="none").flatten(1).sum(1)
            log_w = 0.5 * (eps.square() + logvar - z.square()).sum(1) - bce
            found.append(math.log(n_samples) - log_w.logsumexp(0))
    return torch.stack(found)


def matrix_products(model, images, n_samples):
    """What the decoder's matrices take, without drawing, ReLU or loss."""
    matrices = [layer.weight.detach() for layer in model.decoder if isinstance(layer, nn.Linear)]
    factors = [(torch.randn(n_samples, w.shape[1], device=w.device), w.T, w.new_empty(n_samples, len(w))) for w in matrices]

    def work():
        for _ in images:
            for x, w, out in factors:
                torch.mm(x, w, out=out)
    return work


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--draws", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", type=torch.device, default=best_device())
    parser.add_argument("--pythae", type=Path, help="interpreter of an environment with pythae; without it pythae is left out")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    model = load_pretrained("mnist-mlp-20d").to(args.device)
    images = load_data("mnist").test.images[:args.images].to(args.device)

    answers = {}
    contestants = {
        "evaluate": lambda: answers.update(evaluate=evaluate(model, images, n_samples=args.draws, progress=False)),
        FLOOR: lambda: answers.update({FLOOR: bare_nll(model, images, args.draws).mean().item()}),
        PRODUCTS: matrix_products(model, images, args.draws)}
    result = dict(machine=machine(args.device), images=len(images), draws=args.draws, rounds=args.rounds)
    if args.pythae:
        pythae = Pythae(args.pythae, "nll", args.device, images=images.cpu().numpy(), n_samples=args.draws,
                        **{name: t.cpu().numpy() for name, t in model.state_dict().items()})
        contestants["pythae"] = lambda: answers.update(pythae=pythae())
        result["machine"]["pythae"] = pythae.version
    times = {name: each[1:] for name, each in take_turns(contestants, args.rounds, args.device).items()}
    if args.pythae:
        pythae.close()

    error = answers["evaluate"].draw_errors["nll"]
    nll = answers | {"evaluate": answers["evaluate"].nll}
    for name, value in nll.items():          # two estimates differ by √2 errors
        assert abs(value - nll["evaluate"]) < 6 * error, f"{name}: {value:.3f}, evaluate: {nll['evaluate']:.3f} ± {error:.3f}"
    result |= dict(seconds={name: [round(s, 3) for s in each] for name, each in times.items()},
                   times_as_fast_as_pythae=speed_ups(times, "pythae") if args.pythae else None,
                   times_as_fast_as_floor=speed_ups(times, FLOOR),
                   nll={name: round(value, 3) for name, value in nll.items()}, error_from_draws=round(error, 3))
    show(result)
    store(result, args.out)


def show(result):
    print(f"NLL of {result['images']} images, {result['draws']:,} draws each; {result['machine']}")
    print(f"{'':24s}{'seconds':>8s}{'× pythae':>10s}{'× floor':>9s}{'NLL':>9s}")
    for name, each in sorted(result["seconds"].items(), key=lambda row: -median(row[1])):
        against = (result["times_as_fast_as_pythae"] or {}).get(name, [math.nan])[0]
        print(f"{name:24s}{median(each):8.2f}{against:10.2f}{result['times_as_fast_as_floor'][name][0]:9.2f}"
              f"{result['nll'].get(name, math.nan):9.2f}")
    print(f"The draws alone make an NLL uncertain by {result['error_from_draws']:.2f}; {FLOOR} is the floor.")


if __name__ == "__main__":
    main()
