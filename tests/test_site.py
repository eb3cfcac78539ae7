"""The site, built as `make site` builds it and looked at in headless Chromium."""
import importlib
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import quote, urldefrag, urljoin, urlsplit
from urllib.request import urlopen

import nbformat
import pytest
from chapter_numbers import number_of
from conftest import CHAPTERS, HANG, LESSONS, NOTEBOOKS, ROOT, STEP_HANGS, run_process, watched_page, width_of_overflow
from published import write
from serve_site import make_server
from test_code import MODULES

import vae_tutorial
from vae_tutorial import __version__

PAGES = [path.stem for path in NOTEBOOKS + sorted((ROOT / "nbs").glob("*.md"))]
GENERATED = ["search", "genindex", "py-modindex"]


@pytest.mark.parametrize("name", PAGES + GENERATED)
def test_page_is_sound(opened, name):
    page, complaints = opened(name)
    assert not complaints
    assert not page.context.cookies()
    assert width_of_overflow(page) <= 0
    assert not re.search(r"^\s*#\s*\|", page.inner_text("body"), re.MULTILINE), "a directive line is visible"
    # Where a page gives no text, Sphinx takes the path of the picture.
    without_text = page.locator("article img:not(.vae-plane img):is(:not([alt]), [alt=''], [alt*='_images/'])")
    assert without_text.count() == 0, f"no alternative text: {without_text.evaluate_all('all => all.map(i => i.src)')}"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_page_has_its_number_and_ways_out(opened, path):
    page, _ = opened(path.stem)
    number = number_of(path.stem)
    assert page.inner_text("h1 .section-number").strip() == f"{number}."
    assert page.locator(".bd-sidebar-primary .current.active").inner_text().startswith(f"{number}. ")
    assert all(text.startswith(f"{number}.") for text in page.locator("h2 .section-number").all_inner_texts())
    colab = f"https://colab.research.google.com/github/vae-tutorial/vae-tutorial/blob/v{__version__}/nbs/{path.name}"
    # the button at the top of the page, and the badge in it
    assert page.locator(f'.article-header-buttons a[href="{colab}"]').count() == 1
    links = page.locator("a[href*='//colab.']").evaluate_all("all => all.map(a => a.href)")
    assert links == [colab, colab]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_download_button_gives_the_copy_for_readers_with_the_numbers_of_the_page(opened, path, address, tmp_path):
    page, _ = opened(path.stem)
    download = page.locator('.article-header-buttons a[href$=".ipynb"]:not([href*="//"])')
    assert download.count() == 1
    write(tmp_path, [path])
    copy = (tmp_path / path.name).read_bytes()
    with urlopen(address + download.get_attribute("href"), timeout=STEP_HANGS) as answer:
        assert answer.read() == copy
    text = "\n".join(cell.source for cell in nbformat.reads(copy.decode(), 4).cells)
    equations = [text.strip("()\n #") for text in page.locator("article .eqno").all_inner_texts()]
    titles = "\n".join(page.locator("article .exercise .admonition-title").all_inner_texts())
    exercises = re.findall(r"^Exercise ([\w.]+)", titles, re.MULTILINE)
    assert re.findall(r"\\tag\{(.*?)\}", text) == equations
    assert re.findall(r"^\*\*Exercise ([\w.]+)\*\*", text, re.MULTILINE) == exercises and (exercises or path not in CHAPTERS)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_mathematics_and_pictures_are_as_they_should(opened, path):
    page, _ = opened(path.stem)
    if path in CHAPTERS or page.locator("article .math").count():
        page.wait_for_selector("mjx-container")
    assert page.locator("article .math:not(:has(mjx-container))").count() == 0 and page.locator("mjx-merror").count() == 0
    code = "\n".join(cell.source for cell in nbformat.read(path, 4).cells)
    texts = re.findall(r"^#\|\s*fig-alt:\s*(.*)$", code, re.MULTILINE)
    shown = page.locator(".cell_output img:not(.explorer img)").evaluate_all("all => all.map(i => i.alt)")
    assert bool(shown) == bool(texts) and set(shown) <= set(texts)


def test_solution_opens_at_a_click(visit):
    page, _ = visit(CHAPTERS[0].stem)
    solution = page.locator("details.fold", has_text="Show the solution").first
    assert not solution.locator("pre").first.is_visible()
    solution.locator("summary").click()
    assert solution.locator("pre").first.is_visible()
    assert "#@title" not in solution.locator("pre").first.inner_text()


def test_search_finds_a_word_and_lists_its_chapter(visit, address):
    page, complaints = visit("index")
    page.locator(".search-button-field:visible, .search-button__button:visible").first.click()
    page.locator("input[type=search]:visible").first.fill("reparameterisation")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a")
    assert "01_vae.html" in " ".join(page.locator("#search-results li a").evaluate_all("all => all.map(a => a.href)"))
    assert not complaints


