"""Write the tables of the reliability page, between its marks, from its rows, book/results/faults.yml, and what was counted; the prose stays.

`make faults` and `make mutate` count; both keep their counts in benchmarks/results/faults.json.
"""
import json
import sys
from pathlib import Path

import yaml
from make_results import ROOT, filled

ROWS = ROOT / "book" / "results" / "faults.yml"
COUNTS = ROOT / "benchmarks" / "results" / "faults.json"
VERSIONS = ROOT / "benchmarks" / "results" / "versions.json"
PAGE = ROOT / "nbs" / "reliability.md"
GROUPS = ["training", "data", "files"]


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def rows():
    """Return the rows of the page by their names."""
    return yaml.safe_load(ROWS.read_text(encoding="utf-8"))


def table(group, counted):
    """Return the rows of a group as a Markdown table."""
    lines = ["| fault | what happens | tried | lost work | wrong result | guards taken out, test red |", "|---|---|---:|---:|---:|---:|"]
    for name, row in rows().items():
        if row.get("group") == group:
            count = counted[name]
            lines.append(f"| {row['fault']} | {row['answer']} | {count['tried']:,} | {count['lost']:,} | {count['wrong']:,} "
                         f"| {sum(count['red'])} of {len(count['red'])} |")
    return "\n".join(lines)


def versions():
    """Return the versions with which the wheel was tried, as a Markdown table."""
    tried = [(f"{kind}, Python {python}", entry["versions"]) for kind, runs in read(VERSIONS).items() for python, entry in runs.items()]
    lines = [f"| package | {' | '.join(name for name, _ in tried)} |", "|---|" + "---|" * len(tried)]
    for package in tried[0][1]:
        lines.append(f"| {package} | {' | '.join(found.get(package, '') for _, found in tried)} |")
    return "\n".join(lines)


def page(text):
    """Return the page with its tables made anew."""
    counts = read(COUNTS)
    for group in GROUPS:
        text = filled(text, group, table(group, counts["rows"]))
    return filled(filled(text, "machine", f"They were counted on {counts['machine']}."), "versions", versions())


def collect(lines):
    """Return the sums of the counts that tests have written, row by row."""
    sums = {}
    for line in lines:
        count = json.loads(line)
        total = sums.setdefault(count.pop("row"), dict.fromkeys(count, 0))
        for name, value in count.items():
            total[name] += value
    return sums


def keep(found, path=COUNTS, **more):
    """Store new counts of rows beside their others, without those of rows that are gone."""
    counts = read(path) | more
    new = {name: counts["rows"].get(name, {}) | found.get(name, {}) for name in rows()}
    text = json.dumps(counts | {"rows": dict(sorted(new.items()))}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def main():
    if len(sys.argv) == 2:                  # the file with the counts of `make faults`
        from execute_notebooks import machine

        here = machine()
        keep(collect(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()),
             machine=f"{here['processor']}; Python {here['Python']}, PyTorch {here['torch']}")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
