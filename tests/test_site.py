"""The site, built as `make site` builds it and looked at in headless Chromium."""
import importlib
import io
import re
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from urllib.parse import quote, urldefrag, urljoin, urlsplit
from urllib.request import urlopen

import chromium
import execute_notebooks
import nbformat
import pytest
from chapter_numbers import number_of
from conftest import CHAPTERS, DESK, LESSONS, NOTEBOOKS, PHONE, ROOT, run_process, watched_page, width_of_overflow
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image
from published import write
from serve_site import make_server
from test_code import MODULES

import vae_tutorial
from vae_tutorial import __version__

PAGES = [path.stem for path in NOTEBOOKS + sorted((ROOT / "nbs").glob("*.md"))]
GENERATED = ["search", "genindex", "py-modindex"]


def background(page):
    """Return the colour of the page's ground: a pixel at its right edge."""
    pixel = page.screenshot(clip={"x": DESK[0] - 20, "y": DESK[1] // 2, "width": 1, "height": 1})
    return Image.open(io.BytesIO(pixel)).convert("RGB").getpixel((0, 0))


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


@pytest.mark.parametrize("name", PAGES)
def test_page_fits_a_phone_in_the_dark(opened, name):
    page, complaints = opened(name, PHONE, "dark")
    assert not complaints
    assert width_of_overflow(page) <= 0
    assert page.get_attribute("html", "data-theme") == "dark"


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
def test_download_button_gives_the_copy_for_readers(opened, path, address, tmp_path):
    page, _ = opened(path.stem)
    download = page.locator('.article-header-buttons a[href$=".ipynb"]:not([href*="//"])')
    assert download.count() == 1
    write(tmp_path, [path])
    with urlopen(address + download.get_attribute("href"), timeout=30) as answer:
        assert answer.read() == (tmp_path / path.name).read_bytes()


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_download_numbers_equations_and_exercises_as_the_page_does(opened, path, site):
    page, _ = opened(path.stem)
    equations = [text.strip("()\n #") for text in page.locator("article .eqno").all_inner_texts()]
    exercises = re.findall(r"^Exercise ([\w.]+)", "\n".join(page.locator("article .exercise .admonition-title").all_inner_texts()), re.MULTILINE)
    copy = "\n".join(cell.source for cell in nbformat.read(site / "_sources" / path.name, 4).cells)
    assert re.findall(r"\\tag\{(.*?)\}", copy) == equations
    assert re.findall(r"^\*\*Exercise ([\w.]+)\*\*", copy, re.MULTILINE) == exercises and (exercises or path not in CHAPTERS)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_mathematics_is_typeset(opened, path):
    page, _ = opened(path.stem)
    if path in CHAPTERS or page.locator("article .math").count():
        page.wait_for_selector("mjx-container")
    assert page.locator("article .math:not(:has(mjx-container))").count() == 0
    assert page.locator("mjx-merror").count() == 0


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_no_line_of_code_is_cut_off(opened, path):
    boxes = opened(path.stem).page.locator("article div.highlight pre")
    cut = boxes.evaluate_all("all => all.filter(box => box.scrollWidth > box.clientWidth).map(box => box.textContent)")
    assert not cut, cut[0]


def test_picture_has_the_text_that_its_cell_gives(opened):
    for path in LESSONS:
        code = "\n".join(cell.source for cell in nbformat.read(path, 4).cells)
        texts = re.findall(r"^#\|\s*fig-alt:\s*(.*)$", code, re.MULTILINE)
        pictures = opened(path.stem).page.locator(".cell_output img:not(.explorer img)")
        shown = pictures.evaluate_all("all => all.map(i => i.alt)")
        assert bool(shown) == bool(texts) and set(shown) <= set(texts)


def test_solution_opens_at_a_click(visit):
    page, _ = visit(CHAPTERS[0].stem)
    solution = page.locator("details.fold", has_text="Show the solution").first
    assert not solution.locator("pre").first.is_visible()
    solution.locator("summary").click()
    assert solution.locator("pre").first.is_visible()
    assert "#@title" not in solution.locator("pre").first.inner_text()


def test_theme_toggles(visit):
    page, complaints = visit("index")
    seen = []
    for _ in range(3):
        seen.append((page.get_attribute("html", "data-theme"), background(page)))
        page.locator("button.theme-switch-button:visible").first.click()
    assert len(set(seen)) == 2 and {theme for theme, _ in seen} == {"light", "dark"}
    ground = dict(seen)
    assert sum(ground["light"]) > 700 and sum(ground["dark"]) < 120
    assert not complaints


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


@pytest.mark.parametrize("text", ["<img src=x onerror=attacked=1>", "latent<img src=x onerror=attacked=1>", "\"><script>attacked=1</script>",
                                  "<svg/onload=attacked=1> latent", "latent' autofocus onfocus='attacked=1"])
@pytest.mark.parametrize("name, field", [("search", "q"), (CHAPTERS[0].stem, "highlight")])
def test_what_is_searched_for_is_shown_as_text(browser, address, name, field, text):
    page, complaints = watched_page(browser, address, DESK)
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


def test_foot_of_the_page_tells_version_and_date(opened):
    foot = opened("index").page.inner_text(".extra_footer")
    assert __version__ in foot and "1970-01-02" in foot


def test_buttons_lead_to_the_repository(opened):
    page, _ = opened(CHAPTERS[0].stem)
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


def test_citations_lead_to_the_references(opened):
    page, _ = opened(CHAPTERS[0].stem)
    targets = page.locator("article a[href*='references.html#']").evaluate_all("all => all.map(a => a.href)")
    assert targets
    references, _ = opened("references")
    for target in targets:
        anchor = target.split("#")[1]
        assert references.locator(f"[id='{anchor}']").count() == 1


def test_dark_tables_are_readable(opened):
    for path in LESSONS:
        page, _ = opened(path.stem, PHONE, "dark")
        cells = page.locator("table.dataframe :is(td, th)")
        colours = cells.evaluate_all("all => all.map(c => getComputedStyle(c).color)")
        assert all(sum(map(int, re.findall(r"\d+", colour)[:3])) > 450 for colour in colours)


WIDGET = '''
import anywidget
from ipywidgets import FloatSlider, Widget, widget_serialization
from traitlets import Bytes, Instance

class Tiny(anywidget.AnyWidget):
    """Shows the value of its slider and the number of its weights."""
    _esm = """
    async function render({ model, el }) {
      const slider = await model.widget_manager.get_model(model.get("slider").replace("IPY_MODEL_", ""));
      const number = document.createElement("output");
      const show = () => { number.textContent = `${slider.get("value")} with ${model.get("weights").byteLength}`; };
      slider.on("change:value", show);
      show();
      el.append((await model.widget_manager.create_view(slider)).el, number);
      el.classList.add("vae-explorer");
    }
    export default { render };
    """
    slider = Instance(Widget).tag(sync=True, **widget_serialization)
    weights = Bytes(b"abc").tag(sync=True)

    def _repr_mimebundle_(self, **options):
        data, metadata = super()._repr_mimebundle_(**options)
        style = "--wide: 300px; --narrow: 400px"
        return data | {"text/html": f'<figure class="vae-still" style="{style}"><figcaption>Still</figcaption></figure>'}, metadata

Tiny(slider=FloatSlider(0.5, step=0.25, description="height"))
'''


@pytest.fixture(scope="session")
def widget_site(site, tmp_path_factory):
    """Return the folder of a site of two pages, one of them in a sub-folder and with a widget."""
    folder = tmp_path_factory.mktemp("widgets")
    for name in ("book", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    shutil.copyfile(ROOT / "settings.ini", folder / "settings.ini")
    pages = folder / "nbs" / "pages"
    pages.mkdir(parents=True)
    shutil.copyfile(ROOT / "nbs" / "references.bib", folder / "nbs" / "references.bib")
    (folder / "nbs" / "index.md").write_text("# A page without widgets\n")
    (folder / "book" / "_toc.yml").write_text("format: jb-book\nroot: index\nchapters:\n  - file: pages/widget\n")
    cells = [new_markdown_cell("# A page with a widget"), new_code_cell(WIDGET)]
    nbformat.write(new_notebook(cells=cells), pages / "widget.ipynb")
    notebook, _ = execute_notebooks.run(pages / "widget.ipynb", timeout=60)
    execute_notebooks.store(notebook, pages / "widget.ipynb")
    run_process(folder / "tools" / "build_site.py", "--out", folder / "html", timeout=240)
    return folder / "html"


@pytest.fixture(scope="session", params=["http", "file"])
def widget_address(request, widget_site):
    """Return the address of the site with a widget: served, or opened from the disk."""
    if request.param == "file":
        yield f"{widget_site.as_uri()}/"
        return
    server = make_server(widget_site, port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.mark.parametrize("viewport, height", [(DESK, 300), (PHONE, 400)], ids=["desk", "phone"])
def test_widget_is_alive_in_the_place_of_its_picture(visit, widget_address, viewport, height):
    page, complaints = visit("pages/widget", viewport, "dark", base=widget_address)
    page.wait_for_selector(".explorer .vae-explorer")
    assert page.locator(".vae-explorer").count() == page.locator(".vae-still").count() == 1
    assert not page.locator(".vae-still").is_visible()
    assert page.inner_text(".vae-explorer output") == "0.5 with 3"
    page.focus(".vae-explorer .noUi-handle")
    page.keyboard.press("ArrowRight")
    assert page.inner_text(".vae-explorer output") == "0.75 with 3"
    assert page.locator(".explorer").bounding_box()["height"] == height
    assert width_of_overflow(page) <= 0
    assert not complaints


def test_widget_is_readable_in_the_dark(visit, widget_address):
    page, _ = visit("pages/widget", scheme="dark", base=widget_address)
    page.wait_for_selector(".vae-explorer")
    colours = page.evaluate("""["color", "backgroundColor"].map(name => [".vae-explorer label", ".widget-subarea"].map(
        where => getComputedStyle(document.querySelector(where))[name]))""")
    (text, _), (_, ground) = colours
    assert sum(map(int, re.findall(r"\d+", text)[:3])) > 450 and ground == "rgba(0, 0, 0, 0)"


def test_widget_has_a_picture_where_no_script_runs(browser, widget_address):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(f"{widget_address}pages/widget.html")
    assert page.inner_text(".vae-still") == "Still" and page.locator(".vae-still").is_visible()
    assert page.locator(".explorer").bounding_box()["height"] == 300


def test_widget_scripts_are_loaded_only_where_there_are_widgets(visit, widget_address):
    scripts = {name: visit(name, base=widget_address).page.locator("script[src*='/widgets/']").count()
               for name in ("index", "pages/widget")}
    assert scripts["index"] == 0 and scripts["pages/widget"] > 0


def test_downloaded_notebook_keeps_its_widgets(widget_site):
    source = nbformat.read(widget_site / "_sources" / "pages" / "widget.ipynb", 4)
    shown = source.cells[1].outputs[0].data[execute_notebooks.VIEW]["model_id"]
    assert execute_notebooks.widget_models(source)[shown]["model_name"] == "AnyModel"


def test_site_is_served_and_a_busy_port_is_named(site):
    server = make_server(site, port=0)
    command = [sys.executable, ROOT / "tools" / "serve_site.py", "--port", str(server.server_port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    server.server_close()
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"port {server.server_port} is in use" in done.stderr and "PORT=" in done.stderr


def test_warning_fails_the_build(tmp_path):
    for name in ("nbs", "book", "tools", "vae_tutorial"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True,
                        ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    for name in ("settings.ini", "_quarto.yml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    with open(tmp_path / "nbs" / "references.md", "a", encoding="utf-8") as page:
        page.write("\n{cite:t}`nobody`\n")
    site = tmp_path / "site"
    site.mkdir()
    done = subprocess.run([sys.executable, tmp_path / "tools" / "build_site.py", "--out", site], text=True,
                          capture_output=True, timeout=240)
    assert done.returncode == 1 and "nobody" in done.stderr
    assert site.exists() and not any(tmp_path.glob("site-*"))


def test_missing_chromium_is_explained(monkeypatch):
    monkeypatch.setattr(chromium, "installed", lambda: None)
    monkeypatch.setattr(chromium, "run", lambda command: "no network")
    with pytest.raises(chromium.NoChromium, match="no Chromium on the PATH, .*playwright install chromium: no network"):
        chromium.find_or_install()
    monkeypatch.undo()
    monkeypatch.setenv("CHROMIUM", "no-such-program")
    with pytest.raises(chromium.NoChromium, match="CHROMIUM=no-such-program is not a program"):
        chromium.find_or_install()
