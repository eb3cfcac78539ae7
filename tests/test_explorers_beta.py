"""The BetaExplorer: its figures and images against the models', its state, and mistakes named."""
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

from vae_tutorial.autoencoder import Autoencoder
from vae_tutorial.data import ImageData, Split, intensities
from vae_tutorial.evaluation import evaluate
from vae_tutorial.explorers import BetaExplorer
from vae_tutorial.vae import VAE, kl_divergence, reconstruction_loss

SHAPE = (1, 6, 5)


def tiny(seed, shape=SHAPE, latent_dim=3):
    torch.manual_seed(seed)
    return VAE(shape, (7,), latent_dim)


def grey(n=40, shape=SHAPE):
    generator = torch.Generator().manual_seed(0)
    return Split(torch.randint(256, (n, *shape), dtype=torch.uint8, generator=generator), torch.arange(n) % 4)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png))).astype(int)


def rows(png):
    """The images of a sheet, shape (rows, columns, H, W)."""
    _, height, width = SHAPE
    return pixels(png).reshape(-1, height, pixels(png).shape[1] // width, width).swapaxes(1, 2)


def as_grey(images):
    return 255 * images.detach().squeeze(-3).double().numpy()


@pytest.fixture(scope="module")
def models():
    return {4: tiny(0), 0.5: tiny(1), 1: tiny(2)}


@pytest.fixture(scope="module")
def data():
    return ImageData(Split(*[torch.empty(0)] * 2), grey(9), grey(), "mnist", "full", ("a", "b", "c", "d"))


@pytest.fixture
def explorer(models, data):
    return BetaExplorer(models, data, n=20)


# --- figures and images --------------------------------------------------------------------------

def test_betas_are_in_order_and_the_first_shown_is_the_best(explorer):
    assert explorer.betas == [0.5, 1.0, 4.0]
    losses = np.add(explorer.rates, explorer.distortions)
    assert explorer.beta == explorer.betas[losses.argmin()]


def test_rate_and_distortion_are_those_of_evaluate_on_the_first_images(explorer, models, data):
    for beta, rate, distortion in zip(explorer.betas, explorer.rates, explorer.distortions):
        found = evaluate(models[beta], data.test.images[:20], n_samples=4, progress=False)
        assert (rate, distortion) == (found.rate, found.distortion)


def test_rate_and_distortion_are_what_their_formulas_say(explorer, models, data):
    x, generator = intensities(data.test.images[:20]), torch.Generator().manual_seed(1)
    for beta, rate, distortion in zip(explorer.betas, explorer.rates, explorer.distortions):
        with torch.no_grad():
            mu, logvar = models[beta].encode(x)
            assert rate == pytest.approx(kl_divergence(mu, logvar).sum(1).mean().item(), rel=1e-5)
            draws = torch.stack([reconstruction_loss(models[beta](x, generator).logits, x).mean() for _ in range(300)])
        # four draws of 20 images scatter half as much as one
        assert abs(distortion - draws.mean()) < 5 * draws.std() / 2


def test_each_row_of_samples_is_its_models_from_the_same_draws(explorer, models):
    z = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    for row, beta in zip(rows(explorer.samples), explorer.betas, strict=True):
        assert abs(row - as_grey(models[beta].decode(z).sigmoid())).max() <= 0.51


def test_each_row_of_reconstructions_is_its_models(explorer, models, data):
    images = data.test.images[:4]           # the first of each class
    assert explorer.names == ["a", "b", "c", "d"]
    assert (rows(explorer.originals)[0] == images[:, 0].numpy()).all()
    for row, beta in zip(rows(explorer.reconstructions), explorer.betas, strict=True):
        assert abs(row - as_grey(models[beta].reconstruct(intensities(images)))).max() <= 0.51


def test_the_still_picture_has_a_row_for_each_beta_under_the_originals(explorer, models):
    picture, text = explorer._still()
    ink = 255 - rows(picture)
    assert ink.shape == (1 + len(models), 6 + 1 + 4, *SHAPE[1:])
    assert (ink[1:, :6] == rows(explorer.samples)[:, :6]).all()
    assert (ink[0, 7:] == rows(explorer.originals)[0]).all() and (ink[1:, 7:] == rows(explorer.reconstructions)).all()
    assert not ink[0, :7].any() and not ink[:, 6].any()
    assert "0.5, 1, 4" in text


def test_the_seed_decides_on_the_samples_alone_and_nothing_else_is_drawn(models, data):
    before = torch.random.get_rng_state()
    first, again, other = (BetaExplorer(models, data, n=20, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.samples == again.samples != other.samples
    assert first.reconstructions == other.reconstructions and first.rates == other.rates


def test_models_stay_in_their_mode(data):
    models = {1: tiny(0).train(), 2: tiny(1).eval()}
    BetaExplorer(models, data)
    assert models[1].training and not models[2].training


def test_validation_images_serve_where_there_is_no_test_set(models, data):
    explorer = BetaExplorer(models, replace(data, test=None))
    assert (rows(explorer.originals)[0] == data.val.images[:4, 0].numpy()).all()


# --- state ---------------------------------------------------------------------------------------

def test_beta_is_read_set_and_observed(explorer):
    seen = []
    explorer.observe(lambda change: seen.append(change.new), "beta")
    explorer.beta = 4
    explorer.beta = 0.5
    assert seen == [4.0, 0.5]


def test_numbers_of_numpy_and_pytorch_will_do(models, data):
    grid = np.linspace(0.5, 1.5, 3, dtype=np.float32)
    explorer = BetaExplorer(dict(zip(grid, models.values())), data, n=np.int64(20), seed=torch.tensor(3))
    assert explorer.betas == [0.5, 1.0, 1.5] and {type(beta) for beta in explorer.betas} == {float}
    explorer.beta = grid[2]
    assert explorer.beta == 1.5 and type(explorer.beta) is float


def test_the_slider_has_a_place_for_each_beta(models, data):
    explorer = BetaExplorer(dict(zip((1 / 3, 1, 30), models.values())), data)
    assert explorer.slider.options == (("0.333", 1 / 3), ("1", 1), ("30", 30))
    assert explorer.slider.value == explorer.beta
    explorer.beta = 1 / 3


@pytest.mark.parametrize("wrong", [3, 0, -1, float("nan"), float("inf")])
def test_a_beta_that_was_not_trained_is_refused(explorer, wrong):
    before = explorer.beta
    with pytest.raises(traitlets.TraitError, match=r"^beta is .*, must be one of 0\.5, 1\.0, 4\.0"):
        explorer.beta = wrong
    assert explorer.beta == before


def test_what_is_no_number_is_refused_as_beta(explorer):
    with pytest.raises(traitlets.TraitError):
        explorer.beta = "4"


# --- mistakes ------------------------------------------------------------------------------------

@pytest.mark.parametrize("models, error, message", [
    ([tiny(0), tiny(1)], TypeError, "models is list, must be a Mapping: a dict of β to model"),
    ({}, ValueError, "models holds 0, must hold at least two"),
    ({1: tiny(0)}, ValueError, "models holds 1, must hold at least two"),
    ({1: tiny(0), 0: tiny(1)}, ValueError, "models has the key 0, must have β, a finite number above 0"),
    ({1: tiny(0), -2.5: tiny(1)}, ValueError, "the key -2.5"),
    ({1: tiny(0), float("nan"): tiny(1)}, ValueError, "the key nan"),
    ({1: tiny(0), float("inf"): tiny(1)}, ValueError, "the key inf"),
    ({2: tiny(0), True: tiny(1)}, ValueError, "the key True"),
    ({1: tiny(0), "4": tiny(1)}, ValueError, "the key '4'"),
    ({1: tiny(0), 4: "mnist-beta-4"}, TypeError, r"models\[4\] is str, must be a BaseVAE"),
    ({1: tiny(0), 4: Autoencoder(SHAPE, (7,), 3)}, TypeError, r"models\[4\] is Autoencoder, must be a BaseVAE"),
    ({1: tiny(0), 4: tiny(1, latent_dim=2)}, ValueError, r"models\[4\] has latent_dim 2, must be 3, as models\[1\] has"),
    ({4: tiny(0), 1: tiny(1, (1, 5, 6))}, ValueError, r"models\[4\] has input_shape \(1, 6, 5\), must be \(1, 5, 6\), as"),
    ({1: tiny(0, (3, 6, 5)), 4: tiny(1, (3, 6, 5))}, ValueError, r"input_shape \(3, 6, 5\), must be \(1, height, width\)"),
])
def test_models_that_are_no_sweep_are_refused(data, models, error, message):
    with pytest.raises(error, match=message):
        BetaExplorer(models, data)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_a_model_that_went_astray_is_named(data, half):
    models = {1: tiny(0), 4: tiny(1)}
    with torch.no_grad():
        getattr(models[4], half)[-2 if half == "decoder" else -1].weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"models\[4\] cannot be evaluated: .*not finite"):
        BetaExplorer(models, data)


def test_data_that_do_not_fit_are_refused(models, data):
    with pytest.raises(TypeError, match="data is Split, must be an? ImageData"):
        BetaExplorer(models, data.test)
    with pytest.raises(ValueError, match=r"data.test has shape \(40, 1, 5, 6\), must be \(B, 1, 6, 5\)"):
        BetaExplorer(models, replace(data, test=grey(shape=(1, 5, 6))))
    with pytest.raises(ValueError, match="data has labels from 0 to 3, must be from 0 to 1"):
        BetaExplorer(models, replace(data, class_names=("a", "b")))


@pytest.mark.parametrize("name, wrong", [("n", 0), ("n", 2.5), ("seed", -1), ("seed", "0")])
def test_numbers_that_are_not_whole_are_refused(models, data, name, wrong):
    with pytest.raises(ValueError, match=f"{name} is {wrong!r}, must be a whole number"):
        BetaExplorer(models, data, **{name: wrong})
