"""The notebooks that readers download: plain code and plain Markdown, with all of the prose, of the version in settings.ini."""
import re

import nbformat
import pytest
from conftest import NOTEBOOKS, ROOT
from nbformat.v4 import new_markdown_cell, new_notebook
from published import published, references, write
from widget_states import lay_in

from vae_tutorial import __version__

# What the copies change, said once more and in another way: this much of a source need not be found again.
MARKUP = re.compile(r"""^(:::|```\{).*$ | ^:(label|width|height|name):.*$ | ^:alt:
                        | \{(cite:.|eq)\}`[^`]*` | \{ref\}` | <[\w-]+>` | (?<=\$\$)\s\([\w-]+\) | (?<=\])\([^)]*\)""", re.VERBOSE | re.MULTILINE)
MYST = re.compile(r":::|```\{|\{[a-z]+(:[a-z]+)?\}`|\$\$ *\([\w-]+\)")


def words(text):
    return re.findall(r"[\w']+", text)


def is_subsequence(part, whole):
    """Say whether all of `part` is in `whole`, in this order."""
    rest = iter(whole)
    return all(word in rest for word in part)


def plain(text, chapter=""):
    """Return a text as it stands in the copy of a notebook that holds nothing else."""
    return published(new_notebook(cells=[new_markdown_cell(text)]), chapter).cells[0].source


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def pair(request, tmp_path_factory):
    """Return a notebook with the state of its widgets, and the copy of it that readers get, as it is on disk."""
    folder = tmp_path_factory.mktemp("copy")
    write(folder, [request.param])
    return lay_in(nbformat.read(request.param, 4), request.param), nbformat.read(folder / request.param.name, 4)


def test_no_directive_line_is_left_and_no_other_line_of_code_is_lost(pair):
    source, copy = pair
    code = [[line for line in cell.source.split("\n") if not re.match(r"\s*#\s*\|", line)]
            for cell in source.cells if cell.cell_type == "code"]
    kept = [cell.source.split("\n") for cell in copy.cells if cell.cell_type == "code"]
    assert kept == [lines for lines in code if any(lines)]


def test_all_prose_is_there_and_no_markup_of_the_site(pair):
    texts = [[cell.source for cell in notebook.cells if cell.cell_type == "markdown"] for notebook in pair]
    for before, after in zip(*texts, strict=True):
        assert is_subsequence(words(MARKUP.sub(" ", before)), words(after)), after
        assert not MYST.search(re.sub(r"^```[^{]*?^```$", "", after, flags=re.MULTILINE | re.DOTALL)), after


def test_copy_is_valid_with_outputs_ids_and_widgets_and_the_source_is_left_alone(pair):
    source, copy = pair
    before = nbformat.writes(source)
    nbformat.validate(copy)
    published(source)
    assert nbformat.writes(source) == before and copy.metadata == source.metadata
    kept = {cell.id: dict(cell, source="") for cell in copy.cells}
    dropped = [cell for cell in source.cells if cell.id not in kept]
    assert all(re.fullmatch(r"(#\| default_exp \w+)?", cell.source) for cell in dropped)
    assert list(kept.values()) == [dict(cell, source="") for cell in source.cells if cell.id in kept]


def test_copy_leads_to_its_release_and_to_the_site(pair):
    _, copy = pair
    text = "\n".join(cell.source for cell in copy.cells if cell.cell_type == "markdown" or "%pip" in cell.source)
    assert set(re.findall(r"/vae-tutorial/vae-tutorial/(?:blob|raw|tree)/([^/]+)/", text)) == {f"v{__version__}"}
    assert set(re.findall(r"vae-tutorial==(\S+)", text)) <= {__version__}
    assert not re.findall(r"\]\((?!https?://|#)[^)]*\)", text), "a link that leads nowhere without the repository"
    pages = re.findall(r"https://vae-tutorial\.github\.io/([^)#]+)", text)
    names = {name for path in (ROOT / "nbs").glob("[!_]*.*") for name in [f"vae-tutorial/{path.stem}.html"]}
    assert set(pages) <= names
    pictures = re.findall(r"/raw/[^/]+/(nbs/images/[^)]+)", text)
    assert pictures and all((ROOT / name).exists() for name in pictures)


@pytest.mark.parametrize("myst, markdown", [
    ("the true posterior {cite:p}`Kingma2014,Rezende2014`.", "the true posterior (Kingma & Welling, 2014; Rezende et al., 2014)."),
    ("{cite:t}`Rosca2018` report", "Rosca et al. (2018) report"),
    ("{cite:p}`vanderMaaten2008`", "(van der Maaten & Hinton, 2008)"),
    ("{cite:p}`LoaizaGanem2019`, {cite:p}`Rolinek2019`", "(Loaiza-Ganem & Cunningham, 2019), (Rolínek et al., 2019)"),
    ("{cite:p}`Student1908`", "(Student, 1908)"),
    ("as {eq}`eq-b` says, $$ a $$ (eq-a)\n\n$$\nb\n$$ (eq-b)", "as (4.2) says, $$ a \\tag{4.1} $$\n\n$$\nb \\tag{4.2} $$"),
    ("$$ a $$\n\n$$ b $$ (eq-b)", "$$ a $$\n\n$$ b \\tag{4.1} $$"),
    (":::{exercise}\n:label: first\nTry *it*.\n\nAgain.\n:::\nx\n:::{exercise}\ny\n:::", "**Exercise 4.1**\n\nTry *it*.\n\nAgain.\nx\n**Exercise 4.2**\n\ny"),
    ("({ref}`an exercise <first>`)", "(an exercise)"),
    (":::{note}\ntext\n:::", "**Note**\n\ntext"),
    ("```{warning} Hot\n:class: dropdown\ntext\n```", "**Warning: Hot**\n\ntext"),
    (":::{admonition} By the way\ntext\n:::", "**By the way**\n\ntext"),
    ("```{image} images/a.svg\n:alt: a *b*\n:width: 10%\n```\n\n```\n{eq}`x` ![](images/a)\n```",
     f"![a *b*](https://github.com/vae-tutorial/vae-tutorial/raw/v{__version__}/nbs/images/a.svg)\n\n```\n{{eq}}`x` ![](images/a)\n```"),
    ("[a](01_vae.ipynb), [b](results.md#fid)",
     "[a](https://vae-tutorial.github.io/vae-tutorial/01_vae.html), [b](https://vae-tutorial.github.io/vae-tutorial/results.html#fid)"),
])
def test_markup_becomes_plain_markdown(myst, markdown):
    assert plain(myst, "4") == markdown


def test_every_reference_can_be_cited():
    for key in references():
        assert re.fullmatch(r"\([^{}\\]+, \d{4}\)", plain(f"{{cite:p}}`{key}`")), key
