"""The search for a one-cycle recipe that gets S0's network (784-400-20) to a low validation loss in few epochs.

Every combination of the highest learning rate, the batch size and the number of epochs is trained on S0's protocol (pooled split, β = 1). The
losses do not depend on how busy the machine is, so several of these may run side by side; a stopped search goes on.

    python benchmarks/recipes.py --lr 0.002 0.004 0.008 --batch-size 128 256 512 --epochs 15 --out benchmarks/results/recipes.json
"""
import argparse
import json
from pathlib import Path

from vae_tutorial.data import load_data
from vae_tutorial.sweeps import sweep


def search(grid, folder):
    """A row for each combination, the lowest validation loss first."""
    table = sweep(load_data("mnist", split="pooled"), grid, lr_schedule="one-cycle", folder=folder, precision="fp32")
    return table.sort_values("loss")[[*grid, "loss", "reconstruction", "kl", "epoch"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lr", type=float, nargs="+", default=[2e-3, 4e-3, 8e-3], help="highest learning rates")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--epochs", type=int, nargs="+", default=[15])
    parser.add_argument("--seed", type=int, nargs="+", default=[42])
    parser.add_argument("--folder", type=Path, default=Path("_build/recipes"), help="where the runs are kept")
    parser.add_argument("--out", type=Path, help="file to which the rows are added")
    options = parser.parse_args()
    rows = search({"lr": options.lr, "batch_size": options.batch_size, "epochs": options.epochs, "seed": options.seed}, options.folder)
    print(rows.round(4).to_string(index=False))
    if options.out:
        known = json.loads(options.out.read_text()) if options.out.exists() else []
        new = json.loads(rows.to_json(orient="records"))
        keys = ("lr", "batch_size", "epochs", "seed")
        fresh = {tuple(row[key] for key in keys): row for row in known + new}
        options.out.write_text(json.dumps(sorted(fresh.values(), key=lambda row: row["loss"]), indent=1) + "\n")


if __name__ == "__main__":
    main()
