"""The site, built as `make site` builds it and looked at in headless Chromium."""
import importlib
import io
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from functools import lru_cache

import chromium
import nbformat
import pytest
from conftest import CHAPTERS, NOTEBOOKS, ROOT, run_process
from PIL import Image
from playwright.sync_api import sync_playwright
from serve_site import make_server

from vae_tutorial import __version__

PAGES = [path.stem for path in NOTEBOOKS] + ["api", "references"]
GENERATED = ["search", "genindex", "py-modindex"]
PHONE = (390, 844)        # width and height of the window
DESK = (1300, 1000)

Visit = namedtuple("Visit", "page complaints")


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Return the folder of a freshly built site."""
    folder = tmp_path_factory.mktemp("site") / "html"
    run_process(ROOT / "tools" / "build_site.py", "--out", folder, timeout=240, SOURCE_DATE_EPOCH="86400")
    return folder


@pytest.fixture(scope="session")
def address(site):
    """Return the address at which the site is served."""
    server = make_server(site, port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="session")
def browser():
    """Return a headless Chromium."""
    try:
        path = chromium.find_or_install()
    except chromium.NoChromium as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI must look at the site: {error}", pytrace=False)
        pytest.skip(str(error))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=chromium.FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def visit(browser, address):
    """Return a function that opens a page of the site and records everything that goes wrong on it."""
    def fulfil(route, complaints):
        if route.request.url.startswith((address, "data:", "blob:")):
            return route.continue_()
        complaints.append(f"a request to another host: {route.request.url}")
        return route.abort()

    def open_page(name, viewport=DESK, scheme="light"):
        size = dict(zip(("width", "height"), viewport))
        context, complaints = browser.new_context(viewport=size, color_scheme=scheme), []
        page = context.new_page()
        context.route("**/*", lambda route: fulfil(route, complaints))
        page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(f"script error: {error}"))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
        page.on("response", lambda answer: answer.status >= 400 and complaints.append(f"{answer.status}: {answer.url}"))
        page.goto(f"{address}{name}.html")
        page.wait_for_load_state("networkidle")
        return Visit(page, complaints)

    return open_page


@pytest.fixture(scope="session")
def opened(visit):
    """Return a function like `visit` that opens each page once; for tests that only look."""
    return lru_cache(maxsize=None)(visit)


def width_of_overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def background(page):
    """Return the colour of the page's ground: a pixel at its right edge."""
    pixel = page.screenshot(clip={"x": DESK[0] - 20, "y": DESK[1] // 2, "width": 1, "height": 1})
    return Image.open(io.BytesIO(pixel)).convert("RGB").getpixel((0, 0))


@pytest.mark.parametrize("name", PAGES + GENERATED)
def test_page_is_sound(opened, name):
    page, complaints = opened(name)
    assert not complaints
    assert width_of_overflow(page) <= 0
    assert not re.search(r"^\s*#\s*\|", page.inner_text("body"), re.MULTILINE), "a directive line is visible"
    # Where a page gives no text, Sphinx takes the path of the picture.
    without_text = page.locator("article img:not([alt]), article img[alt=''], article img[alt*='_images/']")
    assert without_text.count() == 0, f"no alternative text: {without_text.evaluate_all('all => all.map(i => i.src)')}"


@pytest.mark.parametrize("name", PAGES)
def test_page_fits_a_phone_in_the_dark(opened, name):
    page, complaints = opened(name, PHONE, "dark")
    assert not complaints
    assert width_of_overflow(page) <= 0
    assert page.get_attribute("html", "data-theme") == "dark"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_has_its_number_and_ways_out(opened, path, site):
    page, _ = opened(path.stem)
    assert page.inner_text("h1 .section-number").strip() == f"{int(path.name[:2])}."
    colab = f"https://colab.research.google.com/github/vae-tutorial/vae-tutorial/blob/main/nbs/{path.name}"
    assert page.locator(f'.article-header-buttons a[href="{colab}"]').count() == 1
    download = page.locator(f'.article-header-buttons a[href="_sources/{path.name}"]')
    assert download.count() == 1
    notebook = nbformat.read(site / download.get_attribute("href"), 4)
    nbformat.validate(notebook)
    assert notebook.cells == nbformat.read(path, 4).cells


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_mathematics_is_typeset(opened, path):
    page, _ = opened(path.stem)
    page.wait_for_selector("mjx-container")
    assert page.locator("article .math:not(:has(mjx-container))").count() == 0
    assert page.locator("mjx-merror").count() == 0


def test_picture_has_the_text_that_its_cell_gives(opened):
    for path in CHAPTERS:
        code = "\n".join(cell.source for cell in nbformat.read(path, 4).cells)
        texts = re.findall(r"^#\|\s*fig-alt:\s*(.*)$", code, re.MULTILINE)
        shown = opened(path.stem).page.locator(".cell_output img").evaluate_all("all => all.map(i => i.alt)")
        assert shown and set(shown) <= set(texts)


def test_solution_opens_at_a_click(visit):
    page, _ = visit(CHAPTERS[0].stem)
    solution = page.locator("details.fold", has_text="Show the solution").first
    assert not solution.locator("pre").first.is_visible()
    solution.locator("summary").click()
    assert solution.locator("pre").first.is_visible()
    assert solution.locator("pre").first.inner_text().startswith("# Solution")


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


def test_foot_of_the_page_tells_version_and_date(opened):
    foot = opened("index").page.inner_text(".extra_footer")
    assert __version__ in foot and "1970-01-02" in foot


def test_buttons_lead_to_the_repository(opened):
    page, _ = opened(CHAPTERS[0].stem)
    links = page.locator(".article-header-buttons a").evaluate_all("all => all.map(a => a.href)")
    repository = "https://github.com/vae-tutorial/vae-tutorial"
    assert repository in links
    assert f"{repository}/edit/main/nbs/{CHAPTERS[0].name}" in links
    assert any(link.startswith(f"{repository}/issues/new") for link in links)


def test_api_page_documents_every_exported_name(opened):
    page, _ = opened("api")
    documented = set(page.locator("dt.sig").evaluate_all("all => all.map(d => d.id)"))
    names = [path.stem[3:] for path in CHAPTERS if (ROOT / "vae_tutorial" / f"{path.stem[3:]}.py").exists()]
    modules = [importlib.import_module(f"vae_tutorial.{name}") for name in names]
    exported = {f"{module.__name__}.{name}" for module in modules for name in module.__all__
                if callable(getattr(module, name))}
    assert exported and exported <= documented


def test_citations_lead_to_the_references(opened):
    page, _ = opened(CHAPTERS[0].stem)
    targets = page.locator("article a[href*='references.html#']").evaluate_all("all => all.map(a => a.href)")
    assert targets
    references, _ = opened("references")
    for target in targets:
        anchor = target.split("#")[1]
        assert references.locator(f"[id='{anchor}']").count() == 1


def test_dark_tables_are_readable(opened):
    for path in CHAPTERS:
        page, _ = opened(path.stem, PHONE, "dark")
        cells = page.locator("table.dataframe :is(td, th)")
        colours = cells.evaluate_all("all => all.map(c => getComputedStyle(c).color)")
        assert all(sum(map(int, re.findall(r"\d+", colour)[:3])) > 450 for colour in colours)


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
