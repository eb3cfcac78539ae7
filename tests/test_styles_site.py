"""The ConditionalExplorer in headless Chromium: a hand moves the style, picks a class and draws, and PyTorch says what must be seen."""
import re

import pytest
import torch
from conftest import PHONE, until, watched_page, width_of_overflow
from factories import made_up
from test_drawing_site import DRAWINGS, draw
from test_explorers_site import picture, shows, write_page
from test_styles import strong

from vae_tutorial.data import intensities
from vae_tutorial.explorers import ConditionalExplorer
from vae_tutorial.handwriting import draw_strokes, prepare_image
from vae_tutorial.vae import kl_divergence, reconstruction_loss

pytestmark = pytest.mark.deep

MODELS = [strong(input_shape=(1, 28, 28), hidden_dims=(16,), latent_dim=latent_dim, factor=1.5) for latent_dim in (2, 3)]
EXPLORERS = [ConditionalExplorer(model, made_up(test=30, shape=(1, 28, 28))) for model in MODELS]
REACH = EXPLORERS[0].reach


@pytest.fixture(scope="module")
def name(site):
    """Return the name of a page with two explorers, of two and of three dimensions."""
    write_page(site / "styles.html", *EXPLORERS)
    return "styles.html"


@pytest.fixture
def explorer(browser, address, name):
    """Return a function that gives one of the explorers of the freshly opened page."""
    visits = []

    def find(number=0, **options):
        page, complaints = watched_page(browser, address, **options)
        visits.append((page, complaints))
        page.goto(f"{address}{name}")
        page.wait_for_function("document.querySelectorAll('.vae-explorer').length === 2")
        found = page.locator(".vae-explorer").nth(number)
        found.scroll_into_view_if_needed()
        return found
    yield find
    for page, complaints in visits:
        assert not [words for words in complaints if "favicon" not in words]
        page.context.close()


def code(found):
    """The style that the cursor of the plane points at."""
    left, top = (float(number) for number in re.findall(r"(-?[\d.]+)%", found.locator(".vae-cursor").get_attribute("style")))
    return [(left / 50 - 1) * REACH, (1 - top / 50) * REACH]


def goes_to(found, z):
    until(lambda: code(found) == pytest.approx(z, abs=0.02), f"point at {z}")


def all_show(found, model, z, label):
    """Wait until every class is seen in a style, and one of them large."""
    for each, canvas in enumerate(found.locator(".vae-picker canvas").all()):
        shows(canvas, model.given(each), z)
    shows(found.locator(".vae-shown canvas").first, model.given(label), z)
    assert found.locator(".vae-picker input:checked").get_attribute("aria-label") == f"class {'abc'[label]}"


def readings(model, image):
    """Code and bound of an image as one of each class."""
    x, codes, bounds = intensities(image)[None], [], []
    with torch.no_grad():
        for told in map(model.given, range(3)):
            mu, logvar = told.encode(x)
            codes.append(mu[0].clamp(-REACH, REACH).tolist())
            bounds.append(-(reconstruction_loss(told.decode(mu), x) + kl_divergence(mu, logvar).sum(1)).item())
    return codes, bounds


def said(found):
    """The class that the drawing has been taken for, and the numbers that are told."""
    pressed = found.locator(".vae-told .vae-button[aria-pressed=true]").all_inner_texts()
    numbers = re.findall(r"class (\w): (−?[\d.]+) nats", found.locator(".vae-told .vae-hint").inner_text())
    return pressed, [(name, float(value.replace("−", "-"))) for name, value in numbers]


def middle(locator):
    locator.evaluate("part => part.scrollIntoView({ block: 'center', behavior: 'instant' })")
    return locator


def test_all_classes_follow_the_point_and_a_click_chooses_one(explorer):
    found, model = explorer(), MODELS[0]
    all_show(found, model, [0, 0], 0)
    box, mouse = middle(found.locator(".vae-where .vae-plane")).bounding_box(), found.page.mouse
    at = lambda x, y: (box["x"] + x * box["width"], box["y"] + y * box["height"])
    mouse.move(*at(0.5, 0.5))
    mouse.down()
    for x, y in [(0.6, 0.4), (0.2, 0.75)]:
        mouse.move(*at(x, y))
        goes_to(found, [(2 * x - 1) * REACH, (1 - 2 * y) * REACH])
        all_show(found, model, code(found), 0)
    mouse.move(box["x"] - 30, box["y"] - 30)         # outside, where the point stays on the edge
    goes_to(found, [-REACH, REACH])
    mouse.up()
    found.locator(".vae-picker label").nth(2).click()
    all_show(found, model, [-REACH, REACH], 2)
    found.get_by_role("button", name="Random").click()
    all_show(found, model, code(found), 2)
    found.get_by_role("button", name="Start from this image: b").click()
    with torch.no_grad():
        goes_to(found, model.given(1).code(intensities(made_up(test=2, shape=(1, 28, 28)).test.images[1:]))[0].tolist())
    all_show(found, model, code(found), 1)


