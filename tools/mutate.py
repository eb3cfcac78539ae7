"""Take out the guards of the reliability page, one at a time, in a copy of the course: the test of the row must fail each time.

A guard is a statement of the package with a mark at the end of one of its lines, `# guard: name`. What stands in its place:

    if …:  elif …:           if False:
    except …:                except ZeroDivisionError as error:
    for … in …:              for … in ():
    with …:                  if True:
    any other statement      pass

or what book/results/faults.yml says.
"""
import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from make_reliability import ROOT, keep, rows

KEPT = ("vae_tutorial", "tests", "tools", "nbs", "book/results", "settings.ini", "_quarto.yml", "pyproject.toml", "constraints.txt", "setup.py")
MARK = re.compile(r"  # guard: (\S+)$", re.MULTILINE)


def marks(package=ROOT / "vae_tutorial"):
    """Return the files of all marks, by name; each name stands once in the package."""
    found = {}
    for path in sorted(package.glob("*.py")):
        for name in MARK.findall(path.read_text(encoding="utf-8")):
            if name in found:
                raise RuntimeError(f"two guards are called {name!r}, in {found[name].name} and in {path.name}")
            found[name] = path
    return found


def marked(source, name):
    """Return the statement, or its first line if it has a body, that ends with a mark or holds it."""
    mark = next((mark for mark in MARK.finditer(source) if mark[1] == name), None)
    if mark is None:
        raise RuntimeError(f"no guard is called {name!r}")
    line, heads = 1 + source.count("\n", 0, mark.start()), []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.stmt, ast.ExceptHandler)):
            last = node.body[0].lineno - 1 if getattr(node, "body", None) else node.end_lineno
            if node.lineno <= line <= last:
                heads.append((node.lineno, last, node))
    return max(heads, key=lambda head: head[0])


def default(node, head):
    """Return what stands in the place of a guard."""
    if isinstance(node, ast.If):
        return "elif False:" if head.startswith("elif") else "if False:"
    if isinstance(node, ast.ExceptHandler):
        return "except ZeroDivisionError as error:"
    if isinstance(node, ast.For):
        return f"for {ast.unparse(node.target)} in ():"
    return "if True:" if isinstance(node, ast.With) else "pass"


def without(source, name, instead=None):
    """Return a source without one of its guards."""
    first, last, node = marked(source, name)
    lines = source.split("\n")
    head = lines[first - 1].lstrip()
    indent = lines[first - 1].removesuffix(head)
    return "\n".join([*lines[:first - 1], indent + (instead or default(node, head)), *lines[last:]])


def guards(row):
    """Yield mark, replacement and test of each guard of a row."""
    for guard in row["guards"]:
        guard = guard if isinstance(guard, dict) else {"mark": guard}
        yield guard["mark"], guard.get("instead"), guard.get("test", row["test"])


def copy_course(folder):
    """Copy what the tests of the rows need."""
    for name in KEPT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "runs"))
        else:
            shutil.copyfile(ROOT / name, folder / name)


def passes(test, folder):
    """Run a test in the copy, with the copy's package, and say whether it passes."""
    found = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", "--timeout=900", "-p", "no:cacheprovider", *test.split()]
    done = subprocess.run(command, cwd=folder, env=found, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode > 1:          # below 0 a signal ended it: without a guard, PyTorch can crash
        raise RuntimeError(f"{done.stdout}\n{test} could not be run")
    return done.returncode == 0


def red_without(row, mark, instead, test):
    """Say whether a row's test fails without one of its guards."""
    with tempfile.TemporaryDirectory() as folder:
        copy_course(Path(folder))
        path = Path(folder) / marks()[mark].relative_to(ROOT)
        path.write_text(without(path.read_text(encoding="utf-8"), mark, instead), encoding="utf-8")
        red = not passes(test, Path(folder))
    print(f"{row}: {'red' if red else 'STILL GREEN'} without {mark}", flush=True)
    return red


def failed(result):
    """Say whether a guard could not be tried, and why; the others are kept."""
    if result.exception():
        print(repr(result.exception()), flush=True)
    return bool(result.exception())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help="rows to try (default: all)")
    asked = parser.parse_args().rows or list(rows())
    with ThreadPoolExecutor(max_workers=2) as pool:
        running = {name: [pool.submit(red_without, name, *guard) for guard in guards(rows()[name])] for name in asked}
    found = {name: [each.result() for each in results] for name, results in running.items() if not any(map(failed, results))}
    keep({name: {"red": red} for name, red in found.items()})
    bad = [name for name in asked if not all(found.get(name, [False]))]
    if bad:
        sys.exit(f"error: a guard can be taken out and no test sees it, or the test could not be run: {', '.join(bad)}")


if __name__ == "__main__":
    main()
