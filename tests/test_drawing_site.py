"""The sheet to draw on, on the page of the site: a hand draws in headless Chromium, and Python says what must be seen."""
import base64
import json
import re

import numpy as np
import pytest
import torch
from conftest import PHONE, ROOT, until
from factories import pixels
from test_explorers_site import decoded, explorer, picture  # noqa: F401

from vae_tutorial.data import intensities
from vae_tutorial.handwriting import draw_strokes, prepare_image
from vae_tutorial.latent_space import encodings, nearest_neighbours
from vae_tutorial.saving import load_pretrained
from vae_tutorial.vae import kl_divergence, reconstruction_loss

pytestmark = pytest.mark.deep

# each page with a sheet, which of its explorers that is, and whose model it shows
PAGES = {"03_evaluation": (0, "mnist-mlp-20d"), "09_explorers": (6, "mnist-mlp-20d")}
DRAWINGS = {
    "1": [[(0.56, 0.15), (0.5, 0.5), (0.45, 0.85)]],
    "0": [[(0.5 + 0.22 * np.sin(t), 0.5 - 0.3 * np.cos(t)) for t in np.linspace(0, 6.2, 24)]],
    "a cross": [[(0.15, 0.2), (0.8, 0.85)], [(0.8, 0.2), (0.15, 0.8)]],
    "a dot at the edge": [[(0.0, 0.3)]],
}


@pytest.fixture
def sheet(explorer):  # noqa: F811
    """Return a function that opens the page and gives the explorer, with its sheet in the middle of the window."""
    def find(page="09_explorers", **options):
        found = explorer(page, PAGES[page][0], **options)
        found.locator(".vae-sheet").evaluate("sheet => sheet.scrollIntoView({ block: 'center', behavior: 'instant' })")
        return found
    return find


def digits(page):
    """Return the images and labels that travel with a page."""
    state = json.loads((ROOT / "nbs" / "widgets" / f"{page}.json").read_text())["application/vnd.jupyter.widget-state+json"]["state"]
    (drawing,) = (widget for widget in state.values() if "strokes" in widget["state"])
    buffers = {buffer["path"][0]: base64.b64decode(buffer["data"]) for buffer in drawing["buffers"]}
    sheet = torch.from_numpy(pixels(buffers["images"])).byte()
    images = sheet.unflatten(0, (-1, 28)).unflatten(2, (-1, 28)).transpose(1, 2).flatten(0, 1)[:, None]
    return images, list(buffers["point_labels"])


def pen(found, x, y):
    """A point of the window, at whole pixels, and the point of the sheet that it is, as the browser rounds it."""
    box = found.locator(".vae-sheet").bounding_box()
    point = round(box["x"] + x * box["width"]), round(box["y"] + y * box["height"])
    places, margin = ((point[0] - box["x"]) / box["width"], (point[1] - box["y"]) / box["height"]), 1 / 24 + 2 / 224
    return point, [round(min(1 - margin, max(margin, at)), 4) for at in places]


def draw(found, strokes):
    """Draw with the mouse; return the strokes that the browser has."""
    mouse, drawn = found.page.mouse, []
    for stroke in strokes:
        points = [pen(found, x, y) for x, y in stroke]
        mouse.move(*points[0][0])
        mouse.down()
        for point, _ in points[1:]:
            mouse.move(*point)
        mouse.up()
        drawn.append([at for _, at in points])
    return drawn


def seen(found):
    """The image that the browser made of the drawing, uint8."""
    return (255 - picture(found.locator(".vae-seen canvas").first)).to(torch.uint8).view(1, 28, 28)


def posterior(found):
    """Means and deviations that the bars tell."""
    titles = found.locator(".vae-bars title").evaluate_all("all => all.map(title => title.textContent)")
    told = [re.fullmatch(r"z(\d+): μ = (\S+), σ = (\S+)", text.replace("−", "-")).groups() for text in titles]
    rows = torch.tensor(sorted((int(number), float(mu), float(sigma)) for number, mu, sigma in told))
    return rows[:, 1], rows[:, 2]


def nats(found):
    """Reconstruction, KL and their sum; nothing while the sheet is empty."""
    return [float(text.split()[0]) for text in found.locator(".vae-costs dd").all_inner_texts() if "nats" in text]


def has_ink(found, x, y):
    """Say whether the reader sees ink at a point of the sheet."""
    return found.locator(".vae-sheet canvas").evaluate(
        "(canvas, at) => canvas.getContext('2d').getImageData(...at.map((share) => share * canvas.width), 1, 1).data[3]", [x, y]) > 0


