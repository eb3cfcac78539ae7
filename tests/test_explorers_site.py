"""The explorers on the pages of the site: a hand moves them in headless Chromium, and PyTorch says what must be seen."""
import gzip
import itertools
import json
import re

import nbformat
import pytest
import torch
from conftest import CHAPTERS, PHONE, until, watched_page
from factories import made_up, tiny
from ipywidgets.embed import dependency_state
from test_explorers import by_autograd

from vae_tutorial.explorers import InterpolationExplorer, LatentExplorer
from vae_tutorial.generation import decode_images, lerp, slerp
from vae_tutorial.saving import load_pretrained

pytestmark = pytest.mark.deep

# Pages with their explorers, from the top.
PLACES = {
    "01_vae": ["reparameterization"],
    "03_evaluation": ["draw"],
    "04_generation": ["interpolation", "latent"],
    "05_latent_space": ["embedding"],
    "07_sweeps": ["beta"],
    "08_conv": ["latent"],
    "09_explorers": ["latent", "latent", "interpolation", "embedding", "beta", "reparameterization", "draw", "latent", "embedding", "latent"],
    "11_own_images": ["latent"],
    "14_conditional": ["conditional"],
}
PIXELS = """canvas => Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data)
                          .filter((_, i) => i % 4 === 0)"""
DRAWN = """(plane, keys) => {
    const canvas = CanvasRenderingContext2D.prototype, put = canvas.putImageData;
    let drawn = 0;
    canvas.putImageData = function (...given) { drawn += 1; return put.apply(this, given); };
    for (const key of keys) plane.dispatchEvent(new KeyboardEvent("keydown", { key }));
    canvas.putImageData = put;
    return drawn;
}"""


@pytest.fixture
def explorer(visit):
    """Return a function that gives one explorer of a freshly opened page."""
    visits = []

    def find(page, number, **options):
        visits.append(visit(page, **options))
        found = visits[-1].page.locator(".vae-explorer").nth(number)
        found.scroll_into_view_if_needed()
        return found
    yield find
    for page, complaints in visits:
        assert not complaints
        page.context.close()


def picture(canvas):
    """Grey values that a canvas shows, one for each pixel of the image."""
    return torch.tensor(canvas.evaluate(PIXELS), dtype=torch.int16)


def decoded(model, *z):
    """Grey values of the image that PyTorch decodes, ink on paper."""
    return 255 - (255 * decode_images(model, torch.tensor(z, dtype=torch.float32))).round().flatten().to(torch.int16)


def shows(canvas, model, *z, within=1):
    """Wait until a canvas shows what PyTorch decodes at a code, to one grey level; the canvas may be the explorer that it is in."""
    canvas = canvas.locator(".vae-shown canvas") if canvas.locator("canvas").count() else canvas
    wanted = decoded(model, *z)
    until(lambda: (picture(canvas) - wanted).abs().max() <= within, f"image of {z}")


def intensities(canvas):
    """The image that a canvas shows, as a model takes it."""
    return (255 - picture(canvas).float().view(1, 1, 28, 28)) / 255


# --- every page with explorers ---

