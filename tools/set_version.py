"""Write the version of a release wherever it stands; `python tools/set_version.py 0.2.0` is all that a release needs before its commit.

It goes to settings.ini, which owns it, to CITATION.cff, to the Colab badges of the chapters and of the README, to the cells that install the
package in Colab, to a heading of its own in CHANGELOG.md, and with nbdev_export to the package. Doing it twice changes nothing.
"""
import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parents[1]
ENTRY = re.compile(r"^(version(?: =|:)) .*$", re.MULTILINE)
# The tag in the address of a notebook in Colab, and the release that a page installs. Notebooks are changed as text:
# so nothing else in them moves.
TAG = re.compile(r"(?<=//colab\.research\.google\.com/github/)([\w-]+/[\w-]+/blob/)[^/]+(?=/nbs/)")
INSTALLED = re.compile(r"(?<=%pip install --quiet vae-tutorial==)[^\s\"\\]+")
UNRELEASED = "## [Unreleased]\n"
NBDEV_EXPORT = "from nbdev.doclinks import nbdev_export; nbdev_export()"


def release(text):
    """Return the text of a version, or raise ValueError where it names none that can be released."""
    try:
        version = Version(text)
    except InvalidVersion:
        version = None
    if version is None or version.local or version.is_devrelease or len(version.release) != 3 or str(version) != text:
        raise ValueError(f"VERSION is {text!r}, must be a release of three numbers as PEP 440 writes it, such as 0.2.0 or 0.2.0rc1")
    return text


def in_settings(text, version):
    """Return settings.ini, or CITATION.cff, with the version."""
    return ENTRY.sub(rf"\1 {version}", text)


def in_page(text, version):
    """Return a notebook, or the README, with the version in its badges and in the cell that installs the package."""
    return INSTALLED.sub(version, TAG.sub(rf"\g<1>v{version}", text))


def in_changelog(text, version):
    """Return the changelog with a heading for the version, above what was unreleased until now."""
    heading = f"## [{version}]"
    return text if heading in text else text.replace(UNRELEASED, f"{UNRELEASED}\n{heading}\n", 1)


def rewrite(path, change, version):
    """Put the version into a file in one step; return whether that changed it."""
    before = path.read_text(encoding="utf-8")
    after = change(before, version)
    if after != before:
        unfinished = path.with_name(f".{path.name}.unfinished")
        unfinished.write_text(after, encoding="utf-8")
        os.replace(unfinished, path)
    return after != before


def set_version(version, root=ROOT):
    """Write the version into every file that tells it; return the names of those that changed."""
    pages = [*sorted(root.glob("nbs/[!._]*.ipynb")), root / "README.md"]
    places = {root / "settings.ini": in_settings, root / "CITATION.cff": in_settings, root / "CHANGELOG.md": in_changelog}
    places |= dict.fromkeys(pages, in_page)
    changed = [path for path, change in places.items() if rewrite(path, change, version)]
    subprocess.run([sys.executable, "-c", NBDEV_EXPORT], cwd=root, check=True)
    return [str(path.relative_to(root)) for path in changed]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version", metavar="VERSION", help="the release, such as 0.2.0")
    try:
        version = release(parser.parse_args().version)
    except ValueError as error:
        sys.exit(f"error: {error}")
    changed = set_version(version)
    print(f"{version} now stands in {', '.join(changed)}" if changed else f"{version} stood everywhere already")


if __name__ == "__main__":
    main()
