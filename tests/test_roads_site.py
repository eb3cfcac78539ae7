"""The five lines that end in an explorer, on each road of `load_images`: what headless Chromium shows is what PyTorch decodes."""
import pytest
import torch
from conftest import until, watched_page
from test_explorers_site import colours, write_page
from test_images import ROADS, own_cache, trained  # noqa: F401

from vae_tutorial.explorers import LatentExplorer
from vae_tutorial.generation import decode_images
from vae_tutorial.latent_space import encodings

pytestmark = [pytest.mark.deep, pytest.mark.filterwarnings("ignore:3 images are too few")]


@pytest.mark.parametrize("name", ROADS)
def test_the_explorer_at_the_end_of_a_road_moves(name, browser, site, address, tmp_path):
    data, _, _, model = trained(name, tmp_path)
    write_page(site / "road.html", LatentExplorer(model, data))
    page, complaints = watched_page(browser, address)
    page.goto(f"{address}road.html")
    canvas, channels = page.locator(".vae-shown canvas"), data.image_shape[0]

    def shows(z):
        """Wait until the image is there that PyTorch decodes; what is grey is shown as ink on paper."""
        wanted = (255 * decode_images(model, torch.as_tensor(z)[None])[0]).round()
        wanted = 255 - wanted if channels == 1 else wanted
        until(lambda: (colours(canvas, channels) - wanted).abs().max() <= 2, f"image of {z}")

    shows([0.0] * model.latent_dim)
    names = page.locator(".widget-slider .widget-label").all_inner_texts()
    z = [1.25, -0.75, 2.0][:model.latent_dim]
    for number, value in enumerate(z):
        readout = page.locator(".widget-readout").nth(names.index(f"z{number}"))
        readout.fill(str(value))
        readout.press("Enter")
    shows(z)
    page.get_by_role("button", name="Start from this image").first.click()
    first = data.test.images[data.test.labels == 0] if data.class_names else data.test.images
    shows(encodings(model, first[:1])[0])
    assert not [words for words in complaints if "favicon" not in words]
    page.context.close()
