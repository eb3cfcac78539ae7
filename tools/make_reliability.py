"""Write the reliability page from its rows, book/results/faults.yml, and what `make faults` and `make mutate` have counted."""
import json
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "book" / "results" / "faults.yml"
TRIALS = ROOT / "benchmarks" / "results" / "faults.json"
MUTATIONS = ROOT / "benchmarks" / "results" / "mutations.json"
VERSIONS = ROOT / "benchmarks" / "results" / "versions.json"
PAGE = ROOT / "nbs" / "reliability.md"
GROUPS = {"training": "Training and sweeps", "data": "Data and downloads", "files": "Files from elsewhere"}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def rows():
    """Return the rows of the page by their names."""
    return yaml.safe_load(ROWS.read_text(encoding="utf-8"))


def sentence(text):
    """Return a text with a capital at the beginning and no full stop."""
    text = text.strip()
    return text[0].upper() + text[1:].removesuffix(".")


def table(group, counted, mutations):
    """Return the rows of a group as a Markdown table."""
    lines = ["| fault | what happens | tried | lost work | wrong result | guards taken out, test red |", "|---|---|---:|---:|---:|---:|"]
    for name, row in rows().items():
        if row.get("group") == group:
            count, red = counted[name], mutations[name]
            lines.append(f"| {sentence(row['fault'])} | {sentence(row['answer'])} | {count['tried']:,} | {count['lost']:,} | {count['wrong']:,} "
                         f"| {sum(red)} of {len(red)} |")
    return "\n".join(lines)


def versions():
    """Return the versions with which the wheel was tried, as a Markdown table."""
    tried = [(f"{kind}, Python {python}", entry["versions"]) for kind, runs in read(VERSIONS).items() for python, entry in runs.items()]
    lines = [f"| package | {' | '.join(name for name, _ in tried)} |", "|---|" + "---|" * len(tried)]
    for package in tried[0][1]:
        lines.append(f"| {package} | {' | '.join(found.get(package, '') for _, found in tried)} |")
    return "\n".join(lines)


def page():
    """Return the text of the page."""
    text = (ROOT / "book" / "results" / "reliability.md").read_text(encoding="utf-8")
    trials, mutations = read(TRIALS), read(MUTATIONS)
    for group, title in GROUPS.items():
        text = text.replace(f"<!-- {group} -->", f"## {title}\n\n{table(group, trials['rows'], mutations['rows'])}")
    return text.replace("<!-- machine -->", trials["machine"]).replace("<!-- versions -->", versions())


def collect(lines, machine):
    """Return the sums of the counts that tests have written, row by row."""
    sums = {}
    for line in lines:
        count = json.loads(line)
        total = sums.setdefault(count.pop("row"), dict.fromkeys(count, 0))
        for name, value in count.items():
            total[name] += value
    return {"machine": machine, "rows": dict(sorted(sums.items()))}


def main():
    if len(sys.argv) == 2:                  # the file with the counts of `make faults`
        from execute_notebooks import machine

        here = machine()
        found = collect(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines(),
                        f"{here['processor']}; Python {here['Python']}, PyTorch {here['torch']}")
        TRIALS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
