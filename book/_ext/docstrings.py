"""Show the summary of a docstring, and unfold the rest at a click: in the code of exported cells and on the API page.

In a block of code the rest stands in a <details> within the <pre>, so that the text of the block is the code of the cell, open or
closed; the copy button leaves out the line to click on (copybutton_exclude). Closed, that line shows the quotation marks
which end the docstring, so that also what a reader marks and copies by hand is Python.
"""
import ast

from docutils import nodes
from notebook_cells import fold
from sphinx import addnodes

DOCUMENTED = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class unfolding_code(nodes.literal_block):
    """Code with docstrings that unfold; its attribute `rests` has the first and the last line of each part that is folded away."""


def rest_of_docstring(node, lines):
    """Return the first and the last line of a docstring's rest, counted from 0; None where the summary is all, or nearly all."""
    text = node.body[0]
    docstring = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    if not docstring or not lines[text.end_lineno - 1].strip() == '"""':
        return None
    blank = next((number for number in range(text.lineno, text.end_lineno) if not lines[number].strip()), None)
    return (blank, text.end_lineno - 1) if blank is not None else None


def rests_of_docstrings(code):
    """Return the lines of all docstrings' rests in a cell of code, in order."""
    try:
        tree = ast.parse(code)
    except SyntaxError:         # a line that only IPython reads
        return []
    lines = code.split("\n")
    rests = [rest_of_docstring(node, lines) for node in ast.walk(tree) if isinstance(node, DOCUMENTED)]
    return sorted(filter(None, rests))


def unfold_code(doctree):
    """Mark the docstrings in the blocks of exported cells."""
    for block in list(doctree.findall(lambda node: isinstance(node, nodes.literal_block) and node.get("exported"))):
        rests = rests_of_docstrings(block.astext())
        if rests:
            block.replace_self(unfolding_code(block.rawsource, *block.children, **block.attributes, rests=rests))


def unfolded(html, rests):
    """Return the highlighted code with each part that `rests` names in a <details>; line breaks stay as they are."""
    head, body = html.split("<pre>")
    lines = body.split("\n")
    for first, last in reversed(rests):
        quotes = lines[last]
        label = f"{last - first - 1} more lines"
        lines[first:last + 1] = [f'<details class="docstring"><summary aria-label="Docstring: {label}" data-label="{label}">{quotes}</summary>'
                                 + "\n".join(lines[first:last + 1]), f"</details>{lines.pop(last + 1)}"]
    return f"{head}<pre>" + "\n".join(lines)


def write_code(translator, node):
    """Write a block of code as Sphinx does, and fold its docstrings."""
    try:
        translator.visit_literal_block(node)
    except nodes.SkipNode:
        translator.body[-1] = unfolded(translator.body[-1], node["rests"])
        raise


def names_of_parts(parts):
    """Return what the rest of an entry holds, for the line to click on."""
    names = [name.astext() for part in parts for name in part.findall(nodes.field_name)]
    return ", ".join(dict.fromkeys(names)) or "More"


def unfold_entry(content):
    """Put all of an entry behind a click but its first paragraph, and the entries within it."""
    rest = [part for part in content.children[1:] if not isinstance(part, addnodes.desc | addnodes.index | nodes.target)]
    if rest and isinstance(content.children[0], nodes.paragraph):
        place = content.index(rest[0])
        for part in rest:
            content.remove(part)
        content.insert(place, fold("", *rest, summary=names_of_parts(rest), kind="more"))


def unfold(app, doctree):
    """Fold the docstrings of a page."""
    unfold_code(doctree)
    for content in list(doctree.findall(addnodes.desc_content)):
        if content.children:
            unfold_entry(content)


def as_code(translator, node):
    """Write the block as any other, in formats in which nothing unfolds."""
    translator.visit_literal_block(node)


def end_code(translator, node):
    translator.depart_literal_block(node)


def setup(app):
    app.add_node(unfolding_code, html=(write_code, None), latex=(as_code, end_code), text=(as_code, end_code))
    app.connect("doctree-read", unfold, priority=600)      # after the cells have been shown as their first lines ask
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
