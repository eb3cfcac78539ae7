"""Lay the state of a page's widgets into its notebook.

The state is mostly the weights of decoders, more than a megabyte for a page. It lies in a file of its own beside the notebook,
widgets/NAME.json, so that the notebook stays small and its changes can be read. The site and the copies that readers download
get both together, as Jupyter would have stored them.
"""
import json
from pathlib import Path


def state_file(path):
    """Return where the state of the widgets of the notebook at `path` lies."""
    return path.parent / "widgets" / f"{path.stem}.json"


def lay_in(notebook, path):
    """Return the notebook from `path` with the state of its widgets, where there is one; one that it carries itself stays."""
    file = state_file(path)
    if file.exists() and "widgets" not in notebook["metadata"]:
        notebook["metadata"]["widgets"] = json.loads(file.read_text(encoding="utf-8"))
    return notebook


def lay_into_page(app, page, source):
    """Complete a notebook before it is parsed."""
    path = Path(app.env.doc2path(page))
    if path.suffix == ".ipynb":
        source[0] = json.dumps(lay_in(json.loads(source[0]), path))


def setup(app):
    app.connect("source-read", lay_into_page)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