def test_every_explorer_of_the_course_is_tested():
    shown = {}
    for path in CHAPTERS:
        outputs = [output for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", [])]
        names = [output.data["text/plain"] for output in outputs if "vae-still" in output.get("data", {}).get("text/html", "")]
        if names:
            shown[path.stem] = [name.removesuffix("Explorer()").lower() for name in names]
    assert shown == PLACES


@pytest.mark.parametrize("name", PLACES)
def test_explorers_are_drawn_in_their_places_and_all_that_takes_a_key_has_a_name(opened, name, site):
    # two of them carry a large encoder too
    assert len(gzip.compress((site / f"{name}.html").read_bytes())) <= (2_300_000 if name in ("09_explorers", "14_conditional") else 1_500_000)
    page = opened(name).page
    kinds = [kind.split()[0].removeprefix("vae-") for kind in page.locator(".vae-explorer > div").evaluate_all("all => all.map(e => e.className)")]
    nameless = page.locator(".vae-explorer :is(button, [role=slider], [role=img], [role=application], input)").evaluate_all("""all => all
        .filter(e => !(e.getAttribute("aria-label") || e.title || e.textContent.trim() || e.closest("label") || e.labels?.length || e.ariaHidden))
        .map(e => e.outerHTML.slice(0, 200))""")
    assert kinds == PLACES[name] and not nameless and not room_missing(page)
    phone = opened(name, PHONE, "dark").page                  # complaints and overflow of both are looked at with those of all pages
    colours = phone.locator(".vae-explorer").evaluate_all("all => all.map(e => getComputedStyle(e).color)")
    assert not room_missing(phone) and all(sum(map(int, re.findall(r"\d+", colour)[:3])) > 450 for colour in colours)


def room_missing(page):
    """Explorers that are taller than the room kept for them, with both heights: there the page would jump."""
    heights = page.locator(".explorer").evaluate_all(
        "all => all.map(place => ['.vae-explorer', '.vae-still'].map(part => place.querySelector(part).getBoundingClientRect().height))")
    return [(drawn, kept) for drawn, kept in heights if drawn > kept + 1]


@pytest.mark.parametrize("name", PLACES)
def test_still_pictures_stand_in_where_no_script_runs(browser, address, name):
    page, _ = watched_page(browser, address, java_script_enabled=False)
    page.goto(f"{address}{name}.html")
    stills = page.locator(".vae-still")
    assert stills.count() == len(PLACES[name])
    for still in page.locator(".vae-still:not(details *)").all():
        assert still.is_visible() and len(still.locator("figcaption").inner_text()) > 40
        assert still.locator("img").evaluate("image => image.naturalWidth") > 100 and len(still.locator("img").get_attribute("alt")) > 20
    page.context.close()


def test_explorers_work_from_the_disk(browser, site):
    page, complaints = watched_page(browser, site.as_uri())
    page.goto(f"{site.as_uri()}/09_explorers.html")
    page.get_by_role("application").first.press("ArrowRight")
    explorer = page.locator(".vae-explorer").first
    shows(explorer, load_pretrained("fashion-conv-2d"), plane_code(explorer))
    assert not complaints
    page.context.close()


# --- colours ---

def write_page(path, *widgets):
    """Write a page that shows widgets as those of the site do, and nothing else."""
    state = {"version_major": 2, "version_minor": 0, "state": dependency_state(widgets, drop_defaults=False)}
    views = [json.dumps({"version_major": 2, "version_minor": 0, "model_id": widget.model_id}) for widget in widgets]
    path.write_text("".join([
        *(f"<script src='_static/widgets/{name}'></script>" for name in ("manager/require.js", "draw.js")),
        *(f"<div class='explorer'><script type='application/vnd.jupyter.widget-view+json'>{view}</script></div>" for view in views),
        f"<script type='application/vnd.jupyter.widget-state+json'>{json.dumps(state)}</script>"]), encoding="utf-8")


def colours(canvas, channels):
    """What a canvas shows, shape (channels, height, width)."""
    read = """canvas => [canvas.height, canvas.width, ...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]"""
    height, width, *values = canvas.evaluate(read)
    return torch.tensor(values).view(height, width, 4).movedim(-1, 0)[:channels]


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_are_drawn_as_they_are(browser, site, address, channels):
    shape = (channels, 8, 6)
    model, data = tiny(input_shape=shape), made_up(test=40, shape=shape)
    data.test.images[:, 3:] |= 128                               # what is almost clear keeps no colour in a canvas
    write_page(site / "colours.html", LatentExplorer(model, data), InterpolationExplorer(model, data.test.images[:3]))
    page, complaints = watched_page(browser, address)
    page.goto(f"{address}colours.html")
    page.wait_for_function("document.querySelectorAll('.vae-explorer').length === 2")
    first, second = page.locator(".vae-explorer").all()
    wanted = (255 * decode_images(model, torch.zeros(1, 2))[0]).round()
    assert (colours(first.locator(".vae-shown canvas"), channels) - wanted).abs().max() <= 2
    for canvas, image in zip(second.locator(".vae-picker").first.locator("canvas").all(), data.test.images[:3], strict=True):
        assert (colours(canvas, channels) - image.int()).abs().max() <= 2
    assert not [words for words in complaints if "favicon" not in words]
    page.context.close()


# --- LatentExplorer ---

def plane_code(explorer):
    """The code that the cursor of the plane points at, in units of the plane's reach; the slider knows the reach."""
    reach = float(explorer.locator("[role=slider]").first.get_attribute("aria-valuemax"))
    style = explorer.locator(".vae-cursor").get_attribute("style")
    left, top = (float(number) for number in re.findall(r"(-?[\d.]+)%", style))
    return (left / 50 - 1) * reach, (1 - top / 50) * reach


def test_plane_decodes_where_the_hand_is(explorer):
    found, model = explorer("04_generation", 1), load_pretrained("mnist-mlp-2d")
    plane, mouse = found.get_by_role("application"), found.page.mouse
    reach = float(found.locator("[role=slider]").first.get_attribute("aria-valuemax"))
    found.get_by_role("button", name="Reset").click()
    shows(found, model, (0, 0))
    box = plane.bounding_box()
    at = lambda x, y: (box["x"] + x * box["width"], box["y"] + y * box["height"])
    mouse.move(*at(0.5, 0.5))
    mouse.down()
    for x, y in [(0.6, 0.4), (0.3, 0.2), (0.8, 0.75)]:
        mouse.move(*at(x, y))
        until(lambda x=x, y=y: plane_code(found) == pytest.approx(((2 * x - 1) * reach, (1 - 2 * y) * reach), abs=0.02 * reach), "such code")
        shows(found, model, plane_code(found))
    mouse.move(box["x"] - 50, box["y"] - 50)         # outside, where the point stays on the edge
    until(lambda: plane_code(found) == pytest.approx((-reach, reach)), "point on the edge")
    mouse.up()
    mouse.move(*at(0.5, 0.5))
    shows(found, model, (-reach, reach))
    assert plane_code(found) == pytest.approx((-reach, reach))


def test_plane_answers_keys_sliders_and_typing_and_draws_once_for_a_move(explorer):
    found, model = explorer("08_conv", 0), load_pretrained("fashion-conv-2d")
    plane = found.get_by_role("application")

    def moves(move, *to):
        """Make a move and see that the point and the image go there, or anywhere else."""
        before = plane_code(found)
        move()
        until(lambda: plane_code(found) == pytest.approx(to, abs=0.005) if to else plane_code(found) != before, "move")
        shows(found, model, plane_code(found))

    for key in ["ArrowRight", "Shift+ArrowUp", "ArrowLeft", "Shift+ArrowDown"]:
        moves(lambda key=key: plane.press(key))
    labels = found.locator(".widget-slider .widget-label").all_inner_texts()
    readouts = [found.locator(".widget-readout").nth(labels.index(name)) for name in ("z0", "z1")]
    for readout, value in zip(readouts, ["1.25", "-0.75"]):
        readout.fill(value)
        readout.press("Enter")
    moves(lambda: None, 1.25, -0.75)
    moves(lambda: found.locator("[role=slider]").first.press("ArrowRight"))
    moves(lambda: found.get_by_role("button", name="Reset").click(), 0, 0)
    moves(lambda: found.get_by_role("button", name="Random").click())
    assert plane.evaluate(DRAWN, ["ArrowLeft", "ArrowUp"] * 10) == 20


def test_images_are_where_their_codes_are(explorer):
    found, model = explorer("04_generation", 1), load_pretrained("mnist-mlp-2d")
    for choice in ("images", "both", "manifold"):
        found.get_by_role("button", name=choice, exact=True).click()
        found.page.wait_for_selector(f"[role=application][data-layer={choice}]")
    found.get_by_role("button", name="Start from this image: 7").click()
    shows(found, model, model.code(intensities(found.locator(".vae-thumbnail canvas").nth(7)))[0].tolist())


def test_sliders_move_their_own_dimension(explorer):
    found, model = explorer("09_explorers", 1), load_pretrained("mnist-mlp-20d")
    z = [0.0] * 20
    names = found.locator(".widget-label").all_inner_texts()
    assert len(names) == 20
    for row, value in [(0, 2.0), (5, -1.5), (19, 3.25)]:
        readout = found.locator(".widget-readout").nth(row)
        readout.fill(str(value))
        readout.press("Enter")
        z[int(names[row][1:])] = value
        shows(found, model, z)
    nats = [float(text.split()[0]) for text in found.locator(".vae-nats").all_inner_texts()]
    assert nats == sorted(nats, reverse=True)


# --- InterpolationExplorer ---

def test_both_ways_between_two_images_are_decoded(explorer):
    found, model = explorer("04_generation", 0), load_pretrained("mnist-mlp-20d")
    pickers = found.locator(".vae-picker")
    # the first test image of each class, read from the page itself
    codes = model.code(torch.cat([intensities(canvas) for canvas in pickers.first.locator("canvas").all()])).detach()

    def both_ways_are(start, end, t):
        for name, way in [("lerp", lerp), ("slerp", slerp)]:
            shows(found.locator(f"[data-way={name}] > canvas"), model, way(codes[start], codes[end], t).tolist())

    for start, end in [(2, 7), (6, 5), (3, 3)]:
        for picker, choice in enumerate((start, end)):
            pickers.nth(picker).locator("label").nth(choice).click()
        found.locator("[data-way=slerp] .vae-film button").nth(2).click()
        both_ways_are(start, end, 0.25)
    readout = found.locator(".widget-readout")
    readout.fill("0.8")
    readout.press("Enter")
    pickers.nth(1).locator("input:checked").press("ArrowRight")
    both_ways_are(3, 4, 0.8)
    found.locator("[role=slider]").press("ArrowLeft")
    both_ways_are(3, 4, 0.795)
    for name, way in [("lerp", lerp), ("slerp", slerp)]:
        for i, frame in enumerate(found.locator(f"[data-way={name}] .vae-film canvas").all()):
            shows(frame, model, way(codes[3], codes[4], i / 8).tolist())


# --- EmbeddingExplorer ---

def test_point_shows_its_image_and_its_reconstruction(explorer):
    found, model = explorer("05_latent_space", 0), load_pretrained("mnist-mlp-20d")
    plot, readout = found.get_by_role("application"), found.locator(".vae-readout")
    image, reconstruction = (found.locator(".vae-pair canvas").nth(i) for i in range(2))
    again = lambda: until(lambda: (picture(reconstruction) - decoded(model, model.code(intensities(image))[0].tolist())).abs().max() <= 1, "reconstruction")
    seen = set()
    for key in ["Home", "ArrowRight", "ArrowUp", "End", "ArrowLeft"]:
        plot.press(key)
        again()
        seen.add(readout.inner_text())
    assert len(seen) >= 4
    plot.scroll_into_view_if_needed()
    before, box = readout.inner_text(), plot.bounding_box()
    found.page.mouse.click(box["x"] + 5, box["y"] + 5)          # where no dot is: lets go of what the page holds
    for x, y in itertools.product((0.35, 0.45, 0.55, 0.65), repeat=2):       # some of these places have a dot
        found.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    until(lambda: readout.inner_text() != before, "point under the pointer")
    again()


def test_maps_and_classes_can_be_changed(explorer):
    found = explorer("09_explorers", 3)
    plot, readout = found.get_by_role("application"), found.locator(".vae-readout")
    drawing = lambda: plot.locator("canvas").first.evaluate("canvas => canvas.toDataURL()")
    first, chosen = drawing(), readout.inner_text()
    pressed = found.locator(".widget-toggle-button[aria-pressed=false]").first
    name = pressed.inner_text()
    pressed.click()
    until(lambda: found.locator(".widget-toggle-button[aria-pressed=true]").inner_text() == name and drawing() != first, "other map")
    assert readout.inner_text() == chosen
    found.get_by_role("button", name="none", exact=True).click()
    found.locator(".vae-class", has_text="4").click()
    for key in ["Home", "ArrowRight", "ArrowDown", "End", "ArrowLeft"]:
        plot.press(key)
        until(lambda: readout.inner_text().endswith("class 4"), "point of class 4")


# --- BetaExplorer ---

@pytest.mark.parametrize("page, number", [("07_sweeps", 0), ("09_explorers", 4)])
def test_beta_moves_images_figures_and_point_together(explorer, page, number):
    found, betas = explorer(page, number), (0.25, 0.5, 1, 2, 4, 8, 16)
    slider, groups = found.locator("[role=slider]"), found.locator(".vae-thumbnails")
    canvases = [groups.nth(group).locator("canvas").all() for group in range(2)]
    z = torch.randn(10, 10, generator=torch.Generator().manual_seed(0))
    slider.press("Home")
    for place, beta in enumerate(betas):
        model = load_pretrained(f"mnist-beta-{beta:g}")
        until(lambda place=place: "vae-chosen" in found.locator(".vae-dot").nth(place).get_attribute("class"), f"point of {beta}")
        assert f"{beta:g}" in found.locator(".vae-figures").inner_text() and found.locator(".vae-chosen").count() == 1
        # the page's models are those before they were shipped in float16
        for canvas, code in zip(canvases[1], z.tolist(), strict=True):
            shows(canvas, model, code, within=2)
        for image, again in zip(canvases[0][::2], canvases[0][1::2], strict=True):
            shows(again, model, model.code(intensities(image))[0].tolist(), within=2)
        slider.press("ArrowRight")
    found.locator(".vae-dot").nth(1).click()
    until(lambda: slider.get_attribute("aria-valuetext") == "β = 0.5", "β of the point")


# --- ReparameterizationExplorer ---

def numbers(found):
    """The seven numbers beside the drawing: z, its two slopes, log q(z), the KL and its two pulls."""
    return [float(text.replace("−", "-").split()[0]) for text in found.locator("dd").all_inner_texts()]


def state(found):
    """μ, σ and ε as the three readouts show them."""
    return [float(text.replace("−", "-")) for text in found.locator(".widget-readout").all_inner_texts()]


def test_hand_on_mean_noise_and_sample(explorer):
    found = explorer("09_explorers", 5)
    drawing, mouse = found.locator("svg"), found.page.mouse
    unit = drawing.bounding_box()["width"] / 13.8                # the axes reach from -6.9 to 6.9

    def moves(move, number, to=None):
        """Make a move and return mu, sigma and eps before it: one changes, the others stay, and the numbers are PyTorch's."""
        before = state(found)
        move()
        until(lambda: state(found)[number] == pytest.approx(to) if to is not None else state(found)[number] != before[number], "move")
        right = list(by_autograd(*state(found)).values())
        assert numbers(found) == pytest.approx([*right[:5], -right[5], -right[6]], abs=0.0051)
        assert [state(found)[i] for i in range(3) if i != number] == [before[i] for i in range(3) if i != number]
        return before

    def drag(handle):
        box = found.locator(f"[data-handle='{handle}'] circle").last.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        mouse.move(x, y)
        mouse.down()
        mouse.move(x - 0.3 * unit, y)
        mouse.up()

    # what a handle moves
    for handle, number in [("μ", 0), ("σ", 1), ("ε", 2), ("z", 2)]:
        before = moves(lambda handle=handle: drag(handle), number)
        way = -0.3 / (before[1] if handle == "z" else 1)
        assert state(found)[number] == pytest.approx(before[number] + way, abs=0.08)
    moves(lambda: found.get_by_role("button", name="New ε").click(), 2)
    moves(lambda: found.get_by_role("slider", name="μ").press("ArrowRight"), 0, state(found)[0] + 0.01)
    readout = found.locator(".widget-readout").nth(1)
    moves(lambda: [readout.fill("7"), readout.press("Enter")], 1, 1.5)
