"""The three models: their layers, what they do with images of any size and number format, and what using them must not touch."""
import math

import pytest
import torch
from factories import generator, grey, rows, small_data, tiny, train, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vae_tutorial.autoencoder import Autoencoder, reconstruction_only
from vae_tutorial.conv import ConvVAE
from vae_tutorial.data import intensities
from vae_tutorial.evaluation import reconstruction_at_mean
from vae_tutorial.latent_space import encodings
from vae_tutorial.training import LinearBeta
from vae_tutorial.vae import LIKELIHOODS, VAE, BaseVAE, LatentModel, elbo, evaluating, reconstruction_loss

every_kind = pytest.mark.parametrize("kind", [VAE, Autoencoder, ConvVAE])


# --- layers --------------------------------------------------------------------------------------

@pytest.mark.parametrize("model, number", [
    (VAE(), 652_824), (ConvVAE(), 204_037), (ConvVAE(latent_dim=50), 204_037 + 48 * (2 * 2049 + 2048)),
    (Autoencoder(), 652_824 - 20 * 401)], ids=["VAE", "ConvVAE", "50 latents", "without the rows of the variances"])
def test_networks_have_the_parameters_that_were_published(model, number):
    assert sum(p.numel() for p in model.parameters()) == number


def test_an_autoencoder_is_a_vae_without_the_rows_of_the_variances():
    both = [kind(hidden_dims=(50, 30), latent_dim=4).state_dict() for kind in (VAE, Autoencoder)]
    differ = {name for name in both[0] if both[0][name].shape != both[1][name].shape}
    assert both[0].keys() == both[1].keys() and differ == {"encoder.5.weight", "encoder.5.bias"}
    assert [each["encoder.5.bias"].shape for each in both] == [(8,), (4,)]
    assert [both[0][f"decoder.{i}.weight"].shape for i in (0, 2, 4)] == [(30, 4), (50, 30), (784, 50)]
    assert issubclass(Autoencoder, LatentModel) and not issubclass(Autoencoder, BaseVAE)


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


def test_the_decoder_mirrors_the_channels():
    kernels = [m for m in ConvVAE((3, 9, 9), channels=(8, 10, 12)).decoder if isinstance(m, (nn.ConvTranspose2d, nn.Conv2d))]
    assert [(m.in_channels, m.out_channels) for m in kernels] == [(12, 10), (10, 8), (8, 4), (4, 3)]
    assert ConvVAE(channels=(1,)).decoder[-1].in_channels == 1


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


@every_kind
def test_using_a_model_touches_neither_its_mode_nor_the_generator_of_others(kind):
    model, x, state = tiny(kind, input_shape=(1, 6, 5)).train(), torch.rand(4, 1, 6, 5), torch.get_rng_state()
    draws = [lambda seed: model.sample(4, generator(seed)), lambda seed: model(x, generator(seed)).z.detach()]
    for draw, drawn in zip(draws, (True, kind is not Autoencoder)):
        assert draw(1).equal(draw(1)) and draw(1).equal(draw(2)) is not drawn
    images = model.reconstruct(x)
    assert 0 <= images.min() and images.max() <= 1 and model.training
    assert all(p.grad is None for p in model.parameters()) and torch.get_rng_state().equal(state)


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

def test_a_subclass_that_changes_encode_changes_everything_that_uses_codes():
    class Positive(Autoencoder):
        def encode(self, x):
            return super().encode(x).relu()

    model, images = tiny(Positive, latent_dim=5), grey(40)
    z = model(intensities(images)).z
    assert (z == 0).any() and (z >= 0).all()
    assert torch.allclose(encodings(model, images), z) and model.code(intensities(images)).equal(z)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("kind", [Autoencoder, VAE])
def test_the_loss_is_the_reconstruction_whatever_beta_and_the_kl_is_zero(kind, likelihood):
    model, x = tiny(kind), torch.rand(4, 1, 2, 3, generator=generator())
    expected = reconstruction_loss(model(x, generator(3)).logits, x, likelihood).mean()
    for beta in (0.0, 1.0, 20.0):
        terms = reconstruction_only(model, x, beta, generator(3), likelihood=likelihood)
        assert terms.loss.equal(expected) and terms.reconstruction.equal(expected) and terms.beta == beta
        assert terms.kl == 0 and terms.kl.shape == () and terms.kl.dtype == torch.float32


def test_the_best_epoch_is_the_one_with_the_lowest_reconstruction_and_beta_has_no_say():
    data, run = small_data(), lambda **more: train(tiny(Autoencoder, input_shape=(1, 28, 28)), data, 3, objective=reconstruction_only, **more)
    model, history = run()
    assert all(e.loss == e.reconstruction and e.kl == e.train_kl == 0 and e.settled for e in history)
    assert history.best.loss == min(e.reconstruction for e in history) < history[0].loss
    assert reconstruction_at_mean(model, data.val).mean().item() == pytest.approx(history.best.loss, rel=1e-5)
    other, annealed = run(beta=LinearBeta(2), restore_best=False)
    assert [e.settled for e in annealed] == [False, False, True] and not other.training
    assert [e.loss for e in rows(annealed)] == [e.loss for e in rows(history)] and weights(run(beta=4.0)[0]).equal(weights(model))
