"""The explorers on the pages of the site: a hand moves them in headless Chromium, and PyTorch says what must be seen."""
import gzip
import re
from statistics import median

import nbformat
import pytest
import torch
from conftest import CHAPTERS, DESK, PHONE, Visit, watched_page, width_of_overflow

from vae_tutorial.generation import decode_images, lerp, slerp
from vae_tutorial.saving import load_pretrained
from vae_tutorial.vae import kl_divergence

pytestmark = pytest.mark.deep

# Pages with their explorers, from the top.
PLACES = {
    "01_vae": ["reparameterization"],
    "04_generation": ["interpolation", "latent"],
    "05_latent_space": ["embedding"],
    "07_sweeps": ["beta"],
    "08_conv": ["latent"],
    "09_explorers": ["latent", "latent", "interpolation", "embedding", "beta", "reparameterization", "latent", "embedding", "latent"],
}
PLANES = [("04_generation", 1, "mnist-mlp-2d"), ("08_conv", 0, "fashion-conv-2d"), ("09_explorers", 0, "fashion-conv-2d")]
INTERPOLATIONS = [("04_generation", 0), ("09_explorers", 2)]
EMBEDDINGS = [("05_latent_space", 0), ("09_explorers", 3)]
BETAS = [("07_sweeps", 0), ("09_explorers", 4)]
REPARAMETERIZATIONS = [("01_vae", 0), ("09_explorers", 5)]
PIXELS = """canvas => Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data)
                          .filter((_, i) => i % 4 === 0)"""
WATCH = """
window.shifts = 0;
new PerformanceObserver(list => { for (const shift of list.getEntries()) if (!shift.hadRecentInput) window.shifts += shift.value; })
  .observe({ type: "layout-shift", buffered: true });
"""


@pytest.fixture(scope="session")
def open_page(browser, address):
    """Return a function that opens a page with explorers, waits for them, and records what goes wrong."""
    def open_page(name, viewport=DESK, scheme="light", base=address):
        page, complaints = watched_page(browser, base, viewport, scheme)
        page.add_init_script(WATCH)
        page.goto(f"{base}{name}.html")
        page.wait_for_function(f"document.querySelectorAll('.vae-explorer').length === {len(PLACES[name])}")
        return Visit(page, complaints)
    return open_page


@pytest.fixture
def explorer(open_page):
    """Return a function that gives one explorer of a freshly opened page."""
    visits = []

    def find(page, number, **options):
        visits.append(open_page(page, **options))
        found = visits[-1].page.locator(".vae-explorer").nth(number)
        found.scroll_into_view_if_needed()
        return found
    yield find
    for page, complaints in visits:
        # the tests read canvases again and again, which Chromium warns of
        assert not [complaint for complaint in complaints if "willReadFrequently" not in complaint]
        page.context.close()


def picture(canvas):
    """Grey values that a canvas shows, one for each pixel of the image."""
    return torch.tensor(canvas.evaluate(PIXELS), dtype=torch.int16)


def decoded(model, *z):
    """Grey values of the image that PyTorch decodes, ink on paper."""
    return 255 - (255 * decode_images(model, torch.tensor(z, dtype=torch.float32))).round().flatten().to(torch.int16)


def shows(explorer, model, z):
    """Say whether the explorer shows what PyTorch decodes there, to one grey level."""
    return (picture(explorer.locator(".vae-shown canvas")) - decoded(model, *z)).abs().max() <= 1


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
def test_explorers_are_drawn_in_their_places(open_page, name):
    page, complaints = open_page(name)
    page.wait_for_load_state("networkidle")
    assert not complaints
    kinds = [kind.split()[0].removeprefix("vae-") for kind in page.locator(".vae-explorer > div").evaluate_all("all => all.map(e => e.className)")]
    assert kinds == PLACES[name]
    assert page.evaluate("window.shifts") < 0.05
    assert not room_missing(page)


