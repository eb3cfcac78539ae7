"""The three models: their layers, what they do with images of any size and number format, and what using them must not touch."""
import math

import pytest
import torch
from factories import generator, grey, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vae_tutorial.autoencoder import Autoencoder, reconstruction_only
from vae_tutorial.conv import ConvVAE
from vae_tutorial.data import intensities
from vae_tutorial.vae import LIKELIHOODS, VAE, elbo, evaluating, reconstruction_loss

every_kind = pytest.mark.parametrize("kind", [VAE, Autoencoder, ConvVAE])


# --- layers --------------------------------------------------------------------------------------

@pytest.mark.parametrize("model, number", [
    (VAE(), 652_824), (ConvVAE(), 204_037), (ConvVAE(latent_dim=50), 204_037 + 48 * (2 * 2049 + 2048)),
    (Autoencoder(), 652_824 - 20 * 401)], ids=["VAE", "ConvVAE", "50 latents", "without the rows of the variances"])
def test_networks_have_the_parameters_that_were_published(model, number):
    assert sum(p.numel() for p in model.parameters()) == number


def test_names_shapes_and_initial_values_are_those_that_saved_models_and_seeds_rely_on():
    torch.manual_seed(5)
    layers = {"encoder.0": nn.Conv2d(1, 32, 3), "encoder.2": nn.Conv2d(32, 64, 3), "encoder.4": nn.Conv2d(64, 128, 3),
              "encoder.7": nn.Linear(2048, 4), "decoder.0": nn.Linear(2, 2048), "decoder.3": nn.ConvTranspose2d(128, 64, 3),
              "decoder.5": nn.ConvTranspose2d(64, 32, 3), "decoder.7": nn.ConvTranspose2d(32, 16, 3), "decoder.9": nn.Conv2d(16, 1, 3)}
    wanted = {f"{name}.{part}": getattr(layer, part) for name, layer in layers.items() for part in ("weight", "bias")}
    torch.manual_seed(5)
    found = ConvVAE().state_dict()
    assert list(found) == list(wanted)
    assert all(found[name].equal(value) for name, value in wanted.items())


@given(size=st.integers(1, 64), depth=st.integers(1, 6))
def test_the_decoder_passes_through_the_sizes_of_the_encoder(size, depth):
    model = ConvVAE((1, size, size + 3), channels=(1,) * depth, latent_dim=1)
    going = [torch.zeros(1, 1, size, size + 3)]
    for layer in model.encoder:
        if isinstance(layer, nn.Conv2d):
            going.append(layer(going[-1]))
    h = going[-1]
    for layer, wanted in zip([m for m in model.decoder if isinstance(m, nn.ConvTranspose2d)], reversed(going[:-1])):
        h = layer(h)
        assert h.shape == wanted.shape
    assert going[-1].shape[2] == math.ceil(size / 2**depth)


# --- images --------------------------------------------------------------------------------------

@settings(max_examples=60)
@given(kind=st.sampled_from([VAE, Autoencoder, ConvVAE]), shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
       sizes=st.lists(st.integers(1, 6), max_size=3), latent=st.integers(1, 4), batch=st.integers(0, 4))
def test_any_shape_depth_and_batch(kind, shape, sizes, latent, batch):
    """One after the other: encode, draw, decode; `reconstruct` goes through the mean, `sample` through the prior."""
    if kind is ConvVAE:
        shape, sizes = [1, 1, *shape][-3:], sizes or [2]
    model = kind(tuple(shape), **{"channels" if kind is ConvVAE else "hidden_dims": tuple(sizes)}, latent_dim=latent)
    x = torch.rand(batch, *shape, generator=generator())
    out, encoded = model(x, generator(1)), model.encode(x)
    mean, logvar = (encoded, torch.full_like(encoded, -math.inf)) if kind is Autoencoder else encoded
    assert mean.shape == out.z.shape == (batch, latent) and out.logits.shape == (batch, *shape)
    assert out.z.equal(mean + (logvar / 2).exp() * torch.randn(mean.shape, generator=generator(1)))
    assert out.logits.equal(model.decode(out.z)) and model.code(x).equal(mean)
    assert model.reconstruct(x).equal(model.decode(mean).sigmoid())
    assert model.sample(batch, generator()).equal(model.decode(torch.randn(batch, latent, generator=generator())).sigmoid())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@every_kind
def test_a_batch_is_its_images_one_by_one_in_every_format_and_layout(kind, dtype):
    model, x = tiny(kind, input_shape=(3, 7, 5)).to(dtype), torch.rand(3, 3, 7, 5, generator=generator()).to(dtype)
    near = dict(atol=0.05, rtol=0.05) if dtype.itemsize == 2 else dict(atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        assert model.code(x).dtype == model.reconstruct(x).dtype == dtype
        for use in (model.code, model.reconstruct):
            torch.testing.assert_close(use(x), torch.cat([use(x[i:i + 1]) for i in range(3)]), **near)
            torch.testing.assert_close(use(x), use(x.to(memory_format=torch.channels_last)), **near)
        assert model.code(x[:0]).shape == (0, 2) and model.reconstruct(x[:0]).shape == model.sample(0).shape == (0, 3, 7, 5)


@pytest.mark.parametrize("was_training", [True, False])
def test_evaluating_gives_back_the_mode_even_after_an_error(was_training):
    model = tiny().train(was_training)
    with pytest.raises(RuntimeError), evaluating(model):
        assert not model.training and not torch.is_grad_enabled()
        raise RuntimeError
    assert model.training == was_training and torch.is_grad_enabled()


@every_kind
def test_every_parameter_is_reached_by_the_gradient(kind):
    """At the sizes of the course, where no layer is so narrow that all its units may be off."""
    torch.manual_seed(0)
    model, objective = kind(), reconstruction_only if kind is Autoencoder else elbo
    objective(model, intensities(grey(32, (1, 28, 28))), generator=generator()).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name


# --- the autoencoder and its objective -------------------------------------------------------------

@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("kind", [Autoencoder, VAE])
def test_the_loss_is_the_reconstruction_whatever_beta_and_the_kl_is_zero(kind, likelihood):
    model, x = tiny(kind), torch.rand(4, 1, 2, 3, generator=generator())
    expected = reconstruction_loss(model(x, generator(3)).logits, x, likelihood).mean()
    for beta in (0.0, 1.0, 20.0):
        terms = reconstruction_only(model, x, beta, generator(3), likelihood=likelihood)
        assert terms.loss.equal(expected) and terms.reconstruction.equal(expected) and terms.beta == beta
        assert terms.kl == 0 and terms.kl.shape == () and terms.kl.dtype == torch.float32
