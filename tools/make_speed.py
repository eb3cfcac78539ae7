"""Write the tables of chapter 10 from what the benchmarks have measured, between its marks; the prose stays."""
import json
from statistics import median

import nbformat
from make_results import ROOT, filled, table

RESULTS = ROOT / "benchmarks" / "results"
CHAPTER = ROOT / "nbs" / "10_going_faster.ipynb"


def load(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def where(machine):
    """Return the hardware and the versions in a few words."""
    device = machine["gpu"] or f"{machine['cpu']}, {machine['threads']} threads"
    more = [f"{name} {machine[name]}" for name in ("torch", "pythae") if name in machine]
    return ", ".join([device, *machine["flags"], *more])


def with_interval(ratio):
    """Return a ratio with the ends of its 95 % interval; nothing where there is none."""
    return "" if ratio is None else "{:.2f} ({:.2f} to {:.2f})".format(*ratio)


def rates(result):
    """Return the table of one network's contestants, with what each step of the chapter gains if there are such."""
    rows, gains = [], result["gain_of_each_step"]
    for name, each in result["images_per_second"].items():
        row = [name, f"{median(each):,.0f}", with_interval(result["times_as_fast_as_usual_loop"][name])]
        rows.append(row + [with_interval(gains.get(name))] * bool(gains))
    return table(["contestant", "images/s", "times the usual loop"] + ["times the row above"] * bool(gains), rows)


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
    """Return the tables of the loops and of the importance-weighted bound."""
    parts = []
    for result in load("training").values():
        parts += [f"**Training, {result['network']}**: {result['images']:,} images, {result['rounds']} rounds; {where(result['machine'])}.",
                  rates(result), remarks(result)]
    nll = load("nll")
    rows = [[name, f"{median(each):.2f}", with_interval(nll["times_as_fast_as_pythae"][name])] for name, each in nll["seconds"].items()]
    parts += [f"**Importance-weighted bound** of {nll['images']} images with {nll['draws']:,} draws each ([chapter 03](03_evaluation.ipynb)); "
              f"{where(nll['machine'])}.", table(["contestant", "seconds", "times pythae"], rows)]
    return "\n\n".join(part for part in parts if part)


def recipes():
    """Return what the search for recipes has found, on the split that the race does not see."""
    rows = []
    for row in load("time_to_target")["tuning"]:
        there = f"epoch {row['epochs']}" if row["reached"] else f"not by epoch {row['epochs']}: {row['loss']:.2f}"
        rows.append([row["kind"], f"{row['lr']:g}", row["batch_size"], row["length"] if row["kind"] == "one-cycle" else "", there])
    return table(["schedule", "(highest) rate", "batches of", "length", "at the target"], rows)


def setting(recipe):
    return f"{recipe['lr']:g}, batches of {recipe['batch_size']}"


def target():
    """Return the epochs and seconds that each recipe takes to the target, and the ratios."""
    race, rows = load("time_to_target"), []
    for kind, recipe in race["recipes"].items():
        runs = [run for run in race["runs"] if run["kind"] == kind]
        rows.append([f"{kind}, {setting(recipe)}", f"{sum(run['reached'] for run in runs)} of {len(runs)}",
                     ", ".join(str(run["epochs"]) for run in sorted(runs, key=lambda run: run["seed"]))])
    turns = [[name, f"{median(each):.2f}"] for name, each in race["seconds_of_an_epoch"].items()]
    ratios = [[pair, with_interval(ratio)] for pair, ratio in race["times_as_long"].items()]
    return "\n\n".join([table(["recipe", "arrived", "epochs to the target, by seed"], rows),
                        f"Seconds of an epoch, validation included, on {where(race['machine'])}:",
                        table(["loop and recipe", "seconds"], turns), table(["to the target", "times as long"], ratios)])


def busy():
    """Return the table of epochs beside a busy process."""
    result = load("busy_core")
    rows = [[waiting, *(f"{median(result['seconds'][f'{waiting}, {beside}']):.2f}" for beside in ("alone", "beside a busy process")),
             with_interval(ratio)] for waiting, ratio in result["times_as_long_beside_a_busy_process"].items()]
    return "\n\n".join([f"{result['images']:,} images; {where(result['machine'])}.",
                        table(["threads", "seconds alone", "beside a busy process", "times as long"], rows)])


def gpu():
    """Return the tables of what was measured on a GPU."""
    fifty, many = load("fifty_epochs"), load("many_models")
    usual = median(fifty["seconds"]["usual loop"])
    rows = [[name, f"{fifty['seconds_of_first_epoch'][name]:.1f}", f"{median(each):.1f}", f"{usual / median(each):.1f}"]
            for name, each in fifty["seconds"].items()]
    parts = [f"**{fifty['epochs']} epochs of S0's network**, {fifty['images']:,} images an epoch; {where(fifty['machine'])}.",
             table(["contestant", "first epoch, with start-up (s)", f"{fifty['epochs']} epochs after it (s)", "times the usual loop"], rows)]
    rows = [[name, f"{median(each['images_per_second']['sweep, one by one']):,.0f}",
             f"{median(each['images_per_second']['sweep, all at once']):,.0f}",
             f"{each['times_as_fast_as_one_by_one']['sweep, all at once']:.1f}"] for name, each in many["networks"].items()]
    parts += [f"**{many['models']} models that differ in their seed**, one by one and with `sweep(..., at_once={many['models']})`, images/s of all together:",
              table(["network", "one by one", "at once", "times as fast"], rows)]
    return "\n\n".join(parts)


def fill(chapter):
    """Fill in the tables of the notebook between its marks."""
    for name, content in dict(recipes=recipes, target=target, busy=busy, gpu=gpu, bench=bench).items():
        (cell,) = (cell for cell in chapter.cells if f"<!-- {name} -->" in cell.source)
        cell.source = filled(cell.source, name, content())


def main():
    chapter = nbformat.read(CHAPTER, as_version=4)
    fill(chapter)
    nbformat.write(chapter, CHAPTER)
    print(f"{CHAPTER.relative_to(ROOT)} shows what the benchmarks have measured")


if __name__ == "__main__":
    main()