@pytest.mark.parametrize("name", PLACES)
def test_explorers_fit_a_phone_in_the_dark(open_page, name):
    page, complaints = open_page(name, PHONE, "dark")
    page.wait_for_load_state("networkidle")
    assert not complaints and width_of_overflow(page) <= 0 and not room_missing(page)
    for explorer in page.locator(".vae-explorer").all():
        colour = explorer.evaluate("explorer => getComputedStyle(explorer).color")
        assert sum(map(int, re.findall(r"\d+", colour)[:3])) > 450


def room_missing(page):
    """Explorers that are taller than the room kept for them, with both heights: there the page would jump."""
    heights = page.locator(".explorer").evaluate_all(
        "all => all.map(place => ['.vae-explorer', '.vae-still'].map(part => place.querySelector(part).getBoundingClientRect().height))")
    return [(drawn, kept) for drawn, kept in heights if drawn > kept + 1]


@pytest.mark.parametrize("name", PLACES)
def test_page_is_light(site, name):
    html = (site / f"{name}.html").read_text(encoding="utf-8")
    assert len(gzip.compress(html.encode())) <= 1_500_000


@pytest.mark.parametrize("name", PLACES)
def test_still_pictures_stand_in_where_no_script_runs(browser, address, name):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(f"{address}{name}.html")
    stills = page.locator(".vae-still")
    assert stills.count() == len(PLACES[name])
    for still in page.locator(".vae-still:not(details *)").all():
        assert still.is_visible() and len(still.locator("figcaption").inner_text()) > 40
        assert still.locator("img").evaluate("image => image.naturalWidth") > 100 and len(still.locator("img").get_attribute("alt")) > 20
    page.context.close()


def test_explorers_work_from_the_disk(open_page, site):
    page, complaints = open_page("09_explorers", base=f"{site.as_uri()}/")
    plane = page.get_by_role("application").first
    plane.press("ArrowRight")
    explorer = page.locator(".vae-explorer").first
    assert shows(explorer, load_pretrained("fashion-conv-2d"), plane_code(explorer)) and not complaints
    page.context.close()


@pytest.mark.parametrize("name", PLACES)
def test_everything_that_takes_a_key_has_a_name(open_page, name):
    page, _ = open_page(name)
    nameless = page.locator(".vae-explorer :is(button, [role=slider], [role=img], [role=application], input)").evaluate_all("""all => all
        .filter(e => !(e.getAttribute("aria-label") || e.title || e.textContent.trim() || e.closest("label") || e.labels?.length || e.ariaHidden))
        .map(e => e.outerHTML.slice(0, 200))""")
    assert not nameless


# --- LatentExplorer ---

def plane_code(explorer):
    """The code that the cursor of the plane points at, in units of the plane's reach; the slider knows the reach."""
    reach = float(explorer.locator("[role=slider]").first.get_attribute("aria-valuemax"))
    style = explorer.locator(".vae-cursor").get_attribute("style")
    left, top = (float(number) for number in re.findall(r"(-?[\d.]+)%", style))
    return (left / 50 - 1) * reach, (1 - top / 50) * reach


@pytest.mark.parametrize("page, number, name", PLANES)
def test_plane_decodes_where_the_hand_is(explorer, page, number, name):
    found, model = explorer(page, number), load_pretrained(name)
    plane, mouse = found.get_by_role("application"), found.page.mouse
    found.get_by_role("button", name="Reset").click()
    assert shows(found, model, (0, 0))
    box = plane.bounding_box()
    at = lambda x, y: (box["x"] + x * box["width"], box["y"] + y * box["height"])
    mouse.move(*at(0.5, 0.5))
    mouse.down()
    for x, y in [(0.6, 0.4), (0.3, 0.2), (0.8, 0.75)]:
        mouse.move(*at(x, y))
        z = plane_code(found)
        reach = float(found.locator("[role=slider]").first.get_attribute("aria-valuemax"))
        assert z == pytest.approx(((2 * x - 1) * reach, (1 - 2 * y) * reach), abs=0.02 * reach)
        assert shows(found, model, z)
    mouse.move(box["x"] - 50, box["y"] - 50)         # outside, where the point stays on the edge
    assert plane_code(found) == pytest.approx((-reach, reach)) and shows(found, model, (-reach, reach))
    mouse.up()
    before = plane_code(found)
    mouse.move(*at(0.5, 0.5))
    assert plane_code(found) == before


