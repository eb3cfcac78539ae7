"""Seconds of S0's 50 epochs on a GPU, from the usual loop to one CUDA graph per step.

All contestants train the S0 network on its pooled split, 63,000 images in batches of 128, in one process. A first, short training of
each warms up; what compiling costs is its own figure. `fit` is timed whole, with validation, history and best weights. The last two
contestants are the floor: a step, Adam included, recorded as one CUDA graph and replayed, without validation or record, and the last
24 images of an epoch left out.

    python benchmarks/fifty_epochs.py --out benchmarks/results/fifty_epochs.json
"""
import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from measuring import machine, seconds, store
from training import BATCH, STEPS, fitting, loop

from vae_tutorial.data import load_data
from vae_tutorial.devices import best_device
from vae_tutorial.vae import VAE


def graph_loop(images, epochs, device, precision):
    """The whole step as one CUDA graph, which is replayed with the indices of another batch."""
    images, index = images.to(device), torch.zeros(BATCH, dtype=torch.long, device=device)

    def train():
        model = VAE().to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True, capturable=True)

        def step():
            x = images[index].float() / 255
            with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
                mu, logvar = model.encoder(x).float().chunk(2, dim=1)
                logits = model.decoder(mu + torch.randn_like(mu) * (logvar / 2).exp())
            bce = F.binary_cross_entropy_with_logits(logits.float(), x, reduction="sum")
            loss = (bce + 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum()) / len(x)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return loss.detach()

        side = torch.cuda.Stream()          # memory and libraries are made ready before anything is recorded
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = step()
        for _ in range(epochs):
            for part in torch.randperm(len(images), device=device).split(BATCH):
                if len(part) == BATCH:
                    index.copy_(part)
                    graph.replay()
        return loss.item()
    return train


def contestants(data, epochs, device):
    """All of them, by name."""
    images, found = data.train.images, {"usual loop": loop(VAE, data.train.images, epochs, device, **STEPS["usual loop"])}
    for precision in ("fp32", "bf16"):
        found |= {f"fit, {precision}": fitting(VAE, data, epochs, device, precision=precision),
                  f"fit, compiled, {precision}": fitting(VAE, data, epochs, device, precision=precision, compile=True),
                  f"one graph per step, {precision}": graph_loop(images, epochs, device, precision)}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--usual-rounds", type=int, default=1, help="of the usual loop, which takes long")
    parser.add_argument("--only", nargs="+", help="contestants to time")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device, data = best_device(), load_data("mnist", split="pooled")
    warming_up, racing = contestants(data, 1, device), contestants(data, args.epochs, device)
    cold, took, failed = {}, {}, {}
    for name, work in racing.items():
        if name not in (args.only or racing):
            continue
        try:
            cold[name] = round(seconds(warming_up[name], device), 2)
            rounds = args.usual_rounds if name == "usual loop" else args.rounds
            took[name] = [round(seconds(work, device), 2) for _ in range(rounds)]
        except RuntimeError as error:          # the others still have a figure
            failed[name] = str(error).partition("\n")[0]
        print(name, cold.get(name), took.get(name), failed.get(name, ""), flush=True)
        store(dict(machine=machine(device), epochs=args.epochs, images=len(data.train), seconds_of_first_epoch=cold, seconds=took,
                   failed=failed), args.out)


if __name__ == "__main__":
    main()