def neighbours(found):
    return [text.strip() for text in found.locator(".vae-near figcaption").all_inner_texts() if text.strip()]


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.parametrize("page", PAGES)
def test_what_is_shown_of_a_drawing_is_what_python_computes(sheet, page, name):
    found, model = sheet(page), load_pretrained(PAGES[page][1])
    strokes = draw(found, DRAWINGS[name])
    image = seen(found)
    assert (image.int() - prepare_image(draw_strokes(strokes)).int()).abs().max() <= 1
    with torch.no_grad():
        mu, logvar = model.encode(intensities(image)[None])
        loss, kl = reconstruction_loss(model.decode(mu), intensities(image)[None]).item(), kl_divergence(mu, logvar).sum().item()
    for shown, right in zip(posterior(found), (mu[0], (logvar[0] / 2).exp()), strict=True):
        assert (shown - right).abs().max() <= 1e-3
    assert nats(found) == pytest.approx([loss, kl, loss + kl], abs=0.06)
    assert (picture(found.locator(".vae-seen canvas").nth(1)) - decoded(model, mu[0].tolist())).abs().max() <= 1
    images, labels = digits(page)
    nearest = nearest_neighbours(encodings(model, images), mu, k=10)[0]
    assert neighbours(found) == [str(labels[i]) for i in nearest]
    for canvas, i in zip(found.locator(".vae-near canvas").all(), nearest, strict=True):
        assert torch.equal(255 - picture(canvas), images[i].flatten().short())
    if name in "01":
        assert neighbours(found).count(name) >= 6
    with torch.no_grad():
        means, logvars = model.encode(intensities(images))
        costs = reconstruction_loss(model.decode(means), intensities(images)) + kl_divergence(means, logvars).sum(1)
    less = (costs < loss + kl).double().mean()
    share = "any" if less == 1 else f"{int(100 * less)} %"
    assert found.locator(".vae-costs .vae-kept").inner_text() == f"More than {share} of the {len(images)} test digits (ticks)"
    assert all(has_ink(found, *stroke[0]) for stroke in strokes) and not has_ink(found, 0.99, 0.01)


def test_undo_takes_a_stroke_and_clear_all_of_them(sheet):
    found = sheet()
    first = draw(found, DRAWINGS["a cross"])[:1]
    assert len(nats(found)) == 3
    found.get_by_role("button", name="Undo").click()
    assert torch.equal(seen(found), prepare_image(draw_strokes(first)))
    draw(found, DRAWINGS["1"])
    found.get_by_role("button", name="Clear").click()
    assert not nats(found) and not neighbours(found) and not seen(found).any() and not found.locator(".vae-bars title").count()
    assert found.get_by_text("Draw a digit here").is_visible()
    found.get_by_role("button", name="Undo").click()           # of nothing
    assert not nats(found)


def test_keys_draw_and_what_is_found_is_said(sheet):
    found = sheet()
    paper, step = found.locator(".vae-sheet"), 1 / 28
    paper.focus()
    for key in ["ArrowUp"] * 6:
        paper.press(key)
    assert not nats(found)                                       # the pen is lifted
    paper.press("Space")
    for key in ["Shift+ArrowDown"] * 5:
        paper.press(key)
    assert len(nats(found)) == 3                                 # at once
    paper.press("Enter")
    paper.press("ArrowRight")
    start = 0.5
    for _ in range(6):
        start = round(start - step, 4)
    points = [[0.5, start]]
    for _ in range(5):
        points.append([0.5, round(points[-1][1] + 3 * step, 4)])
    assert (seen(found).int() - prepare_image(draw_strokes([points])).int()).abs().max() <= 1
    assert neighbours(found).count("1") >= 6
    until(lambda: "Pen lifted" in found.locator(".vae-spoken").inner_text(), "words about the pen")
    assert f"Nearest test digits {', '.join(neighbours(found))}." in found.locator(".vae-spoken").inner_text()
    paper.press("Backspace")
    assert not nats(found)


def test_finger_draws_and_the_page_stays_where_it_is(sheet):
    found = sheet(viewport=PHONE)
    (x, y), _ = pen(found, 0.5, 0.3)
    (_, end), _ = pen(found, 0.5, 0.8)
    client, before = found.page.context.new_cdp_session(found.page), found.page.evaluate("scrollY")
    client.send("Emulation.setTouchEmulationEnabled", {"enabled": True})
    touch = lambda kind, *points: client.send("Input.dispatchTouchEvent", {
        "type": kind, "touchPoints": [{"x": a, "y": b} for a, b in points]})
    touch("touchStart", (x, y))
    for share in (0.25, 0.5, 0.75, 1):
        touch("touchMove", (x, y + share * (end - y)))
    touch("touchEnd")
    until(lambda: len(nats(found)) == 3, "numbers")
    assert found.page.evaluate("scrollY") == before
    assert (seen(found).amax(2) > 0).sum() == 20                # upright: as long as the box