@pytest.mark.parametrize("page, number, name", PLANES)
def test_plane_answers_keys_sliders_and_typing(explorer, page, number, name):
    found, model = explorer(page, number), load_pretrained(name)
    plane = found.get_by_role("application")
    for key in ["ArrowRight", "Shift+ArrowUp", "ArrowUp", "ArrowLeft", "Shift+ArrowDown"]:
        before = plane_code(found)
        plane.press(key)
        assert plane_code(found) != before and shows(found, model, plane_code(found))
    readouts = found.locator(".widget-readout")
    for slider, value in enumerate(["1.25", "-0.75"]):
        readouts.nth(slider).fill(value)
        readouts.nth(slider).press("Enter")
    typed = {label: float(value) for label, value in zip(found.locator(".widget-slider .widget-label").all_inner_texts(), ["1.25", "-0.75"])}
    assert shows(found, model, (typed["z0"], typed["z1"]))
    found.locator("[role=slider]").first.press("ArrowRight")
    assert shows(found, model, plane_code(found)) and not shows(found, model, (typed["z0"], typed["z1"]))
    found.get_by_role("button", name="Reset").click()
    assert shows(found, model, (0, 0))
    found.get_by_role("button", name="Random").click()
    assert shows(found, model, plane_code(found)) and plane_code(found) != (0, 0)


@pytest.mark.parametrize("page, number, name", PLANES)
def test_a_move_is_quick(explorer, page, number, name):
    found = explorer(page, number)
    times = found.get_by_role("application").evaluate("""plane => Array.from({ length: 40 }, (_, i) => {
        const start = performance.now();
        plane.dispatchEvent(new KeyboardEvent("keydown", { key: i % 2 ? "ArrowLeft" : "ArrowUp" }));
        return performance.now() - start;
    })""")
    assert median(times) < (33 if "conv" in name else 16)


def test_images_are_where_their_codes_are(explorer):
    found, model = explorer("04_generation", 1), load_pretrained("mnist-mlp-2d")
    for choice in ("images", "both", "manifold"):
        found.get_by_role("button", name=choice, exact=True).click()
        assert found.get_by_role("application").get_attribute("data-layer") == choice
    found.get_by_role("button", name="Start from this image: 7").click()
    seven = picture(found.locator(".vae-thumbnail canvas").nth(7))
    intensities = (255 - seven.float().view(1, 1, 28, 28)) / 255
    assert shows(found, model, model.code(intensities)[0].tolist())


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
        assert shows(found, model, z)
    nats = [float(text.split()[0]) for text in found.locator(".vae-nats").all_inner_texts()]
    assert nats == sorted(nats, reverse=True)


# --- InterpolationExplorer ---

@pytest.fixture(scope="module")
def digits():
    """The first test image of each class on the page, read from the page itself by its canvases."""
    return lambda found: torch.stack([(255 - picture(canvas).float().view(1, 28, 28)) / 255
                                      for canvas in found.locator(".vae-picker").first.locator("canvas").all()])


