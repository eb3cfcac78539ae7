"""Write the tables of chapter 10 from the results of `make bench` and of the search for recipes, between its marks; the prose stays."""
import json
from statistics import median

import nbformat
from make_results import ROOT, filled, number, table

RESULTS = ROOT / "benchmarks" / "results"
CHAPTER = ROOT / "nbs" / "10_going_faster.ipynb"


def load(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def where(machine):
    """Return the hardware and the versions in a few words."""
    device = machine["gpu"] or f"{machine['cpu']}, {machine['threads']} threads"
    more = [f"{name} {machine[name]}" for name in ("torch", "pythae") if name in machine]
    return ", ".join([device, *machine["flags"], *more])


def rates(result, gains):
    """Return the table of one network's contestants, with what each step of the chapter gains if there are such."""
    rows = []
    for name, each in result["images_per_second"].items():
        row = [name, f"{median(each):,.0f}", f"{result['times_as_fast_as_usual_loop'][name]:.2f}"]
        rows.append(row + [f"{100 * (gains[name] - 1):+.0f} %" if name in gains else ""] * bool(gains))
    return table(["contestant", "images/s", "times the usual loop"] + ["gain of the step"] * bool(gains), rows)


def remarks(result):
    """Say how long one waits for what is compiled, and what is missing."""
    said = []
    for name, cold in result["seconds_of_cold_turn"].items():
        warm = result["images"] * result["epochs"] / median(result["images_per_second"][name])
        said.append(f"*{name}* takes {cold:.0f} s for its first turn and {warm:.1f} s for a later one.")
    if result["no_native_bf16_here"]:
        said.append("No rows for bf16, which this machine does not multiply natively.")
    return " ".join(said)


def bench():
    """Return everything that `make bench` has measured."""
    training, target, nll = load("training"), load("time_to_target"), load("nll")
    parts = [f"Measured on {where(training['machine'])}; medians over {training['mlp']['rounds']} rounds."]
    for name, key in (("784-400-20 on MNIST", "mlp"), ("convolutional network on Fashion-MNIST", "conv")):
        gains = training["gain_of_each_step"] if key == "mlp" else {}
        parts += [f"**Training, {name}**, {training[key]['images']:,} images an epoch:", rates(training[key], gains), remarks(training[key])]
    rows = [[run["contestant"], run["seed"], run["epochs"], f"{run['seconds']:.0f}", number(run["loss"])] for run in target["runs"]]
    parts += [f"**Time to a validation −ELBO of {target['target']}**, each from the start of its process to its end. The recipe is there "
              f"{target['times_sooner']:.2f} times sooner:", table(["contestant", "seed", "epochs", "seconds", "validation −ELBO"], rows)]
    rows = [[name, f"{median(each):.2f}", f"{nll['times_as_fast_as_pythae'][name]:.2f}"] for name, each in nll["seconds"].items()]
    parts += [f"**NLL** of {nll['images']} images with {nll['draws']:,} draws each ([chapter 03](03_evaluation.ipynb)):",
              table(["contestant", "seconds", "times pythae"], rows)]
    return "\n\n".join(parts)


def grid(rows, epochs, seed):
    """Return the table of the search on S0's network: a row for a highest rate, a column for a size of batch."""
    found = {(row["lr"], row["batch_size"]): row["loss"] for row in rows if (row["epochs"], row["seed"]) == (epochs, seed)}
    lrs, sizes = (sorted(set(values)) for values in zip(*found))
    lines = [[f"{lr:g}", *(f"{found[lr, size]:.2f}" if (lr, size) in found else "" for size in sizes)] for lr in lrs]
    return table(["highest rate", *(f"batches of {size}" for size in sizes)], lines)


def recipes():
    """Return what the search for one-cycle recipes has found."""
    rows = load("recipes")
    mlp, conv = ([row for row in rows if row["network"] == network] for network in ("mlp", "conv"))
    chosen = {name: load("time_to_target")["recipe"][name] for name in ("epochs", "batch_size", "lr")}
    by_seed = {row["seed"]: f"{row['loss']:.2f}" for row in mlp if chosen.items() <= row.items()}
    lines = [[row["lr_schedule"], f"{row['lr']:g}", row["batch_size"], row["epochs"], f"{row['loss']:.2f}"] for row in conv]
    return "\n\n".join([
        grid(mlp, epochs=15, seed=42),
        f"At {chosen['lr']:g} in batches of {chosen['batch_size']}, the seeds {join(sorted(by_seed))} end at "
        f"{join(by_seed[seed] for seed in sorted(by_seed))}. The convolutional network of [chapter 08](08_conv.ipynb) gains as well "
        "(the rows of the constant rate are epochs of that chapter's long run):",
        table(["schedule", "(highest) rate", "batches of", "epochs", "validation −ELBO"], lines)])


def join(words):
    *most, last = map(str, words)
    return f"{', '.join(most)} and {last}" if most else last


def fill(chapter):
    """Fill in the tables of the notebook between its marks."""
    for name, content in {"recipes": recipes, "bench": bench}.items():
        (cell,) = (cell for cell in chapter.cells if f"<!-- {name} -->" in cell.source)
        cell.source = filled(cell.source, name, content())


def main():
    chapter = nbformat.read(CHAPTER, as_version=4)
    fill(chapter)
    nbformat.write(chapter, CHAPTER)
    print(f"{CHAPTER.relative_to(ROOT)} shows what the benchmarks have measured")


if __name__ == "__main__":
    main()
