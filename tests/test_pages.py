"""What stands on a page can be read: nothing is cut off, what scrolls shows it, docstrings unfold, figures suit light and dark pages."""
import ast
import base64
import io
import re
from itertools import product

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from conftest import CHAPTERS, DESK, LESSONS, NOTEBOOKS, PHONE, ROOT, width_of_overflow
from docstrings import rests_of_docstrings
from matplotlib.colors import to_rgb
from notebook_cells import split_directives
from PIL import Image

from vae_tutorial.latent_space import CLASS_COLORS

QUICK = "01_vae"         # the page that is looked at in every run
GROUNDS = {"light": (255, 255, 255), "dark": (18, 18, 18)}      # the theme's


def pages(paths):
    """The names of pages, of which all but one wait for the long run."""
    return [pytest.param(path.stem, marks=() if path.stem == QUICK else pytest.mark.deep) for path in paths]


# Every box whose content is wider than itself: those that scroll, and those that cut it off. An explorer has tests of its own.
WIDE = """async () => {
  const frame = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  const fades = (box) => {
    const style = getComputedStyle(box), side = (name) => parseFloat(style.getPropertyValue(`--more-${name}`)) > 10;
    return style.maskImage.includes("gradient") && [side("left"), side("right")].join();
  };
  const all = [...document.querySelectorAll("article *")].filter((box) => box.clientWidth && !box.closest(".explorer, span.math, mjx-container > *"));
  const boxes = all.filter((box) => box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX !== "visible");
  const result = { cut: [], scroll: [], silent: [] };
  await frame();
  for (const box of boxes) {
    const name = `${box.tagName}.${box.className}: ${box.textContent.trim().slice(0, 80)}`, before = fades(box);
    box.scrollLeft = 1e6;
    await frame();
    result[box.scrollLeft ? "scroll" : "cut"].push(name);
    if (before !== "false,true" || fades(box) !== "true,false") result.silent.push(`${name} (${before}, ${fades(box)})`);
    box.scrollLeft = 0;
  }
  for (const formula of document.querySelectorAll("article mjx-math")) {
    const outer = formula.closest(".math").getBoundingClientRect();
    if (!boxes.includes(formula.parentElement) && formula.getBoundingClientRect().right > outer.right + 1) result.cut.push(formula.textContent);
  }
  // where nothing overflows, nothing fades
  for (const box of all) if (!boxes.includes(box) && /true/.test(fades(box))) result.silent.push(`${box.tagName}.${box.className} fades and does not scroll`);
  return result;
}"""


def typeset(page):
    """Wait until all mathematics of a page is laid out in its own letters."""
    page.wait_for_function("!document.querySelector('article .math:not(:has(mjx-container))')")
    page.evaluate("Promise.all([window.MathJax?.startup.promise, document.fonts.ready]).then(() => null)")
    return page


@pytest.mark.parametrize("name", pages([*NOTEBOOKS, *sorted((ROOT / "nbs").glob("*.md"))]))
def test_nothing_is_cut_off_and_what_scrolls_shows_it_and_tables_can_be_read_in_the_dark(opened, name):
    desk, phone = typeset(opened(name).page), typeset(opened(name, PHONE, "dark").page)
    assert width_of_overflow(desk) <= 0 and width_of_overflow(phone) <= 0 and not opened(name, PHONE, "dark").complaints
    assert phone.get_attribute("html", "data-theme") == "dark"
    colours = phone.locator("table.dataframe :is(td, th)").evaluate_all("all => all.map(c => getComputedStyle(c).color)")
    assert all(sum(map(int, re.findall(r"\d+", colour)[:3])) > 450 for colour in colours)
    wide, narrow = desk.evaluate(WIDE), phone.evaluate(WIDE)
    tables = [box for box in wide["scroll"] if box.startswith(("TABLE.", "DIV.output text_html"))]
    assert wide["scroll"] == tables, "code, text, equations and pictures fit a page of 1280 px"
    assert not wide["cut"] + narrow["cut"] and not wide["silent"] + narrow["silent"]
    if name == QUICK:
        assert any(box.startswith("PRE") for box in narrow["scroll"])        # else this test has measured nothing
        assert desk.locator("article mjx-container[display]").count() > 5


