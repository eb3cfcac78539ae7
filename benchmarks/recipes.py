"""The search for a one-cycle recipe that gets a network to a low validation loss in few epochs.

Every combination of the highest learning rate, the batch size and the number of epochs is trained: S0's network (784-400-20) on its pooled
split of MNIST, or the convolutional network of chapter 8 on Fashion-MNIST. The losses do not depend on how busy the machine is, so several
of these may run side by side, each in a folder of its own; a stopped search goes on.

    python benchmarks/recipes.py mlp --lr 0.002 0.004 0.008 --batch-size 128 256 512 --epochs 15 --out benchmarks/results/recipes.json
    python benchmarks/recipes.py conv --lr 0.002 0.004 0.008 --batch-size 128 --epochs 5 --out benchmarks/results/recipes.json
"""
import argparse
import json
from pathlib import Path

from vae_tutorial.conv import ConvVAE
from vae_tutorial.data import load_data
from vae_tutorial.grid import sweep
from vae_tutorial.training import LR_SCHEDULES
from vae_tutorial.vae import VAE

NETWORKS = {"mlp": (VAE, dict(name="mnist", split="pooled")), "conv": (ConvVAE, dict(name="fashion"))}


def search(network, grid, folder):
    """A row for each combination, the lowest validation loss first."""
    model_class, protocol = NETWORKS[network]
    table = sweep(load_data(**protocol), grid, model_class=model_class, folder=folder, precision="fp32")
    return table.assign(network=network).sort_values("loss")[["network", *grid, "loss", "reconstruction", "kl", "epoch"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--lr-schedule", nargs="+", choices=LR_SCHEDULES, default=["one-cycle"])
    parser.add_argument("--lr", type=float, nargs="+", default=[2e-3, 4e-3, 8e-3], help="highest learning rates")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--epochs", type=int, nargs="+", default=[15])
    parser.add_argument("--seed", type=int, nargs="+", default=[42])
    parser.add_argument("--folder", type=Path, default=Path("_build/recipes"), help="where the runs are kept")
    parser.add_argument("--out", type=Path, help="file to which the rows are added")
    options = parser.parse_args()
    varied = ("lr_schedule", "lr", "batch_size", "epochs", "seed")
    rows = search(options.network, {name: getattr(options, name) for name in varied}, options.folder)
    print(rows.round(4).to_string(index=False))
    if options.out:
        known = json.loads(options.out.read_text()) if options.out.exists() else []
        new = json.loads(rows.to_json(orient="records"))
        fresh = {tuple(row[key] for key in ("network", *varied)): row for row in known + new}
        rows = sorted(fresh.values(), key=lambda row: (row["network"], row["loss"]))
        options.out.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()