@pytest.mark.parametrize("drawing", DRAWINGS)
def test_drawing_is_read_as_the_class_of_the_best_bound_or_as_the_reader_says(explorer, drawing):
    found, model = explorer(), MODELS[0]
    middle(found.locator(".vae-sheet"))
    strokes = draw(found, DRAWINGS[drawing])
    image = (255 - picture(found.locator(".vae-told canvas"))).to(torch.uint8).view(1, 28, 28)
    assert (image.int() - prepare_image(draw_strokes(strokes)).int()).abs().max() <= 1
    codes, bounds = readings(model, image)
    best, second, worst = sorted(range(3), key=lambda label: -bounds[label])
    goes_to(found, codes[best])
    pressed, numbers = said(found)
    assert pressed == ["abc"[best]] and numbers == [("abc"[label], pytest.approx(bounds[label], abs=0.3)) for label in (best, second)]
    all_show(found, model, code(found), best)
    found.get_by_role("button", name=f"It is class {'abc'[worst]}").click()
    goes_to(found, codes[worst])
    all_show(found, model, code(found), worst)
    found.locator(".vae-picker label").nth(best).click()        # another class to look at, in the style that was read
    all_show(found, model, code(found), best)
    assert said(found)[0] == ["abc"[worst]] and code(found) == pytest.approx(codes[worst], abs=0.02)
    found.get_by_role("button", name="Reset").click()
    assert said(found)[0] == []                                   # the style is no longer that of the drawing
    found.get_by_role("button", name="Clear").click()
    assert found.locator(".vae-told .vae-button:disabled").count() == 3 and not said(found)[1]


def test_keys_alone_do_all_of_it(explorer):
    found, model = explorer(), MODELS[0]
    press, focused = found.page.keyboard.press, "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"

    def go_to(name):
        for _ in range(40):
            if found.page.evaluate(focused).startswith(name):
                return
            press("Tab")
        pytest.fail(f"no Tab leads to {name}")

    go_to("Latent plane")
    press("Shift+ArrowRight")
    press("ArrowUp")
    goes_to(found, [0.1 * REACH, 0.02 * REACH])
    go_to("class a")
    press("ArrowRight")
    press("ArrowRight")
    all_show(found, model, code(found), 2)
    go_to("Sheet to draw on")
    for key in ["Space", *["Shift+ArrowDown"] * 3, *["Shift+ArrowRight"] * 2, "Enter"]:
        press(key)
    codes, bounds = readings(model, (255 - picture(found.locator(".vae-told canvas"))).to(torch.uint8).view(1, 28, 28))
    best, worst = bounds.index(max(bounds)), bounds.index(min(bounds))
    goes_to(found, codes[best])
    until(lambda: f"Read as class {'abc'[best]}." in found.locator(".vae-spoken").inner_text(), "word of the class")
    go_to(f"It is class {'abc'[worst]}")
    press("Enter")
    goes_to(found, codes[worst])
    all_show(found, model, code(found), worst)


def test_sliders_stand_for_more_dimensions_than_two(explorer):
    found, model, z = explorer(1), MODELS[1], [0.0] * 3
    names = found.locator(".widget-label").all_inner_texts()
    assert len(names) == 3 and not found.locator(".vae-cursor").count()
    for row, value in [(0, 2.0), (2, -1.5)]:
        readout = found.locator(".widget-readout").nth(row)
        readout.fill(str(value))
        readout.press("Enter")
        z[int(names[row][1:])] = value
    all_show(found, model, z, 0)


@pytest.mark.parametrize("number", range(2))
def test_nothing_is_cut_off_on_a_phone_and_the_room_is_kept(explorer, number):
    for viewport, kept in zip(((1280, 1000), PHONE), EXPLORERS[number]._heights, strict=True):
        found = explorer(number, viewport=viewport)
        outside = found.evaluate("""root => [...root.querySelectorAll("canvas, button, label, p:not(.vae-spoken), output, svg, .vae-plane")].filter((part) => {
            const { left, right } = part.getBoundingClientRect();
            return left < 0 || right > innerWidth || part.scrollWidth > part.clientWidth + 1 && part.tagName === "P";
        }).map((part) => part.outerHTML.slice(0, 100))""")
        assert not outside and width_of_overflow(found.page) <= 0 and kept - 60 <= found.bounding_box()["height"] <= kept