@pytest.mark.parametrize("page, number", INTERPOLATIONS)
def test_both_ways_between_two_images_are_decoded(explorer, digits, page, number):
    found, model = explorer(page, number), load_pretrained("mnist-mlp-20d")
    codes = model.code(digits(found)).detach()

    def both_ways_are(start, end, t):
        for name, way in [("lerp", lerp), ("slerp", slerp)]:
            part = found.locator(f"[data-way={name}]")
            difference = picture(part.locator("> canvas")) - decoded(model, way(codes[start], codes[end], t).tolist())
            assert difference.abs().max() <= 1

    for start, end in [(2, 7), (6, 5), (3, 3)]:
        for picker, choice in enumerate((start, end)):
            found.locator(".vae-picker").nth(picker).locator("label").nth(choice).click()
        frame = found.locator("[data-way=slerp] .vae-film button").nth(2)
        frame.click()
        both_ways_are(start, end, 0.25)
    readout = found.locator(".widget-readout")
    readout.fill("0.8")
    readout.press("Enter")
    both_ways_are(3, 3, 0.8)
    found.locator(".vae-picker").nth(1).locator("input:checked").press("ArrowRight")
    both_ways_are(3, 4, 0.8)
    handle = found.locator("[role=slider]")
    handle.press("ArrowLeft")
    both_ways_are(3, 4, 0.795)
    found.page.wait_for_timeout(300)                     # the film is drawn in slices
    for name, way in [("lerp", lerp), ("slerp", slerp)]:
        for i, frame in enumerate(found.locator(f"[data-way={name}] .vae-film canvas").all()):
            assert (picture(frame) - decoded(model, way(codes[3], codes[4], i / 8).tolist())).abs().max() <= 1


# --- EmbeddingExplorer ---

@pytest.mark.parametrize("page, number", EMBEDDINGS)
def test_point_shows_its_image_and_its_reconstruction(explorer, page, number):
    found, model = explorer(page, number), load_pretrained("mnist-mlp-20d")
    plot = found.get_by_role("application")
    image, reconstruction = (found.locator(".vae-pair canvas").nth(i) for i in range(2))
    seen = set()
    for key in ["Home", "ArrowRight", "ArrowUp", "End", "ArrowLeft"]:
        plot.press(key)
        intensities = (255 - picture(image).float().view(1, 1, 28, 28)) / 255
        assert (picture(reconstruction) - decoded(model, model.code(intensities)[0].tolist())).abs().max() <= 1
        seen.add(found.locator(".vae-readout").inner_text())
    assert len(seen) >= 4
    before, box = found.locator(".vae-readout").inner_text(), plot.bounding_box()
    for x, y in [(0.5, 0.5), (0.35, 0.6), (0.6, 0.4), (0.4, 0.4)]:
        found.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        seen.add(found.locator(".vae-readout").inner_text())
    assert len(seen) > 4 or found.locator(".vae-readout").inner_text() == before


@pytest.mark.parametrize("page, number", EMBEDDINGS)
def test_maps_and_classes_can_be_changed(explorer, page, number):
    found = explorer(page, number)
    dots = found.get_by_role("application").locator("canvas").first
    drawing = lambda: dots.evaluate("canvas => canvas.toDataURL()")
    first, chosen = drawing(), found.locator(".vae-readout").inner_text()
    pressed = found.locator(".widget-toggle-button[aria-pressed=false]").first
    name = pressed.inner_text()
    pressed.click()
    found.page.wait_for_timeout(1000)                    # the dots walk to their places
    assert found.locator(".widget-toggle-button[aria-pressed=true]").inner_text() == name
    assert drawing() != first and found.locator(".vae-readout").inner_text() == chosen
    found.get_by_role("button", name="none", exact=True).click()
    found.locator(".vae-class", has_text="4").click()
    plot = found.get_by_role("application")
    for key in ["Home", "ArrowRight", "ArrowDown", "End", "ArrowLeft"]:
        plot.press(key)
        assert found.locator(".vae-readout").inner_text().endswith("class 4")


# --- BetaExplorer ---

