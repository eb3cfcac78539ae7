"""Make the copy of a notebook that readers download: plain code, and Markdown that JupyterLab and Colab show.

The lines that speak to nbdev and to the site are gone, with the cells that hold nothing else. Citations, numbers of equations
and exercises stand in the text as they stand on the page. Pictures come from the release that the copy belongs to, links to
other pages lead to the site. Prose, code, outputs and the state of widgets stay.
"""
import re
import sys
from functools import cache
from pathlib import Path

import nbformat
from pybtex.database import parse_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

from chapter_numbers import number_of  # noqa: E402
from notebook_cells import split_directives  # noqa: E402
from site_settings import read_settings, tag  # noqa: E402
from widget_states import lay_in  # noqa: E402

FENCED = re.compile(r"^(?P<fence>`{3,}).*?^(?P=fence) *$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^(?P<fence>:{3,}|`{3,})\{(?P<kind>[\w:-]+)\} *(?P<title>.*)\n"
                   r"(?P<options>(?::[\w-]+:.*\n)*)(?P<text>(?:.*\n)*?)(?P=fence) *$", re.MULTILINE)
EQUATION = re.compile(r"\$\$(?P<formula>(?:(?!\$\$).)+?)\s*\$\$ *\((?P<label>[\w:-]+)\)", re.DOTALL)
ROLE = re.compile(r"\{(?P<kind>cite:[pt]|eq|ref)\}`(?P<target>[^`]+)`")
PICTURE = re.compile(r"(?<=\]\()images/")
PAGE = re.compile(r"(?<=\]\()([\w-]+)\.(?:ipynb|md)(?=[)#])")


@cache
def references():
    """Return the entries of the list of references by their keys."""
    return parse_file(ROOT / "nbs" / "references.bib").entries


def surname(person):
    """Return a person's family name as it is printed."""
    return " ".join(str(name) for name in person.rich_prelast_names + person.rich_last_names)


def citation(key):
    """Return the authors and the year of a reference."""
    entry = references()[key]
    names = [surname(person) for person in entry.persons["author"]]
    return (f"{names[0]} et al." if len(names) > 2 else " & ".join(names)), entry.fields["year"]


def citations(keys, in_text):
    """Return what stands for a citation: Kingma & Welling (2014) in a sentence, (Kingma & Welling, 2014) otherwise."""
    cited = [citation(key.strip()) for key in keys.split(",")]
    if in_text:
        return ", ".join(f"{names} ({year})" for names, year in cited)
    return f"({'; '.join(f'{names}, {year}' for names, year in cited)})"


class Writer:
    """Turns the Markdown of one notebook into plain Markdown; equations and exercises get the numbers that they have on the page."""

    def __init__(self, notebook, chapter):
        self.prefix, self.exercises = chapter and f"{chapter}.", 0
        labels = [match["label"] for cell in notebook.cells for match in EQUATION.finditer(cell.source)]
        self.equations = {label: f"{self.prefix}{number}" for number, label in enumerate(labels, 1)}
        settings = read_settings()
        self.pictures = f"{settings['git_url']}/raw/{tag(settings)}/{settings['nbs_path']}/images/"
        self.pages = settings["doc_host"] + settings["doc_baseurl"]

    def equation(self, match):
        """Return a labelled equation with its number at its side."""
        return f"$${match['formula']} \\tag{{{self.equations[match['label']]}}} $$"

    def role(self, match):
        """Return what a role stands for: a citation, the number of an equation, the words of a reference."""
        kind, target = match["kind"], match["target"]
        if kind == "eq":
            return f"({self.equations[target]})"
        return target.split("<")[0].strip() if kind == "ref" else citations(target, in_text=kind == "cite:t")

    def block(self, match):
        """Return a picture, or a block such as an exercise or a note under its name in bold."""
        kind, title, text = match["kind"], match["title"], match["text"].strip()
        if kind == "image":
            alt = re.search(r"^:alt: *(.*)$", match["options"], re.MULTILINE)
            return f"![{alt[1] if alt else ''}]({title})"
        name = title if kind == "admonition" else kind.capitalize()
        if kind == "exercise":
            self.exercises += 1
            name += f" {self.prefix}{self.exercises}"
        if title and kind != "admonition":
            name += f": {title}"
        return f"**{name}**\n\n{text}"

    def plain(self, text):
        """Return a text without anything that only MyST shows."""
        for pattern, replacement in [(BLOCK, self.block), (EQUATION, self.equation), (ROLE, self.role), (PICTURE, self.pictures),
                                     (PAGE, rf"{self.pages}\1.html")]:
            text = pattern.sub(replacement, text)
        return text

    def markdown(self, text):
        """Return the text of a cell as plain Markdown; what it shows verbatim stays as it is."""
        parts, place = [], 0
        for match in FENCED.finditer(text):
            verbatim = not BLOCK.match(match[0])
            parts += [self.plain(text[place:match.start()]), match[0] if verbatim else self.plain(match[0])]
            place = match.end()
        return "".join([*parts, self.plain(text[place:])])


def code(source):
    """Return the source of a cell of code without its directives; nothing else of it changes."""
    directives, rest = split_directives(source)
    return rest if directives else source


def published(notebook, chapter=""):
    """Return the copy of a notebook that readers get; `chapter` is the first part of the numbers of its equations."""
    writer, copy = Writer(notebook, chapter), nbformat.from_dict(notebook)
    change = {"code": code, "markdown": writer.markdown}
    copy.cells = [cell for cell in copy.cells if cell.cell_type != "code" or code(cell.source)]
    for cell in copy.cells:
        if cell.cell_type in change:
            cell.source = change[cell.cell_type](cell.source)
    return copy


def write(folder, paths):
    """Put the copies of the notebooks at `paths` into a folder, under the same names."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for path in map(Path, paths):
        notebook = lay_in(nbformat.read(path, 4), path)
        nbformat.write(published(notebook, number_of(path.stem)), Path(folder) / path.name)
