"""Show each notebook cell as its first lines ask for.

nbdev and Quarto read `#| name: value` lines at the top of a code cell. Jupyter Book does not know them, so this
extension carries them out on the parsed page. The notebook itself, which readers download, stays as it is.

hide                           the cell is not shown
hide_input, echo: false        its code is not shown
hide_output, output: false     its output is not shown
fig-alt: text                  alternative text of the pictures in its output
in-colour: true                its pictures keep their colours on a dark page
code-fold: true                code and output are folded away until the reader asks for them
(any other)                    only the line itself is not shown
"""
import re
from pathlib import Path

from docutils import nodes
from PIL import Image

SOLUTION = "#@title Solution\n"
DIRECTIVE = re.compile(r"\s*#\s*\|\s*([\w-]+)\s*:?\s*(.*?)\s*$")


class picture(nodes.General, nodes.Element):
    """A box for a picture that a cell drew; its attribute `width` is the picture's in pixels, `kind` its classes."""


class fold(nodes.General, nodes.Element):
    """A part of the page that opens at a click; its attribute `summary` is what the reader clicks on, `kind` a class for the style."""


def split_directives(source):
    """Return the directives at the top of a cell as a dict, and the code below them."""
    directives = {}
    lines = source.split("\n")
    for number, line in enumerate(lines):
        match = DIRECTIVE.match(line)
        if match:
            directives[match[1]] = match[2]
        elif line.strip():
            return directives, "\n".join(lines[number:])
    return directives, ""


def asks(directives, *names):
    """Say whether one of the names is given: a bare name, or `name: value` with that very value."""
    return any(name in directives if ":" not in name
               else directives.get(name.split(":")[0], "").lower() == name.split(":")[1].strip()
               for name in names)


def remove(node):
    """Take a node out of the page."""
    if node is not None and node.parent is not None:
        node.parent.remove(node)


def set_code(block, code):
    """Replace the text of a code block, also in the copy that the highlighter reads."""
    block.rawsource = code
    block.children = [nodes.Text(code)]
    block.children[0].parent = block


def describe_images(output, text):
    """Give every picture of an output its alternative text."""
    for image in output.findall(nodes.image):
        image["alt"] = text


def frame_images(app, output, kind):
    """Put every picture of an output in a box of a kind that knows how wide the picture is."""
    for image in list(output.findall(nodes.image)):
        with Image.open(Path(app.srcdir, image["uri"])) as drawn:
            image.replace_self(picture("", image.deepcopy(), width=drawn.width, kind=kind))


def fold_cell(cell, solution):
    """Put a cell's code and output behind a line to click on."""
    summary = "Show the solution" if solution else "Show the code"
    folded = fold("", *cell.children, summary=summary)
    cell.children = []
    cell += folded


def part(cell, name):
    """Return the code or the output of a cell, None where it has none."""
    return next((child for child in cell.children if child.get("nb_element") == name), None)


def show_cell(app, cell):
    """Carry out the directives of one cell."""
    source, output = part(cell, "cell_code_source"), part(cell, "cell_code_output")
    block = next(source.findall(nodes.literal_block), None) if source is not None else None
    if block is None:
        return
    directives, code = split_directives(block.astext())
    if asks(directives, "hide", "include: false"):
        return remove(cell)
    solution = code.startswith(SOLUTION)        # the line under which Colab folds it
    set_code(block, code.removeprefix(SOLUTION))
    block["exported"] = asks(directives, "export", "exports")
    if not code or asks(directives, "hide_input", "echo: false"):
        remove(source)
    if asks(directives, "hide_output", "output: false"):
        remove(output)
    elif output is not None and "fig-alt" in directives:
        describe_images(output, directives["fig-alt"])
    if output is not None:
        frame_images(app, output, "picture in-colour" if asks(directives, "in-colour: true") else "picture")
    if not cell.children:
        remove(cell)
    elif asks(directives, "code-fold: true"):
        fold_cell(cell, solution)


def show_cells(app, doctree):
    """Carry out the directives of every code cell of a page."""
    for cell in list(doctree.findall(nodes.container)):
        if cell.get("nb_element") == "cell_code":
            show_cell(app, cell)


def open_picture(translator, node):
    """Begin the HTML of a picture's box."""
    translator.body.append(f'<div class="{node["kind"]}" style="--width: {node["width"]}px">\n')


def close_picture(translator, node):
    """End the HTML of a picture's box."""
    translator.body.append("</div>\n")


def open_fold(translator, node):
    """Begin the HTML of a folded part."""
    translator.body.append(f'<details class="{node.get("kind", "fold")}"><summary>{translator.encode(node["summary"])}</summary>\n')


def close_fold(translator, node):
    """End the HTML of a folded part."""
    translator.body.append("</details>\n")


def setup(app):
    app.add_node(picture, html=(open_picture, close_picture), latex=(lambda *_: None, lambda *_: None))
    app.add_node(fold, html=(open_fold, close_fold), latex=(lambda *_: None, lambda *_: None))
    app.connect("doctree-read", show_cells)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