class Fields(HTMLParser):
    """Collects what a page has to write into, and what could send it: forms with their fields, fields outside of forms, the rest."""

    def __init__(self, text):
        super().__init__()
        self.forms, self.loose, self.others, self.form = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "form":
            self.form = (attributes, [])
            self.forms.append(self.form)
        if tag in ("input", "textarea", "select"):
            (self.form[1] if self.form and "form" not in attributes else self.loose).append(attributes)
        if {"contenteditable", "formaction", "ping"} & attributes.keys() or tag in ("iframe", "object", "embed", "base"):
            self.others.append((tag, attributes))

    def handle_endtag(self, tag):
        if tag == "form":
            self.form = None


def test_nothing_that_readers_write_leaves_the_site(site):
    pages = sorted(site.rglob("*.html"))
    assert {f"{name}.html" for name in PAGES + GENERATED} <= {str(page.relative_to(site)) for page in pages}
    for page in pages:
        here = f"https://site/{page.relative_to(site)}"
        fields = Fields(page.read_text(encoding="utf-8"))
        for form, inputs in fields.forms:
            assert urldefrag(urljoin(here, form.get("action", ""))).url == "https://site/search.html", page
            assert form.get("method", "get").lower() == "get", page
            assert [field["name"] for field in inputs] == ["q"], page
        assert not fields.loose + fields.others, page


@pytest.mark.deep
@pytest.mark.parametrize("name, field", [("search", "q"), (CHAPTERS[0].stem, "highlight")])
def test_what_is_searched_for_is_shown_as_text(browser, address, name, field):
    page, complaints = watched_page(browser, address)
    # what would get out of an attribute in single quotes, of one in double quotes, and of a text
    text = "latent' autofocus onfocus='attacked=1' \"><script>attacked=1</script><img src=x onerror=attacked=1>"
    page.goto(f"{address}{name}.html?{field}={quote(text)}")
    page.wait_for_load_state("networkidle")
    if name == "search":
        page.wait_for_function("/finished|did not match/.test(document.querySelector('#search-results').innerText)")
        assert text in page.locator("input[name=q]").evaluate_all("all => all.map(field => field.value)")
    assert page.evaluate("typeof attacked") == "undefined"
    made = page.locator("img[src=x], [onerror], [onload], [onfocus]")
    assert made.count() == 0 and not page.locator("script:not([src])", has_text="attacked").count()
    assert urlsplit(page.url).path == f"/{name}.html" and not complaints
    page.context.close()


def test_foot_and_buttons_tell_version_and_date_and_lead_to_the_repository(opened):
    page, _ = opened(CHAPTERS[0].stem)
    foot = page.inner_text(".extra_footer")
    assert __version__ in foot and "1970-01-02" in foot
    links = page.locator(".article-header-buttons a").evaluate_all("all => all.map(a => a.href)")
    repository = "https://github.com/vae-tutorial/vae-tutorial"
    # What readers run is the release's; changes go to the branch that takes them.
    assert f"{repository}/tree/v{__version__}" in links
    assert f"{repository}/edit/main/nbs/{CHAPTERS[0].name}" in links
    assert any(link.startswith(f"{repository}/issues/new") for link in links)


def test_api_page_documents_every_exported_name(opened):
    page, _ = opened("api")
    documented = set(page.locator("dt.sig").evaluate_all("all => all.map(d => d.id)"))
    modules = [importlib.import_module(f"vae_tutorial.{name}") for name in MODULES]
    exported = {f"{module.__name__}.{name}" for module in modules for name in module.__all__
                if callable(getattr(module, name))}
    assert exported and exported <= documented
    at_the_top = page.locator("#at-the-top a.reference").evaluate_all("all => all.map(a => a.hash.slice(1))")
    assert [name.split(".")[-1] for name in at_the_top] == vae_tutorial.__all__ and set(at_the_top) <= documented


def test_scripts_of_widgets_are_loaded_only_where_there_are_widgets(site):
    loaded = {name: re.findall(r'<script[^>]* src="[^"]*/widgets/', (site / f"{name}.html").read_text(encoding="utf-8")) for name in PAGES}
    assert loaded["09_explorers"] and not loaded["00_data"] and not loaded["index"]


def test_site_is_served_and_a_busy_port_is_named(site):
    server = make_server(site, port=0)
    command = [sys.executable, ROOT / "tools" / "serve_site.py", "--port", str(server.server_port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=STEP_HANGS)
    server.server_close()
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"port {server.server_port} is in use" in done.stderr and "PORT=" in done.stderr


@pytest.mark.deep
def test_warning_fails_the_build_and_leaves_the_site_as_it_was(tree_copy):
    for name in ("book", "tools"):
        shutil.copytree(ROOT / name, tree_copy / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    (tree_copy / "book" / "_toc.yml").write_text("format: jb-book\nroot: references\n")            # one page is enough
    page, command = tree_copy / "nbs" / "references.md", [tree_copy / "tools" / "build_site.py", "--out", tree_copy / "site"]
    run_process(*command)
    page.write_text(page.read_text(encoding="utf-8") + "\n{cite:t}`nobody`\n", encoding="utf-8")
    done = subprocess.run([sys.executable, *command], text=True, capture_output=True, timeout=HANG)
    assert done.returncode == 1 and "nobody" in done.stderr
    assert "nobody" not in (tree_copy / "site" / "references.html").read_text(encoding="utf-8") and not any(tree_copy.glob("site-*"))
