"""Build the course's site from nbs/ with the settings in book/; a warning is an error.

Each build starts afresh and replaces the old site only when it has succeeded: pages of deleted notebooks do not
stay behind, and a warning cannot hide in a page that was built before.
"""
import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import fetch_assets

ROOT = Path(__file__).resolve().parents[1]
COLOUR = re.compile(r"\x1b\[[\d;]*m")


def jupyter_book(output):
    """Run Jupyter Book with its output below `output`; return the log and whether the build succeeded."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", ROOT / "nbs",
               "--path-output", output, "--config", ROOT / "book" / "_config.yml", "--toc", ROOT / "book" / "_toc.yml",
               "-W", "--keep-going", "-n", "--all", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return COLOUR.sub("", done.stdout), done.returncode == 0


def build(site):
    """Build the site into the folder `site`, or leave what is there and exit with the log of what went wrong."""
    fetch_assets.fetch()
    site.parent.mkdir(parents=True, exist_ok=True)
    # beside the target, so that the finished site is moved there in one step
    with tempfile.TemporaryDirectory(prefix="site-", dir=site.parent) as folder:
        log, succeeded = jupyter_book(folder)
        if not succeeded:
            sys.exit(f"{log}\nerror: the site was not built (see above)")
        built = Path(folder) / "_build" / "html"
        shutil.rmtree(site, ignore_errors=True)
        built.rename(site)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "html", help="folder of the finished site")
    out = parser.parse_args().out
    print("Building the site", flush=True)
    build(out.absolute())


if __name__ == "__main__":
    main()
