"""Fill the API page from the docstrings: the names at the top, and a section for each notebook that has a module."""
import json
import re
from pathlib import Path

import vae_tutorial

ROOT = Path(__file__).resolve().parents[2]
TOP = "\n## At the top\n\nThese names need no module, `vt.fit` is enough: {names}.\n"
SECTION = """
## {module}

Explained in {{doc}}`{page}`.

```{{eval-rst}}
.. automodule:: vae_tutorial.{module}
   :members:
```
"""


def module_of(notebook):
    """Return the name of the module that a notebook exports to, None where it exports none."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    match = re.search(r"^#\|\s*default_exp\s+(\S+)", code, re.MULTILINE)
    return match and match[1]


def pages(app):
    """Yield the names of all pages in the order of the table of contents: chapters, then the engine room."""
    for part in app.config.external_site_map.root.subtrees:
        yield from part.files()


def link(name):
    """Return a link to a name at the top of the package, from what its module says of it."""
    return f"{{py:obj}}`{name} <{getattr(vae_tutorial, name).__module__}.{name}>`"


def add_modules(app, page, source):
    """Append the names at the top and a section for each module to the source of the API page."""
    if page != "api":
        return
    source[0] += TOP.format(names=", ".join(map(link, vae_tutorial.__all__)))
    for page in pages(app):
        notebook = ROOT / "nbs" / f"{page}.ipynb"
        module = module_of(notebook) if notebook.exists() else None
        if module:
            source[0] += SECTION.format(module=module, page=page)


def as_rst(app, what, name, obj, options, lines):
    """Turn what our docstrings share with Markdown and Python into what Sphinx reads."""
    text = "\n".join(lines)
    text = re.sub(r"(?<![\\$])\$(?=\S)([^$]+)(?<=\S)\$(?!\w)", r":math:`\1`", text)   # dollar mathematics; not $HOME or $DATA
    text = re.sub(r"(?<=[\s(,])\*(?=\w)(?!.*\w\*)", r"\\*", text)                 # a shape such as (B, *input_shape)
    lines[:] = text.split("\n")


def skip_field(app, what, name, obj, skip, options):
    """Leave out the fields of named tuples that Python described by itself."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def setup(app):
    app.connect("source-read", add_modules)
    app.connect("autodoc-process-docstring", as_rst, priority=400)   # before napoleon
    app.connect("autodoc-skip-member", skip_field)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
