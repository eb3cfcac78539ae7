"""Write the tables of the results page from the stored records, between its marks; the prose around them stays."""
import json
import re
import sys
from pathlib import Path

import yaml

from vae_tutorial.saving import about_pretrained

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "book" / "results"
PAGE = ROOT / "nbs" / "results.md"
PRETRAINED = ROOT / "vae_tutorial" / "pretrained" / "index.json"


def load():
    """Return the published figures and our records."""
    sources = yaml.safe_load((RESULTS / "sources.yml").read_text(encoding="utf-8"))
    return sources, json.loads((RESULTS / "records.json").read_text(encoding="utf-8"))


def by_name(records):
    """Return every figure with the chapter that it comes from, by its name."""
    figures = {}
    for chapter, run in records.items():
        for name, figure in run["figures"].items():
            if name in figures:
                sys.exit(f"error: {name} is recorded in {figures[name]['chapter']} and in {chapter}")
            figures[name] = figure | {"chapter": chapter}
    return figures


def table(header, rows):
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def number(x):
    """Return a figure with as many digits as it deserves."""
    if isinstance(x, str):
        return x
    digits = 0 if float(x).is_integer() and abs(x) >= 100 else 2 if abs(x) >= 1 else 3
    return f"{x:,.{digits}f}".replace("-", "−")


def ours(figure):
    spread = f" ± {number(figure['spread'])}" if figure["spread"] is not None else ""
    return number(figure["value"]) + spread


def difference(figure, theirs):
    """Return ours minus theirs with its sign; from the nearest end where theirs is a range, "inside" where ours is in it."""
    low, high = map(float, theirs.split("–")) if isinstance(theirs, str) else (theirs, theirs)
    nearest = min(max(figure["value"], low), high)
    return "inside" if low < nearest < high else f"{figure['value'] - nearest:+.2f}".replace("-", "−")


def link(chapter):
    return f"{{doc}}`{int(chapter[:2])} <{chapter}>`"


def comparison(group, figures):
    """Return the table of one group of published figures beside ours."""
    rows = []
    for row in group["rows"]:
        figure = figures.get(row["record"])
        if figure is None:
            sys.exit(f"error: no record {row['record']!r}; run the chapter that names it on the full data")
        theirs = row["theirs"]
        rows.append([row["what"], number(theirs), ours(figure), difference(figure, theirs), link(figure["chapter"])])
    about = f"{group['protocol']}.\n\n**What explains the difference.** {group['decides']}"
    return f"### {group['group']}\n\n{about}\n\n" + table(["figure", "theirs", "ours", "difference", "chapter"], rows)


def own(sources, figures):
    """Return the table of the figures that stand beside no published one."""
    beside = {row["record"] for group in sources["figures"] for row in group["rows"]}
    unknown, missing = figures.keys() - beside - sources["own"].keys(), sources["own"].keys() - figures.keys()
    if unknown:
        sys.exit(f"error: book/results/sources.yml does not say what these are: {', '.join(sorted(unknown))}")
    if missing:
        sys.exit(f"error: no chapter has recorded these on the full data: {', '.join(sorted(missing))}")
    rows = []
    for name, what in sources["own"].items():
        figure, spread = figures[name], ""
        if figure["spread"] is not None:
            spread = sources["spreads"].get(name) or sys.exit(f"error: book/results/sources.yml does not say what the ± of {name} is")
        rows.append([what, ours(figure), spread, link(figure["chapter"])])
    return table(["figure", "ours", "± is", "chapter"], rows)


def models():
    """Return the table of the models that the package ships, with their figures on the test set."""
    rows = []
    for name in json.loads(PRETRAINED.read_text(encoding="utf-8")):
        about = about_pretrained(name)
        found = {key: number(value) for key, value in about["metrics"].items()}
        if "loss" in found:
            figures = [f"{found['loss']} ± {found['loss_error']}", found["distortion"], found["rate"], found["reconstruction"],
                       about["metrics"]["active_units"], f"{found['nll']} ({found['loss_of_these']} on {about['metrics']['nll_images']} images)"]
        else:
            figures = ["", "", "", found["reconstruction"], "", ""]
        minutes = sum(epoch.seconds for epoch in about["history"]) / 60
        rows.append([f"`{name}`", about["recipe"]["data"], *figures, about["recipe"]["epochs"], number(minutes)])
    return table(["name", "data", "−ELBO", "distortion", "rate", "reconstruction at the code", "active", "bound, K = 5,000 (−ELBO)",
                  "epochs", "minutes"], rows)


def machines(records):
    """Return the table of where and how long each chapter ran."""
    rows = [[link(chapter), run["machine"]["processor"], run["machine"]["GPU"], run["machine"]["Python"], run["machine"]["torch"],
             f"{run['seconds']:,}"] for chapter, run in sorted(records.items())]
    return table(["chapter", "processor", "GPU", "Python", "torch", "seconds"], rows)


def filled(page, name, content):
    """Return the page with new content between the marks of that name."""
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not marks.search(page):
        sys.exit(f"error: {PAGE.name} has no marks for {name!r}")
    return marks.sub(lambda found: f"{found[1]}\n{content}\n\n{found[2]}", page)


def main():
    sources, records = load()
    figures = by_name(records)
    page = PAGE.read_text(encoding="utf-8")
    page = filled(page, "comparison", "\n\n".join(comparison(group, figures) for group in sources["figures"]))
    page = filled(page, "own", own(sources, figures))
    page = filled(page, "models", models())
    page = filled(page, "machines", machines(records))
    PAGE.write_text(page, encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)} shows {len(figures)} figures of {len(records)} chapters")


if __name__ == "__main__":
    main()
