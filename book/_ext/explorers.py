"""Show a widget together with its still picture.

An output may hold a widget and HTML that stands for it where no script runs. Of the two the site would show the widget
alone. This extension puts both into one box, in which the style sheet lays them upon each other:

<div class="explorer">
(the HTML of the output)
<script type="application/vnd.jupyter.widget-view+json">(the widget's model id)</script>
</div>
"""
from docutils import nodes

VIEW = "application/vnd.jupyter.widget-view+json"


class explorer(nodes.General, nodes.Element):
    """A widget and the picture that stands for it."""


def join(bundle):
    """Put the HTML of an output to its widget view, where it has both."""
    kinds = {kind["mime_type"]: kind for kind in bundle.children}
    if not {VIEW, "text/html"} <= kinds.keys():
        return
    view, still = kinds[VIEW], kinds["text/html"]
    for part in still.children:
        part["classes"] = []        # as it is, not in a box of its own
    both = explorer("", *still.children, *view.children)
    view.children = []
    view += both
    bundle.remove(still)
    bundle.parent["classes"].append("with-explorer")      # the style sheet cuts other outputs off where they are too wide


def join_all(app, doctree):
    """Join pictures and widgets of a page; which kind of an output is shown is decided later, for each format."""
    for bundle in list(doctree.findall(nodes.container)):
        if bundle.get("nb_element") == "mime_bundle":
            join(bundle)


def open_explorer(translator, node):
    """Begin the HTML of an explorer."""
    translator.body.append('<div class="explorer">\n')


def close_explorer(translator, node):
    """End the HTML of an explorer."""
    translator.body.append("\n</div>\n")


def setup(app):
    app.add_node(explorer, html=(open_explorer, close_explorer))
    app.connect("doctree-read", join_all)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
