"""Put the copies of the notebooks that readers get where the download button of each page leads."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from published import write


def write_downloads(app, exception):
    """Replace the sources that Sphinx has copied; the site has no other file of a notebook."""
    if exception or app.builder.name != "html":
        return
    for page in sorted(app.env.found_docs):
        source = Path(app.env.doc2path(page))
        if source.suffix == ".ipynb":
            write((Path(app.outdir) / "_sources" / page).parent, [source])


def setup(app):
    app.connect("build-finished", write_downloads)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
