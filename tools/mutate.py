"""Take out the guards of the reliability page, one at a time, in a copy of the course: the test of the row must fail each time."""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from make_reliability import MUTATIONS, ROOT, rows

KEPT = ("vae_tutorial", "tests", "tools", "nbs", "book/results", "settings.ini", "_quarto.yml", "pyproject.toml", "constraints.txt", "setup.py")


def copy_course(folder):
    """Copy what the tests of the rows need."""
    for name in KEPT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "runs"))
        else:
            shutil.copyfile(ROOT / name, folder / name)


def mutate(folder, guard):
    """Take out one guard, which must be there exactly once."""
    path = folder / guard["file"]
    source = path.read_text(encoding="utf-8")
    if source.count(guard["text"]) != 1:
        raise RuntimeError(f"{guard['text']!r} is {source.count(guard['text'])} times in {guard['file']}, must be there once")
    path.write_text(source.replace(guard["text"], guard["instead"]), encoding="utf-8")


def passes(test, folder):
    """Run a test in the copy, with the copy's package, and say whether it passes."""
    found = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider", *test.split()]
    done = subprocess.run(command, cwd=folder, env=found, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{done.stdout}\n{test} could not be run")
    return done.returncode == 0


def red_without(name, guard):
    """Say whether a row's test fails without one of its guards."""
    with tempfile.TemporaryDirectory() as folder:
        copy_course(Path(folder))
        mutate(Path(folder), guard)
        red = not passes(guard.get("test", rows()[name]["test"]), Path(folder))
    print(f"{name}: {'red' if red else 'STILL GREEN'} without {guard['text'].strip()[:90]!r}", flush=True)
    return red


def failed(result):
    """Say whether a guard could not be tried, and why; the others are kept."""
    if result.exception():
        print(result.exception(), flush=True)
    return bool(result.exception())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help="rows to try (default: all)")
    asked = parser.parse_args().rows or list(rows())
    with ThreadPoolExecutor(max_workers=2) as pool:
        running = {name: [pool.submit(red_without, name, guard) for guard in rows()[name]["guards"]] for name in asked}
    found = {name: [each.result() for each in results] for name, results in running.items() if not any(map(failed, results))}
    kept = json.loads(MUTATIONS.read_text(encoding="utf-8"))["rows"] if MUTATIONS.exists() else {}
    MUTATIONS.write_text(json.dumps({"rows": dict(sorted((kept | found).items()))}, indent=1) + "\n", encoding="utf-8")
    bad = [name for name in asked if not all(found.get(name, [False]))]
    if bad:
        sys.exit(f"error: a guard can be taken out and no test sees it, or the test could not be run: {', '.join(bad)}")


if __name__ == "__main__":
    main()
