"""Run the code cells of a notebook from top to bottom with IPython alone: `python run_notebook.py NOTEBOOK`.

Cells that say `#| eval: false` are left out. The first cell that fails ends the run, with its traceback and exit status 1; warnings are
shown and end nothing. The package must be the one that is installed beside this Python, not a checkout that happens to be near.
"""
import json
import re
import sys
import sysconfig
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell

NOT_RUN = re.compile(r"^\s*#\s*\|\s*eval\s*:\s*false\s*$", re.MULTILINE | re.IGNORECASE)


class Shell(InteractiveShell):
    """A shell without a window: pictures are shown and closed at the end of a cell, as in a notebook."""

    def enable_gui(self, gui=None):
        pass


def sources(path):
    """Yield number and source of the code cells that are to be run."""
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and not NOT_RUN.search(source):
            yield number, source


def check_installed():
    """End the run unless the package was imported from this Python's site-packages."""
    import vae_tutorial

    found, wanted = Path(vae_tutorial.__file__).resolve().parent, Path(sysconfig.get_path("purelib")).resolve()
    if found.parent != wanted:
        sys.exit(f"vae_tutorial is {found}, must be the one installed in {wanted}")


def run(path):
    """Run a notebook; end with exit status 1 at the first cell that fails."""
    sys.path[0] = ""            # as in a kernel: the folder that it runs in, not the one of this script
    shell = Shell.instance()
    shell.enable_matplotlib("inline")
    for number, source in sources(path):
        if not shell.run_cell(source, store_history=False).success:
            sys.exit(f"{path.name}, cell {number} failed (see above):\n{source}")
    check_installed()


if __name__ == "__main__":
    run(Path(sys.argv[1]))