def exported(path):
    """The code of a notebook's exported cells, without the lines that speak to nbdev."""
    cells = [split_directives(cell.source) for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    return [code for directives, code in cells if {"export", "exports"} & directives.keys() and not {"hide", "hide_input"} & directives.keys()]


def code_on(page):
    """The text of each block of code that holds a docstring to unfold, as the copy button takes it, and how many it holds."""
    return page.locator("article pre:has(details.docstring)").evaluate_all("""all => all.map((block) => {
        const copy = block.cloneNode(true), rests = [...copy.querySelectorAll("details.docstring")];
        rests.forEach((rest) => rest.querySelector("summary").remove());
        return [copy.textContent.trimEnd(), rests.length];
    })""")


@pytest.mark.parametrize("name", pages(LESSONS))
def test_docstrings_of_a_page_are_folded_and_its_code_is_whole(opened, name):
    codes = exported(ROOT / "nbs" / f"{name}.ipynb")
    long = [code for code in codes if rests_of_docstrings(code)]
    assert long == [code for code in codes if code in long or re.search(r"^ +(Parameters|Returns|Raises)\n +---", code, re.MULTILINE)]
    assert code_on(opened(name).page) == [[code.rstrip(), len(rests_of_docstrings(code))] for code in long]
    for code in long:
        lines = code.split("\n")
        for first, last in reversed(rests_of_docstrings(code)):
            del lines[first:last]
        ast.parse("\n".join(lines))           # what a reader marks by hand while it is closed


def test_docstring_unfolds_by_keyboard_and_the_button_copies_all_of_it(visit):
    page, complaints = visit(QUICK)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    block = page.locator("article div.highlight:has(details.docstring)").first
    rest = block.get_by_text("Parameters", exact=True)
    assert not rest.is_visible() and '"""Draw z from N(mu, sigma²)' in block.inner_text()
    block.hover()
    block.locator("button.copybtn").click()
    copied = page.wait_for_function("navigator.clipboard.readText()").json_value()
    assert copied.rstrip() == next(code for code in exported(ROOT / "nbs" / f"{QUICK}.ipynb") if code.startswith("def reparameterize")).rstrip()
    block.locator("summary").focus()
    page.keyboard.press("Enter")
    assert rest.is_visible()
    assert not complaints


def test_api_page_shows_summaries_and_unfolds_the_rest(visit):
    page, _ = visit("api")
    entries = page.locator("article dl.py > dd:has(> details.more)")
    assert entries.count() > 50
    assert page.locator("article dl.py > dd > :not(p:first-child, details.more, dl.py)").count() == 0, "more than summary, rest and members"
    more = page.locator("dd:has(> p:text-is('Draw z from N(mu, sigma²) so that gradients reach both parameters.')) > details.more")
    assert more.locator("summary").inner_text() == "Parameters, Returns"
    assert not more.get_by_text("Source of the noise").is_visible()
    more.locator("summary").focus()
    page.keyboard.press("Enter")
    assert more.get_by_text("Source of the noise").is_visible()


def inverted(colour):
    """A colour from 0 to 1 as `invert(1) hue-rotate(180deg)` shows it."""
    turn = np.array([[-0.574, 1.430, 0.144], [0.426, 0.430, 0.144], [0.426, 1.430, -0.856]])
    return np.clip(turn @ (1 - np.array(to_rgb(colour))), 0, 1)


def contrast(one, other):
    """The contrast of two colours from 0 to 1, as WCAG 2 measures it."""
    linear = [np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for c in (np.array(to_rgb(one)), np.array(to_rgb(other)))]
    low, high = sorted(float(c @ [0.2126, 0.7152, 0.0722]) for c in linear)
    return (high + 0.05) / (low + 0.05)


def test_colours_of_figures_are_seen_on_light_and_dark_pages():
    dark = np.array(GROUNDS["dark"]) / 255
    with plt.style.context("vae_tutorial.static.style"):
        letters = {plt.rcParams[name] for name in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")}
    for colour, least in [*product(letters, [3.5]), *product(CLASS_COLORS, [1.8])]:
        colour = colour if colour.startswith("#") else f"#{colour}"
        # as drawn, also where nothing inverts a figure: in Jupyter, Colab and on GitHub
        assert min(contrast(colour, "white"), contrast(inverted(colour), dark), contrast(colour, dark)) > least, colour


def test_figures_have_no_ground_of_their_own():
    outputs = [(f"{path.stem}, cell {cell.id}", output) for path in CHAPTERS for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", [])]
    drawn = {where: base64.b64decode(output.data["image/png"]) for where, output in outputs if "image/png" in output.get("data", {})}
    assert len(drawn) > 50
    opaque = [where for where, picture in drawn.items() if Image.open(io.BytesIO(picture)).convert("RGBA").getpixel((0, 0))[3]]
    assert not opaque, "drawn before plt.style.use, or stored before the style had a transparent ground"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figure_is_legible_in_both_themes(opened, scheme):
    page = opened(QUICK, DESK, scheme).page
    figure = page.locator("article div.picture img").nth(1)
    figure.scroll_into_view_if_needed()
    shown = np.array(Image.open(io.BytesIO(figure.screenshot())).convert("RGB"))
    assert np.abs(shown[5, 5].astype(int) - GROUNDS[scheme]).max() <= 6
    letters = max(contrast(pixel / 255, shown[5, 5] / 255) for pixel in np.unique(shown.reshape(-1, 3), axis=0))
    assert letters > 4.5
    filters = page.locator("img").evaluate_all("all => all.map((image) => [!!image.closest('div.picture'), getComputedStyle(image).filter])")
    assert {mode for drawn, mode in filters if drawn} == {"invert(1) hue-rotate(180deg)" if scheme == "dark" else "none"}
    photographs = opened("e12_images", DESK, scheme).page.locator("div.picture.in-colour img")
    assert photographs.count() == 3 and {photographs.nth(i).evaluate("image => getComputedStyle(image).filter") for i in range(3)} == {"none"}
    assert not any("invert" in mode for drawn, mode in filters if not drawn)