@pytest.mark.parametrize("page, number", BETAS)
def test_beta_moves_images_figures_and_point_together(explorer, page, number):
    found, betas = explorer(page, number), (0.25, 0.5, 1, 2, 4, 8, 16)
    slider, groups = found.locator("[role=slider]"), found.locator(".vae-thumbnails")
    z = torch.randn(10, 10, generator=torch.Generator().manual_seed(0))
    slider.press("Home")
    for place, beta in enumerate(betas):
        model = load_pretrained(f"mnist-beta-{beta:g}")
        assert f"{beta:g}" in found.locator(".vae-figures").inner_text()
        assert "vae-chosen" in found.locator(".vae-dot").nth(place).get_attribute("class") and found.locator(".vae-chosen").count() == 1
        # the page's models are those before they were shipped in float16
        samples = torch.stack([picture(canvas) for canvas in groups.nth(1).locator("canvas").all()])
        assert (samples.flatten() - decoded(model, *z.tolist())).abs().max() <= 2
        pairs = torch.stack([picture(canvas) for canvas in groups.nth(0).locator("canvas").all()]).view(-1, 2, 1, 28, 28)
        codes = model.code((255 - pairs[:, 0].float()) / 255)
        assert (pairs[:, 1].flatten() - decoded(model, *codes.tolist())).abs().max() <= 2
        slider.press("ArrowRight")
    found.locator(".vae-dot").nth(1).click()
    assert slider.get_attribute("aria-valuetext") == "β = 0.5"


# --- ReparameterizationExplorer ---

def numbers(found):
    """The seven numbers beside the drawing: z, its two slopes, log q(z), the KL and its two pulls."""
    return [float(text.replace("−", "-").split()[0]) for text in found.locator("dd").all_inner_texts()]


def state(found):
    """μ, σ and ε as the three readouts show them."""
    return [float(text.replace("−", "-")) for text in found.locator(".widget-readout").all_inner_texts()]


def by_autograd(mu, sigma, eps):
    """What the numbers must be, from PyTorch's graph."""
    mu, sigma = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (mu, sigma))
    z = mu + sigma * eps
    q, kl = torch.distributions.Normal(mu, sigma), kl_divergence(mu, 2 * sigma.log())
    slopes, pulls = torch.autograd.grad(z, (mu, sigma), retain_graph=True), torch.autograd.grad(kl, (mu, sigma), retain_graph=True)
    return [value.item() for value in (z, *slopes, q.log_prob(z), kl, -pulls[0], -pulls[1])]


@pytest.mark.parametrize("page, number", REPARAMETERIZATIONS)
def test_hand_on_mean_noise_and_sample(explorer, page, number):
    found = explorer(page, number)
    agrees = lambda: numbers(found) == pytest.approx(by_autograd(*state(found)), abs=0.0051)
    assert agrees()
    picture, mouse = found.locator("svg"), found.page.mouse
    unit = picture.bounding_box()["width"] / 13.8                # the axes reach from -6.9 to 6.9
    # what a handle moves, and what it leaves as it was
    for handle, moved in [("μ", 0), ("σ", 1), ("ε", 2), ("z", 2)]:
        before, box = state(found), found.locator(f"[data-handle='{handle}'] circle").last.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        mouse.move(x, y)
        mouse.down()
        mouse.move(x - 0.3 * unit, y, steps=3)
        mouse.up()
        after = state(found)
        way = -0.3 / (before[1] if handle == "z" else 1)
        assert after[moved] == pytest.approx(before[moved] + way, abs=0.08)
        assert [after[i] for i in range(3) if i != moved] == [before[i] for i in range(3) if i != moved] and agrees()
    before = state(found)
    found.get_by_role("button", name="New ε").click()
    assert state(found)[:2] == before[:2] and state(found)[2] != before[2] and agrees()
    found.get_by_role("slider", name="μ").press("ArrowRight")
    assert state(found)[0] == pytest.approx(before[0] + 0.01) and agrees()
    found.locator(".widget-readout").nth(1).fill("7")
    found.locator(".widget-readout").nth(1).press("Enter")
    assert state(found)[1] == 1.5 and agrees()
